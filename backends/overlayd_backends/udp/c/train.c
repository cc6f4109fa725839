/* See train.h. */
#include "train.h"

void train_clear(struct train *train)
{
    train->packets = 0;
    train->bytes = 0;
    train->piece_count = 0;
    train->ended = false;
}

bool train_takes(const struct train *train, uint32_t peer, uint16_t port, size_t length)
{
    if (train->packets == 0)
        return true;
    return !train->ended && train->peer == peer && train->port == port && length <= train->segment_size &&
           train->packets < TRAIN_SEGMENTS && train->bytes + length <= TRAIN_BYTES;
}

static void add_piece(struct train *train, const uint8_t *bytes, size_t length)
{
    if (length == 0)
        return;
    if (train->piece_count > 0) {
        struct iovec *before = &train->pieces[train->piece_count - 1];
        if ((const uint8_t *)before->iov_base + before->iov_len == bytes) {
            before->iov_len += length;
            return;
        }
    }
    train->pieces[train->piece_count++] = (struct iovec){.iov_base = (void *)bytes, .iov_len = length};
}

void train_add(struct train *train, uint32_t peer, uint16_t port, const uint8_t *header, size_t header_length,
               const uint8_t *payload, size_t payload_length)
{
    size_t length = header_length + payload_length;
    if (train->packets == 0) {
        train->peer = peer;
        train->port = port;
        train->segment_size = (uint16_t)length;
    }
    add_piece(train, header, header_length);
    add_piece(train, payload, payload_length);
    train->ended = length < train->segment_size;
    train->packets++;
    train->bytes += length;
}

struct send train_send(struct train *train)
{
    return (struct send){
        .peer = train->peer,
        .port = train->port,
        .segment_size = train->packets > 1 ? train->segment_size : 0,
        .packets = train->packets,
        .bytes = train->bytes,
        .pieces = train->pieces,
        .piece_count = train->piece_count,
    };
}

size_t send_copy(const struct send *send, unsigned index, uint8_t *packet)
{
    size_t length = send->segment_size != 0 ? send->segment_size : IPV4_MAX_PACKET;
    size_t skip = index * length, copied = 0;
    for (size_t i = 0; i < send->piece_count && copied < length; i++) {
        const struct iovec *piece = &send->pieces[i];
        if (skip >= piece->iov_len) {
            skip -= piece->iov_len;
            continue;
        }
        size_t part = piece->iov_len - skip;
        if (part > length - copied)
            part = length - copied;
        memcpy(packet + copied, (const uint8_t *)piece->iov_base + skip, part);
        copied += part;
        skip = 0;
    }
    return copied;
}
