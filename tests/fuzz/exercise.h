/* One engine under test: frames, datagrams and tables go in, and what comes out is held to what must never break.
 *
 * A violated rule aborts, as a sanitizer's finding does.  Every buffer is allocated at its exact length, so that a
 * byte too far is found.
 */
#ifndef OVERLAYD_EXERCISE_H
#define OVERLAYD_EXERCISE_H

#include "engine.h"

#define REQUIRE(condition) \
    do { \
        if (!(condition)) \
            exercise_fail(__FILE__, __LINE__, #condition); \
    } while (0)

_Noreturn void exercise_fail(const char *file, int line, const char *condition);

struct kept {
    uint8_t *bytes;
    size_t length;
};

#define BATCH_MOST 256

/* Buffers that stay until the flush. */
struct batch {
    struct kept kept[BATCH_MOST];
    size_t count;
};

struct exercise {
    struct engine *engine;
    struct table *table; /* a copy of the engine's */
    /* What the kernel is to say, chosen by whoever exercises. */
    enum sent sent, sent_fragmented;
    unsigned mtu;
    bool written;
    double now;
    struct batch departures, arrivals;
    size_t matched; /* how many of the packets that came in have come out, or never will */
};

void exercise_init(struct exercise *exercise, unsigned options);
void exercise_destroy(struct exercise *exercise);

/* Each takes a copy. */
void exercise_table(struct exercise *exercise, const uint8_t *packed, size_t length);
void exercise_frame(struct exercise *exercise, const uint8_t *frame, size_t length);
void exercise_datagram(struct exercise *exercise, uint32_t sender, size_t segment_size, const uint8_t *payload,
                       size_t length);

/* The end of a batch in both directions. */
void exercise_flush(struct exercise *exercise);

#endif
