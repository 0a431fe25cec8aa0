/* What the Python faces share: functions of the one module, in module.c or in a file named after what they face. */
#ifndef EDGESTORE_MODULE_H
#define EDGESTORE_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Takes `count` sizes; -1 with an error set where one is none. */
int size_arguments(PyObject *const *args, Py_ssize_t count, Py_ssize_t *values);

/* sync_module.c; the table of methods in module.c says what each takes. */
PyObject *py_sync_start(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *py_sync_write(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *py_sync_result(PyObject *self, PyObject *const *args, Py_ssize_t count);
PyObject *py_sync_stop(PyObject *self, PyObject *const *args, Py_ssize_t count);

#endif
