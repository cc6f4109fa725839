/* Makes valid frames, datagrams and tables, damages some of them, and exercises engines with them.
 *
 *     mutate FIRST_SEED SEEDS
 *
 * A seed decides everything, so a finding is repeated by its number, which is printed first.  At the end stands how
 * often each verdict was reached: what is never reached is not tested.
 */
#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "exercise.h"

#define STEPS 60 /* of one seed */
#define NETWORK 0x0af40000u /* 10.244.0.0, where all addresses of the exercise are */
#define UNDERLAY 0x0a630000u /* 10.99.0.0, where all peers are */

static uint64_t state;
static uint64_t totals[COUNTERS];

/* xorshift64* (Vigna 2016) */
static uint32_t dice(uint32_t sides)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 32) % sides;
}

static bool chance(uint32_t one_in)
{
    return dice(one_in) == 0;
}

/* Tables: subnet 1 is own, subnets 2 to 9 belong to peers 2 to 9, two of them to one. */
static size_t make_table(uint8_t *packed)
{
    uint32_t own_count = 1, entry_count = 1 + dice(8), peer, *words = (uint32_t *)(void *)packed;
    words[0] = own_count;
    words[1] = entry_count;
    words[2] = NETWORK + 0x100;
    words[3] = NETWORK + 0x1ff;
    uint8_t *row = packed + 16;
    for (uint32_t i = 0; i < entry_count; i++, row += 16) {
        uint32_t subnet = 2 + i, first = NETWORK + subnet * 0x100, last = first + 0xff;
        uint16_t port = 8285;
        peer = UNDERLAY + (subnet == 3 ? 2 : subnet);
        memcpy(row, &first, 4);
        memcpy(row + 4, &last, 4);
        memcpy(row + 8, &peer, 4);
        memcpy(row + 12, &port, 2);
        memset(row + 14, 0, 2);
    }
    return (size_t)(row - packed);
}

/* One flow's next packet. */
struct flow {
    uint32_t source, destination;
    uint8_t protocol, flags, tcp_words;
    uint16_t id, ports;
    uint32_t sequence;
    bool dont_fragment;
};

static struct flow make_flow(bool out)
{
    uint32_t far = NETWORK + (2 + dice(4)) * 0x100 + 1 + dice(3), near = NETWORK + 0x101 + dice(3);
    const uint8_t protocols[] = {PROTOCOL_TCP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_UDP, PROTOCOL_ICMP, 47};
    return (struct flow){
        .source = out ? near : far,
        .destination = out ? far : near,
        .protocol = protocols[dice(6)],
        .flags = TCP_ACK,
        .tcp_words = (uint8_t)(chance(2) ? 5 : 8),
        .id = (uint16_t)dice(65536),
        .ports = (uint16_t)dice(65536),
        .sequence = dice(UINT32_MAX),
        .dont_fragment = chance(2),
    };
}

static size_t l4_header_length(const struct flow *flow)
{
    return flow->protocol == PROTOCOL_TCP ? flow->tcp_words * 4u : UDP_HEADER;
}

static void finish_packet(uint8_t *packet)
{
    struct ipv4 ip;
    size_t header = (packet[0] & 15) * 4u;
    finish_ip_checksum(packet, header);
    if (judge_incoming(packet, IPV4_MAX_PACKET, &ip) != PASS)
        return;
    uint8_t *l4 = packet + header;
    size_t length = (size_t)(ip.total_length - header);
    size_t at = ip.protocol == PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
    if ((ip.protocol != PROTOCOL_TCP && ip.protocol != PROTOCOL_UDP) || length < at + 2)
        return;
    store_be16(l4 + at, 0);
    uint16_t checksum = (uint16_t)~sum_fold(sum_bytes(l4, length, sum_pseudo_header(packet, ip.protocol, length)));
    sum_store(l4 + at, checksum != 0 || ip.protocol == PROTOCOL_TCP ? checksum : 0xffff);
}

/* `packet` has room for IPV4_MAX_PACKET bytes. */
static size_t make_packet(uint8_t *packet, struct flow *flow, size_t payload, uint8_t more_flags)
{
    size_t l4_length = l4_header_length(flow) + payload, length = IPV4_MIN_HEADER + l4_length;
    uint8_t *l4 = packet + IPV4_MIN_HEADER;
    memset(packet, 0, length - payload);
    for (size_t i = length - payload; i < length; i++)
        packet[i] = (uint8_t)(i * 7 + flow->sequence);
    packet[0] = 0x45;
    store_be16(packet + IPV4_TOTAL_LENGTH, (uint16_t)length);
    store_be16(packet + IPV4_ID, flow->id++);
    store_be16(packet + IPV4_FRAGMENT, flow->dont_fragment ? IPV4_DONT_FRAGMENT : 0);
    packet[IPV4_TTL] = 63;
    packet[IPV4_PROTOCOL] = flow->protocol;
    store_be32(packet + IPV4_SOURCE, flow->source);
    store_be32(packet + IPV4_DESTINATION, flow->destination);
    store_be16(l4, flow->ports);
    store_be16(l4 + 2, 5201);
    if (flow->protocol == PROTOCOL_TCP) {
        store_be32(l4 + TCP_SEQUENCE, flow->sequence);
        l4[TCP_DATA_OFFSET] = (uint8_t)(flow->tcp_words << 4);
        l4[TCP_FLAGS] = flow->flags | more_flags;
        flow->sequence += (uint32_t)payload;
    } else if (flow->protocol == PROTOCOL_UDP) {
        store_be16(l4 + UDP_LENGTH, (uint16_t)l4_length);
    } else {
        l4[0] = 8;
    }
    finish_packet(packet);
    return length;
}

/* Headers are hit more often than what follows them. */
static size_t damage(uint8_t *bytes, size_t length, size_t room)
{
    const uint16_t odd[] = {0, 1, 5, 19, 20, 21, 28, 40, 0x2000, 0x4000, 0x7fff, 0x8000, 0xfffe, 0xffff};
    for (uint32_t hits = 1 + dice(3); hits > 0 && length > 1; hits--) {
        size_t at = dice((uint32_t)(chance(4) || length < 64 ? length : 64));
        switch (dice(5)) {
        case 0:
            bytes[at] ^= (uint8_t)(1 << dice(8));
            break;
        case 1:
            bytes[at] = (uint8_t)dice(256);
            break;
        case 2:
            if (at + 1 < length)
                store_be16(bytes + at, odd[dice(sizeof odd / sizeof *odd)]);
            break;
        case 3:
            length = at;
            break;
        case 4:
            while (length < room && !chance(16))
                bytes[length++] = (uint8_t)dice(256);
        }
    }
    return length;
}

static void departures(struct exercise *exercise, uint8_t *buffer)
{
    struct flow flow = make_flow(true);
    size_t segment = 1 + dice(chance(3) ? 60000 : 1460);
    for (uint32_t frames = 1 + dice(40); frames > 0; frames--) {
        bool super = chance(4) && (flow.protocol == PROTOCOL_TCP || flow.protocol == PROTOCOL_UDP);
        size_t most = IPV4_MAX_PACKET - 60, payload = segment;
        if (super)
            payload = chance(4) ? dice(12) : segment * (1 + dice(50)) + dice(3);
        uint8_t *vnet = buffer, *packet = buffer + VNET_HEADER;
        size_t length = make_packet(packet, &flow, payload < most ? payload : most, (uint8_t)dice(256));
        memset(vnet, 0, VNET_HEADER);
        vnet[VNET_FLAGS] = super || chance(2) ? VNET_NEEDS_CSUM : 0;
        if (super)
            vnet[VNET_GSO_TYPE] = flow.protocol == PROTOCOL_TCP ? VNET_GSO_TCPV4 : VNET_GSO_UDP_L4;
        store_native16(vnet + VNET_GSO_SIZE, (uint16_t)segment);
        store_native16(vnet + VNET_CSUM_START, IPV4_MIN_HEADER);
        store_native16(vnet + VNET_CSUM_OFFSET, flow.protocol == PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
        size_t header = exercise->engine->outgoing.tun_offload ? 0 : VNET_HEADER;
        length += VNET_HEADER - header;
        if (chance(3))
            length = damage(buffer + header, length, IPV4_MAX_PACKET);
        exercise_frame(exercise, buffer + header, length);
        if (chance(10))
            segment = 1 + dice(1460);
    }
}

static void arrivals(struct exercise *exercise, uint8_t *buffer, uint8_t *train)
{
    struct flow flow = make_flow(false);
    uint32_t sender = UNDERLAY + (flow.source >> 8 & 0xff);
    size_t payload = 1 + dice(1460);
    if (sender == UNDERLAY + 3 || chance(20))
        sender = UNDERLAY + 2;
    for (uint32_t trains = 1 + dice(10); trains > 0; trains--) {
        size_t length = 0, segment_size = 0;
        for (uint32_t packets = 1 + dice(20); packets > 0 && length < 60000; packets--) {
            size_t smaller = chance(8) ? dice((uint32_t)payload) : payload;
            size_t one = make_packet(buffer, &flow, smaller, chance(8) ? TCP_PSH : 0);
            if (chance(8)) {
                one = damage(buffer, one, 4096);
                if (chance(2) && one >= IPV4_MIN_HEADER && (buffer[0] & 15) * 4u <= one &&
                    load_be16(buffer + IPV4_TOTAL_LENGTH) <= one)
                    finish_packet(buffer);
            }
            if (segment_size == 0)
                segment_size = one;
            memcpy(train + length, buffer, one);
            length += one;
            if (one != segment_size)
                break;
        }
        if (chance(16))
            segment_size = dice(100);
        exercise_datagram(exercise, sender, chance(10) ? 0 : segment_size, train, length);
        if (chance(4))
            exercise_flush(exercise);
    }
}

static void exercise_seed(uint64_t seed, uint8_t *buffer, uint8_t *train)
{
    struct exercise exercise;
    state = seed * 0x9e3779b97f4a7c15ull + 1;
    exercise_init(&exercise, dice(16) | (chance(4) ? 0 : 15));
    exercise_table(&exercise, buffer, make_table(buffer));
    for (unsigned step = 0; step < STEPS; step++) {
        exercise.sent = chance(8) ? SEND_TOO_BIG : chance(30) ? SEND_REFUSED : SENT;
        exercise.sent_fragmented = chance(4) ? SEND_REFUSED : SENT;
        exercise.mtu = chance(16) ? 0 : dice(chance(2) ? 1500 : 65536);
        exercise.written = !chance(16);
        exercise.now += chance(8) ? 1 : 0.001;
        switch (dice(8)) {
        case 0: {
            size_t length = make_table(buffer);
            if (chance(2))
                length = damage(buffer, length, length + 64);
            exercise_table(&exercise, buffer, length);
            break;
        }
        case 1:
        case 2:
        case 3:
            departures(&exercise, buffer);
            break;
        default:
            arrivals(&exercise, buffer, train);
        }
    }
    exercise_flush(&exercise);
    for (enum counter which = 0; which < COUNTERS; which++)
        totals[which] += engine_counted(exercise.engine, which);
    exercise_destroy(&exercise);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: mutate FIRST_SEED SEEDS\n");
        return 2;
    }
    uint8_t *buffer = malloc(2 * 65536), *train = malloc(2 * 65536);
    if (buffer == NULL || train == NULL)
        return 1;
    uint64_t first = strtoull(argv[1], NULL, 10), end = first + strtoull(argv[2], NULL, 10);
    for (uint64_t seed = first; seed < end; seed++) {
        printf("seed %llu\n", (unsigned long long)seed);
        fflush(stdout);
        exercise_seed(seed, buffer, train);
    }
    for (enum counter which = 0; which < COUNTERS; which++)
        printf("%s %llu\n", counter_names[which], (unsigned long long)totals[which]);
    free(buffer);
    free(train);
    return 0;
}
