/* Reading single fields of a JSON body with checks: null is "not given"; the first mistake wins. */
#include "router/api_fields.h"

#include <math.h>
#include <string.h>

const json *field_get(struct fields *p, const char *key)
{
    const json *v = json_get(p->body, key);
    return p->err->status == 0 && json_kind_of(v) != JSON_NULL_ ? v : NULL;
}

void field_wrong_type(struct fields *p, const char *key, const char *want, const json *got)
{
    api_fail(p->err, 400, "invalid_type", key, "Invalid type for '%s': expected %s, got %s.", key,
             want, json_kind_name(json_kind_of(got)));
}

bool field_bool(struct fields *p, const char *key, bool fallback)
{
    const json *v = field_get(p, key);
    if (!v)
        return fallback;
    if (json_kind_of(v) != JSON_BOOL)
        field_wrong_type(p, key, "a boolean", v);
    return json_as_bool(v, fallback);
}

int64_t field_int(struct fields *p, const char *key, int64_t fallback, int64_t min, int64_t max)
{
    const json *v = field_get(p, key);
    if (!v)
        return fallback;
    if (json_kind_of(v) != JSON_INT) {
        field_wrong_type(p, key, "an integer", v);
        return fallback;
    }
    int64_t x = json_as_int(v, fallback);
    if (x < min || x > max) {
        api_fail(p->err, 400, "invalid_value", key,
                 "Invalid value for '%s': expected an integer from %lld to %lld, got %lld.", key,
                 (long long)min, (long long)max, (long long)x);
        return fallback;
    }
    return x;
}

double field_number(struct fields *p, const char *key, struct field_range range)
{
    const json *v = field_get(p, key);
    if (!v)
        return range.fallback;
    enum json_kind kind = json_kind_of(v);
    if (kind != JSON_INT && kind != JSON_REAL) {
        field_wrong_type(p, key, "a number", v);
        return range.fallback;
    }
    double x = json_as_number(v, range.fallback);
    if (!isfinite(x) || x < range.min || x > range.max ||
        (range.above_min && (float)x == (float)range.min)) { /* as a float it is no more */
        api_fail(p->err, 400, "invalid_value", key,
                 "Invalid value for '%s': expected a number %s %g and at most %g, got %g.", key,
                 range.above_min ? "above" : "of at least", range.min, range.max, x);
        return range.fallback;
    }
    return x;
}

const char *field_str(struct fields *p, const char *key, const char *fallback, size_t max)
{
    const json *v = field_get(p, key);
    if (!v)
        return fallback;
    if (json_kind_of(v) != JSON_STR) {
        field_wrong_type(p, key, "a string", v);
        return fallback;
    }
    const char *s = json_as_str(v, "");
    if (json_str_len(v) > max || strlen(s) != json_str_len(v)) {
        api_fail(p->err, 400, "invalid_value", key,
                 "Invalid value for '%s': expected at most %zu bytes without NUL.", key, max);
        return fallback;
    }
    return s;
}

const json *field_kind(struct fields *p, const char *key, enum json_kind kind, const char *want)
{
    const json *v = field_get(p, key);
    if (v && json_kind_of(v) != kind) {
        field_wrong_type(p, key, want, v);
        return NULL;
    }
    return v;
}
