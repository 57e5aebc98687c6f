#include "base/utf8.h"

#include <string.h>

/* Length that a first byte announces and the bounds of the second byte that keep overlong forms,
 * surrogates and values over U+10FFFF out (Unicode table 3-7); 0 for a byte that can begin nothing.
 */
static size_t lead(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    if (c < 0xe0)
        return 2;
    if (c == 0xe0)
        *low = 0xa0;
    else if (c == 0xed)
        *high = 0x9f;
    else if (c == 0xf0)
        *low = 0x90;
    else if (c == 0xf4)
        *high = 0x8f;
    return c < 0xf0 ? 3 : 4;
}

/* How many of the first bytes of s are a sound beginning of one character; *need is its full length
 * or 0. */
static size_t sound(const unsigned char *s, size_t len, size_t *need)
{
    unsigned char low, high;
    *need = len == 0 ? 0 : lead(s[0], &low, &high);
    if (*need == 0)
        return 0;
    size_t i = 1;
    for (; i < *need && i < len; i++) {
        if (s[i] < low || s[i] > high)
            break;
        low = 0x80;
        high = 0xbf;
    }
    return i;
}

size_t utf8_decode(const char *s, size_t len, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t need;
    size_t have = sound(u, len, &need);
    if (need == 0 || have < need)
        return 0;
    static const unsigned char mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t value = u[0] & mask[need];
    for (size_t i = 1; i < need; i++)
        value = value << 6 | (u[i] & 0x3f);
    *cp = value;
    return need;
}

bool utf8_valid(const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= sizeof word) {
            memcpy(&word, s + i, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof word;
                continue;
            }
        }
        uint32_t cp;
        size_t n = utf8_decode(s + i, len - i, &cp);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        cp = 0xfffd;
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

size_t utf8_complete_prefix(const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;
    /* A character that is still open began at most three bytes ago. */
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        const unsigned char *start = u + len - back;
        if ((*start & 0xc0) == 0x80)
            continue;
        size_t need;
        size_t have = sound(start, back, &need);
        return need > back && have == back ? len - back : len;
    }
    return len;
}
