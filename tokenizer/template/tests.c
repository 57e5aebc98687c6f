/* Tests (`x is defined`), argument binding, and the look-up of every table. */
#include "tokenizer/template/ast.h"

#include <math.h>
#include <string.h>

#include "tokenizer/template/builtin.h"

#define TEST(name) static bool name(struct trun *r, const struct tval *v, struct targs *a)

void tmpl_args(struct trun *r, struct targs *a, const char *names, struct tval *out)
{
    size_t at = 0;
    bool optional = false;
    size_t used = 0;
    for (const char *p = names; *p != 0;) {
        if (*p == ';' || *p == ' ') {
            optional |= *p++ == ';';
            continue;
        }
        size_t len = strcspn(p, " ;");
        out[at] = (struct tval){.kind = TV_MISSING};
        if (at < a->n)
            out[at] = a->v[at];
        for (size_t i = 0; i < a->n_kw; i++) {
            if (a->kw[i].len != len || memcmp(a->kw[i].name, p, len) != 0)
                continue;
            if (out[at].kind != TV_MISSING)
                tmpl_raise(r,
                           "TypeError: %s() got multiple values for "
                           "argument '%.*s'",
                           a->callee, (int)len, p);
            out[at] = a->kw[i].v;
            used++;
        }
        if (out[at].kind == TV_MISSING && !optional)
            tmpl_raise(r, "TypeError: %s() missing a required argument: '%.*s'", a->callee,
                       (int)len, p);
        at++;
        p += len;
    }
    if (a->n > at)
        tmpl_raise(r, "TypeError: %s() takes %zu arguments but %zu were given", a->callee, at,
                   a->n);
    if (used < a->n_kw)
        tmpl_raise(r, "TypeError: %s() got an unexpected keyword argument", a->callee);
}

bool tmpl_arg_bool(const struct tval *v, bool fallback)
{
    return v->kind == TV_MISSING ? fallback : tv_truthy(v);
}

int64_t tmpl_arg_int(struct trun *r, const struct tval *v, int64_t fallback)
{
    return v->kind == TV_MISSING ? fallback : tv_want_int(r, v);
}

TEST(is_defined)
{
    tmpl_args(r, a, "", NULL);
    return v->kind != TV_UNDEF;
}
TEST(is_undefined)
{
    return !is_defined(r, v, a);
}
TEST(is_none)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_NONE;
}
TEST(is_string)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_STR;
}
TEST(is_mapping)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_DICT;
}
TEST(is_number)
{
    tmpl_args(r, a, "", NULL);
    return tv_is_number(v);
}
TEST(is_integer)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_INT;
}
TEST(is_float)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_REAL;
}
TEST(is_boolean)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_BOOL;
}
TEST(is_true)
{
    return is_boolean(r, v, a) && v->u.b;
}
TEST(is_false)
{
    return is_boolean(r, v, a) && !v->u.b;
}
TEST(is_iterable)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_STR || v->kind == TV_SEQ || v->kind == TV_DICT || v->kind == TV_UNDEF ||
           v->kind == TV_LOOP;
}
TEST(is_sequence)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_STR || v->kind == TV_DICT || v->kind == TV_UNDEF ||
           (v->kind == TV_SEQ && (v->u.seq->kind <= SEQ_RANGE || v->u.seq->kind == SEQ_GROUP));
}
TEST(is_callable)
{
    tmpl_args(r, a, "", NULL);
    return v->kind >= TV_LOOP || v->kind == TV_UNDEF;
}
TEST(is_escaped)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_STR && v->tag == STR_MARKUP;
}

static bool case_is(struct trun *r, const struct tval *v, struct targs *a, const char *method)
{
    struct tval s = tv_to_str(r, v);
    return tmpl_find_method(method, 7)->str(r, &s, a).u.b;
}
TEST(is_lower)
{
    return case_is(r, v, a, "islower");
}
TEST(is_upper)
{
    return case_is(r, v, a, "isupper");
}

static bool divides(struct trun *r, const struct tval *v, const struct tval *by)
{
    struct tval zero = tv_int(0, true), rest = tmpl_binary(r, OP_MOD, v, by);
    return tv_equal(r, &rest, &zero);
}
TEST(is_even)
{
    struct tval two = tv_int(2, true);
    tmpl_args(r, a, "", NULL);
    return divides(r, v, &two);
}
TEST(is_odd)
{
    struct tval two = tv_int(2, true), one = tv_int(1, true);
    tmpl_args(r, a, "", NULL);
    struct tval rest = tmpl_binary(r, OP_MOD, v, &two);
    return tv_equal(r, &rest, &one);
}
TEST(is_divisibleby)
{
    struct tval by;
    tmpl_args(r, a, "num", &by);
    return divides(r, v, &by);
}

TEST(is_eq)
{
    struct tval other;
    tmpl_args(r, a, "other", &other);
    return tv_equal(r, v, &other);
}
TEST(is_ne)
{
    return !is_eq(r, v, a);
}
static int order(struct trun *r, const struct tval *v, struct targs *a, const char *op)
{
    struct tval other;
    tmpl_args(r, a, "other", &other);
    return tv_compare(r, v, &other, op);
}
TEST(is_lt)
{
    return order(r, v, a, "<") == -1;
}
TEST(is_le)
{
    int c = order(r, v, a, "<=");
    return c == -1 || c == 0;
}
TEST(is_gt)
{
    return order(r, v, a, ">") == 1;
}
TEST(is_ge)
{
    int c = order(r, v, a, ">=");
    return c == 1 || c == 0;
}
TEST(is_in)
{
    struct tval seq;
    tmpl_args(r, a, "seq", &seq);
    return tv_contains(r, &seq, v);
}
TEST(is_sameas)
{
    struct tval other;
    tmpl_args(r, a, "other", &other);
    if (v->kind == TV_STR || v->kind == TV_REAL || v->kind != other.kind)
        return v->kind == other.kind && v->u.s == other.u.s;
    return v->kind == TV_SEQ || v->kind == TV_DICT ? v->u.seq == other.u.seq
                                                   : tv_equal(r, v, &other);
}
TEST(is_filter)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_STR && tmpl_find_filter(v->u.s, v->len) != NULL;
}
TEST(is_test)
{
    tmpl_args(r, a, "", NULL);
    return v->kind == TV_STR && tmpl_find_test(v->u.s, v->len) != NULL;
}

static const struct ttest tests[] = {{"defined", is_defined},
                                     {"undefined", is_undefined},
                                     {"none", is_none},
                                     {"string", is_string},
                                     {"mapping", is_mapping},
                                     {"number", is_number},
                                     {"integer", is_integer},
                                     {"float", is_float},
                                     {"boolean", is_boolean},
                                     {"true", is_true},
                                     {"false", is_false},
                                     {"iterable", is_iterable},
                                     {"sequence", is_sequence},
                                     {"callable", is_callable},
                                     {"escaped", is_escaped},
                                     {"lower", is_lower},
                                     {"upper", is_upper},
                                     {"even", is_even},
                                     {"odd", is_odd},
                                     {"divisibleby", is_divisibleby},
                                     {"eq", is_eq},
                                     {"equalto", is_eq},
                                     {"==", is_eq},
                                     {"ne", is_ne},
                                     {"!=", is_ne},
                                     {"lt", is_lt},
                                     {"lessthan", is_lt},
                                     {"<", is_lt},
                                     {"le", is_le},
                                     {"<=", is_le},
                                     {"gt", is_gt},
                                     {"greaterthan", is_gt},
                                     {">", is_gt},
                                     {"ge", is_ge},
                                     {">=", is_ge},
                                     {"in", is_in},
                                     {"sameas", is_sameas},
                                     {"filter", is_filter},
                                     {"test", is_test}};

static bool named(const char *name, const char *s, size_t len)
{
    return strlen(name) == len && memcmp(name, s, len) == 0;
}

const struct ttest *tmpl_find_test(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (named(tests[i].name, name, len))
            return &tests[i];
    return NULL;
}

const struct tfilter *tmpl_find_filter(const char *name, size_t len)
{
    const struct tfilter *const tables[] = {tmpl_text_filters, tmpl_list_filters,
                                            tmpl_json_filters};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct tfilter *f = tables[i]; f->name != NULL; f++)
            if (named(f->name, name, len))
                return f;
    return NULL;
}

const struct tmethod *tmpl_find_method(const char *name, size_t len)
{
    for (const struct tmethod *m = tmpl_methods; m->name != NULL; m++)
        if (len > 0 && *m->name == *name && named(m->name, name, len))
            return m;
    return NULL;
}
