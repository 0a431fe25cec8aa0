/* The Python face of the syncer: a capsule holds the thread, and one that was stopped holds none.
 *
 * A handle is used by one thread at a time; its writes leave with a copy, so no buffer of Python's outlives its call. */
#include "module.h"

#include <string.h>

#include "kernels.h"

static const char SYNCER[] = "edgestore.syncer";

/* The handle of one that was stopped holds none. */
static struct syncer *syncer_of(PyObject *handle) {
    void **place = PyCapsule_GetPointer(handle, SYNCER);
    if (place && !*place)
        PyErr_SetString(PyExc_ValueError, "it was stopped");
    return place ? *place : NULL;
}

static void stop_of(PyObject *handle) {
    void **place = PyCapsule_GetPointer(handle, SYNCER);
    struct syncer *syncer = place ? *place : NULL;
    if (!syncer)
        return;
    *place = NULL;
    Py_BEGIN_ALLOW_THREADS
    syncer_stop(syncer);
    Py_END_ALLOW_THREADS
}

static void drop_handle(PyObject *handle) {
    stop_of(handle);
    PyMem_Free(PyCapsule_GetPointer(handle, SYNCER));
}

PyObject *py_sync_start(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t wake_fd;
    (void)self;
    if (count != 1) {
        PyErr_SetString(PyExc_TypeError, "takes a descriptor");
        return NULL;
    }
    if (size_arguments(args, 1, &wake_fd) < 0)
        return NULL;
    void **place = PyMem_Malloc(sizeof *place);
    if (!place)
        return PyErr_NoMemory();
    *place = syncer_start((int)wake_fd);
    PyObject *handle = *place ? PyCapsule_New(place, SYNCER, drop_handle) : NULL;
    if (!handle) {
        if (*place)
            syncer_stop(*place);
        else
            PyErr_SetString(PyExc_RuntimeError, "no thread could be started");
        PyMem_Free(place);
    }
    return handle;
}

PyObject *py_sync_write(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t values[2];
    Py_buffer view;
    (void)self;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "takes a handle, a descriptor, an offset and a buffer");
        return NULL;
    }
    struct syncer *syncer = syncer_of(args[0]);
    if (!syncer || size_arguments(args + 1, 2, values) < 0 || PyObject_GetBuffer(args[3], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    const int error = syncer_hand_over(syncer, (int)values[0], (uint64_t)values[1], view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (error)
        return PyErr_Format(PyExc_RuntimeError, "the write was not taken: %s", strerror(error));
    Py_RETURN_NONE;
}

PyObject *py_sync_result(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    struct syncer *syncer = count == 1 ? syncer_of(args[0]) : NULL;
    if (!syncer) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "takes a handle");
        return NULL;
    }
    return PyLong_FromLong(syncer_result(syncer));
}

PyObject *py_sync_stop(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 1 || !PyCapsule_IsValid(args[0], SYNCER)) {
        PyErr_SetString(PyExc_TypeError, "takes a handle");
        return NULL;
    }
    stop_of(args[0]);
    Py_RETURN_NONE;
}
