/* What a packet is, and whether it may be looked at any further: the rules that need no table.
 *
 * A verdict is the counter of the drop, or PASS.  Once a packet passed, every offset that `struct ipv4` and
 * `struct offload` hold lies within its total length, which lies within the bytes that are there.
 */
#ifndef OVERLAYD_PACKET_H
#define OVERLAYD_PACKET_H

#include "counters.h"
#include "wire.h"

#define PASS COUNTERS

struct ipv4 {
    uint32_t source, destination;
    uint16_t header_length, total_length; /* bytes */
    uint16_t fragment;                    /* the flags and the offset, as in the header */
    uint8_t protocol;
};

/* What the TUN's header asks for. */
struct offload {
    uint8_t type;                      /* VNET_GSO_NONE, VNET_GSO_TCPV4 or VNET_GSO_UDP_L4 */
    uint16_t segment_size;             /* payload of each segment, bytes */
    uint16_t headers;                  /* the IP and the L4 header of a superpacket, bytes */
    bool needs_csum;                   /* the L4 checksum is unfinished */
    uint16_t csum_start, csum_offset;  /* from the beginning of the packet, from csum_start */
};

static inline bool is_fragment(const struct ipv4 *ip)
{
    return (ip->fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) != 0;
}

/* Rules 1 to 4 of an outgoing packet. */
enum counter judge_outgoing(const uint8_t *packet, size_t length, struct ipv4 *ip);

/* Rule 5.  `vnet` NULL: the device gives no such header, and asks for nothing. */
enum counter judge_offload(const uint8_t *vnet, const uint8_t *packet, const struct ipv4 *ip,
                           struct offload *offload);

/* Rules 2 to 4 of an incoming packet. */
enum counter judge_incoming(const uint8_t *packet, size_t length, struct ipv4 *ip);

#endif
