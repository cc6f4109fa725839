/* Joining segments of one flow into a superpacket, which the network stack may cut again without loss.
 *
 * A superpacket refers to its segments where they lie, so their buffers must stay until it is written.
 */
#ifndef OVERLAYD_COALESCE_H
#define OVERLAYD_COALESCE_H

#include <sys/uio.h>

#include "packet.h"

#define SUPERPACKET_SEGMENTS 64
#define SUPERPACKET_PIECES (SUPERPACKET_SEGMENTS + 2) /* the TUN's header and the packet's in front */

/* A packet that may be joined with others: whole, plain, its checksum verified. */
struct segment {
    const uint8_t *packet;
    struct ipv4 ip;
    uint16_t headers; /* the IP and the L4 header, bytes */
    uint16_t payload; /* bytes, at least 1 */
};

/* Whether the packet, which passed judge_incoming, is one. */
bool find_segment(const uint8_t *packet, const struct ipv4 *ip, bool tcp, bool udp, struct segment *segment);

struct superpacket {
    struct segment first;
    uint16_t count; /* of segments; 0: nothing waits */
    uint32_t payload;
    bool ended;   /* by a smaller segment or by PSH */
    uint8_t push; /* TCP_PSH if the last segment has it */
    uint8_t vnet[VNET_HEADER];
    uint8_t header[MAX_HEADERS];
    struct iovec pieces[SUPERPACKET_PIECES];
};

void superpacket_begin(struct superpacket *superpacket, const struct segment *segment);

/* Whether this one continues what is there.  There must be something. */
bool superpacket_takes(const struct superpacket *superpacket, const struct segment *segment);
void superpacket_add(struct superpacket *superpacket, const struct segment *segment);

/* Writes the headers of two segments or more, so that `pieces` may be written: count + 2 of them. */
void superpacket_finish(struct superpacket *superpacket);

#endif
