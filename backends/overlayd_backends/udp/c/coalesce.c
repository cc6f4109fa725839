/* See coalesce.h. */
#include "coalesce.h"

#include "checksum.h"

static bool checksum_is_right(const uint8_t *packet, const struct ipv4 *ip)
{
    size_t length = (size_t)(ip->total_length - ip->header_length);
    uint64_t sum = sum_pseudo_header(packet, ip->protocol, length);
    return sum_fold(sum_bytes(packet + ip->header_length, length, sum)) == 0xffff;
}

/* The length of the TCP header if nothing in it keeps the segment from being joined, else 0. */
static uint16_t plain_tcp(const uint8_t *tcp, uint16_t room)
{
    if (room < TCP_MIN_HEADER)
        return 0;
    uint16_t length = (uint16_t)((tcp[TCP_DATA_OFFSET] >> 4) * 4);
    bool plain = (tcp[TCP_FLAGS] & ~TCP_PSH) == TCP_ACK && (tcp[TCP_DATA_OFFSET] & 15) == 0;
    return plain && length >= TCP_MIN_HEADER && length <= room ? length : 0;
}

static uint16_t plain_udp(const uint8_t *udp, uint16_t room)
{
    bool plain = room >= UDP_HEADER && load_be16(udp + UDP_LENGTH) == room && load_be16(udp + UDP_CHECKSUM) != 0;
    return plain ? UDP_HEADER : 0;
}

bool find_segment(const uint8_t *packet, const struct ipv4 *ip, bool tcp, bool udp, struct segment *segment)
{
    if (ip->header_length != IPV4_MIN_HEADER || (ip->fragment & ~IPV4_DONT_FRAGMENT) != 0)
        return false;
    uint16_t room = (uint16_t)(ip->total_length - ip->header_length), header = 0;
    if (tcp && ip->protocol == PROTOCOL_TCP)
        header = plain_tcp(packet + ip->header_length, room);
    else if (udp && ip->protocol == PROTOCOL_UDP)
        header = plain_udp(packet + ip->header_length, room);
    if (header == 0 || header == room || !checksum_is_right(packet, ip))
        return false;
    *segment = (struct segment){
        .packet = packet,
        .ip = *ip,
        .headers = (uint16_t)(ip->header_length + header),
        .payload = (uint16_t)(room - header),
    };
    return true;
}

static bool has_push(const struct segment *segment)
{
    return segment->ip.protocol == PROTOCOL_TCP && segment->packet[IPV4_MIN_HEADER + TCP_FLAGS] & TCP_PSH;
}

void superpacket_add(struct superpacket *superpacket, const struct segment *segment)
{
    superpacket->pieces[2 + superpacket->count] = (struct iovec){
        .iov_base = (void *)(segment->packet + segment->headers),
        .iov_len = segment->payload,
    };
    superpacket->count++;
    superpacket->payload += segment->payload;
    superpacket->push = has_push(segment) ? TCP_PSH : 0;
    superpacket->ended = superpacket->push != 0 || segment->payload < superpacket->first.payload;
}

void superpacket_begin(struct superpacket *superpacket, const struct segment *segment)
{
    superpacket->first = *segment;
    superpacket->count = 0;
    superpacket->payload = 0;
    superpacket_add(superpacket, segment);
}

static bool same(const uint8_t *a, const uint8_t *b, size_t offset, size_t length)
{
    return memcmp(a + offset, b + offset, length) == 0;
}

bool superpacket_takes(const struct superpacket *superpacket, const struct segment *segment)
{
    const struct segment *first = &superpacket->first;
    const uint8_t *a = first->packet, *b = segment->packet;
    if (superpacket->ended || superpacket->count == SUPERPACKET_SEGMENTS || segment->headers != first->headers ||
        segment->payload > first->payload ||
        first->headers + superpacket->payload + segment->payload > IPV4_MAX_PACKET)
        return false;
    /* TOS; then fragment field, TTL and protocol, which stand side by side, as addresses and ports do. */
    if (!same(a, b, IPV4_TOS, 1) || !same(a, b, IPV4_FRAGMENT, 4) || !same(a, b, IPV4_SOURCE, 12))
        return false;
    /* Segments get ids that count up; they mean something where the packet may be fragmented (RFC 6864). */
    if (first->ip.fragment == 0 &&
        load_be16(b + IPV4_ID) != (uint16_t)(load_be16(a + IPV4_ID) + superpacket->count))
        return false;
    if (first->ip.protocol != PROTOCOL_TCP)
        return true;
    a += IPV4_MIN_HEADER;
    b += IPV4_MIN_HEADER;
    return load_be32(b + TCP_SEQUENCE) == load_be32(a + TCP_SEQUENCE) + superpacket->payload &&
           same(a, b, TCP_ACKNOWLEDGEMENT, 4) && same(a, b, TCP_WINDOW, 2) && same(a, b, TCP_URGENT, 2) &&
           same(a, b, TCP_MIN_HEADER, (size_t)(first->headers - IPV4_MIN_HEADER - TCP_MIN_HEADER));
}

void superpacket_finish(struct superpacket *superpacket)
{
    const struct segment *first = &superpacket->first;
    uint8_t *header = superpacket->header, *l4 = header + IPV4_MIN_HEADER, *vnet = superpacket->vnet;
    bool tcp = first->ip.protocol == PROTOCOL_TCP;
    uint16_t total_length = (uint16_t)(first->headers + superpacket->payload);
    uint16_t l4_length = (uint16_t)(total_length - IPV4_MIN_HEADER);
    uint16_t checksum = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;

    memcpy(header, first->packet, first->headers);
    store_be16(header + IPV4_TOTAL_LENGTH, total_length);
    finish_ip_checksum(header, IPV4_MIN_HEADER);
    if (tcp)
        l4[TCP_FLAGS] |= superpacket->push;
    else
        store_be16(l4 + UDP_LENGTH, l4_length);
    /* The kernel finishes it: what it expects is the sum of the pseudo header alone. */
    sum_store(l4 + checksum, sum_fold(sum_pseudo_header(header, first->ip.protocol, l4_length)));

    vnet[VNET_FLAGS] = VNET_NEEDS_CSUM;
    vnet[VNET_GSO_TYPE] = tcp ? VNET_GSO_TCPV4 : VNET_GSO_UDP_L4;
    store_native16(vnet + VNET_HEADER_LENGTH, first->headers);
    store_native16(vnet + VNET_GSO_SIZE, first->payload);
    store_native16(vnet + VNET_CSUM_START, IPV4_MIN_HEADER);
    store_native16(vnet + VNET_CSUM_OFFSET, checksum);
    superpacket->pieces[0] = (struct iovec){.iov_base = vnet, .iov_len = VNET_HEADER};
    superpacket->pieces[1] = (struct iovec){.iov_base = header, .iov_len = first->headers};
}
