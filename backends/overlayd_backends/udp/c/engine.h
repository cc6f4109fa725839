/* Both directions of one datapath.
 *
 * They share nothing that either writes.  Each is run by one thread at a time, which claims it first; a table goes
 * to both by way of their mailboxes, from any thread.
 */
#ifndef OVERLAYD_ENGINE_H
#define OVERLAYD_ENGINE_H

#include "incoming.h"
#include "outgoing.h"

struct engine {
    struct outgoing outgoing;
    struct incoming incoming;
    atomic_flag outgoing_claimed, incoming_claimed;
};

/* NULL when there is no memory. */
struct engine *engine_new(bool tun_offload, bool udp_segment, bool coalesce_tcp, bool coalesce_udp);
void engine_free(struct engine *engine);

/* False if the table is malformed, and then the old one stays; `problem` as in table_new. */
bool engine_replace(struct engine *engine, const uint8_t *packed, size_t length, char problem[TABLE_PROBLEM]);

/* Let each direction that nobody runs take up its table at once. */
void engine_settle(struct engine *engine);

static inline bool claim(atomic_flag *claimed)
{
    return !atomic_flag_test_and_set_explicit(claimed, memory_order_acquire);
}

static inline void release(atomic_flag *claimed)
{
    atomic_flag_clear_explicit(claimed, memory_order_release);
}

static inline uint64_t engine_counted(const struct engine *engine, enum counter which)
{
    return counted(&engine->outgoing.counters, which) + counted(&engine->incoming.counters, which);
}

#endif
