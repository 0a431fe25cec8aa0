/* The Python face of the kernels: buffers in, numbers and bytes out. No other file but sync_module.c knows Python.
 *
 * The GIL is held under about 100 microseconds of work and released above: taking it back may cost a switch interval. */
#include "module.h"

#include <string.h>

#include "kernels.h"

/* About 100 microseconds of work at the speed of each kernel, measured with 10+4 (portable: 0.7 GB/s of all shards). */
static const Py_ssize_t RELEASE_BYTES[KERNEL_LEVELS] = {1 << 16, 1 << 18, 1 << 19, 1 << 19, 1 << 20};
static Py_ssize_t release_bytes = 1 << 16;

static PyObject *checksum(enum crc_kind kind, PyObject *const *args, Py_ssize_t count) {
    Py_buffer view;
    unsigned long long value = 0;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "takes a buffer and a running value");
        return NULL;
    }
    if (count == 2) {
        value = PyLong_AsUnsignedLongLong(args[1]);
        if (value == (unsigned long long)-1 && PyErr_Occurred())
            return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (view.len > release_bytes) {
        Py_BEGIN_ALLOW_THREADS
        value = crc_update(kind, value, view.buf, (size_t)view.len);
        Py_END_ALLOW_THREADS
    } else {
        value = crc_update(kind, value, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(value);
}

static PyObject *combined(enum crc_kind kind, PyObject *const *args, Py_ssize_t count) {
    unsigned long long values[3];
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "takes the checksums of a and b and the length of b in bytes");
        return NULL;
    }
    for (int i = 0; i < 3; i++) {
        values[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (values[i] == (unsigned long long)-1 && PyErr_Occurred())
            return NULL;
    }
    return PyLong_FromUnsignedLongLong(crc_combine(kind, values[0], values[1], values[2]));
}

#define CHECKSUM(name, kind)                                                                                          \
    static PyObject *py_##name(PyObject *self, PyObject *const *args, Py_ssize_t count) {                             \
        (void)self;                                                                                                   \
        return checksum(kind, args, count);                                                                           \
    }                                                                                                                 \
    static PyObject *py_##name##_combine(PyObject *self, PyObject *const *args, Py_ssize_t count) {                   \
        (void)self;                                                                                                   \
        return combined(kind, args, count);                                                                           \
    }

CHECKSUM(crc32, CRC_32)
CHECKSUM(crc32c, CRC_32C)
CHECKSUM(crc64nvme, CRC_64NVME)

static void page_checksums(const uint8_t *data, size_t length, size_t page_bytes, uint8_t *out) {
    for (size_t at = 0; at < length; at += page_bytes, out += 4) {
        size_t size = length - at < page_bytes ? length - at : page_bytes;
        uint32_t value = (uint32_t)crc_update(CRC_32C, 0, data + at, size);
        for (int byte = 0; byte < 4; byte++)
            out[byte] = (uint8_t)(value >> (8 * byte));
    }
}

static PyObject *py_page_crcs(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_buffer view;
    Py_ssize_t page_bytes = 65536;
    (void)self;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "takes a buffer and the size of a page in bytes");
        return NULL;
    }
    if (count == 2) {
        page_bytes = PyLong_AsSsize_t(args[1]);
        if (page_bytes == -1 && PyErr_Occurred())
            return NULL;
    }
    if (page_bytes < 1) {
        PyErr_SetString(PyExc_ValueError, "a page has at least one byte");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = PyBytes_FromStringAndSize(NULL, (view.len / page_bytes + (view.len % page_bytes != 0)) * 4);
    if (result) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(result);
        if (view.len > release_bytes) {
            Py_BEGIN_ALLOW_THREADS
            page_checksums(view.buf, (size_t)view.len, (size_t)page_bytes, out);
            Py_END_ALLOW_THREADS
        } else {
            page_checksums(view.buf, (size_t)view.len, (size_t)page_bytes, out);
        }
    }
    PyBuffer_Release(&view);
    return result;
}

/* --- erasure coding ---------------------------------------------------------------------------------- */

int size_arguments(PyObject *const *args, Py_ssize_t count, Py_ssize_t *values) {
    for (Py_ssize_t i = 0; i < count; i++) {
        values[i] = PyLong_AsSsize_t(args[i]);
        if (values[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

/* Checks the shape of a stripe: values are k, m, shard_bytes, stride. */
static int check_stripe(const Py_buffer *view, const Py_ssize_t *values) {
    const Py_ssize_t k = values[0], m = values[1], shard_bytes = values[2], stride = values[3];
    if (k < 1 || m < 0 || k > GF_SHARDS_MAX || m > GF_SHARDS_MAX - k || shard_bytes < 0 || stride < shard_bytes) {
        PyErr_SetString(PyExc_ValueError, "a stripe has 1 <= k, k + m <= 32 shards, and a stride of at least a shard");
        return -1;
    }
    if (shard_bytes > view->len || (stride && k + m - 1 > (view->len - shard_bytes) / stride)) {
        PyErr_SetString(PyExc_ValueError, "the buffer is shorter than the stripe");
        return -1;
    }
    return 0;
}

static PyObject *transformed(const struct gf_shards *shards, Py_ssize_t all) {
    const size_t pages = (shards->length + GF_PAGE_BYTES - 1) / GF_PAGE_BYTES;
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(pages * 4) * all);
    if (!result)
        return NULL;
    uint8_t *out = (uint8_t *)PyBytes_AsString(result);
    if ((shards->inputs + shards->outputs) * shards->length > (size_t)release_bytes) {
        Py_BEGIN_ALLOW_THREADS
        gf_transform(shards, out);
        Py_END_ALLOW_THREADS
    } else {
        gf_transform(shards, out);
    }
    return result;
}

static uint8_t encode_matrices[GF_SHARDS_MAX + 1][GF_SHARDS_MAX + 1][GF_SHARDS_MAX * GF_SHARDS_MAX / 4];

static PyObject *py_encode(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t values[4];
    Py_buffer view;
    struct gf_shards shards;
    (void)self;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "takes stripe, k, m, shard_bytes, stride");
        return NULL;
    }
    if (size_arguments(args + 1, 4, values) < 0 || PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *result = NULL;
    if (check_stripe(&view, values) == 0) {
        const unsigned k = (unsigned)values[0], m = (unsigned)values[1];
        uint8_t *matrix = encode_matrices[k][m];
        if (m && !matrix[0])
            gf_encode_matrix(k, m, matrix);
        shards.inputs = k, shards.outputs = m, shards.matrix = matrix, shards.length = (size_t)values[2];
        for (unsigned i = 0; i < k + m; i++) {
            uint8_t *shard = (uint8_t *)view.buf + (Py_ssize_t)i * values[3];
            shards.order[i] = (uint8_t)i;
            if (i < k)
                shards.in[i] = shard;
            else
                shards.out[i - k] = shard;
        }
        result = transformed(&shards, k + m);
    }
    PyBuffer_Release(&view);
    return result;
}

/* transform(stripe, k, m, shard_bytes, stride, inputs, outputs, matrix): outputs = matrix * inputs; both name shards. */
static PyObject *py_transform(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t values[4], inputs, outputs, cells;
    char *in, *out, *matrix;
    Py_buffer view;
    struct gf_shards shards;
    (void)self;
    if (count != 8) {
        PyErr_SetString(PyExc_TypeError, "takes stripe, k, m, shard_bytes, stride, inputs, outputs, matrix");
        return NULL;
    }
    if (size_arguments(args + 1, 4, values) < 0 || PyBytes_AsStringAndSize(args[5], &in, &inputs) < 0 ||
        PyBytes_AsStringAndSize(args[6], &out, &outputs) < 0 || PyBytes_AsStringAndSize(args[7], &matrix, &cells) < 0 ||
        PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *result = NULL;
    const Py_ssize_t all = values[0] + values[1];
    int fits = check_stripe(&view, values) == 0;
    if (fits && (inputs + outputs > GF_SHARDS_MAX || cells != inputs * outputs)) {
        PyErr_SetString(PyExc_ValueError, "the matrix does not fit the shards");
        fits = 0;
    }
    for (Py_ssize_t i = 0; fits && i < inputs + outputs; i++) {
        const uint8_t number = (uint8_t)(i < inputs ? in[i] : out[i - inputs]);
        if (number >= all) {
            PyErr_SetString(PyExc_ValueError, "there is no such shard");
            fits = 0;
            break;
        }
        shards.order[i] = (uint8_t)i;
        if (i < inputs)
            shards.in[i] = (uint8_t *)view.buf + number * values[3];
        else
            shards.out[i - inputs] = (uint8_t *)view.buf + number * values[3];
    }
    if (fits) {
        shards.inputs = (unsigned)inputs, shards.outputs = (unsigned)outputs;
        shards.matrix = (const uint8_t *)matrix, shards.length = (size_t)values[2];
        result = transformed(&shards, inputs + outputs);
    }
    PyBuffer_Release(&view);
    return result;
}

/* --- heads of HTTP requests ---------------------------------------------------------------------------- */

static PyObject *text_of(const uint8_t *data, struct head_span span) {
    return PyUnicode_DecodeASCII((const char *)data + span.at, (Py_ssize_t)span.length, NULL);
}

static PyObject *name_of(const uint8_t *data, struct head_span span) {
    char lower[8192];
    for (size_t i = 0; i < span.length; i++) {
        const uint8_t byte = data[span.at + i];
        lower[i] = (char)(byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte);
    }
    return PyUnicode_DecodeASCII(lower, (Py_ssize_t)span.length, NULL);
}

/* {name in lower case: value}; NULL without an error where a name appears twice. */
static PyObject *fields_of(const uint8_t *data, const struct head *head) {
    PyObject *fields = PyDict_New();
    for (unsigned i = 0; fields && i < head->fields; i++) {
        PyObject *name = name_of(data, head->field[i].name), *value = text_of(data, head->field[i].value);
        if (!name || !value || PyDict_SetItem(fields, name, value) < 0)
            Py_CLEAR(fields);
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    if (fields && PyDict_Size(fields) != (Py_ssize_t)head->fields)
        Py_CLEAR(fields);
    return fields;
}

static PyObject *py_parse_head(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    static const char *const METHODS[] = {"GET", "HEAD", "PUT"};
    struct head head;
    Py_buffer view;
    PyObject *result = NULL;
    (void)self;
    if (count != 1) {
        PyErr_SetString(PyExc_TypeError, "takes a buffer");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (head_parse(view.buf, (size_t)view.len, &head)) {
        PyObject *fields = fields_of(view.buf, &head);
        PyObject *path = text_of(view.buf, head.path), *query = text_of(view.buf, head.query);
        if (fields && path && query)
            result = Py_BuildValue("(sOOOKO)", METHODS[head.method], path, query, fields, (unsigned long long)head.body_bytes,
                                   head.expects_continue ? Py_True : Py_False);
        Py_XDECREF(fields);
        Py_XDECREF(path);
        Py_XDECREF(query);
    }
    PyBuffer_Release(&view);
    if (!result && !PyErr_Occurred())
        Py_RETURN_NONE;
    return result;
}

static PyObject *py_probe_read(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    Py_buffer view;
    (void)self;
    if (count != 1 || PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "takes a buffer");
        return NULL;
    }
    const uint64_t found = probe_read(view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(found);
}

static const char *const LEVEL_NAMES[KERNEL_LEVELS] = {"portable", "ssse3", "avx2", "gfni2", "gfni512"};

/* start(name or None) -> name of the kernel in use. ValueError: unknown name; RuntimeError: this processor cannot run it. */
static PyObject *py_start(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    enum kernel_level best = cpu_level(), level = best;
    (void)self;
    if (count != 1) {
        PyErr_SetString(PyExc_TypeError, "takes the name of a kernel or None");
        return NULL;
    }
    if (args[0] != Py_None) {
        const char *name = PyUnicode_AsUTF8AndSize(args[0], NULL);
        if (!name)
            return NULL;
        for (level = 0; level < KERNEL_LEVELS && strcmp(name, LEVEL_NAMES[level]) != 0; level++)
            ;
        if (level == KERNEL_LEVELS)
            return PyErr_Format(PyExc_ValueError, "there is no kernel %s", name);
        if (level > best)
            return PyErr_Format(PyExc_RuntimeError, "this processor cannot run the kernel %s", name);
    }
    release_bytes = RELEASE_BYTES[level];
    crc_start(level);
    gf_start(level);
    head_start();
    return PyUnicode_FromString(LEVEL_NAMES[level]);
}

#define FAST(name, doc) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, doc}

static PyMethodDef methods[] = {
    FAST(crc32, "crc32(data, value=0): CRC32 with the polynomial of zlib."),
    FAST(crc32c, "crc32c(data, value=0): CRC32C (Castagnoli)."),
    FAST(crc64nvme, "crc64nvme(data, value=0): CRC64NVME."),
    FAST(crc32_combine, "crc32_combine(crc_a, crc_b, length_b): the checksum of a + b."),
    FAST(crc32c_combine, "crc32c_combine(crc_a, crc_b, length_b): the checksum of a + b."),
    FAST(crc64nvme_combine, "crc64nvme_combine(crc_a, crc_b, length_b): the checksum of a + b."),
    FAST(page_crcs, "page_crcs(data, page_bytes=65536): CRC32C of every page, little-endian u32 each."),
    FAST(encode, "encode(stripe, k, m, shard_bytes, stride): writes parity; CRC32C of every 64 KiB page of every shard."),
    FAST(transform, "transform(stripe, k, m, shard_bytes, stride, inputs, outputs, matrix): outputs = matrix * inputs."),
    FAST(parse_head, "parse_head(data): (method, path, query, headers, body_bytes, expects_continue) of a plain head, or None."),
    FAST(probe_read, "probe_read(data): reads it as fast as one core can; for benchmarks."),
    FAST(sync_start, "sync_start(wake_fd): a thread that writes and syncs; an eventfd hears of what is done."),
    FAST(sync_write, "sync_write(handle, fd, offset, data): hands a copy over, one at a time."),
    FAST(sync_result, "sync_result(handle): 0 or errno of what is done, once; -1: nothing is."),
    FAST(sync_stop, "sync_stop(handle): ends it."),
    FAST(start, "start(name): chooses the kernel; None for the best."),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "Kernels in C.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
