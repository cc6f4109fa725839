/* From the peers to the TUN: the second table of docs/datapath.md.
 *
 * One thread runs it.  It does no IO of its own: what is to be written goes to an edge, which the loop, the Python
 * binding and the tests each bring.
 */
#ifndef OVERLAYD_INCOMING_H
#define OVERLAYD_INCOMING_H

#include "coalesce.h"
#include "packet.h"
#include "table.h"

struct incoming_edge {
    /* A frame for the TUN, in pieces; false if the kernel refused it. */
    bool (*write)(void *context, const struct iovec *pieces, size_t count);
    void *context;
};

struct incoming {
    struct mailbox mailbox;
    struct counters counters;
    struct table *table;      /* NULL until the first one came: nobody is anywhere */
    const struct entry *last; /* of this table: where the packet before came from */
    bool tun_offload, coalesce_tcp, coalesce_udp;
    struct superpacket superpacket;
};

/* Without `tun_offload` frames are bare packets, and nothing is joined. */
void incoming_init(struct incoming *incoming, bool tun_offload, bool coalesce_tcp, bool coalesce_udp);
void incoming_destroy(struct incoming *incoming);

/* Takes up the table that was posted, if any. */
void incoming_take_up(struct incoming *incoming);

/* What one read of the socket gave: a datagram or, with a segment size other than 0, several that UDP_GRO joined.
 * They must stay where they are until the next flush. */
void incoming_datagram(struct incoming *incoming, const struct incoming_edge *edge, uint32_t sender,
                       size_t segment_size, const uint8_t *payload, size_t length);

/* Writes what waits for more of its kind. */
void incoming_flush(struct incoming *incoming, const struct incoming_edge *edge);

#endif
