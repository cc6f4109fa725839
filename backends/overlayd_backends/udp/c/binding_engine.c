/* The type Engine: one call is one batch, and what the edges are given becomes lists. */
#include "binding.h"

#include <stdlib.h>

/* What an edge of this file collects.  Once something failed, an exception is set and the rest is dropped. */
struct harvest {
    PyObject *sends, *frames;
    double now;
    bool failed;
};

static bool append(struct harvest *harvest, PyObject *list, PyObject *item)
{
    if (item == NULL || harvest->failed || PyList_Append(list, item) != 0)
        harvest->failed = true;
    Py_XDECREF(item);
    return !harvest->failed;
}

static PyObject *joined(const struct iovec *pieces, size_t count)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += pieces[i].iov_len;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    char *end = bytes != NULL ? PyBytes_AsString(bytes) : NULL;
    for (size_t i = 0; end != NULL && i < count; end += pieces[i].iov_len, i++)
        memcpy(end, pieces[i].iov_base, pieces[i].iov_len);
    return bytes;
}

static enum sent harvest_send(void *context, const struct send *send)
{
    struct harvest *harvest = context;
    uint8_t peer[4];
    store_be32(peer, send->peer);
    PyObject *payload = joined(send->pieces, send->piece_count);
    PyObject *item = payload == NULL ? NULL
                                     : Py_BuildValue("(y#iiN)", (const char *)peer, (Py_ssize_t)4, (int)send->port,
                                                     (int)send->segment_size, payload);
    append(harvest, harvest->sends, item);
    return SENT;
}

static bool harvest_message(void *context, const uint8_t *frame, size_t length)
{
    struct harvest *harvest = context;
    return append(harvest, harvest->frames, PyBytes_FromStringAndSize((const char *)frame, (Py_ssize_t)length));
}

static bool harvest_frame(void *context, const struct iovec *pieces, size_t count)
{
    struct harvest *harvest = context;
    return append(harvest, harvest->frames, joined(pieces, count));
}

static unsigned no_path_mtu(void *context, uint32_t peer, uint16_t port)
{
    (void)context, (void)peer, (void)port;
    return 0;
}

static double harvest_now(void *context)
{
    return ((struct harvest *)context)->now;
}

static struct outgoing_edge outgoing_harvest(struct harvest *harvest)
{
    return (struct outgoing_edge){
        .send = harvest_send,
        .send_fragmented = harvest_send,
        .path_mtu = no_path_mtu,
        .write = harvest_message,
        .now = harvest_now,
        .context = harvest,
    };
}

static bool harvest_begin(struct harvest *harvest, double now)
{
    *harvest = (struct harvest){.sends = PyList_New(0), .frames = PyList_New(0), .now = now};
    harvest->failed = harvest->sends == NULL || harvest->frames == NULL;
    return !harvest->failed;
}

/* The pair of sends and frames, or NULL with an exception set. */
static PyObject *harvest_end(struct harvest *harvest)
{
    if (!harvest->failed)
        return Py_BuildValue("(NN)", harvest->sends, harvest->frames);
    Py_XDECREF(harvest->sends);
    Py_XDECREF(harvest->frames);
    return NULL;
}

static bool claim_or_raise(atomic_flag *flag)
{
    if (claim(flag))
        return true;
    PyErr_SetString(PyExc_RuntimeError, "another thread runs this direction of the engine");
    return false;
}

static PyObject *engine_py_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tun_offload", "udp_segment", "coalesce_tcp", "coalesce_udp", NULL};
    int tun_offload, udp_segment, coalesce_tcp, coalesce_udp;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "pppp:Engine", names, &tun_offload, &udp_segment, &coalesce_tcp,
                                     &coalesce_udp))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    EngineObject *self = (EngineObject *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->engine = engine_new(tun_offload, udp_segment, coalesce_tcp, coalesce_udp);
    if (self->engine == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void engine_py_dealloc(PyObject *self)
{
    engine_free(((EngineObject *)self)->engine);
    free_object(self);
}

static PyObject *engine_py_replace(PyObject *self, PyObject *table)
{
    struct engine *engine = ((EngineObject *)self)->engine;
    char *packed, problem[TABLE_PROBLEM];
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(table, &packed, &length) != 0)
        return NULL;
    bool replaced = engine_replace(engine, (const uint8_t *)packed, (size_t)length, problem);
    if (replaced)
        engine_settle(engine);
    return replaced_or_error(replaced, problem);
}

/* The frames one behind the other in writable memory, as the loop reads them; the caller frees both. */
struct frames {
    size_t count;
    size_t *lengths;
    uint8_t *bytes;
};

static bool copy_frames(struct frames *frames, PyObject *list)
{
    char *bytes;
    Py_ssize_t length;
    size_t total = 0;
    frames->count = (size_t)PyList_Size(list);
    frames->lengths = malloc((frames->count + 1) * sizeof *frames->lengths);
    for (size_t i = 0; frames->lengths != NULL && i < frames->count; i++) {
        if (PyBytes_AsStringAndSize(PyList_GetItem(list, (Py_ssize_t)i), &bytes, &length) != 0)
            return false;
        frames->lengths[i] = (size_t)length;
        total += (size_t)length;
    }
    uint8_t *end = frames->bytes = malloc(total + 1);
    if (frames->lengths == NULL || frames->bytes == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < frames->count; end += frames->lengths[i], i++) {
        PyBytes_AsStringAndSize(PyList_GetItem(list, (Py_ssize_t)i), &bytes, &length);
        memcpy(end, bytes, frames->lengths[i]);
    }
    return true;
}

static PyObject *run_outgoing(struct outgoing *outgoing, const struct frames *frames, double now)
{
    struct harvest harvest;
    if (!harvest_begin(&harvest, now))
        return harvest_end(&harvest);
    const struct outgoing_edge edge = outgoing_harvest(&harvest);
    uint8_t *frame = frames->bytes;
    for (size_t i = 0; i < frames->count; frame += frames->lengths[i], i++) {
        size_t header = outgoing->tun_offload ? VNET_HEADER : 0, length = frames->lengths[i];
        header = length < header ? length : header;
        outgoing_packet(outgoing, &edge, outgoing->tun_offload ? frame : NULL, frame + header, length - header);
    }
    outgoing_flush(outgoing, &edge);
    return harvest_end(&harvest);
}

static PyObject *engine_py_outgoing(PyObject *self, PyObject *args)
{
    struct engine *engine = ((EngineObject *)self)->engine;
    PyObject *given, *list, *result = NULL;
    struct frames frames = {0};
    double now;
    if (!PyArg_ParseTuple(args, "Od:outgoing", &given, &now) || (list = PySequence_List(given)) == NULL)
        return NULL;
    if (copy_frames(&frames, list) && claim_or_raise(&engine->outgoing_claimed)) {
        result = run_outgoing(&engine->outgoing, &frames, now);
        release(&engine->outgoing_claimed);
    }
    free(frames.bytes);
    free(frames.lengths);
    Py_DECREF(list);
    return result;
}

static PyObject *engine_py_refused(PyObject *self, PyObject *args)
{
    struct engine *engine = ((EngineObject *)self)->engine;
    const char *peer, *payload;
    Py_ssize_t peer_length, length;
    int port, segment_size, mtu;
    double now;
    if (!PyArg_ParseTuple(args, "y#iiy#id:refused", &peer, &peer_length, &port, &segment_size, &payload, &length,
                          &mtu, &now))
        return NULL;
    if (peer_length != 4)
        return PyErr_Format(PyExc_ValueError, "a peer's address has 4 bytes, this one %zd", peer_length);
    if (port < 0 || port > UINT16_MAX || segment_size < 0 || segment_size > UINT16_MAX || mtu < 0)
        return PyErr_Format(PyExc_ValueError, "port %d, segment size %d, MTU %d: one is out of range", port,
                            segment_size, mtu);
    struct iovec piece = {.iov_base = (void *)payload, .iov_len = (size_t)length};
    struct send send = {
        .peer = load_be32((const uint8_t *)peer),
        .port = (uint16_t)port,
        .segment_size = (uint16_t)segment_size,
        .packets = (uint32_t)(segment_size != 0 ? (length + segment_size - 1) / segment_size : 1),
        .bytes = (size_t)length,
        .pieces = &piece,
        .piece_count = 1,
    };
    if (!claim_or_raise(&engine->outgoing_claimed))
        return NULL;
    struct harvest harvest;
    if (harvest_begin(&harvest, now)) {
        const struct outgoing_edge edge = outgoing_harvest(&harvest);
        outgoing_refused(&engine->outgoing, &edge, &send, (unsigned)mtu);
    }
    release(&engine->outgoing_claimed);
    return harvest_end(&harvest);
}

/* The tuples of the sequence, which keep their payloads in place. */
struct datagram {
    const char *source, *payload;
    Py_ssize_t source_length, segment_size, length;
};

static bool read_datagram(struct datagram *datagram, PyObject *item)
{
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a datagram is a tuple of source, segment size and payload");
        return false;
    }
    if (!PyArg_ParseTuple(item, "y#ny#:incoming", &datagram->source, &datagram->source_length,
                          &datagram->segment_size, &datagram->payload, &datagram->length))
        return false;
    if (datagram->source_length != 4) {
        PyErr_Format(PyExc_ValueError, "a source has 4 bytes, this one %zd", datagram->source_length);
        return false;
    }
    return true;
}

static struct datagram *read_datagrams(PyObject *list)
{
    Py_ssize_t datagram_count = PyList_Size(list);
    struct datagram *datagrams = calloc((size_t)datagram_count + 1, sizeof *datagrams);
    if (datagrams == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; datagrams != NULL && i < datagram_count; i++) {
        if (!read_datagram(&datagrams[i], PyList_GetItem(list, i))) {
            free(datagrams);
            return NULL;
        }
    }
    return datagrams;
}

static PyObject *run_incoming(struct incoming *incoming, const struct datagram *datagrams,
                              Py_ssize_t datagram_count)
{
    struct harvest harvest = {.frames = PyList_New(0)};
    if (harvest.frames == NULL)
        return NULL;
    const struct incoming_edge edge = {.write = harvest_frame, .context = &harvest};
    for (Py_ssize_t i = 0; i < datagram_count; i++) {
        const struct datagram *one = &datagrams[i];
        incoming_datagram(incoming, &edge, load_be32((const uint8_t *)one->source),
                          one->segment_size > 0 ? (size_t)one->segment_size : 0, (const uint8_t *)one->payload,
                          (size_t)one->length);
    }
    incoming_flush(incoming, &edge);
    if (harvest.failed)
        Py_CLEAR(harvest.frames);
    return harvest.frames;
}

static PyObject *engine_py_incoming(PyObject *self, PyObject *given)
{
    struct engine *engine = ((EngineObject *)self)->engine;
    PyObject *result = NULL, *list = PySequence_List(given);
    if (list == NULL)
        return NULL;
    struct datagram *datagrams = read_datagrams(list);
    if (datagrams != NULL && claim_or_raise(&engine->incoming_claimed)) {
        result = run_incoming(&engine->incoming, datagrams, PyList_Size(list));
        release(&engine->incoming_claimed);
    }
    free(datagrams);
    Py_DECREF(list);
    return result;
}

static PyObject *engine_py_counters(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return counters_of(((EngineObject *)self)->engine);
}

static PyMethodDef engine_methods[] = {
    {"replace", engine_py_replace, METH_O, "replace(packed_table: bytes) -> None"},
    {"outgoing", engine_py_outgoing, METH_VARARGS, "outgoing(frames, now) -> (sends, frames for the TUN)"},
    {"refused", engine_py_refused, METH_VARARGS,
     "refused(peer, port, segment_size, payload, mtu, now) -> (sends, frames for the TUN)"},
    {"incoming", engine_py_incoming, METH_O, "incoming(datagrams) -> frames for the TUN"},
    {"counters", engine_py_counters, METH_NOARGS, "counters() -> dict[str, int]"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, "The rules of the packet path in C; overlayd_backends.udp.engine.Engine says what it does."},
    {Py_tp_new, engine_py_new},
    {Py_tp_dealloc, engine_py_dealloc},
    {Py_tp_methods, engine_methods},
    {0, NULL},
};

PyType_Spec engine_spec = {
    .name = "overlayd_backends.udp._datapath.Engine",
    .basicsize = sizeof(EngineObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = engine_slots,
};
