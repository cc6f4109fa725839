/* See packet.h; the numbers of the rules are those of docs/datapath.md. */
#include "packet.h"

#include "checksum.h"

static enum counter read_ipv4(const uint8_t *packet, size_t length, struct ipv4 *ip)
{
    if (length < IPV4_MIN_HEADER)
        return DROP_TRUNCATED;
    ip->header_length = (uint16_t)((packet[0] & 15) * 4);
    ip->total_length = load_be16(packet + IPV4_TOTAL_LENGTH);
    if (packet[0] >> 4 != 4 || ip->header_length < IPV4_MIN_HEADER || ip->total_length < ip->header_length)
        return DROP_BAD_HEADER;
    if (ip->total_length > length)
        return DROP_TRUNCATED;
    ip->source = load_be32(packet + IPV4_SOURCE);
    ip->destination = load_be32(packet + IPV4_DESTINATION);
    ip->fragment = load_be16(packet + IPV4_FRAGMENT);
    ip->protocol = packet[IPV4_PROTOCOL];
    return PASS;
}

enum counter judge_outgoing(const uint8_t *packet, size_t length, struct ipv4 *ip)
{
    if (length >= IPV4_MIN_HEADER && packet[0] >> 4 == 6)
        return DROP_IPV6;
    return read_ipv4(packet, length, ip);
}

enum counter judge_incoming(const uint8_t *packet, size_t length, struct ipv4 *ip)
{
    enum counter verdict = read_ipv4(packet, length, ip);
    if (verdict != PASS)
        return verdict;
    /* The sum of a header with a right checksum in it is all ones. */
    return sum_fold(sum_bytes(packet, ip->header_length, 0)) == 0xffff ? PASS : DROP_BAD_HEADER;
}

/* The length of the L4 header of a superpacket; 0 if it is not all there. */
static uint16_t l4_header(uint8_t type, const uint8_t *packet, const struct ipv4 *ip)
{
    uint16_t room = (uint16_t)(ip->total_length - ip->header_length);
    if (type == VNET_GSO_UDP_L4)
        return ip->protocol == PROTOCOL_UDP && room >= UDP_HEADER ? UDP_HEADER : 0;
    if (ip->protocol != PROTOCOL_TCP || room < TCP_MIN_HEADER)
        return 0;
    uint16_t length = (uint16_t)((packet[ip->header_length + TCP_DATA_OFFSET] >> 4) * 4);
    return length >= TCP_MIN_HEADER && length <= room ? length : 0;
}

enum counter judge_offload(const uint8_t *vnet, const uint8_t *packet, const struct ipv4 *ip,
                           struct offload *offload)
{
    *offload = (struct offload){.type = VNET_GSO_NONE};
    if (vnet == NULL)
        return PASS;
    offload->type = vnet[VNET_GSO_TYPE] & (uint8_t)~VNET_GSO_ECN;
    if (vnet[VNET_FLAGS] & VNET_NEEDS_CSUM) {
        offload->needs_csum = true;
        offload->csum_start = load_native16(vnet + VNET_CSUM_START);
        offload->csum_offset = load_native16(vnet + VNET_CSUM_OFFSET);
        uint32_t end = (uint32_t)offload->csum_start + offload->csum_offset + 2;
        if (offload->csum_start < ip->header_length || end > ip->total_length)
            return DROP_BAD_OFFLOAD;
    }
    if (offload->type == VNET_GSO_NONE)
        return PASS;
    if (offload->type != VNET_GSO_TCPV4 && offload->type != VNET_GSO_UDP_L4)
        return DROP_BAD_OFFLOAD;
    offload->segment_size = load_native16(vnet + VNET_GSO_SIZE);
    uint16_t l4 = l4_header(offload->type, packet, ip);
    if (offload->segment_size == 0 || l4 == 0 || is_fragment(ip))
        return DROP_BAD_OFFLOAD;
    offload->headers = (uint16_t)(ip->header_length + l4);
    return PASS;
}
