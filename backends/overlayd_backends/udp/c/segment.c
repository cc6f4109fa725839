/* See segment.h.  What the kernel does: net/ipv4/tcp_offload.c tcp_gso_segment, udp_offload.c __udp_gso_segment,
 * af_inet.c inet_gso_segment. */
#include "segment.h"

#include "checksum.h"

void cutter_init(struct cutter *cutter, const uint8_t *packet, const struct ipv4 *ip,
                 const struct offload *offload)
{
    uint16_t headers = offload->headers, ip_header = ip->header_length;
    uint8_t *common = cutter->common, *l4 = common + ip_header;
    memcpy(common, packet, headers);
    cutter->payload = packet + headers;
    cutter->left = (size_t)ip->total_length - headers;
    cutter->segment_size = offload->segment_size;
    cutter->first = true;
    cutter->headers = headers;
    cutter->ip_header = ip_header;
    cutter->tcp = offload->type == VNET_GSO_TCPV4;
    cutter->id = load_be16(common + IPV4_ID);
    store_be16(common + IPV4_TOTAL_LENGTH, 0);
    store_be16(common + IPV4_ID, 0);
    store_be16(common + IPV4_CHECKSUM, 0);
    cutter->ip_sum = sum_bytes(common, ip_header, 0);
    if (cutter->tcp) {
        cutter->sequence = load_be32(l4 + TCP_SEQUENCE);
        cutter->flags = l4[TCP_FLAGS];
        store_be32(l4 + TCP_SEQUENCE, 0);
        l4[TCP_FLAGS] = 0;
        store_be16(l4 + TCP_CHECKSUM, 0);
    } else {
        store_be16(l4 + UDP_LENGTH, 0);
        store_be16(l4 + UDP_CHECKSUM, 0);
    }
    cutter->l4_sum = sum_bytes(l4, (size_t)(headers - ip_header), sum_pseudo_header(packet, ip->protocol, 0));
}

const uint8_t *cutter_take(struct cutter *cutter, uint8_t *header)
{
    const uint8_t *payload = cutter->payload;
    size_t length = cutter->left < cutter->segment_size ? cutter->left : cutter->segment_size;
    bool last = length == cutter->left;
    uint16_t total_length = (uint16_t)(cutter->headers + length);
    uint16_t l4_length = (uint16_t)(total_length - cutter->ip_header);
    uint8_t *l4 = header + cutter->ip_header;

    memcpy(header, cutter->common, cutter->headers);
    store_be16(header + IPV4_TOTAL_LENGTH, total_length);
    store_be16(header + IPV4_ID, cutter->id);
    uint64_t ip_sum = sum_number(cutter->id, sum_number(total_length, cutter->ip_sum));
    sum_store(header + IPV4_CHECKSUM, (uint16_t)~sum_fold(ip_sum));

    uint64_t sum = sum_bytes(payload, length, sum_number(l4_length, cutter->l4_sum));
    if (cutter->tcp) {
        uint8_t flags = cutter->flags;
        if (!last)
            flags &= (uint8_t)~(TCP_FIN | TCP_PSH);
        if (!cutter->first)
            flags &= (uint8_t)~TCP_CWR;
        l4[TCP_FLAGS] = flags;
        store_be32(l4 + TCP_SEQUENCE, cutter->sequence);
        sum = sum_bytes(l4 + TCP_SEQUENCE, 4, sum_number(flags, sum));
        sum_store(l4 + TCP_CHECKSUM, (uint16_t)~sum_fold(sum));
    } else {
        store_be16(l4 + UDP_LENGTH, l4_length);
        uint16_t checksum = (uint16_t)~sum_fold(sum_number(l4_length, sum));
        /* 0 says that there is no checksum (RFC 768). */
        sum_store(l4 + UDP_CHECKSUM, checksum != 0 ? checksum : 0xffff);
    }
    cutter->payload += length;
    cutter->left -= length;
    cutter->sequence += (uint32_t)length;
    cutter->id++;
    cutter->first = false;
    return payload;
}
