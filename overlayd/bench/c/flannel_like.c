/* The baseline for udp: a loop that does for each packet what flannel's does, in system calls and in checks.
 *
 *     flannel_like DEVICE PORT SUBNET/LENGTH=PEER...
 *
 * makes the TUN device DEVICE, prints "ready", and carries bare IP packets between it and UDP port PORT until
 * standard input ends.  A packet from the device goes to the PEER whose subnet it is for, found by a scan through all
 * of them; the one that was found moves to the front.  At both ends the TTL is counted down and the header's checksum
 * mended (RFC 1624).  One thread reads one packet from each side in turn, and polls only when both sides are empty.
 * No offload, no batch, and the socket's buffers as the kernel makes them.  flannel answers a packet that has no
 * route with an ICMP error; here it is dropped, as a bench sends none.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/ip.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKET_MAX = 65535 };

struct route {
    in_addr_t network, mask; /* in network byte order */
    struct sockaddr_in peer;
};

static struct route *routes;
static size_t route_count;
static char packet[PACKET_MAX];

static void fail(const char *what)
{
    fprintf(stderr, "flannel_like: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tun(const char *name)
{
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0)
        fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        fail(name);
    return tun;
}

static int open_udp(const char *port)
{
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    if (udp < 0 || bind(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail("UDP socket");
    return udp;
}

static struct route parse_route(const char *text, const char *port)
{
    struct route route = {.peer = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))}};
    char network[16], peer[16];
    unsigned length;
    struct in_addr first;
    if (sscanf(text, "%15[0-9.]/%u=%15[0-9.]", network, &length, peer) != 3 || length < 1 || length > 32 ||
        inet_pton(AF_INET, network, &first) != 1 || inet_pton(AF_INET, peer, &route.peer.sin_addr) != 1) {
        errno = EINVAL;
        fail(text);
    }
    route.mask = htonl(UINT32_MAX << (32 - length));
    route.network = first.s_addr & route.mask;
    return route;
}

static const struct sockaddr_in *find_peer(in_addr_t destination)
{
    for (size_t i = 0; i < route_count; i++) {
        if ((destination & routes[i].mask) != routes[i].network)
            continue;
        struct route found = routes[i]; /* packets come in bursts: the next one is likely for the same peer */
        routes[i] = routes[0];
        routes[0] = found;
        return &routes[0].peer;
    }
    return NULL;
}

/* Whether the packet may go on. */
static int count_down(struct iphdr *header)
{
    if (header->ttl <= 1)
        return 0;
    header->ttl--;
    uint32_t sum = header->check + (uint32_t)htons(0x0100);
    header->check = (uint16_t)(sum + (sum >> 16));
    return 1;
}

/* One packet from each function; whether there was one.  A packet that the other side refuses is lost, as on a wire. */
static int from_tun(int tun, int udp)
{
    struct iphdr *header = (struct iphdr *)packet;
    ssize_t size = read(tun, packet, sizeof packet);
    if (size < 0 && errno != EAGAIN)
        fail("read");
    if (size < 0)
        return 0;
    const struct sockaddr_in *peer = size < (ssize_t)sizeof *header ? NULL : find_peer(header->daddr);
    if (peer && count_down(header))
        (void)!sendto(udp, packet, (size_t)size, 0, (const struct sockaddr *)peer, sizeof *peer);
    return 1;
}

static int from_udp(int udp, int tun)
{
    struct iphdr *header = (struct iphdr *)packet;
    ssize_t size = recv(udp, packet, sizeof packet, 0);
    if (size < 0 && errno != EAGAIN && errno != ECONNREFUSED)
        fail("recv");
    if (size < 0)
        return 0;
    if (size >= (ssize_t)sizeof *header && count_down(header))
        (void)!write(tun, packet, (size_t)size);
    return 1;
}

int main(int count, char **argument)
{
    if (count < 4) {
        fputs("usage: flannel_like DEVICE PORT SUBNET/LENGTH=PEER...\n", stderr);
        return 2;
    }
    route_count = (size_t)count - 3;
    routes = calloc(route_count, sizeof *routes);
    if (!routes)
        fail("routes");
    for (size_t i = 0; i < route_count; i++)
        routes[i] = parse_route(argument[i + 3], argument[2]);
    int tun = open_tun(argument[1]), udp = open_udp(argument[2]);
    struct pollfd sides[] = {{tun, POLLIN, 0}, {udp, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (poll(sides, 3, -1) < 0 && errno != EINTR)
            fail("poll");
        if (sides[2].revents)
            return 0;
        while (from_tun(tun, udp) + from_udp(udp, tun))
            ;
    }
}
