/* The type Loop: its directions run without the GIL. */
#include "binding.h"

#include <errno.h>

#include "loop.h"

typedef struct {
    PyObject_HEAD
    PyObject *engine; /* an EngineObject, NULL until `loop` is whole */
    struct loop loop;
} LoopObject;

static PyObject *loop_py_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"engine", "tun_fd", "udp_fd", "stop_fd", NULL};
    PyObject *engine;
    int tun_fd, udp_fd, stop_fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!iii:Loop", names, engine_type, &engine, &tun_fd, &udp_fd,
                                     &stop_fd))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    LoopObject *self = (LoopObject *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    int error = loop_init(&self->loop, ((EngineObject *)engine)->engine, tun_fd, udp_fd, stop_fd);
    if (error != 0) {
        Py_DECREF(self);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_INCREF(engine);
    self->engine = engine;
    return (PyObject *)self;
}

static void loop_py_dealloc(PyObject *self)
{
    LoopObject *loop = (LoopObject *)self;
    if (loop->engine != NULL)
        loop_destroy(&loop->loop);
    Py_XDECREF(loop->engine);
    free_object(self);
}

static PyObject *stopped_or_error(int error)
{
    if (error == 0)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *loop_py_run_tx(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = loop_run_tx(&((LoopObject *)self)->loop);
    Py_END_ALLOW_THREADS
    return stopped_or_error(error);
}

static PyObject *loop_py_run_rx(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = loop_run_rx(&((LoopObject *)self)->loop);
    Py_END_ALLOW_THREADS
    return stopped_or_error(error);
}

static PyObject *loop_py_replace(PyObject *self, PyObject *table)
{
    char *packed, problem[TABLE_PROBLEM];
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(table, &packed, &length) != 0)
        return NULL;
    struct loop *loop = &((LoopObject *)self)->loop;
    return replaced_or_error(loop_replace(loop, (const uint8_t *)packed, (size_t)length, problem), problem);
}

static PyObject *loop_py_counters(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return counters_of(((LoopObject *)self)->loop.engine);
}

static PyMethodDef loop_methods[] = {
    {"run_tx", loop_py_run_tx, METH_NOARGS, "From the TUN to the peers, until it is time to stop; OSError."},
    {"run_rx", loop_py_run_rx, METH_NOARGS, "From the peers to the TUN, until it is time to stop; OSError."},
    {"replace", loop_py_replace, METH_O, "replace(packed_table: bytes) -> None"},
    {"counters", loop_py_counters, METH_NOARGS, "counters() -> dict[str, int]"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "Loop(engine, tun_fd, udp_fd, stop_fd), as overlayd_backends.udp.python_loop.PythonLoop."},
    {Py_tp_new, loop_py_new},
    {Py_tp_dealloc, loop_py_dealloc},
    {Py_tp_methods, loop_methods},
    {0, NULL},
};

PyType_Spec loop_spec = {
    .name = "overlayd_backends.udp._datapath.Loop",
    .basicsize = sizeof(LoopObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = loop_slots,
};
