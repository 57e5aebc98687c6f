/* Methods of strings, named and behaving as Python's, and the table of all methods. */
#include "tokenizer/template/parse.h"

#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"
#include "tokenizer/template/builtin.h"

#define METHOD(name)                                                                               \
    static struct tval name(struct trun *r, const struct tval *self, struct targs *a)

/* --- strings --- */

#define CASE_METHOD(name, how)                                                                     \
    METHOD(name)                                                                                   \
    {                                                                                              \
        tmpl_args(r, a, "", NULL);                                                                 \
        return tmpl_case(r, self, how);                                                            \
    }
CASE_METHOD(str_upper, CASE_UPPER)
CASE_METHOD(str_lower, CASE_LOWER)
CASE_METHOD(str_title, CASE_TITLE)
CASE_METHOD(str_capitalize, CASE_CAPITAL)
CASE_METHOD(str_swapcase, CASE_SWAP)
CASE_METHOD(str_casefold, CASE_FOLD)

static struct tval strip(struct trun *r, const struct tval *self, struct targs *a, bool left,
                         bool right)
{
    struct tval chars;
    tmpl_args(r, a, ";chars", &chars);
    if (chars.kind != TV_MISSING && chars.kind != TV_NONE)
        chars = tmpl_want_str(r, &chars, "strip arg");
    return tmpl_strip(r, self, &chars, left, right);
}
METHOD(str_strip)
{
    return strip(r, self, a, true, true);
}
METHOD(str_lstrip)
{
    return strip(r, self, a, true, false);
}
METHOD(str_rstrip)
{
    return strip(r, self, a, false, true);
}

static struct tval range_of(struct trun *r, const struct tval *self, const struct tval *from,
                            const struct tval *to)
{
    struct tval bounds[3] = {from->kind == TV_MISSING ? tv_none() : *from,
                             to->kind == TV_MISSING ? tv_none() : *to, tv_none()};
    return tmpl_slice(r, self, bounds);
}

static bool has_affix(struct trun *r, const struct tval *s, const struct tval *affix, bool end)
{
    struct tval x = tmpl_want_str(r, affix, "affix");
    tmpl_work(r, x.len);
    return x.len <= s->len && memcmp(s->u.s + (end ? s->len - x.len : 0), x.u.s, x.len) == 0;
}

static struct tval affix(struct trun *r, const struct tval *self, struct targs *a, bool end)
{
    struct tval v[3];
    tmpl_args(r, a, "affix;start end", v);
    struct tval s = range_of(r, self, &v[1], &v[2]);
    if (v[0].kind != TV_SEQ)
        return tv_bool(has_affix(r, &s, &v[0], end));
    for (size_t i = 0; i < v[0].u.seq->n; i++)
        if (has_affix(r, &s, &v[0].u.seq->v[i], end))
            return tv_bool(true);
    return tv_bool(false);
}
METHOD(str_startswith)
{
    return affix(r, self, a, false);
}
METHOD(str_endswith)
{
    return affix(r, self, a, true);
}

static struct tval split(struct trun *r, const struct tval *self, struct targs *a, bool from_right)
{
    struct tval v[2];
    tmpl_args(r, a, ";sep maxsplit", v);
    if (v[0].kind != TV_MISSING && v[0].kind != TV_NONE)
        v[0] = tmpl_want_str(r, &v[0], "separator");
    return tmpl_split(r, self, &v[0], tmpl_arg_int(r, &v[1], -1), from_right);
}
METHOD(str_split)
{
    return split(r, self, a, false);
}
METHOD(str_rsplit)
{
    return split(r, self, a, true);
}
METHOD(str_splitlines)
{
    struct tval keep;
    tmpl_args(r, a, ";keepends", &keep);
    return tmpl_splitlines(r, self, tmpl_arg_bool(&keep, false));
}

static struct tval partition(struct trun *r, const struct tval *self, struct targs *a,
                             bool from_right)
{
    struct tval sep, v = tv_seq_new(r, SEQ_TUPLE, 3);
    tmpl_args(r, a, "sep", &sep);
    sep = tmpl_want_str(r, &sep, "separator");
    struct tval parts = tmpl_split(r, self, &sep, 1, from_right), none = tv_substr(self, 0, 0);
    bool found = parts.u.seq->n == 2;
    tv_seq_push(r, v.u.seq, found || !from_right ? parts.u.seq->v[0] : none);
    tv_seq_push(r, v.u.seq,
                found ? tv_substr(self, parts.u.seq->v[0].len, parts.u.seq->v[0].len + sep.len)
                      : none);
    tv_seq_push(r, v.u.seq, found ? parts.u.seq->v[1] : from_right ? parts.u.seq->v[0] : none);
    return v;
}
METHOD(str_partition)
{
    return partition(r, self, a, false);
}
METHOD(str_rpartition)
{
    return partition(r, self, a, true);
}

METHOD(str_join)
{
    struct tval items;
    size_t n;
    tmpl_args(r, a, "iterable", &items);
    struct tval *v = tv_iterate(r, &items, &n);
    for (size_t i = 0; i < n; i++)
        if (v[i].kind != TV_STR)
            tmpl_raise(r,
                       "TypeError: sequence item %zu: expected str "
                       "instance, %s found",
                       i, tv_type_name(&v[i]));
    return tmpl_join(r, v, n, self);
}

METHOD(str_replace)
{
    struct tval v[3];
    tmpl_args(r, a, "old new;count", v);
    v[0] = tmpl_want_str(r, &v[0], "replace() argument 1");
    v[1] = tmpl_want_str(r, &v[1], "replace() argument 2");
    return tmpl_replace(r, self, &v[0], &v[1], tmpl_arg_int(r, &v[2], -1));
}

METHOD(str_count)
{
    struct tval sub;
    int64_t n = 0;
    tmpl_args(r, a, "sub", &sub);
    sub = tmpl_want_str(r, &sub, "count() argument");
    if (sub.len == 0)
        return tv_int((int64_t)tv_length(r, self) + 1, false);
    tmpl_work(r, self->len);
    const char *at = self->u.s, *end = at + self->len, *hit;
    for (; (hit = memmem(at, (size_t)(end - at), sub.u.s, sub.len)) != NULL; at = hit + sub.len)
        n++;
    return tv_int(n, false);
}

static struct tval find(struct trun *r, const struct tval *self, struct targs *a, bool last,
                        bool must)
{
    struct tval v[3];
    tmpl_args(r, a, "sub;start end", v);
    v[0] = tmpl_want_str(r, &v[0], "find() argument");
    struct tval s = range_of(r, self, &v[1], &v[2]);
    struct tval parts =
        v[0].len > 0 ? tmpl_split(r, &s, &v[0], 1, last) : tv_seq_new(r, SEQ_LIST, 0);
    if (v[0].len > 0 && parts.u.seq->n < 2) {
        if (must)
            tmpl_raise(r, "ValueError: substring not found");
        return tv_int(-1, false);
    }
    /* Characters before the hit: those cut off by `start` and those of the first part. */
    size_t before = v[0].len > 0 ? parts.u.seq->v[0].len : last ? s.len : 0;
    struct tval head = tv_substr(self, 0, (size_t)(s.u.s - self->u.s) + before);
    return tv_int((int64_t)tv_length(r, &head), false);
}
METHOD(str_find)
{
    return find(r, self, a, false, false);
}
METHOD(str_rfind)
{
    return find(r, self, a, true, false);
}
METHOD(str_index)
{
    return find(r, self, a, false, true);
}
METHOD(str_rindex)
{
    return find(r, self, a, true, true);
}

static struct tval justify(struct trun *r, const struct tval *self, struct targs *a, int side)
{
    struct tval v[2], b_value;
    struct tbuf b = {0};
    tmpl_args(r, a, "width;fillchar", v);
    int64_t missing = tv_want_int(r, &v[0]) - (int64_t)tv_length(r, self);
    struct tval fill =
        v[1].kind == TV_MISSING ? tv_cstr(" ") : tmpl_want_str(r, &v[1], "fill character");
    if (missing <= 0)
        return *self;
    if (tv_length(r, &fill) != 1)
        tmpl_raise(r, "TypeError: The fill character must be exactly one "
                      "character long");
    size_t pad = (size_t)missing, left = side < 0 ? 0 : side > 0 ? pad : pad / 2;
    if (side == 0) /* Python's rounding of the odd one */
        left += pad & (size_t)tv_want_int(r, &v[0]) & 1;
    tmpl_pad(r, &b, &fill, left);
    tbuf_add_str(r, &b, self);
    tmpl_pad(r, &b, &fill, pad - left);
    b_value = tbuf_value(r, &b);
    b_value.tag = self->tag;
    return b_value;
}
METHOD(str_ljust)
{
    return justify(r, self, a, -1);
}
METHOD(str_rjust)
{
    return justify(r, self, a, 1);
}
METHOD(str_center)
{
    return justify(r, self, a, 0);
}

METHOD(str_zfill)
{
    struct tval width, zero = tv_cstr("0");
    struct tbuf b = {0};
    tmpl_args(r, a, "width", &width);
    int64_t missing = tv_want_int(r, &width) - (int64_t)tv_length(r, self);
    if (missing <= 0)
        return *self;
    size_t sign = self->len > 0 && (*self->u.s == '-' || *self->u.s == '+');
    tbuf_add_range(r, &b, self, 0, sign);
    tmpl_pad(r, &b, &zero, (size_t)missing);
    tbuf_add_range(r, &b, self, sign, self->len);
    return tbuf_value(r, &b);
}

static struct tval remove_affix(struct trun *r, const struct tval *self, struct targs *a, bool end)
{
    struct tval x;
    tmpl_args(r, a, "affix", &x);
    if (!has_affix(r, self, &x, end))
        return *self;
    return end ? tv_substr(self, 0, self->len - x.len) : tv_substr(self, x.len, self->len);
}
METHOD(str_removeprefix)
{
    return remove_affix(r, self, a, false);
}
METHOD(str_removesuffix)
{
    return remove_affix(r, self, a, true);
}

/* Do all characters (and there is one) belong to this class? */
static bool all_in_class(struct trun *r, const struct tval *s, char class)
{
    bool cased = false;
    tmpl_work(r, s->len * 4);
    for (size_t i = 0, n; i < s->len; i += n) {
        uint32_t cp = 0;
        n = utf8_decode(s->u.s + i, s->len - i, &cp);
        n = n == 0 ? 1 : n;
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
        bool digit = c == UTF8PROC_CATEGORY_ND || cp == 0xB2 || cp == 0xB3 || cp == 0xB9 ||
                     (cp >= 0x2070 && cp <= 0x2089);
        bool number = digit || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
        bool upper = c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LT,
             lower = c == UTF8PROC_CATEGORY_LL;
        cased |= class == 'U' ? upper : lower;
        if ((class == 'a' && !letter) || (class == 'd' && !digit) || (class == 'n' && !number) ||
            (class == 'D' && c != UTF8PROC_CATEGORY_ND) || (class == 'w' && !letter && !number) ||
            (class == 's' && tmpl_space_at(s->u.s + i, s->len - i) == 0) ||
            (class == 'U' && lower) || (class == 'L' && upper) || (class == '7' && cp >= 0x80))
            return false;
    }
    return class == 'U' || class == 'L' ? cased : class == '7' || s->len > 0;
}

#define CLASS_METHOD(name, class)                                                                  \
    METHOD(name)                                                                                   \
    {                                                                                              \
        tmpl_args(r, a, "", NULL);                                                                 \
        return tv_bool(all_in_class(r, self, class));                                              \
    }
CLASS_METHOD(str_isalpha, 'a')
CLASS_METHOD(str_isdigit, 'd')
CLASS_METHOD(str_isdecimal, 'D')
CLASS_METHOD(str_isnumeric, 'n')
CLASS_METHOD(str_isalnum, 'w')
CLASS_METHOD(str_isspace, 's')
CLASS_METHOD(str_isupper, 'U')
CLASS_METHOD(str_islower, 'L')
CLASS_METHOD(str_isascii, '7')

const struct tmethod tmpl_methods[] = {
    {"append", .seq = tmpl_list_append, .mutates = true},
    {"capitalize", .str = str_capitalize},
    {"casefold", .str = str_casefold},
    {"center", .str = str_center},
    {"changed", .loop = tmpl_loop_changed},
    {"clear", .dict = tmpl_dict_clear, .seq = tmpl_list_clear, .mutates = true},
    {"copy", .dict = tmpl_dict_copy, .seq = tmpl_list_copy},
    {"count", .str = str_count, .seq = tmpl_list_count},
    {"cycle", .loop = tmpl_loop_cycle},
    {"endswith", .str = str_endswith},
    {"extend", .seq = tmpl_list_extend, .mutates = true},
    {"find", .str = str_find},
    {"format", .str = tmpl_method_format},
    {"format_map", .str = tmpl_method_format_map},
    {"get", .dict = tmpl_dict_get},
    {"index", .str = str_index, .seq = tmpl_list_index},
    {"insert", .seq = tmpl_list_insert, .mutates = true},
    {"isalnum", .str = str_isalnum},
    {"isalpha", .str = str_isalpha},
    {"isascii", .str = str_isascii},
    {"isdecimal", .str = str_isdecimal},
    {"isdigit", .str = str_isdigit},
    {"islower", .str = str_islower},
    {"isnumeric", .str = str_isnumeric},
    {"isspace", .str = str_isspace},
    {"isupper", .str = str_isupper},
    {"items", .dict = tmpl_dict_items},
    {"join", .str = str_join},
    {"keys", .dict = tmpl_dict_keys},
    {"ljust", .str = str_ljust},
    {"lower", .str = str_lower},
    {"lstrip", .str = str_lstrip},
    {"partition", .str = str_partition},
    {"pop", .dict = tmpl_dict_pop, .seq = tmpl_list_pop, .mutates = true},
    {"remove", .seq = tmpl_list_remove, .mutates = true},
    {"removeprefix", .str = str_removeprefix},
    {"removesuffix", .str = str_removesuffix},
    {"replace", .str = str_replace},
    {"reverse", .seq = tmpl_list_reverse, .mutates = true},
    {"rfind", .str = str_rfind},
    {"rindex", .str = str_rindex},
    {"rjust", .str = str_rjust},
    {"rpartition", .str = str_rpartition},
    {"rsplit", .str = str_rsplit},
    {"rstrip", .str = str_rstrip},
    {"setdefault", .dict = tmpl_dict_setdefault, .mutates = true},
    {"split", .str = str_split},
    {"splitlines", .str = str_splitlines},
    {"startswith", .str = str_startswith},
    {"strip", .str = str_strip},
    {"swapcase", .str = str_swapcase},
    {"title", .str = str_title},
    {"update", .dict = tmpl_dict_update, .mutates = true},
    {"upper", .str = str_upper},
    {"values", .dict = tmpl_dict_values},
    {"zfill", .str = str_zfill},
    {NULL},
};
