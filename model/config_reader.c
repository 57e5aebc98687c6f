#include "model/config_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum status config_fail(struct config_reader *r, enum status st, const char *fmt, ...)
{
    if (r->status)
        return r->status;
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    r->status = st;
    return err_set(r->err, st, "%s: %s", r->file, text);
}

/* A member that is there and not null. */
static const json *member(struct config_reader *r, const json *obj, const char *key, bool required)
{
    const json *v = json_get(obj, key);
    if (v && json_kind_of(v) != JSON_NULL_)
        return v;
    if (required)
        config_fail(r, ST_INVALID, "%s: required, but missing", key);
    return NULL;
}

int64_t config_int(struct config_reader *r, const json *obj, const char *key, int64_t min,
                   int64_t max, double fallback)
{
    const bool required = fallback <= CONFIG_REQUIRED;
    const json *v = member(r, obj, key, required);
    if (!v)
        return required ? min : (int64_t)fallback;
    int64_t x = json_as_int(v, min);
    if (json_kind_of(v) != JSON_INT)
        config_fail(r, ST_INVALID, "%s: expected an integer of %lld to %lld, got %s", key,
                    (long long)min, (long long)max, json_kind_name(json_kind_of(v)));
    else if (x < min || x > max)
        config_fail(r, ST_INVALID, "%s: expected an integer of %lld to %lld, got %lld", key,
                    (long long)min, (long long)max, (long long)x);
    else
        return x;
    return min;
}

double config_real(struct config_reader *r, const json *obj, const char *key, double min,
                   double max, double fallback)
{
    const bool required = fallback <= CONFIG_REQUIRED;
    const json *v = member(r, obj, key, required);
    if (!v)
        return required ? min : fallback;
    enum json_kind kind = json_kind_of(v);
    double x = json_as_number(v, NAN);
    if (kind != JSON_INT && kind != JSON_REAL)
        config_fail(r, ST_INVALID, "%s: expected a number of %g to %g, got %s", key, min, max,
                    json_kind_name(kind));
    else if (!(x >= min && x <= max)) /* NaN too */
        config_fail(r, ST_INVALID, "%s: expected a number of %g to %g, got %g", key, min, max, x);
    else
        return x;
    return min;
}

bool config_bool(struct config_reader *r, const json *obj, const char *key, bool fallback)
{
    const json *v = member(r, obj, key, false);
    if (!v)
        return fallback;
    if (json_kind_of(v) != JSON_BOOL)
        config_fail(r, ST_INVALID, "%s: expected true or false, got %s", key,
                    json_kind_name(json_kind_of(v)));
    return json_as_bool(v, fallback);
}

static void copy_printable(const char *s, char *out, size_t cap)
{
    size_t n = 0;
    for (; s[n] && n + 1 < cap; n++)
        out[n] = s[n] >= 0x20 && s[n] < 0x7f ? s[n] : '?';
    out[n] = '\0';
}

void config_copy_str(const json *v, char *out, size_t cap)
{
    copy_printable(json_as_str(v, ""), out, cap);
}

void config_str(struct config_reader *r, const json *obj, const char *key, char *out, size_t cap,
                const char *fallback)
{
    const json *v = member(r, obj, key, false);
    if (v && json_kind_of(v) != JSON_STR)
        config_fail(r, ST_INVALID, "%s: expected a string, got %s", key,
                    json_kind_name(json_kind_of(v)));
    copy_printable(json_as_str(v, fallback), out, cap);
}

const json *config_object(struct config_reader *r, const json *obj, const char *key)
{
    const json *v = member(r, obj, key, false);
    if (!v || json_kind_of(v) == JSON_OBJ)
        return v;
    config_fail(r, ST_INVALID, "%s: expected an object, got %s", key,
                json_kind_name(json_kind_of(v)));
    return NULL;
}
