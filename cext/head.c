/* The strict parser of plain HTTP/1.1 request heads: what it does not take is left to others, which answer or refuse it.
 *
 * A head is plain where no two readers could disagree about it (RFC 9112 sections 2 to 7): one space behind each colon, none
 * at the end of a value, no empty value, no name twice, nothing that changes the framing but Content-Length. */
#include "kernels.h"

#include <string.h>

#define HEAD_MAX_BYTES 8000
#define LENGTH_DIGITS_MAX 15

enum class { TOKEN = 1, VALUE = 2, TARGET = 4 };
static uint8_t classes[256];

void head_start(void) {
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (unsigned byte = 0; byte < 256; byte++) {
        const int is_alphanumeric = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
        classes[byte] = 0;
        if (is_alphanumeric || (byte && memchr(marks, (int)byte, sizeof marks - 1)))
            classes[byte] |= TOKEN;
        if (byte == '\t' || (byte >= ' ' && byte <= '~'))
            classes[byte] |= VALUE;
        if (byte > ' ' && byte <= '~' && byte != '#')
            classes[byte] |= TARGET;
    }
}

static size_t run(const uint8_t *data, size_t at, size_t length, uint8_t wanted) {
    while (at < length && classes[data[at]] & wanted)
        at++;
    return at;
}

/* ASCII without regard to case; `text` is in lower case. */
static int is_text(const uint8_t *data, size_t length, const char *text) {
    for (size_t i = 0; i < length; i++) {
        const uint8_t byte = data[i] >= 'A' && data[i] <= 'Z' ? (uint8_t)(data[i] | 0x20) : data[i];
        if (!text[i] || byte != (uint8_t)text[i])
            return 0;
    }
    return !text[length];
}

static int is_framing(const uint8_t *name, size_t length) {
    static const char *const names[] = {"transfer-encoding", "upgrade", "te", "trailer", "proxy-connection", "http2-settings"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is_text(name, length, names[i]))
            return 1;
    return 0;
}

/* Content-Length as plain digits. */
static int read_length(const uint8_t *value, size_t length, uint64_t *out) {
    *out = 0;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return 0;
        *out = *out * 10 + (uint64_t)(value[i] - '0');
    }
    return length <= LENGTH_DIGITS_MAX;
}

static int read_request_line(const uint8_t *data, size_t length, struct head *out) {
    static const char *const methods[] = {"GET ", "HEAD ", "PUT "};
    static const char version[] = " HTTP/1.1";
    size_t at = 0;
    for (size_t i = 0; i < sizeof methods / sizeof *methods && !at; i++) {
        const size_t size = strlen(methods[i]);
        if (length > size && memcmp(data, methods[i], size) == 0)
            at = size, out->method = (unsigned)i;
    }
    if (!at || data[at] != '/')
        return 0;
    const size_t end = run(data, at, length, TARGET);
    const uint8_t *mark = memchr(data + at, '?', end - at);
    out->path.at = at;
    out->path.length = (mark ? (size_t)(mark - data) : end) - at;
    out->query.at = mark ? (size_t)(mark - data) + 1 : end;
    out->query.length = end - out->query.at;
    if (length - end < sizeof version - 1 || memcmp(data + end, version, sizeof version - 1) != 0)
        return 0;
    out->end = end + sizeof version - 1;
    return 1;
}

/* What a field means for the framing; 0 where it may not stand in a plain head. */
static int read_field(const uint8_t *data, const struct head_field *field, struct head *out) {
    const uint8_t *name = data + field->name.at, *value = data + field->value.at;
    const size_t length = field->name.length;
    if (length == 4 && is_text(name, length, "host"))
        out->has_host = 1;
    else if (is_text(name, length, "content-length"))
        return out->method == HEAD_PUT && read_length(value, field->value.length, &out->body_bytes);
    else if (is_text(name, length, "expect"))
        return out->expects_continue = is_text(value, field->value.length, "100-continue");
    else if (is_text(name, length, "connection"))
        return is_text(value, field->value.length, "keep-alive");
    else
        return !is_framing(name, length);
    return 1;
}

int head_parse(const uint8_t *data, size_t length, struct head *out) {
    out->fields = 0, out->body_bytes = 0, out->expects_continue = 0, out->has_host = 0;
    if (length > HEAD_MAX_BYTES || !read_request_line(data, length, out))
        return 0;
    for (size_t at = out->end; at < length;) {
        struct head_field *field = &out->field[out->fields];
        if (out->fields == HEAD_FIELDS_MAX || length - at < 2 || data[at] != '\r' || data[at + 1] != '\n')
            return 0;
        field->name.at = at + 2;
        at = run(data, at + 2, length, TOKEN);
        field->name.length = at - field->name.at;
        if (!field->name.length || length - at < 3 || data[at] != ':' || data[at + 1] != ' ')
            return 0;
        field->value.at = at + 2;
        at = run(data, at + 2, length, VALUE);
        field->value.length = at - field->value.at;
        if (!field->value.length || data[field->value.at] <= ' ' || data[at - 1] <= ' ' || !read_field(data, field, out))
            return 0;
        out->fields++;
    }
    return out->fields && out->has_host;
}
