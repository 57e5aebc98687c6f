/* Byte-pair encoding against its definition: merge the pair of lowest rank, the leftmost of equals,
 * until there is none. Words short and long, since the two are merged in different ways. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "tokenizer/tokenizer.h"

#define LETTERS 3
#define TOKENS 40
#define TOKEN_MAX 12
#define WORD_MAX 500

struct language {
    char text[TOKENS][TOKEN_MAX + 1];
    int n;
    int rank[TOKENS][TOKENS]; /* of the merge, -1: none */
    int merged[TOKENS][TOKENS];
    struct tokenizer *t;
};

static int find(const struct language *l, const char *text)
{
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->text[i], text) == 0)
            return i;
    return -1;
}

/* Letters, then merges of what there is so far. */
static void language_open(struct language *l, uint64_t seed)
{
    struct rng g = rng_seed(seed);
    struct buf merges = {0}, b = {0};
    struct error err = {0};
    memset(l, 0, sizeof(*l));
    memset(l->rank, -1, sizeof(l->rank));
    for (; l->n < LETTERS; l->n++)
        l->text[l->n][0] = (char)('a' + l->n);
    for (int rank = 0; l->n < TOKENS;) {
        int x = (int)rng_below(&g, (uint64_t)l->n), y = (int)rng_below(&g, (uint64_t)l->n);
        char text[2 * TOKEN_MAX + 1];
        snprintf(text, sizeof(text), "%s%s", l->text[x], l->text[y]);
        if (strlen(text) > TOKEN_MAX || l->rank[x][y] >= 0)
            continue;
        int id = find(l, text);
        if (id < 0) {
            id = l->n++;
            memcpy(l->text[id], text, strlen(text) + 1);
        }
        buf_printf(&merges, "%s\"%s %s\"", rank ? "," : "", l->text[x], l->text[y]);
        l->rank[x][y] = rank++;
        l->merged[x][y] = id;
    }
    buf_puts(&b, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int i = 0; i < l->n; i++)
        buf_printf(&b, "%s\"%s\":%d", i ? "," : "", l->text[i], i);
    buf_printf(&b, "},\"merges\":[%s]}}", merges.data);
    cr_assert_eq(tokenizer_load_text(b.data, b.len, NULL, 0, &l->t, &err), ST_OK, "%s", err.text);
    buf_fini(&merges);
    buf_fini(&b);
}

static int encode_plainly(const struct language *l, const char *word, int n, int32_t *v)
{
    for (int i = 0; i < n; i++)
        v[i] = word[i] - 'a';
    for (;;) {
        int best = -1, best_rank = 0;
        for (int i = 0; i + 1 < n; i++) {
            int rank = l->rank[v[i]][v[i + 1]];
            if (rank >= 0 && (best < 0 || rank < best_rank)) {
                best = i;
                best_rank = rank;
            }
        }
        if (best < 0)
            return n;
        v[best] = l->merged[v[best]][v[best + 1]];
        n--;
        memmove(v + best + 1, v + best + 2, sizeof(*v) * (size_t)(n - best - 1));
    }
}

static void check_word(const struct language *l, const char *word, int n)
{
    int32_t want[WORD_MAX];
    struct ids ids = {0};
    int n_want = encode_plainly(l, word, n, want);
    cr_assert_eq(tokenizer_encode(l->t, word, (size_t)n, 0, &ids, NULL), ST_OK);
    cr_assert_eq(ids.n, (size_t)n_want, "%.*s: %zu, not %d", n, word, ids.n, n_want);
    cr_assert_eq(memcmp(ids.v, want, ids.n * sizeof(*want)), 0, "%.*s", n, word);
    ids_fini(&ids);
}

Test(bpe, merges_as_defined, .timeout = 60)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct language l;
        struct rng g = rng_seed(seed + 1000);
        char word[WORD_MAX];
        language_open(&l, seed);
        for (int round = 0; round < 60; round++) {
            int n = 1 + (int)rng_below(&g, round % 3 ? WORD_MAX : 70);
            /* Some are of runs, where all pairs are alike and overlap. */
            bool runs = round % 4 == 0;
            for (int i = 0; i < n; i++)
                word[i] = runs && i > 0 && rng_below(&g, 8) > 0
                              ? word[i - 1]
                              : (char)('a' + (int)rng_below(&g, LETTERS));
            check_word(&l, word, n);
        }
        tokenizer_free(l.t);
    }
}
