/* Operations on strings that methods, filters and operators share. Each keeps the provenance of
 * every byte it moves. */
#include "tokenizer/template/parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"
#include "tokenizer/template/builtin.h"

static bool is_cased(uint32_t cp)
{
    if (cp < 0x80)
        return isalpha((int)cp);
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

static size_t put_upper(uint32_t cp, bool title, char *out)
{
    if (cp == 0xDF) { /* the one common letter that becomes two */
        memcpy(out, title ? "Ss" : "SS", 2);
        return 2;
    }
    return utf8_encode((uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)cp)
                                        : utf8proc_toupper((utf8proc_int32_t)cp)),
                       out);
}

static size_t put_lower(uint32_t cp, bool final_sigma, char *out)
{
    if (cp == 0x130) { /* I with a dot: i and a combining dot */
        memcpy(out, "i\xCC\x87", 3);
        return 3;
    }
    return utf8_encode(
        cp == 0x3A3 && final_sigma ? 0x3C2 : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), out);
}

static bool word_break(uint32_t cp, const char *s, size_t len)
{
    return (cp < 0x80 && strchr("-({[<", (int)cp) != NULL && cp != 0) || tmpl_space_at(s, len) > 0;
}

struct tval tmpl_case(struct trun *r, const struct tval *s, enum tcase how)
{
    tmpl_work(r, s->len * 4);
    char *out = tmpl_alloc(r, s->len * 3 + 4);
    uint8_t *mask = s->x.mask != NULL ? tmpl_alloc(r, s->len * 3 + 4) : NULL;
    size_t n = 0;
    bool inside = false; /* after a cased letter; for the title filter: inside a word */
    for (size_t i = 0; i < s->len;) {
        uint32_t cp, next = 0;
        size_t len = utf8_decode(s->u.s + i, s->len - i, &cp), put;
        if (len == 0) {
            cp = 0xFFFD;
            len = 1;
        }
        bool cased = is_cased(cp), up = how == CASE_UPPER;
        if (how == CASE_TITLE || how == CASE_FILTER_TITLE || how == CASE_CAPITAL)
            up = !inside;
        else if (how == CASE_SWAP)
            up = utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LL;
        if (cp == 0x3A3 && i + len < s->len)
            utf8_decode(s->u.s + i + len, s->len - i - len, &next);
        if (how == CASE_FOLD && cp == 0xDF)
            put = 2, memcpy(out + n, "ss", 2);
        else if (how == CASE_FOLD && cp == 0x3C2)
            put = utf8_encode(0x3C3, out + n);
        else if (up)
            put = put_upper(cp, how == CASE_TITLE || how == CASE_CAPITAL, out + n);
        else
            put = put_lower(cp, how != CASE_FOLD && i > 0 && inside && !is_cased(next), out + n);
        if (mask != NULL)
            memset(mask + n, s->x.mask[i], put);
        if (how == CASE_FILTER_TITLE)
            inside = !word_break(cp, s->u.s + i, s->len - i);
        else
            inside = how == CASE_CAPITAL || cased;
        n += put;
        i += len;
    }
    struct tval v = tv_str(out, n, s->trusted);
    v.tag = s->tag;
    v.x.mask = mask;
    return v;
}

static bool in_set(const struct tval *chars, const char *c, size_t len)
{
    for (size_t i = 0; i < chars->len;) {
        uint32_t cp;
        size_t n = utf8_decode(chars->u.s + i, chars->len - i, &cp);
        n = n == 0 ? 1 : n;
        if (n == len && memcmp(chars->u.s + i, c, n) == 0)
            return true;
        i += n;
    }
    return false;
}

struct tval tmpl_strip(struct trun *r, const struct tval *s, const struct tval *chars, bool left,
                       bool right)
{
    size_t from = 0, to = s->len;
    if (chars->kind != TV_STR) {
        if (left)
            from = tmpl_trim_left(s->u.s, to);
        if (right)
            to = from + tmpl_trim_right(s->u.s + from, to - from);
        tmpl_work(r, s->len - (to - from));
        return tv_substr(s, from, to);
    }
    while (left && from < to) {
        uint32_t cp;
        size_t n = utf8_decode(s->u.s + from, to - from, &cp);
        n = n == 0 ? 1 : n;
        tmpl_work(r, chars->len);
        if (!in_set(chars, s->u.s + from, n))
            break;
        from += n;
    }
    while (right && from < to) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)s->u.s[start] & 0xC0) == 0x80)
            start--;
        tmpl_work(r, chars->len);
        if (!in_set(chars, s->u.s + start, to - start))
            break;
        to = start;
    }
    return tv_substr(s, from, to);
}

struct tval tmpl_replace(struct trun *r, const struct tval *s, const struct tval *from,
                         const struct tval *to, int64_t count)
{
    struct tbuf b = {0};
    size_t at = 0;
    count = count < 0 ? INT64_MAX : count;
    tmpl_work(r, s->len);
    if (from->len == 0) { /* before every character and at the end */
        while (count > 0) {
            tbuf_add_str(r, &b, to);
            count--;
            if (at == s->len)
                break;
            uint32_t cp;
            size_t n = utf8_decode(s->u.s + at, s->len - at, &cp);
            n = n == 0 ? 1 : n;
            tbuf_add_range(r, &b, s, at, at + n);
            at += n;
        }
    } else {
        const char *hit;
        while (count-- > 0 &&
               (hit = memmem(s->u.s + at, s->len - at, from->u.s, from->len)) != NULL) {
            size_t pos = (size_t)(hit - s->u.s);
            tbuf_add_range(r, &b, s, at, pos);
            tbuf_add_str(r, &b, to);
            at = pos + from->len;
        }
        if (at == 0)
            return *s;
    }
    tbuf_add_range(r, &b, s, at, s->len);
    struct tval v = tbuf_value(r, &b);
    v.tag = s->tag;
    return v;
}

static void reverse_items(struct tseq *s)
{
    for (size_t i = 0; i < s->n / 2; i++) {
        struct tval t = s->v[i];
        s->v[i] = s->v[s->n - 1 - i];
        s->v[s->n - 1 - i] = t;
    }
}

/* Length of the last run of s that holds no white space. */
static size_t last_word(const char *s, size_t len)
{
    size_t from = len;
    while (from > 0) {
        size_t k = from - 1;
        while (k > 0 && ((unsigned char)s[k] & 0xC0) == 0x80)
            k--;
        if (tmpl_space_at(s + k, len - k) > 0)
            break;
        from = k;
    }
    return len - from;
}

/* Words; once `max` splits are used up, the rest is one item, with the white space at its far end.
 */
static struct tval split_space(struct trun *r, const struct tval *s, int64_t max, bool from_right)
{
    struct tval v = tv_seq_new(r, SEQ_LIST, 0);
    size_t from = 0, to = s->len;
    for (;; max--) {
        if (from_right)
            to = tmpl_trim_right(s->u.s, to);
        else
            from += tmpl_trim_left(s->u.s + from, to - from);
        if (from == to)
            break;
        size_t a = from, b = to;
        if (max > 0 && from_right)
            a = to - last_word(s->u.s, to);
        else if (max > 0)
            for (b = from; b < to && tmpl_space_at(s->u.s + b, to - b) == 0;)
                b++;
        tv_seq_push(r, v.u.seq, tv_substr(s, a, b));
        if (from_right)
            to = a;
        else
            from = b;
    }
    if (from_right)
        reverse_items(v.u.seq);
    return v;
}

static const char *last_match(struct trun *r, const char *s, size_t len, const struct tval *sep)
{
    if (sep->len >
        256) /* compares at every place: cheap for a real separator, not for a long one */
        tmpl_work(r, len > SIZE_MAX / sep->len ? SIZE_MAX / 2 : len * sep->len / 2);
    for (size_t i = len; i >= sep->len; i--)
        if (memcmp(s + i - sep->len, sep->u.s, sep->len) == 0)
            return s + i - sep->len;
    return NULL;
}

struct tval tmpl_split(struct trun *r, const struct tval *s, const struct tval *sep, int64_t max,
                       bool from_right)
{
    max = max < 0 ? INT64_MAX - 1 : max;
    tmpl_work(r, s->len);
    if (sep->kind != TV_STR)
        return split_space(r, s, max, from_right);
    if (sep->len == 0)
        tmpl_raise(r, "ValueError: empty separator");
    struct tval v = tv_seq_new(r, SEQ_LIST, 0);
    size_t from = 0, to = s->len;
    for (; max > 0; max--) {
        const char *hit = from_right ? last_match(r, s->u.s, to, sep)
                                     : memmem(s->u.s + from, to - from, sep->u.s, sep->len);
        if (hit == NULL)
            break;
        size_t at = (size_t)(hit - s->u.s);
        if (from_right) {
            tv_seq_push(r, v.u.seq, tv_substr(s, at + sep->len, to));
            to = at;
        } else {
            tv_seq_push(r, v.u.seq, tv_substr(s, from, at));
            from = at + sep->len;
        }
    }
    tv_seq_push(r, v.u.seq, tv_substr(s, from, to));
    if (from_right)
        reverse_items(v.u.seq);
    return v;
}

static size_t line_end_at(const char *s, size_t len)
{
    unsigned char c = (unsigned char)*s;
    if (c == '\r')
        return len > 1 && s[1] == '\n' ? 2 : 1;
    if ((c >= '\n' && c <= '\f') || (c >= 0x1C && c <= 0x1E))
        return 1;
    if (len > 1 && c == 0xC2 && (unsigned char)s[1] == 0x85)
        return 2;
    if (len > 2 && c == 0xE2 && (unsigned char)s[1] == 0x80 && ((unsigned char)s[2] & 0xFE) == 0xA8)
        return 3;
    return 0;
}

struct tval tmpl_splitlines(struct trun *r, const struct tval *s, bool keep)
{
    struct tval v = tv_seq_new(r, SEQ_LIST, 0);
    size_t from = 0;
    tmpl_work(r, s->len);
    for (size_t i = 0; i < s->len;) {
        size_t n = line_end_at(s->u.s + i, s->len - i);
        if (n > 0) {
            tv_seq_push(r, v.u.seq, tv_substr(s, from, keep ? i + n : i));
            from = i + n;
        }
        i += n > 0 ? n : 1;
    }
    if (from < s->len)
        tv_seq_push(r, v.u.seq, tv_substr(s, from, s->len));
    return v;
}

struct tval tmpl_escape_html(struct trun *r, const struct tval *s)
{
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct tbuf b = {0};
    size_t from = 0;
    for (size_t i = 0; i < s->len; i++) {
        const char *at = s->u.s[i] != 0 ? strchr("&<>'\"", s->u.s[i]) : NULL;
        if (at == NULL)
            continue;
        tbuf_add_range(r, &b, s, from, i);
        tbuf_puts(r, &b, to[strchr("&<>'\"", *at) - strchr("&<>'\"", '&')],
                  s->x.mask != NULL ? s->x.mask[i] : s->trusted);
        from = i + 1;
    }
    tbuf_add_range(r, &b, s, from, s->len);
    struct tval v = tbuf_value(r, &b);
    v.tag = STR_MARKUP;
    return v;
}

void tmpl_pad(struct trun *r, struct tbuf *b, const struct tval *fill, size_t count)
{
    if (fill->len == 0)
        return;
    if (count > r->output_max / fill->len)
        tmpl_raise(r, "output is larger than %zu bytes", r->output_max);
    for (size_t i = 0; i < count; i++)
        tbuf_add_str(r, b, fill);
}

struct tval tmpl_want_str(struct trun *r, const struct tval *v, const char *what)
{
    if (v->kind == TV_STR)
        return *v;
    if (v->kind == TV_UNDEF)
        tv_fail_undefined(r, v);
    tmpl_raise(r, "TypeError: %s must be str, not %s", what, tv_type_name(v));
}

struct tval tmpl_join(struct trun *r, const struct tval *items, size_t n, const struct tval *sep)
{
    struct tbuf b = {0};
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            tbuf_add_str(r, &b, sep);
        tv_print(r, &b, &items[i]);
        tmpl_work(r, 0);
    }
    return tbuf_value(r, &b);
}

/* --- slices --- */

static int64_t clamp_bound(int64_t i, int64_t n, int64_t low, int64_t high)
{
    if (i < 0)
        i += n;
    return i < low ? low : i > high ? high : i;
}

/* Byte offsets of the n characters, and of the end. */
static size_t *char_offsets(struct trun *r, const struct tval *s, size_t n)
{
    size_t *at = tmpl_alloc(r, (n + 1) * sizeof *at), k = 0;
    for (size_t i = 0; i < s->len; i++)
        if (((unsigned char)s->u.s[i] & 0xC0) != 0x80 && k < n)
            at[k++] = i;
    while (k <= n)
        at[k++] = s->len;
    return at;
}

/* Byte offset of the character with this index. */
static size_t char_offset(const struct tval *s, int64_t index)
{
    size_t i = 0;
    for (; i < s->len; i++)
        if (((unsigned char)s->u.s[i] & 0xC0) != 0x80 && index-- == 0)
            return i;
    return s->len;
}

static struct tval slice_str(struct trun *r, const struct tval *s, int64_t start, int64_t stop,
                             int64_t step)
{
    size_t n = tv_length(r, s);
    bool ascii = n == s->len;
    struct tbuf b = {0};
    if (step == 1 && stop <= start)
        return tv_substr(s, 0, 0);
    if (step == 1)
        return ascii ? tv_substr(s, (size_t)start, (size_t)stop)
                     : tv_substr(s, char_offset(s, start), char_offset(s, stop));
    size_t *at = ascii ? NULL : char_offsets(r, s, n);
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
        size_t from = ascii ? (size_t)i : at[i], to = ascii ? (size_t)i + 1 : at[i + 1];
        tbuf_add_range(r, &b, s, from, to);
    }
    struct tval v = tbuf_value(r, &b);
    v.tag = s->tag;
    return v;
}

struct tval tmpl_slice(struct trun *r, const struct tval *o, const struct tval bounds[3])
{
    bool seq = o->kind == TV_SEQ && (o->u.seq->kind <= SEQ_RANGE || o->u.seq->kind == SEQ_GROUP);
    if (o->kind == TV_UNDEF)
        tv_fail_undefined(r, o);
    if (o->kind == TV_DICT)
        tmpl_raise(r, "TypeError: unhashable type: 'slice'");
    if (!seq && o->kind != TV_STR)
        tmpl_raise(r, "TypeError: '%s' object is not subscriptable", tv_type_name(o));
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != TV_NONE && bounds[i].kind != TV_INT && bounds[i].kind != TV_BOOL)
            tmpl_raise(r, "TypeError: slice indices must be integers or None or have "
                          "an __index__ method");
    int64_t n = (int64_t)tv_length(r, o);
    int64_t step = bounds[2].kind == TV_NONE ? 1 : tv_want_int(r, &bounds[2]);
    if (step == 0)
        tmpl_raise(r, "ValueError: slice step cannot be zero");
    step = step > n + 1 ? n + 1 : step < -n - 1 ? -n - 1 : step;
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    int64_t start = bounds[0].kind == TV_NONE
                        ? (step > 0 ? 0 : n - 1)
                        : clamp_bound(tv_want_int(r, &bounds[0]), n, low, high);
    int64_t stop = bounds[1].kind == TV_NONE
                       ? (step > 0 ? n : -1)
                       : clamp_bound(tv_want_int(r, &bounds[1]), n, low, high);
    if (o->kind == TV_STR)
        return slice_str(r, o, start, stop, step);
    struct tval v = tv_seq_new(
        r, o->u.seq->kind == SEQ_TUPLE || o->u.seq->kind == SEQ_GROUP ? SEQ_TUPLE : SEQ_LIST, 0);
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step)
        tv_seq_push(r, v.u.seq, o->u.seq->v[i]);
    v.u.seq->trusted = o->u.seq->trusted;
    return v;
}
