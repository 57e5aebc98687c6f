#include "tokenizer/scanner.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tokenizer/split_patterns.h"
#include "tokenizer/unicode.h"

/* Class bits of a character. */
enum {
    LETTER = 1,   /* \p{L} */
    NUMBER = 2,   /* \p{N} */
    SPACE = 4,    /* \s */
    MARK = 8,     /* \p{M} */
    UPPER = 16,   /* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] */
    LOWER = 32,   /* [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
    NEWLINE = 64, /* \r \n */
};

#define TABLE_END 0x20000
static uint8_t table[TABLE_END];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static uint8_t classify(uint32_t cp)
{
    uint8_t c = uc_is_space(cp) ? SPACE : 0;
    if (cp == '\r' || cp == '\n')
        c |= NEWLINE;
    switch (uc_letter(cp)) {
    case UC_UPPER: /* title case too */
        return c | LETTER | UPPER;
    case UC_LOWER:
        return c | LETTER | LOWER;
    case UC_OTHER_LETTER:
        return c | LETTER | UPPER | LOWER;
    case UC_NO_LETTER:
        break;
    }
    if (uc_is_mark(cp))
        return c | MARK | UPPER | LOWER;
    return uc_is_numeric(cp) ? c | NUMBER : c;
}

static void fill_table(void)
{
    for (uint32_t cp = 0; cp < TABLE_END; cp++)
        table[cp] = classify(cp);
}

struct text {
    const char *s;
    size_t len;
};

/* Class of the character at `at` and where the next one begins; 0 and `at` itself at the end. */
static inline uint8_t class_at(struct text t, size_t at, size_t *next)
{
    *next = at;
    if (at >= t.len)
        return 0;
    unsigned char byte = (unsigned char)t.s[at];
    if (byte < 0x80) {
        *next = at + 1;
        return table[byte];
    }
    uint32_t cp;
    *next = at + text_next(t.s + at, &cp);
    return cp < TABLE_END ? table[cp] : classify(cp);
}

static inline size_t run_of(struct text t, size_t at, uint8_t classes)
{
    size_t next;
    while (class_at(t, at, &next) & classes)
        at = next;
    return at;
}

static inline size_t run_without(struct text t, size_t at, uint8_t classes)
{
    size_t next;
    while (at < t.len && !(class_at(t, at, &next) & classes))
        at = next;
    return at;
}

/* End of 's 't 're 've 'm 'll 'd at `at`, else `at`. In any case U+017F is an s too. */
static size_t contraction(struct text t, size_t at, bool any_case)
{
    if (at + 1 >= t.len || t.s[at] != '\'')
        return at;
    unsigned char a = (unsigned char)t.s[at + 1],
                  b = at + 2 < t.len ? (unsigned char)t.s[at + 2] : 0;
    if (any_case) {
        if (a == 0xc5 && b == 0xbf)
            return at + 3;
        a |= a >= 'A' && a <= 'Z' ? 0x20 : 0;
        b |= b >= 'A' && b <= 'Z' ? 0x20 : 0;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return at + 3;
    return at;
}

/* \s*[\r\n]+ (when `lines`), then \s+(?!\S), then \s+; `from` is a space. */
static size_t spaces(struct text t, size_t from, bool lines)
{
    size_t at = from, last = from, after_line = 0, next;
    uint8_t c;
    while ((c = class_at(t, at, &next)) & SPACE) {
        last = at;
        at = next;
        if (c & NEWLINE)
            after_line = at;
    }
    if (lines && after_line)
        return after_line;
    return at == t.len || last == from ? at : last;
}

static size_t scan_gpt2(const char *s, size_t len, size_t from)
{
    struct text t = {s, len};
    size_t next, end = contraction(t, from, false);
    if (end > from)
        return end;
    uint8_t c = class_at(t, from, &next);
    size_t at = from;
    if (s[from] == ' ' && next < len) {
        at = next;
        c = class_at(t, at, &next);
    }
    if (c & LETTER)
        return run_of(t, next, LETTER);
    if (c & NUMBER)
        return run_of(t, next, NUMBER);
    if (!(c & SPACE))
        return run_without(t, next, LETTER | NUMBER | SPACE);
    return spaces(t, from, false);
}

struct family {
    uint8_t letters; /* LETTER, or LETTER | MARK */
    int digits;      /* at most, in one piece */
};

/* (?i:'s|..)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,k}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */
static inline size_t scan_cl100k(struct text t, size_t from, struct family f)
{
    size_t next, after, end = contraction(t, from, true);
    if (end > from)
        return end;
    uint8_t c = class_at(t, from, &next);
    if (c & f.letters)
        return run_of(t, next, f.letters);
    if (c & NUMBER) {
        for (int i = 1; i < f.digits && class_at(t, next, &after) & NUMBER; i++)
            next = after;
        return next;
    }
    uint8_t d = class_at(t, next, &after);
    if (!(c & NEWLINE) && d & f.letters)
        return run_of(t, after, f.letters);
    uint8_t not_other = f.letters | NUMBER | SPACE;
    if (c & SPACE && !(t.s[from] == ' ' && next < t.len && !(d & not_other)))
        return spaces(t, from, true);
    return run_of(t, run_without(t, next, not_other), NEWLINE);
}

static size_t scan_llama3(const char *s, size_t len, size_t from)
{
    return scan_cl100k((struct text){s, len}, from, (struct family){LETTER, 3});
}

static size_t scan_qwen2(const char *s, size_t len, size_t from)
{
    return scan_cl100k((struct text){s, len}, from, (struct family){LETTER, 1});
}

static size_t scan_qwen35(const char *s, size_t len, size_t from)
{
    return scan_cl100k((struct text){s, len}, from, (struct family){LETTER | MARK, 1});
}

/* [U]*[L]+ at `at`: U is greedy and gives back from its end until an L is found. `at` when there is
 * no match. */
static size_t upper_lower(struct text t, size_t at)
{
    size_t next, end = at, given_back = at;
    uint8_t c;
    while ((c = class_at(t, end, &next)) & UPPER) {
        end = next;
        if (c & LOWER)
            given_back = end;
    }
    size_t lower = run_of(t, end, LOWER);
    return lower > end ? lower : given_back;
}

static size_t upper_then_lower(struct text t, size_t at)
{
    size_t end = run_of(t, at, UPPER);
    return end > at ? run_of(t, end, LOWER) : at;
}

/* The two word alternatives of o200k; `from` when neither matches. */
static size_t cased_word(struct text t, size_t from, size_t next, uint8_t c)
{
    bool prefix = !(c & (LETTER | NUMBER | NEWLINE)) && next < t.len;
    size_t end;
    if (prefix && (end = upper_lower(t, next)) > next)
        return end;
    if ((end = upper_lower(t, from)) > from)
        return end;
    if (prefix && (end = upper_then_lower(t, next)) > next)
        return end;
    return upper_then_lower(t, from);
}

static inline size_t scan_cased(struct text t, size_t from, int digits, bool contractions)
{
    size_t next, after;
    uint8_t c = class_at(t, from, &next);
    size_t end = cased_word(t, from, next, c);
    if (end > from)
        return contractions ? contraction(t, end, true) : end;
    if (c & NUMBER) {
        for (int i = 1; i < digits && class_at(t, next, &after) & NUMBER; i++)
            next = after;
        return next;
    }
    uint8_t d = class_at(t, next, &after), not_other = LETTER | NUMBER | SPACE;
    if (c & SPACE && !(t.s[from] == ' ' && next < t.len && !(d & not_other)))
        return spaces(t, from, true);
    end = run_without(t, next, not_other);
    while (end < t.len && (t.s[end] == '\r' || t.s[end] == '\n' || t.s[end] == '/'))
        end++;
    return end;
}

static size_t scan_o200k(const char *s, size_t len, size_t from)
{
    return scan_cased((struct text){s, len}, from, 3, true);
}

static size_t scan_tekken(const char *s, size_t len, size_t from)
{
    return scan_cased((struct text){s, len}, from, 1, false);
}

scanner_fn *scanner_find(const char *pattern, size_t len)
{
    static const struct {
        const char *pattern;
        scanner_fn *scan;
    } known[] = {
        {SPLIT_GPT2, scan_gpt2},
        {SPLIT_LLAMA3, scan_llama3},
        {SPLIT_PART_CONTRACTIONS "|" SPLIT_PART_PREFIX
                                 "+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
                                 "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
         scan_llama3},
        {SPLIT_CL100K, scan_llama3},
        {SPLIT_QWEN2, scan_qwen2},
        {SPLIT_QWEN35, scan_qwen35},
        {SPLIT_O200K, scan_o200k},
        {SPLIT_TEKKEN, scan_tekken},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strlen(known[i].pattern) != len || memcmp(known[i].pattern, pattern, len) != 0)
            continue;
        pthread_once(&table_once, fill_table);
        return known[i].scan;
    }
    return NULL;
}
