/* Arithmetic, and + and * on strings and lists, with Python's results and errors. */
#include "tokenizer/template/ast.h"

#include <math.h>

#include "tokenizer/template/builtin.h"

static _Noreturn void fail_operands(struct trun *r, const char *op, const struct tval *a,
                                    const struct tval *b)
{
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF)
        tv_fail_undefined(r, a->kind == TV_UNDEF ? a : b);
    tmpl_raise(r, "TypeError: unsupported operand type(s) for %s: '%s' and '%s'", op,
               tv_type_name(a), tv_type_name(b));
}

static struct tval add_strings(struct trun *r, struct tval a, struct tval b)
{
    bool markup = a.tag == STR_MARKUP || b.tag == STR_MARKUP;
    if (markup && a.tag != STR_MARKUP)
        a = tmpl_escape_html(r, &a);
    if (markup && b.tag != STR_MARKUP)
        b = tmpl_escape_html(r, &b);
    struct tbuf buf = {0};
    tbuf_add_str(r, &buf, &a);
    tbuf_add_str(r, &buf, &b);
    struct tval v = tbuf_value(r, &buf);
    v.tag = markup ? STR_MARKUP : STR_PLAIN;
    return v;
}

static struct tval add_lists(struct trun *r, const struct tseq *a, const struct tseq *b)
{
    struct tval v = tv_seq_new(r, a->kind, a->n + b->n);
    for (size_t i = 0; i < a->n; i++)
        tv_seq_push(r, v.u.seq, a->v[i]);
    for (size_t i = 0; i < b->n; i++)
        tv_seq_push(r, v.u.seq, b->v[i]);
    v.u.seq->trusted = a->trusted && b->trusted;
    return v;
}

struct tval tmpl_add(struct trun *r, const struct tval *a, const struct tval *b)
{
    if (tv_is_number(a) && tv_is_number(b)) {
        bool trusted = a->trusted && b->trusted;
        int64_t sum;
        if (a->kind == TV_REAL || b->kind == TV_REAL)
            return tv_real(tv_number(a) + tv_number(b), trusted);
        if (__builtin_add_overflow(tv_integer(a), tv_integer(b), &sum))
            tmpl_raise(r, "integer larger than 64 bits");
        return tv_int(sum, trusted);
    }
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF)
        fail_operands(r, "+", a, b);
    if (a->kind == TV_STR) {
        if (b->kind == TV_STR)
            return add_strings(r, *a, *b);
        tmpl_raise(r, "TypeError: can only concatenate str (not \"%s\") to str", tv_type_name(b));
    }
    if (a->kind == TV_SEQ && a->u.seq->kind <= SEQ_TUPLE) {
        if (b->kind == TV_SEQ && a->u.seq->kind == b->u.seq->kind)
            return add_lists(r, a->u.seq, b->u.seq);
        tmpl_raise(r, "TypeError: can only concatenate %s (not \"%s\") to %s", tv_type_name(a),
                   tv_type_name(b), tv_type_name(a));
    }
    fail_operands(r, "+", a, b);
}

/* "ab" * 3, [1] * 2, and the other way round. */
static struct tval repeat(struct trun *r, const struct tval *what, int64_t times)
{
    times = times < 0 ? 0 : times;
    if (what->kind == TV_STR) {
        struct tbuf b = {0};
        tmpl_pad(r, &b, what, (size_t)times);
        struct tval v = tbuf_value(r, &b);
        v.tag = what->tag;
        return v;
    }
    struct tval v = tv_seq_new(r, what->u.seq->kind, 0);
    if (what->u.seq->n > 0)
        for (int64_t i = 0; i < times; i++)
            for (size_t k = 0; k < what->u.seq->n; k++)
                tv_seq_push(r, v.u.seq, what->u.seq->v[k]);
    v.u.seq->trusted = what->u.seq->trusted;
    return v;
}

static bool repeatable(const struct tval *v)
{
    return v->kind == TV_STR || (v->kind == TV_SEQ && v->u.seq->kind <= SEQ_TUPLE);
}

static _Noreturn void fail_zero(struct trun *r, const char *what)
{
    tmpl_raise(r, "ZeroDivisionError: %s", what);
}

static double real_op(struct trun *r, enum toperator op, double a, double b)
{
    double m;
    switch (op) {
    case OP_SUB:
        return a - b;
    case OP_MUL:
        return a * b;
    case OP_DIV:
        if (b == 0)
            fail_zero(r, "division by zero");
        return a / b;
    case OP_POW:
        return pow(a, b);
    default:
        if (b == 0)
            fail_zero(r, op == OP_MOD ? "float modulo" : "float floor division by zero");
        m = fmod(a, b);
        if (m != 0 && (m < 0) != (b < 0))
            m += b;
        return op == OP_MOD ? m : floor((a - m) / b + 0.5);
    }
}

static bool int_power(int64_t base, int64_t exponent, int64_t *out)
{
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result))
            return false;
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
            return false;
    }
    *out = result;
    return true;
}

static struct tval int_op(struct trun *r, enum toperator op, int64_t a, int64_t b, bool trusted)
{
    int64_t v = 0;
    bool fits = true;
    switch (op) {
    case OP_SUB:
        fits = !__builtin_sub_overflow(a, b, &v);
        break;
    case OP_MUL:
        fits = !__builtin_mul_overflow(a, b, &v);
        break;
    case OP_POW:
        if (b < 0)
            return tv_real(pow((double)a, (double)b), trusted);
        fits = int_power(a, b, &v);
        break;
    default:
        if (b == 0)
            fail_zero(r, op == OP_MOD ? "integer modulo by zero"
                                      : "integer division or modulo by zero");
        if (b == -1) {
            fits = op == OP_MOD || !__builtin_sub_overflow(0, a, &v);
            break;
        }
        v = a % b;
        if (v != 0 && (v < 0) != (b < 0))
            v += b;
        if (op == OP_FLOORDIV)
            v = (a - v) / b;
        break;
    }
    if (!fits)
        tmpl_raise(r, "integer larger than 64 bits");
    return tv_int(v, trusted);
}

struct tval tmpl_binary(struct trun *r, enum toperator op, const struct tval *a,
                        const struct tval *b)
{
    static const char *const names[] = {"-", "*", "/", "//", "%", "** or pow()"};
    if (tv_is_number(a) && tv_is_number(b)) {
        bool trusted = a->trusted && b->trusted;
        if (op == OP_DIV || a->kind == TV_REAL || b->kind == TV_REAL)
            return tv_real(real_op(r, op, tv_number(a), tv_number(b)), trusted);
        return int_op(r, op, tv_integer(a), tv_integer(b), trusted);
    }
    if (op == OP_MOD && a->kind == TV_STR)
        return tmpl_percent(r, a, b);
    if (op == OP_MUL && repeatable(a) && (b->kind == TV_INT || b->kind == TV_BOOL))
        return repeat(r, a, tv_integer(b));
    if (op == OP_MUL && repeatable(b) && (a->kind == TV_INT || a->kind == TV_BOOL))
        return repeat(r, b, tv_integer(a));
    fail_operands(r, names[op], a, b);
}
