/* What the files of the binding share: the Python module overlayd_backends.udp._datapath, with its types Engine and
 * Loop.
 *
 * They convert, hold references and release the GIL; every rule is elsewhere.  Only the limited API of Python 3.11
 * is used, so that one build serves every later version.
 */
#ifndef OVERLAYD_BINDING_H
#define OVERLAYD_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

typedef struct {
    PyObject_HEAD
    struct engine *engine;
} EngineObject;

extern PyTypeObject *engine_type;
extern PyType_Spec engine_spec, loop_spec;

/* The end of a tp_dealloc. */
void free_object(PyObject *self);

/* None, or NULL with an exception that says what table_new found. */
PyObject *replaced_or_error(bool replaced, const char *problem);

PyObject *counters_of(const struct engine *engine);

#endif
