/* Packets of equal size to one peer, gathered so that they leave in one system call (UDP_SEGMENT, udp(7)).
 *
 * A train refers to the payload where it lies, so the buffers of its packets must stay until it has left.  It owns
 * the headers that segmentation makes.
 */
#ifndef OVERLAYD_TRAIN_H
#define OVERLAYD_TRAIN_H

#include <sys/uio.h>

#include "wire.h"

#define TRAIN_SEGMENTS 64 /* UDP_MAX_SEGMENTS of the oldest kernels, linux/udp.h */
#define TRAIN_BYTES 65000 /* a datagram of all of them must fit an IPv4 packet, with room for the outer headers */

/* What one system call sends: one datagram, or with a segment size other than 0 several. */
struct send {
    uint32_t peer; /* in the machine's byte order */
    uint16_t port;
    uint16_t segment_size; /* bytes */
    uint32_t packets;
    size_t bytes;
    struct iovec *pieces;
    size_t piece_count;
};

struct train {
    uint32_t peer;
    uint16_t port;
    uint16_t segment_size; /* length of the first packet */
    uint16_t packets;
    bool ended; /* by a smaller packet, which must be the last */
    size_t bytes;
    size_t piece_count;
    struct iovec pieces[2 * TRAIN_SEGMENTS];
    uint8_t headers[TRAIN_SEGMENTS][MAX_HEADERS];
};

void train_clear(struct train *train);

/* Whether a packet of this length may join.  An empty train takes everything. */
bool train_takes(const struct train *train, uint32_t peer, uint16_t port, size_t length);

/* Where the headers of the next packet may be put, MAX_HEADERS bytes. */
static inline uint8_t *train_header(struct train *train)
{
    return train->headers[train->packets];
}

/* Appends a packet in two pieces, of which the first may be empty; the train takes it. */
void train_add(struct train *train, uint32_t peer, uint16_t port, const uint8_t *header, size_t header_length,
               const uint8_t *payload, size_t payload_length);

struct send train_send(struct train *train);

/* Copies packet `index` out, and returns its length.  `packet` has room for IPV4_MAX_PACKET bytes. */
size_t send_copy(const struct send *send, unsigned index, uint8_t *packet);

#endif
