/* The hand-written scanners against the regular expressions that they stand for, on random text. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "tokenizer/regex.h"
#include "tokenizer/scanner.h"

#define CASED                                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define CASED2                                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char *const patterns[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL,
    CONTRACTION
    "|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"
    "|\\s+(?!\\S)|\\s+",
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
    "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL,
    CONTRACTION
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TAIL,
    CASED CONTRACTION "?|" CASED2 CONTRACTION "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL,
    CASED "|" CASED2 "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL,
};

static size_t random_text(struct rng *r, char *out, size_t cap)
{
    static const uint32_t picks[] = {
        'a',    'b',    'Z',   'Q',   ' ',     ' ',     '\n',    '\r',    '\t',    '\'',
        '\'',   's',    'S',   't',   'l',     'L',     'v',     'e',     'E',     'r',
        'm',    'd',    '1',   '2',   '/',     '.',     '-',     0x17f,   0x301,   0x327,
        0x4e2d, 0x3042, 0x1c5, 0x2b0, 0xa0,    0x85,    0x2028,  0x3000,  0x180e,  0x200b,
        0xb2,   0x2160, 0x661, 0xe9,  0xc9,    0x1f600, 0x10400, 0x1d7d8, 0x20000, 0x5d0,
        0x903,  0x20dd, 0,     0x7f,  0x10ffff};
    size_t n = 0, want = rng_below(r, cap - 8);
    while (n < want) {
        uint32_t cp = picks[rng_below(r, sizeof(picks) / sizeof(picks[0]))];
        if (rng_below(r, 20) == 0) {
            cp = (uint32_t)rng_below(r, 0x10000);
            /* surrogates, and characters that the two libraries' Unicode tables differ in */
            if ((cp >= 0xd800 && cp < 0xe000) || cp == 0xcf3 || cp == 0xece)
                cp = 'x';
        }
        n += utf8_encode(cp, out + n);
    }
    return n;
}

Test(scanner, is_its_pattern, .timeout = 120)
{
    struct rng r = rng_seed(3);
    for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
        scanner_fn *scan = scanner_find(patterns[p], strlen(patterns[p]));
        cr_assert_not_null(scan, "pattern %zu", p);
        struct regex *regex = NULL;
        struct error err = {0};
        cr_assert_eq(regex_compile(patterns[p], strlen(patterns[p]), &regex, &err), ST_OK, "%s",
                     err.text);
        struct regex_run run = {0};
        for (int i = 0; i < 20000; i++) {
            char text[64];
            size_t len = random_text(&r, text, sizeof(text)), at = 0;
            struct regex_walk w = {.regex = regex, .run = &run, .text = text, .len = len};
            while (regex_next(&w, &err) == ST_OK) {
                cr_assert_eq(w.begin, at, "pattern %zu leaves a gap", p);
                at = scan(text, len, at);
                cr_assert_eq(w.end, at, "pattern %zu, text %d \"%.*s\": %zu..%zu, scanner to %zu",
                             p, i, (int)len, text, w.begin, w.end, at);
            }
            cr_assert_eq(at, len);
        }
        regex_run_fini(&run);
        regex_free(regex);
    }
}

static struct regex *compile(const char *pattern)
{
    struct regex *r = NULL;
    struct error err = {0};
    cr_assert_eq(regex_compile(pattern, strlen(pattern), &r, &err), ST_OK, "%s", err.text);
    return r;
}

/* A search goes on over its windows of starting places, wherever characters begin. */
Test(scanner, finds_far_matches)
{
    static char text[3 * 20000 + 8];
    for (size_t lead = 0; lead < 4; lead++) {
        size_t n = 0;
        for (; n < lead; n++)
            text[n] = 'a';
        for (int i = 0; i < 20000; i++, n += 3)
            memcpy(text + n, "\xe4\xbd\xa0", 3);
        text[n++] = 'x';
        const char *const far[] = {"x", "(?<=\xe4\xbd\xa0)x", "x$", "\\bz|[xyz]"};
        for (size_t i = 0; i < 4; i++) {
            struct regex *r = compile(far[i]);
            struct regex_run run = {0};
            struct regex_walk w = {.regex = r, .run = &run, .text = text, .len = n};
            cr_assert_eq(regex_next(&w, NULL), ST_OK, "%s", far[i]);
            cr_assert_eq(w.begin, n - 1);
            cr_assert_eq(regex_next(&w, NULL), ST_NOT_FOUND);
            regex_run_fini(&run);
            regex_free(r);
        }
    }
}

/* Patterns that are quadratic or worse on some text end soon, with an error or without. */
Test(scanner, hard_patterns_are_bounded, .timeout = 280)
{
    static const struct {
        const char *pattern;
        char fill;
    } hard[] = {
        {"\\s+\\d", ' '},
        {"\\d(?=(?:\\d{3})+\\b)", '7'},
        {"(a+)+b", 'a'},
        {"(?:a|aa)*c", 'a'},
    };
    size_t n = 1 << 20;
    char *text = malloc(n);
    cr_assert_not_null(text);
    for (size_t i = 0; i < sizeof(hard) / sizeof(hard[0]); i++) {
        struct regex *r = compile(hard[i].pattern);
        struct regex_run run = {0};
        struct error err = {0};
        memset(text, hard[i].fill, n);
        struct regex_walk w = {.regex = r, .run = &run, .text = text, .len = n};
        int64_t start = clock_now_ns();
        enum status st;
        while ((st = regex_next(&w, &err)) == ST_OK)
            ;
        int64_t took = clock_now_ns() - start;
        cr_assert(st == ST_INVALID || st == ST_NOT_FOUND, "%s: %s", hard[i].pattern,
                  status_name(st));
        cr_assert_lt(took, 60 * NS_PER_S, "%s: %.1f s", hard[i].pattern, (double)took / 1e9);
        regex_run_fini(&run);
        regex_free(r);
    }
    free(text);
}

Test(scanner, knows_only_its_patterns)
{
    cr_assert_null(scanner_find("", 0));
    cr_assert_null(scanner_find("\\s+", 3));
    cr_assert_null(scanner_find(patterns[0], strlen(patterns[0]) - 1));
}
