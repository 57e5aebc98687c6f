#include <criterion/criterion.h>

#include <string.h>

#include "base/utf8.h"

Test(utf8, every_code_point_goes_round)
{
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        char out[4];
        uint32_t back = 0;
        size_t n = utf8_encode(cp, out);
        if (utf8_decode(out, n, &back) != n || back != cp)
            cr_assert_fail("U+%04X does not come back", cp);
        for (size_t cut = 0; cut < n; cut++)
            if (utf8_decode(out, cut, &back) != 0 || utf8_complete_prefix(out, cut) != 0)
                cr_assert_fail("U+%04X cut to %zu bytes passes", cp, cut);
        if (utf8_complete_prefix(out, n) != n)
            cr_assert_fail("U+%04X is not complete", cp);
    }
}

Test(utf8, what_cannot_be_encoded_becomes_fffd)
{
    char out[4];
    cr_assert_eq(utf8_encode(0xd800, out), 3);
    cr_assert_eq(memcmp(out, "\xef\xbf\xbd", 3), 0);
    cr_assert_eq(utf8_encode(0x110000, out), 3);
    cr_assert_eq(memcmp(out, "\xef\xbf\xbd", 3), 0);
}

Test(utf8, invalid_forms)
{
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80",
                                      "\xff",
                                      "\xfe",
                                      "\xc3",
                                      "\xe2\x82",
                                      "\xf0\x9f\x98",
                                      "\xc3(",
                                      "\xe2(\xac",
                                      "\xe2\x82(",
                                      "12345678\x80",
                                      "1234567\xc3",
                                      "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_not(utf8_valid(bad[i], strlen(bad[i])), "case %zu", i);
    static const char *const good[] = {"",
                                       "a",
                                       "12345678",
                                       "123456789",
                                       "caf\xc3\xa9 123456",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        cr_assert(utf8_valid(good[i], strlen(good[i])), "case %zu", i);
    cr_assert(utf8_valid("a\0b", 3), "a NUL is a character");
}

Test(utf8, decode_agrees_with_a_table_free_reading)
{
    /* Every pair of lead and second byte, with sound further bytes: exactly the well-formed ones
     * pass. */
    for (int a = 0x80; a < 0x100; a++) {
        for (int b = 0; b < 0x100; b++) {
            char s[4] = {(char)a, (char)b, (char)0x80, (char)0x80};
            uint32_t cp, want = 0;
            size_t need = a >= 0xf0 ? 4 : a >= 0xe0 ? 3 : a >= 0xc0 ? 2 : 0, n;
            bool ok = need != 0 && a < 0xf8 && (b & 0xc0) == 0x80;
            if (ok) {
                want = (uint32_t)(a & (0x7f >> need)) << 6 | (uint32_t)(b & 0x3f);
                want <<= 6 * (need - 2);
                static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
                ok = want >= least[need] && want <= 0x10ffff && !(want >= 0xd800 && want <= 0xdfff);
            }
            n = utf8_decode(s, 4, &cp);
            cr_assert_eq(n, ok ? need : 0, "%02x %02x", a, b);
            if (ok)
                cr_assert_eq(cp, want, "%02x %02x", a, b);
        }
    }
}

Test(utf8, complete_prefix)
{
    static const struct {
        const char *text;
        size_t len, want;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"ab\xc3", 3, 2},
        {"ab\xe2\x82", 4, 2},
        {"ab\xf0\x9f\x98", 5, 2},
        {"ab\xf0\x9f\x98\x80", 6, 6},
        {"ab\x80", 3, 3},           /* nothing that could become sound */
        {"\x80\x80\x80\x80", 4, 4}, /* continuation bytes of nothing */
        {"\xe2\x82\xac\x82", 4, 4}, /* one too many */
        {"\xc0", 1, 1},             /* never a lead byte */
        {"\xe0\x80", 2, 2},         /* overlong whatever follows */
        {"\xed\xa0", 2, 2},         /* a surrogate whatever follows */
        {"\xf4\x90", 2, 2},         /* over U+10FFFF */
        {"\xf0\x90\x80", 3, 0},
        {"\xe2", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_assert_eq(utf8_complete_prefix(cases[i].text, cases[i].len), cases[i].want, "case %zu",
                     i);
}
