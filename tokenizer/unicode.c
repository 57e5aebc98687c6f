#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

void text_put(struct buf *out, uint32_t cp)
{
    char c[4];
    buf_append(out, c, utf8_encode(cp, c));
}

size_t text_grapheme(const char *s, size_t len)
{
    uint32_t cp, next;
    utf8proc_int32_t state = 0;
    size_t i = text_next(s, &cp);
    while (i < len) {
        size_t n = text_next(s + i, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)cp, (utf8proc_int32_t)next, &state))
            break;
        cp = next;
        i += n;
    }
    return i;
}

const char *text_find(const char *s, size_t len, const char *needle, size_t n)
{
    if (n == 0 || n > 16)
        return memmem(s, len, needle, n);
    const char *end = s + len;
    while ((size_t)(end - s) >= n) {
        s = memchr(s, needle[0], (size_t)(end - s) - n + 1);
        if (!s || !memcmp(s, needle, n))
            return s;
        s++;
    }
    return NULL;
}

/* Bytes of the longest prefix of a well-formed character at s: how much one U+FFFD stands for. */
static size_t broken_len(const unsigned char *s, size_t len)
{
    size_t want = s[0] < 0xc2 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 1;
    size_t n = 1;
    while (n < want && n < len) {
        unsigned char lo = 0x80, hi = 0xbf;
        if (n == 1) {
            if (s[0] == 0xe0)
                lo = 0xa0;
            else if (s[0] == 0xed)
                hi = 0x9f;
            else if (s[0] == 0xf0)
                lo = 0x90;
            else if (s[0] == 0xf4)
                hi = 0x8f;
        }
        if (s[n] < lo || s[n] > hi)
            break;
        n++;
    }
    return n;
}

static bool could_complete(const unsigned char *s, size_t len, size_t broken)
{
    size_t want = s[0] < 0xc2 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 1;
    return broken == len && broken < want;
}

size_t text_make_valid(const char *s, size_t len, bool keep_tail, struct buf *out)
{
    size_t i = 0, good = 0; /* s[good, i) is valid and not yet appended */
    while (i < len) {
        uint32_t cp;
        size_t n = (unsigned char)s[i] < 0x80 ? 1 : utf8_decode(s + i, len - i, &cp);
        if (n) {
            i += n;
            continue;
        }
        const unsigned char *p = (const unsigned char *)s + i;
        size_t broken = broken_len(p, len - i);
        buf_append(out, s + good, i - good);
        if (keep_tail && could_complete(p, len - i, broken))
            return i;
        buf_append(out, "\xef\xbf\xbd", 3);
        i += broken;
        good = i;
    }
    buf_append(out, s + good, len - good);
    return len;
}

bool uc_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

bool uc_is_numeric(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

enum uc_letter uc_letter(uint32_t cp)
{
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return UC_UPPER;
    case UTF8PROC_CATEGORY_LL:
        return UC_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return UC_OTHER_LETTER;
    default:
        return UC_NO_LETTER;
    }
}

bool uc_is_word(uint32_t cp)
{
    if (cp == 0x200c || cp == 0x200d || (cp >= 0x24b6 && cp <= 0x24e9) ||
        (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
        (cp >= 0x1f170 && cp <= 0x1f189)) /* circled and squared letters: So, yet Alphabetic */
        return true;
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

bool uc_is_punct(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) ||
               (cp >= 123 && cp <= 126);
    utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool uc_is_mark(uint32_t cp)
{
    utf8proc_category_t c = cp < 0x300 ? UTF8PROC_CATEGORY_CN : category(cp);
    return c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME;
}

bool uc_is_mark_nonspacing(uint32_t cp)
{
    return cp >= 0x300 && category(cp) == UTF8PROC_CATEGORY_MN;
}

bool uc_is_control(uint32_t cp)
{
    if (cp == '\t' || cp == '\n' || cp == '\r')
        return false;
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CO;
}

bool uc_is_cjk(uint32_t cp)
{
    return (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) ||
           (cp >= 0x20000 && cp <= 0x2a6df) || (cp >= 0x2a700 && cp <= 0x2b73f) ||
           (cp >= 0x2b740 && cp <= 0x2b81f) || (cp >= 0x2b920 && cp <= 0x2ceaf) ||
           (cp >= 0xf900 && cp <= 0xfaff) || (cp >= 0x2f800 && cp <= 0x2fa1f);
}

/* Below this code point every character is its own NFC. */
#define NFC_SURE 0x300

bool uc_is_nfc_quick(const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        unsigned char lead = (unsigned char)s[i];
        if (lead < 0xcc) { /* U+0000 .. U+02FF */
            i += lead < 0x80 ? 1 : 2;
            continue;
        }
        uint32_t cp;
        i += text_next(s + i, &cp);
        if (cp < NFC_SURE || (cp >= 0x3041 && cp <= 0x3096 && cp != 0x304c) ||
            (cp >= 0x4e00 && cp <= 0x9fff))
            continue;
        if (cp >= 0xac00 && cp <= 0xd7a3) {
            continue; /* Hangul syllables; a following jamo fails below */
        }
        if (cp >= 0x1161 && cp <= 0x11c2)
            return false;
        const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
        bool second = p->comb_index != UINT16_MAX && p->comb_index >= 0x8000;
        if (p->combining_class || p->decomp_seqindex != UINT16_MAX || second)
            return false;
    }
    return true;
}

struct cps {
    utf8proc_int32_t *v;
    size_t n, cap;
};

static bool cps_reserve(struct cps *a, size_t more)
{
    if (a->cap - a->n >= more)
        return true;
    size_t cap = a->cap ? a->cap : 256;
    while (cap - a->n < more)
        cap *= 2;
    utf8proc_int32_t *v = realloc(a->v, cap * sizeof(*v));
    if (!v)
        return false;
    a->v = v;
    a->cap = cap;
    return true;
}

struct mark {
    utf8proc_int32_t cp;
    uint32_t at;
    int ccc;
};

static int mark_compare(const void *x, const void *y)
{
    const struct mark *a = x, *b = y;
    if (a->ccc != b->ccc)
        return a->ccc < b->ccc ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static int ccc_of(utf8proc_int32_t cp)
{
    return cp < NFC_SURE ? 0 : utf8proc_get_property(cp)->combining_class;
}

/* Stable sort of one run of marks by combining class. */
static bool sort_run(utf8proc_int32_t *v, size_t n)
{
    struct mark few[32], *m = few;
    if (n > 32 && !(m = malloc(n * sizeof(*m))))
        return false;
    bool sorted = true;
    for (size_t i = 0; i < n; i++) {
        m[i] = (struct mark){v[i], (uint32_t)i, ccc_of(v[i])};
        sorted = sorted && (i == 0 || m[i - 1].ccc <= m[i].ccc);
    }
    if (!sorted) {
        qsort(m, n, sizeof(*m), mark_compare);
        for (size_t i = 0; i < n; i++)
            v[i] = m[i].cp;
    }
    if (m != few)
        free(m);
    return true;
}

static bool canonical_order(struct cps *a)
{
    for (size_t i = 0; i < a->n;) {
        if (!ccc_of(a->v[i])) {
            i++;
            continue;
        }
        size_t j = i + 1;
        while (j < a->n && ccc_of(a->v[j]))
            j++;
        if (j - i > 1 && !sort_run(a->v + i, j - i))
            return false;
        i = j;
    }
    return true;
}

bool uc_normalize(enum uc_form form, const char *s, size_t len, struct buf *out)
{
    bool compose = form == UC_NFC || form == UC_NFKC;
    if (form == UC_NFC && uc_is_nfc_quick(s, len)) {
        buf_append(out, s, len);
        return !out->failed;
    }
    utf8proc_option_t options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
    if (form == UC_NFKC || form == UC_NFKD)
        options |= UTF8PROC_COMPAT;
    /* decompose_char ignores COMPOSE, and decomposes as either asks */
    struct cps a = {0};
    bool ok = false;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int boundary = 0;
        i += text_next(s + i, &cp);
        if (!cps_reserve(&a, 20))
            goto done;
        utf8proc_ssize_t n = utf8proc_decompose_char(
            (utf8proc_int32_t)cp, a.v + a.n, (utf8proc_ssize_t)(a.cap - a.n), options, &boundary);
        if (n < 0)
            goto done;
        if (n > (utf8proc_ssize_t)(a.cap - a.n)) { /* longer than the reserve: once more */
            if (!cps_reserve(&a, (size_t)n))
                goto done;
            utf8proc_decompose_char((utf8proc_int32_t)cp, a.v + a.n, n, options, &boundary);
        }
        a.n += (size_t)n;
    }
    if (!canonical_order(&a))
        goto done;
    utf8proc_ssize_t n = utf8proc_normalize_utf32(
        a.v, (utf8proc_ssize_t)a.n,
        UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : (utf8proc_option_t)0));
    for (utf8proc_ssize_t i = 0; i < n; i++)
        text_put(out, (uint32_t)a.v[i]);
    ok = n >= 0 && !out->failed;
done:
    free(a.v);
    return ok;
}

void uc_lowercase(const char *s, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += text_next(s + i, &cp);
        if (cp < 0x80)
            buf_putc(out, (char)(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp));
        else if (cp == 0x130)
            buf_append(out, "i\xcc\x87", 3);
        else
            text_put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    }
}
