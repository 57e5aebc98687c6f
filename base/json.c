/* jansson names an enumerator JSON_REAL, as json.h does; its macros that use the name are not used
 * here. */
#define JSON_REAL JANSSON_REAL
#include <jansson.h>
#undef JSON_REAL

#include "base/json.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"

#define DEPTH_DEFAULT 512
#define MEMORY_DEFAULT ((size_t)1 << 30)

/* --- reading --- */

/* What one pass over the text finds before any of it is parsed. Malformed text gives an estimate
 * that is too high at most: the parser stops at the first fault. */
struct survey {
    int depth;
    size_t deep_at; /* where `depth` went over the limit, else SIZE_MAX */
    size_t memory_bytes;
    size_t members;
    size_t big_integers;
};

static bool is_number_byte(char c)
{
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

/* Length of the number at s; *big when it is an integer outside int64_t. */
static size_t survey_number(const char *s, size_t len, bool *big)
{
    size_t n = 1;
    bool integer = s[0] == '-' || (s[0] >= '0' && s[0] <= '9');
    for (; n < len && is_number_byte(s[n]); n++)
        if (s[n] < '0' || s[n] > '9')
            integer = false;
    *big = false;
    if (integer && n >= 19) {
        size_t digits = n - (s[0] == '-');
        const char *limit = s[0] == '-' ? "9223372036854775808" : "9223372036854775807";
        *big = digits > 19 || (digits == 19 && memcmp(s + (s[0] == '-'), limit, 19) > 0);
    }
    return n;
}

static size_t skip_string(const char *s, size_t len)
{
    size_t i = 1;
    while (i < len && s[i] != '"')
        i += s[i] == '\\' ? 2 : 1;
    return i < len ? i + 1 : len;
}

static struct survey survey_text(const char *s, size_t len, int max_depth)
{
    struct survey v = {.deep_at = SIZE_MAX};
    size_t containers = 0, commas = 0, colons = 0;
    int depth = 0;
    for (size_t i = 0; i < len;) {
        char c = s[i];
        if (c == '"') {
            i += skip_string(s + i, len - i);
        } else if (is_number_byte(c)) {
            bool big;
            i += survey_number(s + i, len - i, &big);
            v.big_integers += big;
        } else {
            if (c == '[' || c == '{') {
                containers++;
                if (++depth > v.depth)
                    v.depth = depth;
                if (depth == max_depth + 1 && v.deep_at == SIZE_MAX)
                    v.deep_at = i;
            } else if (c == ']' || c == '}') {
                depth -= depth > 0;
            }
            commas += c == ',';
            colons += c == ':';
            i++;
        }
    }
    v.members = colons;
    v.memory_bytes = 256 * containers + 48 * commas + 112 * colons + 2 * len;
    return v;
}

/* A copy in which `123456789012345678901` is `123456789012345678901.0`: published model folders
 * write 10^30 for "no limit", which jansson would refuse. */
static char *widen_integers(const char *s, size_t len, size_t big_integers, size_t *out_len)
{
    char *out = malloc(len + 2 * big_integers + 1);
    if (out == NULL)
        return NULL;
    size_t o = 0;
    for (size_t i = 0; i < len;) {
        bool big = false;
        size_t n = 1;
        if (s[i] == '"')
            n = skip_string(s + i, len - i);
        else if (is_number_byte(s[i]))
            n = survey_number(s + i, len - i, &big);
        memcpy(out + o, s + i, n);
        o += n;
        i += n;
        if (big) {
            memcpy(out + o, ".0", 2);
            o += 2;
        }
    }
    *out_len = o;
    return out;
}

static enum status too_deep(const char *s, size_t at, int limit, struct error *err)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < at; i++) {
        if (s[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    return err_set(err, ST_INVALID, "line %zu column %zu: nested deeper than %d", line,
                   at - start + 1, limit);
}

enum status json_read_limited(const char *text, size_t len, struct json_limits limits, json **out,
                              struct error *err)
{
    int max_depth = limits.depth > 0 ? limits.depth : DEPTH_DEFAULT;
    size_t max_memory = limits.memory_bytes > 0 ? limits.memory_bytes : MEMORY_DEFAULT;
    if (len > max_memory)
        return err_set(err, ST_INVALID, "JSON text of %zu bytes is over the limit", len);
    struct survey v = survey_text(text, len, max_depth);
    if (v.deep_at != SIZE_MAX)
        return too_deep(text, v.deep_at, max_depth, err);
    if (v.memory_bytes > max_memory)
        return err_set(err, ST_INVALID, "JSON with too many values: about %zu bytes, at most %zu",
                       v.memory_bytes, max_memory);
    if (limits.members > 0 && v.members > limits.members)
        return err_set(err, ST_INVALID, "JSON with %zu members of objects, at most %zu", v.members,
                       limits.members);
    char *widened = NULL;
    if (v.big_integers > 0) {
        widened = widen_integers(text, len, v.big_integers, &len);
        if (widened == NULL)
            return err_set(err, ST_NO_MEMORY, "no memory for a JSON text of %zu bytes", len);
        text = widened;
    }
    json_error_t fault;
    json_t *root = json_loadb(len > 0 ? text : "", len,
                              JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &fault);
    free(widened);
    if (root == NULL)
        return err_set(err, ST_INVALID, "line %d column %d: %s", fault.line, fault.column,
                       fault.text);
    *out = root;
    return ST_OK;
}

enum status json_read(const char *text, size_t len, json **out, struct error *err)
{
    return json_read_limited(text, len, (struct json_limits){0}, out, err);
}

enum status json_read_file(const char *path, size_t max_bytes, json **out, struct error *err)
{
    struct buf text = {0};
    enum status st = file_read(path, max_bytes, &text, err);
    if (st == ST_OK) {
        st = json_read(text.data, text.len, out, err);
        if (st != ST_OK)
            err_prefix(err, "%s", path);
    }
    buf_fini(&text);
    return st;
}

void json_free(json *root)
{
    json_decref(root);
}

/* --- looking --- */

enum json_kind json_kind_of(const json *v)
{
    if (v == NULL)
        return JSON_ABSENT;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return JSON_OBJ;
    case JSON_ARRAY:
        return JSON_ARR;
    case JSON_STRING:
        return JSON_STR;
    case JSON_INTEGER:
        return JSON_INT;
    case JANSSON_REAL:
        return JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return JSON_NULL_;
}

const char *json_kind_name(enum json_kind kind)
{
    static const char *const names[] = {
        [JSON_ABSENT] = "nothing", [JSON_NULL_] = "null",  [JSON_BOOL] = "boolean",
        [JSON_INT] = "integer",    [JSON_REAL] = "number", [JSON_STR] = "string",
        [JSON_ARR] = "array",      [JSON_OBJ] = "object",
    };
    return names[kind];
}

bool json_as_bool(const json *v, bool fallback)
{
    return json_kind_of(v) == JSON_BOOL ? json_typeof(v) == JSON_TRUE : fallback;
}

int64_t json_as_int(const json *v, int64_t fallback)
{
    return json_kind_of(v) == JSON_INT ? json_integer_value(v) : fallback;
}

double json_as_number(const json *v, double fallback)
{
    enum json_kind kind = json_kind_of(v);
    return kind == JSON_INT || kind == JSON_REAL ? json_number_value(v) : fallback;
}

const char *json_as_str(const json *v, const char *fallback)
{
    return json_kind_of(v) == JSON_STR ? json_string_value(v) : fallback;
}

size_t json_str_len(const json *v)
{
    return json_string_length(v);
}

size_t json_count(const json *v)
{
    return json_kind_of(v) == JSON_OBJ ? json_object_size(v) : json_array_size(v);
}

const json *json_at(const json *arr, size_t i)
{
    return json_array_get(arr, i);
}

const json *json_get(const json *obj, const char *key)
{
    return json_object_get(obj, key);
}

/* jansson's iterators are for changing an object as well, hence without const. */
void *json_first(const json *obj)
{
    return json_kind_of(obj) == JSON_OBJ ? json_object_iter((json_t *)(uintptr_t)obj) : NULL;
}

void *json_next(const json *obj, void *it)
{
    return json_object_iter_next((json_t *)(uintptr_t)obj, it);
}

const char *json_iter_key(void *it)
{
    return json_object_iter_key(it);
}

const json *json_iter_value(void *it)
{
    return json_object_iter_value(it);
}

/* --- writing --- */

static void put_string(struct buf *out, const char *s, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    buf_putc(out, '"');
    size_t run = 0; /* begin of what is copied as it stands */
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            i++;
            continue;
        }
        uint32_t cp;
        size_t n = utf8_decode(s + i, len - i, &cp);
        if (n > 1) {
            i += n;
            continue;
        }
        buf_append(out, s + run, i - run);
        run = ++i;
        if (n == 0)
            buf_puts(out, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\')
            buf_append(out, (char[]){'\\', (char)c}, 2);
        else if (c == '\n' || c == '\r' || c == '\t')
            buf_puts(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else
            buf_append(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    }
    buf_append(out, s + run, len - run);
    buf_putc(out, '"');
}

static void put_real(struct buf *out, double v)
{
    char text[40];
    if (!isfinite(v)) {
        buf_puts(out, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text - 3, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_puts(out, text);
    if (strpbrk(text, ".e") == NULL)
        buf_puts(out, ".0"); /* it was a real and reads back as one */
}

static void dump_object(const json *v, struct buf *out)
{
    buf_putc(out, '{');
    bool first = true;
    for (void *it = json_first(v); it != NULL; it = json_next(v, it)) {
        if (!first)
            buf_putc(out, ',');
        first = false;
        const char *key = json_iter_key(it);
        put_string(out, key, strlen(key));
        buf_putc(out, ':');
        json_dump(json_iter_value(it), out);
    }
    buf_putc(out, '}');
}

/* Recursion is as deep as the tree, which json_read() bounded. */
void json_dump(const json *v, struct buf *out)
{
    switch (json_kind_of(v)) {
    case JSON_ABSENT:
    case JSON_NULL_:
        buf_puts(out, "null");
        break;
    case JSON_BOOL:
        buf_puts(out, json_as_bool(v, false) ? "true" : "false");
        break;
    case JSON_INT:
        buf_printf(out, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        put_real(out, json_real_value(v));
        break;
    case JSON_STR:
        put_string(out, json_string_value(v), json_string_length(v));
        break;
    case JSON_ARR:
        buf_putc(out, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0)
                buf_putc(out, ',');
            json_dump(json_array_get(v, i), out);
        }
        buf_putc(out, ']');
        break;
    case JSON_OBJ:
        dump_object(v, out);
        break;
    }
}

struct jw jw_begin(struct buf *out)
{
    return (struct jw){.out = out, .first = 1};
}

/* Before every value and key: the comma that separates it from what went before. */
static void separate(struct jw *w)
{
    uint64_t bit = UINT64_C(1) << w->depth;
    if (w->after_key)
        w->after_key = false;
    else if (w->first & bit)
        w->first &= ~bit;
    else
        buf_putc(w->out, ',');
}

static void enter(struct jw *w, char open)
{
    separate(w);
    buf_putc(w->out, open);
    assert(w->depth < 63);
    w->depth++;
    w->first |= UINT64_C(1) << w->depth;
}

static void leave(struct jw *w, char close)
{
    assert(w->depth > 0 && !w->after_key);
    w->depth--;
    buf_putc(w->out, close);
}

void jw_obj(struct jw *w)
{
    enter(w, '{');
}

void jw_end_obj(struct jw *w)
{
    leave(w, '}');
}

void jw_arr(struct jw *w)
{
    enter(w, '[');
}

void jw_end_arr(struct jw *w)
{
    leave(w, ']');
}

void jw_key(struct jw *w, const char *key)
{
    assert(!w->after_key);
    separate(w);
    put_string(w->out, key, strlen(key));
    buf_putc(w->out, ':');
    w->after_key = true;
}

void jw_str(struct jw *w, const char *s)
{
    jw_strn(w, s, strlen(s));
}

void jw_strn(struct jw *w, const char *s, size_t len)
{
    separate(w);
    put_string(w->out, s, len);
}

void jw_int(struct jw *w, int64_t v)
{
    separate(w);
    buf_printf(w->out, "%lld", (long long)v);
}

void jw_uint(struct jw *w, uint64_t v)
{
    separate(w);
    buf_printf(w->out, "%llu", (unsigned long long)v);
}

void jw_real(struct jw *w, double v)
{
    separate(w);
    put_real(w->out, v);
}

void jw_bool(struct jw *w, bool v)
{
    separate(w);
    buf_puts(w->out, v ? "true" : "false");
}

void jw_null(struct jw *w)
{
    separate(w);
    buf_puts(w->out, "null");
}

void jw_raw(struct jw *w, const char *json_text)
{
    separate(w);
    buf_puts(w->out, json_text);
}

void jw_json(struct jw *w, const json *v)
{
    separate(w);
    json_dump(v, w->out);
}
