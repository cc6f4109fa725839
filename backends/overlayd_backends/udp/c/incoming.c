/* See incoming.h. */
#include "incoming.h"

void incoming_init(struct incoming *incoming, bool tun_offload, bool coalesce_tcp, bool coalesce_udp)
{
    memset(incoming, 0, sizeof *incoming);
    incoming->tun_offload = tun_offload;
    incoming->coalesce_tcp = tun_offload && coalesce_tcp;
    incoming->coalesce_udp = tun_offload && coalesce_udp;
}

void incoming_destroy(struct incoming *incoming)
{
    mailbox_post(&incoming->mailbox, NULL);
    table_free(incoming->table);
    incoming->table = NULL;
}

void incoming_take_up(struct incoming *incoming)
{
    struct table *table = mailbox_fetch(&incoming->mailbox);
    if (table == NULL)
        return;
    table_free(incoming->table);
    incoming->table = table;
    incoming->last = NULL;
}

/* Rule 1. */
static bool is_known(const struct incoming *incoming, uint32_t sender)
{
    if (incoming->table == NULL)
        return false;
    return (incoming->last != NULL && incoming->last->peer == sender) || table_knows_peer(incoming->table, sender);
}

/* Rule 5. */
static bool has_source(struct incoming *incoming, uint32_t sender, uint32_t source)
{
    const struct entry *entry = incoming->last;
    if (entry == NULL || source < entry->first || source > entry->last) {
        entry = table_find(incoming->table, source);
        if (entry == NULL)
            return false;
        incoming->last = entry;
    }
    return entry->peer == sender;
}

static enum counter judge_arrival(struct incoming *incoming, uint32_t sender, const uint8_t *packet, size_t length,
                                  struct ipv4 *ip)
{
    if (!is_known(incoming, sender))
        return DROP_UNKNOWN_SENDER;
    enum counter verdict = judge_incoming(packet, length, ip);
    if (verdict != PASS)
        return verdict;
    if (!has_source(incoming, sender, ip->source))
        return DROP_BAD_SOURCE;
    return table_is_own(incoming->table, ip->destination) ? PASS : DROP_NOT_OURS;
}

static void write_frame(struct incoming *incoming, const struct incoming_edge *edge, const struct iovec *pieces,
                        size_t piece_count, uint64_t packets, uint64_t bytes)
{
    count(&incoming->counters, RX_WRITES, 1);
    if (!edge->write(edge->context, pieces, piece_count)) {
        count(&incoming->counters, WRITE_FAILED, packets);
        return;
    }
    count(&incoming->counters, RX_PACKETS, packets);
    count(&incoming->counters, RX_BYTES, bytes);
    count(&incoming->counters, RX_SUPERPACKETS, packets > 1);
}

static void write_alone(struct incoming *incoming, const struct incoming_edge *edge, const uint8_t *packet,
                        uint16_t length)
{
    static const uint8_t no_offload[VNET_HEADER];
    const struct iovec pieces[2] = {
        {.iov_base = (void *)no_offload, .iov_len = VNET_HEADER},
        {.iov_base = (void *)packet, .iov_len = length},
    };
    size_t skip = incoming->tun_offload ? 0 : 1;
    write_frame(incoming, edge, pieces + skip, 2 - skip, 1, length);
}

void incoming_flush(struct incoming *incoming, const struct incoming_edge *edge)
{
    struct superpacket *superpacket = &incoming->superpacket;
    const struct segment *first = &superpacket->first;
    if (superpacket->count == 0)
        return;
    if (superpacket->count == 1) {
        write_alone(incoming, edge, first->packet, first->ip.total_length);
    } else {
        superpacket_finish(superpacket);
        uint64_t bytes = (uint64_t)superpacket->count * first->headers + superpacket->payload;
        write_frame(incoming, edge, superpacket->pieces, superpacket->count + 2u, superpacket->count, bytes);
    }
    superpacket->count = 0;
}

static void incoming_packet(struct incoming *incoming, const struct incoming_edge *edge, uint32_t sender,
                            const uint8_t *packet, size_t length)
{
    struct superpacket *superpacket = &incoming->superpacket;
    struct ipv4 ip;
    struct segment segment;
    enum counter verdict = judge_arrival(incoming, sender, packet, length, &ip);
    if (verdict != PASS) {
        count(&incoming->counters, verdict, 1);
        return;
    }
    if (!find_segment(packet, &ip, incoming->coalesce_tcp, incoming->coalesce_udp, &segment)) {
        incoming_flush(incoming, edge);
        write_alone(incoming, edge, packet, ip.total_length);
        return;
    }
    if (superpacket->count > 0 && superpacket_takes(superpacket, &segment)) {
        superpacket_add(superpacket, &segment);
        return;
    }
    incoming_flush(incoming, edge);
    superpacket_begin(superpacket, &segment);
}

void incoming_datagram(struct incoming *incoming, const struct incoming_edge *edge, uint32_t sender,
                       size_t segment_size, const uint8_t *payload, size_t length)
{
    if (segment_size == 0 || segment_size >= length) {
        incoming_packet(incoming, edge, sender, payload, length);
        return;
    }
    count(&incoming->counters, RX_TRAINS, 1);
    for (; length > segment_size; payload += segment_size, length -= segment_size)
        incoming_packet(incoming, edge, sender, payload, segment_size);
    incoming_packet(incoming, edge, sender, payload, length);
}
