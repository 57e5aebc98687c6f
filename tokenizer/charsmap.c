#include "tokenizer/charsmap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/base64.h"
#include "tokenizer/unicode.h"

#define CHARSMAP_MAX (64u << 20)
#define KEY_BYTES_MAX 256 /* a hostile trie may go round in circles */

struct charsmap {
    uint32_t *units;
    size_t n_units;
    char *strings; /* NUL-separated, and a last NUL of ours */
    size_t strings_len;
};

enum status charsmap_parse(const char *base64, size_t len, struct charsmap **out, struct error *err)
{
    struct buf raw = {.max = CHARSMAP_MAX};
    enum status st = ST_OK;
    struct charsmap *m = NULL;
    *out = NULL;
    if (len == 0)
        return ST_OK;
    if (!base64_decode(base64, len, &raw)) {
        st = err_set(err, ST_INVALID, "precompiled_charsmap: not base64 of at most %u bytes",
                     CHARSMAP_MAX);
        goto done;
    }
    uint32_t trie_bytes = 0;
    if (raw.len >= 4)
        memcpy(&trie_bytes, raw.data, 4);
    if (raw.len < 8 || trie_bytes % 4 || trie_bytes < 4 || trie_bytes > raw.len - 4) {
        st = err_set(err, ST_INVALID, "precompiled_charsmap: trie of %u bytes in a map of %zu",
                     trie_bytes, raw.len);
        goto done;
    }
    m = calloc(1, sizeof(*m));
    if (m) {
        m->n_units = trie_bytes / 4;
        m->strings_len = raw.len - 4 - trie_bytes;
        m->units = malloc(trie_bytes);
        m->strings = malloc(m->strings_len + 1);
    }
    if (!m || !m->units || !m->strings) {
        charsmap_free(m);
        st = err_set(err, ST_NO_MEMORY, "precompiled_charsmap: no memory");
        goto done;
    }
    memcpy(m->units, raw.data + 4, trie_bytes);
    memcpy(m->strings, raw.data + 4 + trie_bytes, m->strings_len);
    m->strings[m->strings_len] = 0;
    *out = m;
done:
    buf_fini(&raw);
    return st;
}

void charsmap_free(struct charsmap *m)
{
    if (!m)
        return;
    free(m->units);
    free(m->strings);
    free(m);
}

static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* Replacement of the shortest prefix of the key that the trie holds (of the whole key, that is how
 * it is used); NULL: none. */
static const char *lookup(const struct charsmap *m, const char *key, size_t len)
{
    size_t at = unit_offset(m->units[0]);
    for (size_t i = 0; i < len && key[i]; i++) {
        unsigned char c = (unsigned char)key[i];
        at ^= c;
        if (at >= m->n_units)
            return NULL;
        uint32_t unit = m->units[at];
        if ((unit & (1u << 31 | 0xff)) != c)
            return NULL;
        at ^= unit_offset(unit);
        if (at >= m->n_units)
            return NULL;
        if (unit >> 8 & 1) {
            size_t value = m->units[at] & (UINT32_MAX >> 1);
            const char *to = value <= m->strings_len ? m->strings + value : NULL;
            /* a bad map may point into a character: what follows relies on whole ones */
            return to && utf8_valid(to, strlen(to)) ? to : NULL;
        }
    }
    return NULL;
}

void charsmap_apply(const struct charsmap *m, const char *s, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len;) {
        size_t n = text_grapheme(s + i, len - i);
        const char *to = n < 6 ? lookup(m, s + i, n) : NULL;
        if (to) {
            buf_puts(out, to);
            i += n;
            continue;
        }
        for (size_t end = i + n; i < end;) {
            size_t c = text_char_len((unsigned char)s[i]);
            to = lookup(m, s + i, c);
            if (to)
                buf_puts(out, to);
            else
                buf_append(out, s + i, c);
            i += c;
        }
    }
}

const char *charsmap_longest(const struct charsmap *m, const char *s, size_t len, size_t *used)
{
    const char *best = NULL;
    size_t at = unit_offset(m->units[0]);
    for (size_t i = 0; i < len && i < KEY_BYTES_MAX && s[i]; i++) {
        unsigned char c = (unsigned char)s[i];
        at ^= c;
        if (at >= m->n_units)
            break;
        uint32_t unit = m->units[at];
        if ((unit & (1u << 31 | 0xff)) != c)
            break;
        at ^= unit_offset(unit);
        if (at >= m->n_units)
            break;
        size_t value = unit >> 8 & 1 ? m->units[at] & (UINT32_MAX >> 1) : SIZE_MAX;
        if (value <= m->strings_len) {
            best = m->strings + value;
            *used = i + 1;
        }
    }
    return best && utf8_valid(best, strlen(best)) ? best : NULL;
}
