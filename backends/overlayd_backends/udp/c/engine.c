/* See engine.h. */
#include "engine.h"

#include <stdlib.h>

struct engine *engine_new(bool tun_offload, bool udp_segment, bool coalesce_tcp, bool coalesce_udp)
{
    struct engine *engine = aligned_alloc(_Alignof(struct engine), sizeof *engine);
    if (engine == NULL)
        return NULL;
    outgoing_init(&engine->outgoing, tun_offload, udp_segment);
    incoming_init(&engine->incoming, tun_offload, coalesce_tcp, coalesce_udp);
    release(&engine->outgoing_claimed);
    release(&engine->incoming_claimed);
    return engine;
}

void engine_free(struct engine *engine)
{
    if (engine == NULL)
        return;
    outgoing_destroy(&engine->outgoing);
    incoming_destroy(&engine->incoming);
    free(engine);
}

bool engine_replace(struct engine *engine, const uint8_t *packed, size_t length, char problem[TABLE_PROBLEM])
{
    struct table *out = table_new(packed, length, problem);
    struct table *in = out != NULL ? table_new(packed, length, problem) : NULL;
    if (in == NULL) {
        table_free(out);
        return false;
    }
    mailbox_post(&engine->outgoing.mailbox, out);
    mailbox_post(&engine->incoming.mailbox, in);
    return true;
}

void engine_settle(struct engine *engine)
{
    if (claim(&engine->outgoing_claimed)) {
        outgoing_take_up(&engine->outgoing);
        release(&engine->outgoing_claimed);
    }
    if (claim(&engine->incoming_claimed)) {
        incoming_take_up(&engine->incoming);
        release(&engine->incoming_claimed);
    }
}
