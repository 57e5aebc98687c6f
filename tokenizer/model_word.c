/* The two models that know whole words: WordPiece (greedy longest pieces, Wu et al. 2016, as BERT
 * does it) and WordLevel (a word is a token or it is unknown). */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/model.h"
#include "tokenizer/parse.h"
#include "tokenizer/unicode.h"

#define PREFIX_MAX 64
#define WORD_CHARS_MAX 1000

struct word_model {
    struct model model;
    int32_t unk;
    char prefix[PREFIX_MAX + 1];
    size_t prefix_len;
    size_t chars_max; /* a longer word is unknown */
    size_t token_max; /* bytes of the longest token */
};

static const struct word_model *word_of(const struct model *m)
{
    return (const struct word_model *)(const void *)m;
}

static enum status push_unknown(const struct word_model *w, struct ids *out)
{
    return w->unk < 0 || ids_push(out, w->unk) ? ST_OK : ST_NO_MEMORY;
}

static enum status wordlevel_encode(const struct model *m, struct model_run *run, const char *s,
                                    size_t len, struct ids *out)
{
    int32_t id = vocab_find(m->vocab, s, len);
    if (id < 0)
        return push_unknown(word_of(m), out);
    return ids_push(out, id) ? ST_OK : ST_NO_MEMORY;
}

/* Longest piece that starts at s[begin]; *end is where it ends. -1: none. */
static int32_t longest_piece(const struct word_model *w, char *text, const char *s, size_t len,
                             size_t *end)
{
    size_t begin = *end, skip = begin ? w->prefix_len : 0;
    size_t stop = len;
    if (skip)
        memcpy(text, w->prefix, skip);
    while (stop - begin + skip > w->token_max && stop > begin)
        stop = text_prev(s, stop);
    for (; stop > begin; stop = text_prev(s, stop)) {
        memcpy(text + skip, s + begin, stop - begin);
        int32_t id = vocab_find(w->model.vocab, text, skip + stop - begin);
        if (id >= 0) {
            *end = stop;
            return id;
        }
    }
    return -1;
}

static enum status wordpiece_encode(const struct model *m, struct model_run *run, const char *s,
                                    size_t len, struct ids *out)
{
    const struct word_model *w = word_of(m);
    size_t chars = 0, mark = out->n;
    for (size_t i = 0; i < len && chars <= w->chars_max; chars++)
        i += text_char_len((unsigned char)s[i]);
    if (chars > w->chars_max)
        return push_unknown(w, out);
    char *text = model_run_scratch(run, w->prefix_len + len);
    if (!text)
        return ST_NO_MEMORY;
    for (size_t end = 0; end < len;) {
        int32_t id = longest_piece(w, text, s, len, &end);
        if (id < 0) {
            out->n = mark;
            return push_unknown(w, out);
        }
        if (!ids_push(out, id))
            return ST_NO_MEMORY;
    }
    return ST_OK;
}

static void word_destroy(struct model *m)
{
    free(m);
}

static enum status word_parse(const struct model_source *source, const struct model_ops *ops,
                              struct model **out, struct error *err)
{
    struct word_model *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ST_NO_MEMORY, "model: no memory");
    w->model = (struct model){ops, source->vocab};
    struct text_ref prefix = {"", 0};
    enum status st = model_parse_vocab(source, err);
    if (!st)
        st = model_parse_unk(source, "[UNK]", &w->unk, err);
    if (!st)
        st = parse_str(source->v, "continuing_subword_prefix", "##", &prefix, err);
    if (!st)
        st = parse_count(source->v, "max_input_chars_per_word", 100, &w->chars_max, err);
    w->prefix_len = prefix.len;
    if (!st && w->prefix_len > PREFIX_MAX)
        st = err_set(err, ST_INVALID, "continuing_subword_prefix: %zu bytes, at most %d",
                     w->prefix_len, PREFIX_MAX);
    if (!st && w->chars_max > WORD_CHARS_MAX) /* the search is quadratic in it */
        st = err_set(err, ST_INVALID, "max_input_chars_per_word: %zu, at most %d", w->chars_max,
                     WORD_CHARS_MAX);
    if (st) {
        free(w);
        return st;
    }
    memcpy(w->prefix, prefix.s, prefix.len);
    for (size_t i = 0; i < source->vocab->n; i++)
        if (source->vocab->entries[i].len > w->token_max)
            w->token_max = source->vocab->entries[i].len;
    *out = &w->model;
    return ST_OK;
}

enum status model_wordpiece_parse(const struct model_source *source, struct model **out,
                                  struct error *err)
{
    static const struct model_ops ops = {"WordPiece", wordpiece_encode, word_destroy};
    return word_parse(source, &ops, out, err);
}

enum status model_wordlevel_parse(const struct model_source *source, struct model **out,
                                  struct error *err)
{
    static const struct model_ops ops = {"WordLevel", wordlevel_encode, word_destroy};
    return word_parse(source, &ops, out, err);
}
