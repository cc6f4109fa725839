/* Two loops face to face, on the loopback interface and on socket pairs that stand for TUN devices, while both
 * tables are replaced again and again: for the thread sanitizer, and for what no sanitizer sees, a lost packet.
 *
 *     race REPLACEMENTS PACKETS
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "checksum.h"
#include "loop.h"

#define WINDOW 32         /* packets under way at most, so that no buffer on the way overflows */
#define PATIENCE_MS 10000 /* for one packet */
#define PACKET_LENGTH 64

#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            abort(); \
        } \
    } while (0)

struct node {
    uint32_t subnet; /* its first address, of 256 */
    struct sockaddr_in address;
    struct engine *engine;
    struct loop loop;
    int pods; /* the other end of what the loop takes for a TUN */
    int stop_fd;
    pthread_t tx, rx;
};

static int replacements, packets;

static void *run_tx(void *node)
{
    REQUIRE(loop_run_tx(&((struct node *)node)->loop) == 0);
    return NULL;
}

static void *run_rx(void *node)
{
    REQUIRE(loop_run_rx(&((struct node *)node)->loop) == 0);
    return NULL;
}

static void node_start(struct node *node, uint32_t subnet)
{
    int tun[2], udp = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t length = sizeof node->address;
    node->subnet = subnet;
    node->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    node->stop_fd = eventfd(0, 0);
    node->engine = engine_new(false, true, false, false);
    REQUIRE(udp >= 0 && node->stop_fd >= 0 && node->engine != NULL);
    REQUIRE(bind(udp, (struct sockaddr *)&node->address, length) == 0);
    REQUIRE(getsockname(udp, (struct sockaddr *)&node->address, &length) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, tun) == 0);
    node->pods = tun[1];
    REQUIRE(loop_init(&node->loop, node->engine, tun[0], udp, node->stop_fd) == 0);
    REQUIRE(pthread_create(&node->tx, NULL, run_tx, node) == 0);
    REQUIRE(pthread_create(&node->rx, NULL, run_rx, node) == 0);
}

static void node_stop(struct node *node)
{
    REQUIRE(eventfd_write(node->stop_fd, 1) == 0);
    REQUIRE(pthread_join(node->tx, NULL) == 0 && pthread_join(node->rx, NULL) == 0);
    loop_destroy(&node->loop);
    engine_free(node->engine);
    close(node->loop.tun_fd);
    close(node->loop.udp_fd);
    close(node->pods);
    close(node->stop_fd);
}

/* Packed as table.py says: own subnet, and `more` subnets that nobody asks for beside the other node's. */
static void replace(struct node *node, const struct node *other, uint32_t more)
{
    uint32_t counts[2] = {1, more + 1}, own[2] = {node->subnet, node->subnet + 255};
    uint32_t peer = ntohl(other->address.sin_addr.s_addr);
    uint16_t port = ntohs(other->address.sin_port);
    uint8_t packed[16 + 16 * 8] = {0}, *row = packed + 16;
    char problem[TABLE_PROBLEM];
    REQUIRE(more < 8);
    memcpy(packed, counts, 8);
    memcpy(packed + 8, own, 8);
    for (uint32_t i = 0; i <= more; i++, row += 16) {
        uint32_t first = i == 0 ? other->subnet : 0x0b000000 + i * 256, last = first + 255;
        memcpy(row, &first, 4);
        memcpy(row + 4, &last, 4);
        memcpy(row + 8, &peer, 4);
        memcpy(row + 12, &port, 2);
    }
    REQUIRE(loop_replace(&node->loop, packed, (size_t)(row - packed), problem));
}

static struct node nodes[2];
static _Atomic int finished;

static void *replace_tables(void *nothing)
{
    for (int i = 0; i < replacements || atomic_load(&finished) == 0; i++) {
        replace(&nodes[i & 1], &nodes[1 - (i & 1)], (uint32_t)i % 8);
        usleep(1000);
    }
    return nothing;
}

static void make_packet(uint8_t *packet, const struct node *from, const struct node *to, uint32_t number)
{
    memset(packet, 0, PACKET_LENGTH);
    packet[0] = 0x45;
    store_be16(packet + IPV4_TOTAL_LENGTH, PACKET_LENGTH);
    packet[IPV4_TTL] = 64;
    packet[IPV4_PROTOCOL] = 253; /* for experiments, RFC 3692 */
    store_be32(packet + IPV4_SOURCE, from->subnet + 1);
    store_be32(packet + IPV4_DESTINATION, to->subnet + 1);
    finish_ip_checksum(packet, IPV4_MIN_HEADER);
    store_be32(packet + IPV4_MIN_HEADER, number);
}

static void wait_for(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    REQUIRE(poll(&readable, 1, PATIENCE_MS) == 1);
}

/* Sends numbered packets from one node's pods to the other's, and requires each of them, in order. */
static void converse(const struct node *from, const struct node *to)
{
    uint8_t sent[PACKET_LENGTH], received[2 * PACKET_LENGTH];
    for (int number = 0; number < packets + WINDOW; number++) {
        if (number < packets) {
            make_packet(sent, from, to, (uint32_t)number);
            REQUIRE(write(from->pods, sent, sizeof sent) == PACKET_LENGTH);
        }
        if (number < WINDOW)
            continue;
        make_packet(sent, from, to, (uint32_t)(number - WINDOW));
        wait_for(to->pods);
        REQUIRE(read(to->pods, received, sizeof received) == PACKET_LENGTH);
        REQUIRE(memcmp(sent, received, sizeof sent) == 0);
    }
}

int main(int argc, char **argv)
{
    pthread_t replacer;
    if (argc != 3) {
        fprintf(stderr, "usage: race REPLACEMENTS PACKETS\n");
        return 2;
    }
    replacements = atoi(argv[1]);
    packets = atoi(argv[2]);
    node_start(&nodes[0], 0x0af40100);
    node_start(&nodes[1], 0x0af40200);
    replace(&nodes[0], &nodes[1], 0);
    replace(&nodes[1], &nodes[0], 0);
    REQUIRE(pthread_create(&replacer, NULL, replace_tables, NULL) == 0);
    converse(&nodes[0], &nodes[1]);
    converse(&nodes[1], &nodes[0]);
    atomic_store(&finished, 1);
    REQUIRE(pthread_join(replacer, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        printf("tables %llu sends %llu trains %llu packets %llu\n",
               (unsigned long long)engine_counted(nodes[i].engine, TABLES),
               (unsigned long long)engine_counted(nodes[i].engine, TX_SENDS),
               (unsigned long long)engine_counted(nodes[i].engine, TX_TRAINS),
               (unsigned long long)engine_counted(nodes[i].engine, RX_PACKETS));
        node_stop(&nodes[i]);
    }
    return 0;
}
