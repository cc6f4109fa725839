/* See binding.h. */
#include "binding.h"

PyTypeObject *engine_type;

void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release_memory = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release_memory(self);
    Py_DECREF(type);
}

PyObject *replaced_or_error(bool replaced, const char *problem)
{
    if (replaced)
        Py_RETURN_NONE;
    if (problem[0] == '\0')
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, problem);
    return NULL;
}

PyObject *counters_of(const struct engine *engine)
{
    PyObject *counters = PyDict_New();
    for (enum counter which = 0; counters != NULL && which < COUNTERS; which++) {
        PyObject *value = PyLong_FromUnsignedLongLong(engine_counted(engine, which));
        if (value == NULL || PyDict_SetItemString(counters, counter_names[which], value) != 0)
            Py_CLEAR(counters);
        Py_XDECREF(value);
    }
    return counters;
}

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "overlayd_backends.udp._datapath",
    .m_doc = "The packet path in C.",
    .m_size = -1,
};

static PyTypeObject *add_type(PyObject *to, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(spec);
    if (type != NULL && PyModule_AddType(to, type) != 0)
        Py_CLEAR(type);
    return type;
}

PyMODINIT_FUNC PyInit__datapath(void)
{
    PyObject *created = PyModule_Create(&module);
    if (created == NULL)
        return NULL;
    engine_type = add_type(created, &engine_spec);
    PyTypeObject *loop_type = engine_type != NULL ? add_type(created, &loop_spec) : NULL;
    if (loop_type == NULL)
        Py_CLEAR(created);
    Py_XDECREF((PyObject *)loop_type);
    return created;
}
