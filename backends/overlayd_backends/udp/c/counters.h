/* What passed and what did not, as docs/datapath.md names it.
 *
 * Each direction has a set of its own, on cache lines of its own, that its thread alone writes; whoever asks adds
 * the sets.  So counting is a plain addition, and a reader sees every counter whole, if not all at one instant.
 */
#ifndef OVERLAYD_COUNTERS_H
#define OVERLAYD_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

enum counter {
    TX_PACKETS,
    TX_BYTES,
    TX_SUPERPACKETS,
    TX_SENDS,
    TX_TRAINS,
    RX_PACKETS,
    RX_BYTES,
    RX_TRAINS,
    RX_WRITES,
    RX_SUPERPACKETS,
    ICMP_SENT,
    ICMP_SUPPRESSED,
    TABLES,
    SEND_FAILED,
    WRITE_FAILED,
    DROP_TRUNCATED,
    DROP_IPV6,
    DROP_BAD_HEADER,
    DROP_BAD_OFFLOAD,
    DROP_OWN_DESTINATION,
    DROP_NO_ROUTE,
    DROP_TOO_BIG,
    DROP_UNKNOWN_SENDER,
    DROP_BAD_SOURCE,
    DROP_NOT_OURS,
    COUNTERS,
};

extern const char *const counter_names[COUNTERS];

struct counters {
    _Alignas(64) _Atomic uint64_t values[COUNTERS];
};

static inline void count(struct counters *counters, enum counter which, uint64_t amount)
{
    _Atomic uint64_t *value = &counters->values[which];
    uint64_t before = atomic_load_explicit(value, memory_order_relaxed);
    atomic_store_explicit(value, before + amount, memory_order_relaxed);
}

static inline uint64_t counted(const struct counters *counters, enum counter which)
{
    return atomic_load_explicit(&counters->values[which], memory_order_relaxed);
}

#endif
