/* The forwarding table, unpacked for one thread: which addresses are own, and which peer each other belongs to.
 *
 * All ranges are disjoint, so an address has one place or none.  The packed form, and what makes it malformed, are
 * described in table.py.  Addresses are integers in the machine's byte order.
 */
#ifndef OVERLAYD_TABLE_H
#define OVERLAYD_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct own_range {
    uint32_t first, last;
};

struct entry {
    uint32_t first, last; /* the addresses of a prefix */
    uint32_t peer;        /* whose they are */
    uint16_t port;        /* and the UDP port to send to */
};

struct table {
    uint32_t own_count, entry_count;
    struct own_range *own;  /* ascending */
    struct entry *entries;  /* ascending */
    uint32_t *peers;        /* ascending, each of the entries' peers, perhaps repeated */
};

#define TABLE_PROBLEM 160

/* NULL for a malformed table (`problem` says what is wrong) and when there is no memory (`problem` is ""). */
struct table *table_new(const uint8_t *packed, size_t length, char problem[TABLE_PROBLEM]);
void table_free(struct table *table);

bool table_is_own(const struct table *table, uint32_t address);
const struct entry *table_find(const struct table *table, uint32_t address);
bool table_knows_peer(const struct table *table, uint32_t peer);

/* Where the next table waits for its thread.  Posting never waits, a table that was not fetched yet is replaced,
 * and each side frees what it takes out. */
struct mailbox {
    _Alignas(64) _Atomic(struct table *) next;
};

void mailbox_post(struct mailbox *mailbox, struct table *table);

/* The posted table, now the caller's; NULL for none. */
static inline struct table *mailbox_fetch(struct mailbox *mailbox)
{
    if (atomic_load_explicit(&mailbox->next, memory_order_relaxed) == NULL)
        return NULL;
    return atomic_exchange_explicit(&mailbox->next, NULL, memory_order_acq_rel);
}

#endif
