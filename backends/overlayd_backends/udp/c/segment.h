/* Cutting a superpacket into the packets that the kernel would have made of it.
 *
 * Each segment gets a header of its own; its payload stays where it lies in the superpacket.
 */
#ifndef OVERLAYD_SEGMENT_H
#define OVERLAYD_SEGMENT_H

#include "packet.h"

struct cutter {
    const uint8_t *payload; /* what is left of it */
    size_t left;
    uint16_t segment_size;
    bool first;
    /* What the segments' headers have in common: the fields that differ are 0 in it, the sums are of the rest. */
    uint8_t common[MAX_HEADERS];
    uint16_t headers, ip_header; /* bytes */
    uint64_t ip_sum, l4_sum;
    bool tcp;
    uint16_t id;
    uint32_t sequence;
    uint8_t flags;
};

/* `packet` has passed judge_offload with a type other than VNET_GSO_NONE. */
void cutter_init(struct cutter *cutter, const uint8_t *packet, const struct ipv4 *ip,
                 const struct offload *offload);

/* The whole length of the next segment; 0 when all were taken. */
static inline size_t cutter_next_length(const struct cutter *cutter)
{
    if (cutter->left == 0 && !cutter->first)
        return 0;
    return cutter->headers + (cutter->left < cutter->segment_size ? cutter->left : cutter->segment_size);
}

/* Writes the next segment's headers, `cutter->headers` bytes, and returns where its payload begins. */
const uint8_t *cutter_take(struct cutter *cutter, uint8_t *header);

#endif
