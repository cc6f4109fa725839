/* See exercise.h. */
#include "exercise.h"

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "segment.h"

_Noreturn void exercise_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    abort();
}

static uint8_t *copy_of(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length);
    REQUIRE(copy != NULL || length == 0);
    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

void exercise_init(struct exercise *exercise, unsigned options)
{
    *exercise = (struct exercise){.written = true};
    exercise->engine = engine_new(options & 1, options & 2, options & 4, options & 8);
    REQUIRE(exercise->engine != NULL);
}

void exercise_destroy(struct exercise *exercise)
{
    exercise_flush(exercise);
    engine_free(exercise->engine);
    table_free(exercise->table);
}

void exercise_table(struct exercise *exercise, const uint8_t *packed, size_t length)
{
    char problem[TABLE_PROBLEM];
    exercise_flush(exercise);
    uint8_t *copy = copy_of(packed, length);
    struct table *table = table_new(copy, length, problem);
    bool replaced = engine_replace(exercise->engine, copy, length, problem);
    free(copy);
    REQUIRE(replaced == (table != NULL));
    REQUIRE(replaced || problem[0] != '\0');
    if (!replaced)
        return;
    engine_settle(exercise->engine);
    table_free(exercise->table);
    exercise->table = table;
}

/* As table_find and table_is_own, but slow and obviously right. */
static const struct entry *find_entry(const struct table *table, uint32_t address)
{
    const struct entry *found = NULL;
    for (uint32_t i = 0; table != NULL && i < table->entry_count; i++) {
        const struct entry *entry = &table->entries[i];
        if (entry->first <= address && address <= entry->last) {
            REQUIRE(found == NULL);
            found = entry;
        }
    }
    return found;
}

static bool is_own(const struct table *table, uint32_t address)
{
    for (uint32_t i = 0; table != NULL && i < table->own_count; i++)
        if (table->own[i].first <= address && address <= table->own[i].last)
            return true;
    return false;
}

/* A packet that leaves goes to the one who has its destination, whole and no longer than it says. */
static void check_departure(const struct exercise *exercise, const struct send *send, const uint8_t *packet,
                            size_t length)
{
    struct ipv4 ip;
    REQUIRE(judge_outgoing(packet, length, &ip) == PASS);
    REQUIRE(ip.total_length == length);
    REQUIRE(!is_own(exercise->table, ip.destination));
    const struct entry *entry = find_entry(exercise->table, ip.destination);
    REQUIRE(entry != NULL && entry->peer == send->peer && entry->port == send->port);
}

static void check_send(const struct exercise *exercise, const struct send *send)
{
    uint8_t *packet = malloc(IPV4_MAX_PACKET);
    size_t total = 0;
    REQUIRE(packet != NULL);
    REQUIRE(send->packets >= 1 && (send->packets == 1) == (send->segment_size == 0));
    REQUIRE(send->packets <= TRAIN_SEGMENTS && (send->packets == 1 || send->bytes <= TRAIN_BYTES));
    for (unsigned i = 0; i < send->packets; i++) {
        size_t length = send_copy(send, i, packet);
        REQUIRE(send->packets == 1 || length == send->segment_size ||
                (i == send->packets - 1 && length < send->segment_size));
        check_departure(exercise, send, packet, length);
        total += length;
    }
    REQUIRE(total == send->bytes);
    free(packet);
}

static enum sent edge_send(void *context, const struct send *send)
{
    struct exercise *exercise = context;
    check_send(exercise, send);
    return exercise->sent;
}

static enum sent edge_send_fragmented(void *context, const struct send *send)
{
    struct exercise *exercise = context;
    REQUIRE(send->packets == 1);
    check_send(exercise, send);
    return exercise->sent_fragmented;
}

static unsigned edge_path_mtu(void *context, uint32_t peer, uint16_t port)
{
    (void)peer, (void)port;
    return ((struct exercise *)context)->mtu;
}

static double edge_now(void *context)
{
    return ((struct exercise *)context)->now;
}

static bool edge_write_message(void *context, const uint8_t *frame, size_t length)
{
    const struct exercise *exercise = context;
    size_t header = exercise->engine->outgoing.tun_offload ? VNET_HEADER : 0;
    struct ipv4 ip;
    REQUIRE(length > header && judge_incoming(frame + header, length - header, &ip) == PASS);
    const uint8_t *icmp = frame + header + ip.header_length;
    size_t icmp_length = (size_t)(ip.total_length - ip.header_length);
    REQUIRE(ip.protocol == PROTOCOL_ICMP && ip.total_length == length - header);
    REQUIRE(icmp_length >= ICMP_HEADER && sum_fold(sum_bytes(icmp, icmp_length, 0)) == 0xffff);
    return exercise->written;
}

static uint8_t *keep(struct batch *batch, const uint8_t *bytes, size_t length)
{
    uint8_t *copy = copy_of(bytes, length);
    batch->kept[batch->count++] = (struct kept){.bytes = copy, .length = length};
    return copy;
}

static void forget(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        free(batch->kept[i].bytes);
    batch->count = 0;
}

static struct outgoing_edge outgoing_edge(struct exercise *exercise)
{
    return (struct outgoing_edge){
        .send = edge_send,
        .send_fragmented = edge_send_fragmented,
        .path_mtu = edge_path_mtu,
        .write = edge_write_message,
        .now = edge_now,
        .context = exercise,
    };
}

void exercise_frame(struct exercise *exercise, const uint8_t *frame, size_t length)
{
    size_t header = exercise->engine->outgoing.tun_offload ? VNET_HEADER : 0;
    if (length < header)
        return;
    if (exercise->departures.count == BATCH_MOST)
        exercise_flush(exercise);
    const struct outgoing_edge edge = outgoing_edge(exercise);
    uint8_t vnet[VNET_HEADER];
    memcpy(vnet, frame, header);
    uint8_t *packet = keep(&exercise->departures, frame + header, length - header);
    size_t kept = outgoing_packet(&exercise->engine->outgoing, &edge, header != 0 ? vnet : NULL, packet,
                                  length - header);
    REQUIRE(kept <= length - header);
}

/* Whether a packet that came out is this one that came in, whose bytes beyond its length don't count, and whose id
 * means nothing where it may not be fragmented. */
static bool is_same(const struct kept *in, const uint8_t *packet, size_t length)
{
    if (in->length < length || in->length < IPV4_MIN_HEADER)
        return false;
    const uint8_t *bytes = in->bytes;
    if (!(load_be16(packet + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT))
        return memcmp(bytes, packet, length) == 0;
    return memcmp(bytes, packet, IPV4_ID) == 0 && memcmp(bytes + 6, packet + 6, 4) == 0 &&
           memcmp(bytes + 12, packet + 12, length - 12) == 0;
}

/* What comes out came in, in this order. */
static void check_arrival(struct exercise *exercise, const uint8_t *packet, size_t length)
{
    const struct batch *arrivals = &exercise->arrivals;
    while (exercise->matched < arrivals->count && !is_same(&arrivals->kept[exercise->matched], packet, length))
        exercise->matched++;
    REQUIRE(exercise->matched < arrivals->count);
    exercise->matched++;
}

static bool edge_write(void *context, const struct iovec *pieces, size_t count)
{
    struct exercise *exercise = context;
    struct incoming *incoming = &exercise->engine->incoming;
    size_t length = 0, header = incoming->tun_offload ? VNET_HEADER : 0;
    for (size_t i = 0; i < count; i++)
        length += pieces[i].iov_len;
    uint8_t *frame = malloc(length), *end = frame;
    REQUIRE(frame != NULL && length >= header);
    for (size_t i = 0; i < count; end += pieces[i].iov_len, i++)
        memcpy(end, pieces[i].iov_base, pieces[i].iov_len);

    const uint8_t *packet = frame + header;
    struct ipv4 ip;
    struct offload offload;
    REQUIRE(judge_incoming(packet, length - header, &ip) == PASS && ip.total_length == length - header);
    REQUIRE(is_own(exercise->table, ip.destination) && find_entry(exercise->table, ip.source) != NULL);
    REQUIRE(judge_offload(header != 0 ? frame : NULL, packet, &ip, &offload) == PASS);
    if (offload.type == VNET_GSO_NONE) {
        check_arrival(exercise, packet, ip.total_length);
    } else {
        /* The kernel will cut it as we do: that gives the very packets. */
        struct cutter cutter;
        uint8_t *segment = malloc(IPV4_MAX_PACKET);
        size_t segment_length;
        REQUIRE(segment != NULL);
        REQUIRE(offload.type == VNET_GSO_TCPV4 ? incoming->coalesce_tcp : incoming->coalesce_udp);
        cutter_init(&cutter, packet, &ip, &offload);
        while ((segment_length = cutter_next_length(&cutter)) != 0) {
            const uint8_t *payload = cutter_take(&cutter, segment);
            memcpy(segment + cutter.headers, payload, segment_length - cutter.headers);
            check_arrival(exercise, segment, segment_length);
        }
        free(segment);
    }
    free(frame);
    return exercise->written;
}

void exercise_datagram(struct exercise *exercise, uint32_t sender, size_t segment_size, const uint8_t *payload,
                       size_t length)
{
    const struct incoming_edge edge = {.write = edge_write, .context = exercise};
    size_t packets = segment_size == 0 ? 1 : length / segment_size + 1;
    if (packets >= BATCH_MOST)
        return;
    if (exercise->arrivals.count + packets >= BATCH_MOST)
        exercise_flush(exercise);
    /* The first in the batch is what the engine refers to, the others are what it may make of it. */
    const uint8_t *whole = keep(&exercise->arrivals, payload, length);
    if (segment_size != 0 && segment_size < length)
        for (size_t i = 0; i < length; i += segment_size)
            keep(&exercise->arrivals, payload + i, length - i < segment_size ? length - i : segment_size);
    incoming_datagram(&exercise->engine->incoming, &edge, sender, segment_size, whole, length);
}

void exercise_flush(struct exercise *exercise)
{
    const struct outgoing_edge out = outgoing_edge(exercise);
    const struct incoming_edge in = {.write = edge_write, .context = exercise};
    outgoing_flush(&exercise->engine->outgoing, &out);
    incoming_flush(&exercise->engine->incoming, &in);
    forget(&exercise->departures);
    forget(&exercise->arrivals);
    exercise->matched = 0;
}
