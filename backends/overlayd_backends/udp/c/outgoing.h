/* From the TUN to the peers: the first table of docs/datapath.md.
 *
 * One thread runs it.  It does no IO of its own: what is to be sent and written goes to an edge, a few functions
 * that the loop, the Python binding and the tests each bring.
 */
#ifndef OVERLAYD_OUTGOING_H
#define OVERLAYD_OUTGOING_H

#include "icmp.h"
#include "packet.h"
#include "table.h"
#include "train.h"

enum sent {
    SENT,
    SEND_TOO_BIG,  /* for the path, as far as the kernel knows; or the path takes no trains */
    SEND_REFUSED,  /* for any other reason */
};

struct outgoing_edge {
    enum sent (*send)(void *context, const struct send *send);
    /* The same, but the datagram may be cut into fragments on its way. */
    enum sent (*send_fragmented)(void *context, const struct send *send);
    /* Bytes that the path to a peer takes; 0 if that can't be known. */
    unsigned (*path_mtu)(void *context, uint32_t peer, uint16_t port);
    /* A frame for the TUN; false if the kernel refused it. */
    bool (*write)(void *context, const uint8_t *frame, size_t length);
    /* Seconds of a clock that does not go back. */
    double (*now)(void *context);
    void *context;
};

struct outgoing {
    struct mailbox mailbox;
    struct counters counters;
    struct table *table;          /* NULL until the first one came: nobody is anywhere */
    const struct entry *last;     /* of this table: where the packet before went */
    bool tun_offload, udp_segment;
    struct allowance allowance;
    struct train train;
    uint8_t scratch[IPV4_MAX_PACKET];
};

void outgoing_init(struct outgoing *outgoing, bool tun_offload, bool udp_segment);
void outgoing_destroy(struct outgoing *outgoing);

/* Takes up the table that was posted, if any. */
void outgoing_take_up(struct outgoing *outgoing);

/* One frame: its offload header (NULL without tun_offload) and its packet, whose checksum may be finished in
 * place.  Returns how many bytes of the packet must stay where they are as long as the train has packets. */
size_t outgoing_packet(struct outgoing *outgoing, const struct outgoing_edge *edge, const uint8_t *vnet,
                       uint8_t *packet, size_t length);

/* Sends what waits for more of its kind. */
void outgoing_flush(struct outgoing *outgoing, const struct outgoing_edge *edge);

/* A send that the kernel refused, since the path takes `mtu` bytes at most: what may be fragmented is sent once
 * more, the sender of the rest is told. */
void outgoing_refused(struct outgoing *outgoing, const struct outgoing_edge *edge, const struct send *refused,
                      unsigned mtu);

#endif
