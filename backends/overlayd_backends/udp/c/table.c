/* See table.h. */
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKED_COUNTS 8 /* "=II" */
#define PACKED_OWN 8    /* "=II" */
#define PACKED_ENTRY 16 /* "=IIIHxx" */

static uint32_t native32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint16_t native16(const uint8_t *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

#define DOTTED "%u.%u.%u.%u"
#define DOTS(address) (address) >> 24, (address) >> 16 & 255, (address) >> 8 & 255, (address) & 255

static bool in_order(const char *what, uint32_t first, uint32_t last, const uint32_t *before, char *problem)
{
    if (first > last) {
        snprintf(problem, TABLE_PROBLEM, "%s: " DOTTED "-" DOTTED " ends before it begins", what, DOTS(first),
                 DOTS(last));
        return false;
    }
    if (before != NULL && *before >= first) {
        snprintf(problem, TABLE_PROBLEM, "%s: " DOTTED "-" DOTTED " overlaps or should stand before another", what,
                 DOTS(first), DOTS(last));
        return false;
    }
    return true;
}

static bool well_ordered(const struct table *table, char *problem)
{
    for (uint32_t i = 0; i < table->own_count; i++) {
        const struct own_range *row = &table->own[i];
        if (!in_order("own prefixes", row->first, row->last, i ? &row[-1].last : NULL, problem))
            return false;
    }
    for (uint32_t i = 0; i < table->entry_count; i++) {
        const struct entry *row = &table->entries[i];
        if (!in_order("entries", row->first, row->last, i ? &row[-1].last : NULL, problem))
            return false;
        if (row->port == 0) {
            snprintf(problem, TABLE_PROBLEM, "an entry has UDP port 0, which nothing can be sent to");
            return false;
        }
    }
    for (uint32_t i = 0, j = 0; i < table->own_count && j < table->entry_count;) {
        const struct own_range *own = &table->own[i];
        const struct entry *entry = &table->entries[j];
        if (own->last < entry->first) {
            i++;
        } else if (entry->last < own->first) {
            j++;
        } else {
            snprintf(problem, TABLE_PROBLEM, "the entry " DOTTED "-" DOTTED " overlaps an own prefix",
                     DOTS(entry->first), DOTS(entry->last));
            return false;
        }
    }
    return true;
}

static int ascending(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void unpack(struct table *table, const uint8_t *packed)
{
    const uint8_t *row = packed + PACKED_COUNTS;
    for (uint32_t i = 0; i < table->own_count; i++, row += PACKED_OWN)
        table->own[i] = (struct own_range){native32(row), native32(row + 4)};
    for (uint32_t i = 0; i < table->entry_count; i++, row += PACKED_ENTRY) {
        table->entries[i] =
            (struct entry){native32(row), native32(row + 4), native32(row + 8), native16(row + 12)};
        table->peers[i] = table->entries[i].peer;
    }
    if (table->entry_count > 0)
        qsort(table->peers, table->entry_count, sizeof *table->peers, ascending);
}

struct table *table_new(const uint8_t *packed, size_t length, char problem[TABLE_PROBLEM])
{
    problem[0] = '\0';
    if (length < PACKED_COUNTS) {
        snprintf(problem, TABLE_PROBLEM, "a packed table has at least %d bytes, this one %zu", PACKED_COUNTS,
                 length);
        return NULL;
    }
    uint32_t own_count = native32(packed), entry_count = native32(packed + 4);
    /* 64 bits hold the greatest size that two 32-bit counts can ask for. */
    uint64_t size = PACKED_COUNTS + (uint64_t)own_count * PACKED_OWN + (uint64_t)entry_count * PACKED_ENTRY;
    if (length != size) {
        snprintf(problem, TABLE_PROBLEM,
                 "a packed table of %u own prefixes and %u entries has %llu bytes, this one %zu", own_count,
                 entry_count, (unsigned long long)size, length);
        return NULL;
    }
    struct table *table = calloc(1, sizeof *table);
    if (table == NULL)
        return NULL;
    table->own_count = own_count;
    table->entry_count = entry_count;
    table->own = calloc(own_count, sizeof *table->own);
    table->entries = calloc(entry_count, sizeof *table->entries);
    table->peers = calloc(entry_count, sizeof *table->peers);
    if ((own_count > 0 && table->own == NULL) ||
        (entry_count > 0 && (table->entries == NULL || table->peers == NULL))) {
        table_free(table);
        return NULL;
    }
    unpack(table, packed);
    if (!well_ordered(table, problem)) {
        table_free(table);
        return NULL;
    }
    return table;
}

void table_free(struct table *table)
{
    if (table == NULL)
        return;
    free(table->own);
    free(table->entries);
    free(table->peers);
    free(table);
}

bool table_is_own(const struct table *table, uint32_t address)
{
    uint32_t low = 0, high = table->own_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->own[middle].last < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < table->own_count && table->own[low].first <= address;
}

const struct entry *table_find(const struct table *table, uint32_t address)
{
    uint32_t low = 0, high = table->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->entries[middle].last < address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == table->entry_count || table->entries[low].first > address)
        return NULL;
    return &table->entries[low];
}

bool table_knows_peer(const struct table *table, uint32_t peer)
{
    return table->entry_count > 0 &&
           bsearch(&peer, table->peers, table->entry_count, sizeof *table->peers, ascending) != NULL;
}

void mailbox_post(struct mailbox *mailbox, struct table *table)
{
    table_free(atomic_exchange_explicit(&mailbox->next, table, memory_order_acq_rel));
}
