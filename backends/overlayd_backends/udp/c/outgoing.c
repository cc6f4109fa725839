/* See outgoing.h. */
#include "outgoing.h"

#include "checksum.h"
#include "segment.h"

void outgoing_init(struct outgoing *outgoing, bool tun_offload, bool udp_segment)
{
    memset(outgoing, 0, sizeof *outgoing);
    outgoing->tun_offload = tun_offload;
    outgoing->udp_segment = udp_segment;
    outgoing->allowance = (struct allowance)ALLOWANCE_INIT;
}

void outgoing_destroy(struct outgoing *outgoing)
{
    mailbox_post(&outgoing->mailbox, NULL);
    table_free(outgoing->table);
    outgoing->table = NULL;
}

void outgoing_take_up(struct outgoing *outgoing)
{
    struct table *table = mailbox_fetch(&outgoing->mailbox);
    if (table == NULL)
        return;
    table_free(outgoing->table);
    outgoing->table = table;
    outgoing->last = NULL;
    count(&outgoing->counters, TABLES, 1);
}

static const struct entry *find_entry(struct outgoing *outgoing, uint32_t destination)
{
    const struct entry *last = outgoing->last;
    if (last != NULL && last->first <= destination && destination <= last->last)
        return last;
    const struct entry *entry = table_find(outgoing->table, destination);
    if (entry != NULL)
        outgoing->last = entry;
    return entry;
}

/* Rules 6 and 7. */
static enum counter judge_departure(struct outgoing *outgoing, uint32_t destination, const struct entry **entry)
{
    if (outgoing->table == NULL)
        return DROP_NO_ROUTE;
    *entry = find_entry(outgoing, destination);
    if (*entry != NULL)
        return PASS;
    return table_is_own(outgoing->table, destination) ? DROP_OWN_DESTINATION : DROP_NO_ROUTE;
}

static void tell_sender(struct outgoing *outgoing, const struct outgoing_edge *edge, const uint8_t *packet,
                        const struct ipv4 *ip, enum unreachable code, uint16_t mtu)
{
    if (!icmp_may_tell(packet, ip))
        return;
    if (!allowance_take(&outgoing->allowance, edge->now(edge->context))) {
        count(&outgoing->counters, ICMP_SUPPRESSED, 1);
        return;
    }
    uint8_t frame[VNET_HEADER + ICMP_MAX_PACKET] = {0};
    size_t offset = outgoing->tun_offload ? VNET_HEADER : 0;
    size_t length = offset + icmp_unreachable(frame + offset, packet, ip, code, mtu);
    count(&outgoing->counters, ICMP_SENT, 1);
    if (!edge->write(edge->context, frame, length))
        count(&outgoing->counters, WRITE_FAILED, 1);
}

static void count_sent(struct outgoing *outgoing, const struct send *send)
{
    count(&outgoing->counters, TX_PACKETS, send->packets);
    count(&outgoing->counters, TX_BYTES, send->bytes);
}

void outgoing_refused(struct outgoing *outgoing, const struct outgoing_edge *edge, const struct send *refused,
                      unsigned mtu)
{
    bool told = false;
    for (unsigned i = 0; i < refused->packets; i++) {
        struct ipv4 ip;
        uint8_t *packet = outgoing->scratch;
        size_t length = send_copy(refused, i, packet);
        if (judge_outgoing(packet, length, &ip) != PASS) {
            count(&outgoing->counters, SEND_FAILED, 1);
            continue;
        }
        if (length + ENCAP_OVERHEAD <= mtu || !(ip.fragment & IPV4_DONT_FRAGMENT)) {
            struct iovec piece = {.iov_base = packet, .iov_len = length};
            struct send alone = {.peer = refused->peer, .port = refused->port, .packets = 1, .bytes = length,
                                 .pieces = &piece, .piece_count = 1};
            if (edge->send_fragmented(edge->context, &alone) == SENT)
                count_sent(outgoing, &alone);
            else
                count(&outgoing->counters, SEND_FAILED, 1);
            continue;
        }
        count(&outgoing->counters, DROP_TOO_BIG, 1);
        if (!told) {
            unsigned room = mtu > ENCAP_OVERHEAD + SMALLEST_MTU ? mtu - ENCAP_OVERHEAD : SMALLEST_MTU;
            tell_sender(outgoing, edge, packet, &ip, FRAGMENTATION_NEEDED, (uint16_t)room);
            told = true;
        }
    }
}

void outgoing_flush(struct outgoing *outgoing, const struct outgoing_edge *edge)
{
    if (outgoing->train.packets == 0)
        return;
    struct send send = train_send(&outgoing->train);
    enum sent sent = edge->send(edge->context, &send);
    count(&outgoing->counters, TX_SENDS, 1);
    count(&outgoing->counters, TX_TRAINS, send.segment_size != 0);
    if (sent == SENT) {
        count_sent(outgoing, &send);
    } else {
        unsigned mtu = sent == SEND_TOO_BIG ? edge->path_mtu(edge->context, send.peer, send.port) : 0;
        if (mtu != 0)
            outgoing_refused(outgoing, edge, &send, mtu);
        else
            count(&outgoing->counters, SEND_FAILED, send.packets);
    }
    train_clear(&outgoing->train);
}

static void make_room(struct outgoing *outgoing, const struct outgoing_edge *edge, const struct entry *entry,
                      size_t length)
{
    if (!train_takes(&outgoing->train, entry->peer, entry->port, length))
        outgoing_flush(outgoing, edge);
}

/* A packet or a segment that the train has taken leaves at once if nothing may follow it. */
static void board(struct outgoing *outgoing, const struct outgoing_edge *edge, const struct entry *entry,
                  const uint8_t *header, size_t header_length, const uint8_t *payload, size_t payload_length)
{
    train_add(&outgoing->train, entry->peer, entry->port, header, header_length, payload, payload_length);
    if (!outgoing->udp_segment || outgoing->train.ended)
        outgoing_flush(outgoing, edge);
}

static void send_segments(struct outgoing *outgoing, const struct outgoing_edge *edge, const struct entry *entry,
                          const uint8_t *packet, const struct ipv4 *ip, const struct offload *offload)
{
    struct cutter cutter;
    size_t length;
    count(&outgoing->counters, TX_SUPERPACKETS, 1);
    cutter_init(&cutter, packet, ip, offload);
    while ((length = cutter_next_length(&cutter)) != 0) {
        make_room(outgoing, edge, entry, length);
        uint8_t *header = train_header(&outgoing->train);
        const uint8_t *payload = cutter_take(&cutter, header);
        board(outgoing, edge, entry, header, cutter.headers, payload, length - cutter.headers);
    }
}

static void finish_checksum(uint8_t *packet, const struct ipv4 *ip, const struct offload *offload)
{
    size_t start = offload->csum_start;
    uint16_t checksum = (uint16_t)~sum_fold(sum_bytes(packet + start, ip->total_length - start, 0));
    if (checksum == 0 && ip->protocol == PROTOCOL_UDP)
        checksum = 0xffff; /* 0 says that there is no checksum (RFC 768) */
    sum_store(packet + start + offload->csum_offset, checksum);
}

size_t outgoing_packet(struct outgoing *outgoing, const struct outgoing_edge *edge, const uint8_t *vnet,
                       uint8_t *packet, size_t length)
{
    struct ipv4 ip;
    struct offload offload;
    const struct entry *entry = NULL;
    enum counter verdict = judge_outgoing(packet, length, &ip);
    if (verdict == PASS)
        verdict = judge_offload(vnet, packet, &ip, &offload);
    if (verdict == PASS)
        verdict = judge_departure(outgoing, ip.destination, &entry);
    if (verdict != PASS) {
        count(&outgoing->counters, verdict, 1);
        if (verdict == DROP_NO_ROUTE)
            tell_sender(outgoing, edge, packet, &ip, NET_UNREACHABLE, 0);
        return 0;
    }
    if (offload.type != VNET_GSO_NONE) {
        send_segments(outgoing, edge, entry, packet, &ip, &offload);
        return ip.total_length;
    }
    if (offload.needs_csum)
        finish_checksum(packet, &ip, &offload);
    make_room(outgoing, edge, entry, ip.total_length);
    board(outgoing, edge, entry, packet, 0, packet, ip.total_length);
    return ip.total_length;
}
