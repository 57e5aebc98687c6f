#include "tokenizer/sp_normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/charsmap.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocab.h"

#define MARKER "\xe2\x96\x81"

struct sp_normalizer {
    struct charsmap *map; /* or NULL */
    struct trie keep;     /* user-defined pieces */
    bool prefix, first_only, collapse, escape, suffix;
};

void sp_normalizer_free(struct sp_normalizer *n)
{
    if (!n)
        return;
    charsmap_free(n->map);
    trie_fini(&n->keep);
    free(n);
}

static enum status parse_keep(const json *list, struct trie *keep, struct error *err)
{
    if (json_kind_of(list) != JSON_ARR && json_kind_of(list) != JSON_ABSENT)
        return parse_mismatch("user_defined", "an array", list, err);
    if (json_count(list) > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "user_defined: %zu entries", json_count(list));
    for (size_t i = 0; i < json_count(list); i++) {
        const json *v = json_at(list, i);
        if (json_kind_of(v) != JSON_STR || !json_str_len(v))
            return parse_mismatch("user_defined", "strings", v, err);
        if (!trie_add(keep, json_as_str(v, ""), json_str_len(v), 0))
            return err_set(err, ST_NO_MEMORY, "user_defined: no memory");
    }
    return ST_OK;
}

enum status sp_normalizer_parse(const json *v, struct sp_normalizer **out, struct error *err)
{
    struct sp_normalizer *n = calloc(1, sizeof(*n));
    struct text_ref map = {"", 0};
    if (!n)
        return err_set(err, ST_NO_MEMORY, "no memory");
    enum status st = parse_str(v, "precompiled_charsmap", "", &map, err);
    if (!st)
        st = charsmap_parse(map.s, map.len, &n->map, err);
    if (!st)
        st = parse_bool(v, "add_dummy_prefix", true, &n->prefix, err);
    if (!st)
        st = parse_bool(v, "prefix_first_only", false, &n->first_only, err);
    if (!st)
        st = parse_bool(v, "remove_extra_whitespaces", true, &n->collapse, err);
    if (!st)
        st = parse_bool(v, "escape_whitespaces", true, &n->escape, err);
    if (!st)
        st = parse_bool(v, "treat_whitespace_as_suffix", false, &n->suffix, err);
    if (!st)
        st = parse_keep(json_get(v, "user_defined"), &n->keep, err);
    if (st)
        sp_normalizer_free(n);
    else
        *out = n;
    return st;
}

/* What the text begins with, and what that becomes. */
static struct text_ref next_piece(const struct sp_normalizer *n, struct text_ref in, size_t *used)
{
    size_t longest = 0;
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < in.len; i++) {
        node = trie_step(&n->keep, node, (unsigned char)in.s[i]);
        if (node == TRIE_NONE)
            break;
        if (n->keep.values[node] >= 0)
            longest = i + 1;
    }
    *used = longest;
    if (longest)
        return (struct text_ref){in.s, longest};
    const char *to = n->map ? charsmap_longest(n->map, in.s, in.len, used) : NULL;
    if (to)
        return (struct text_ref){to, strlen(to)};
    *used = text_char_len((unsigned char)in.s[0]);
    return (struct text_ref){in.s, *used};
}

static void put_space(const struct sp_normalizer *n, struct buf *out)
{
    if (n->escape)
        buf_append(out, MARKER, 3);
    else
        buf_putc(out, ' ');
}

static void put_piece(const struct sp_normalizer *n, struct text_ref t, struct buf *out)
{
    for (size_t done = 0; done < t.len;) {
        const char *space = memchr(t.s + done, ' ', t.len - done);
        size_t end = space ? (size_t)(space - t.s) : t.len;
        buf_append(out, t.s + done, end - done);
        if (space)
            put_space(n, out);
        done = end + (space != NULL);
    }
}

static void drop_spaces_at_end(const struct sp_normalizer *n, struct buf *out)
{
    size_t len = n->escape ? 3 : 1;
    const char *space = n->escape ? MARKER : " ";
    while (out->len >= len && !memcmp(out->data + out->len - len, space, len))
        out->len -= len;
}

void sp_normalizer_apply(const struct sp_normalizer *n, struct text_ref in, bool first,
                         struct buf *out)
{
    bool prefix = n->prefix && (first || !n->first_only), was_space = n->collapse;
    size_t used;
    while (n->collapse && in.len) {
        struct text_ref p = next_piece(n, in, &used);
        if (p.len != 1 || p.s[0] != ' ')
            break;
        in.s += used;
        in.len -= used;
    }
    if (!in.len)
        return;
    if (prefix && !n->suffix)
        put_space(n, out);
    if (!n->map && !n->keep.n && !n->collapse) { /* Llama's: only spaces change */
        put_piece(n, in, out);
        in.len = 0;
    }
    while (in.len) {
        struct text_ref p = next_piece(n, in, &used);
        in.s += used;
        in.len -= used;
        while (was_space && p.len && p.s[0] == ' ') {
            p.s++;
            p.len--;
        }
        if (p.len) {
            put_piece(n, p, out);
            was_space = p.s[p.len - 1] == ' ';
        }
        was_space = was_space && n->collapse;
    }
    if (n->collapse)
        drop_spaces_at_end(n, out);
    if (prefix && n->suffix)
        put_space(n, out);
}
