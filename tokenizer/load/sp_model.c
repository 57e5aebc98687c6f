/* A SentencePiece model as a tokenizer.json. */
#include <stdlib.h>

#include "tokenizer/base64.h"
#include "tokenizer/load/load.h"
#include "tokenizer/model.h"

enum status sp_model_add(struct sp_model *m, const struct sp_piece *p, struct error *err)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 1024;
        struct sp_piece *pieces = realloc(m->pieces, cap * sizeof(*pieces));
        if (!pieces)
            return err_set(err, ST_NO_MEMORY, "no memory for %zu pieces", cap);
        m->pieces = pieces;
        m->cap = cap;
    }
    if (m->n >= VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, "more than %u pieces", VOCAB_ENTRIES_MAX);
    m->pieces[m->n++] = *p;
    return ST_OK;
}

static void write_normalizer(struct jw *w, const struct sp_model *m, struct buf *base64)
{
    jw_key(w, "normalizer");
    jw_obj(w);
    made_key_str(w, "type", "SentencePiece");
    base64_encode(m->charsmap, m->charsmap_len, base64);
    jw_key(w, "precompiled_charsmap");
    jw_strn(w, base64->data ? base64->data : "", base64->len);
    made_key_bool(w, "add_dummy_prefix", m->prefix);
    made_key_bool(w, "prefix_first_only", m->first_only);
    made_key_bool(w, "remove_extra_whitespaces", m->collapse);
    made_key_bool(w, "escape_whitespaces", m->escape);
    made_key_bool(w, "treat_whitespace_as_suffix", m->suffix);
    jw_key(w, "user_defined");
    jw_arr(w);
    for (size_t i = 0; i < m->n; i++)
        if (m->pieces[i].type == PIECE_USER_DEFINED && m->pieces[i].len && !m->user_first)
            jw_strn(w, m->pieces[i].s, m->pieces[i].len);
    jw_end_arr(w);
    jw_end_obj(w);
}

static void write_model(struct jw *w, const struct sp_model *m)
{
    jw_key(w, "model");
    jw_obj(w);
    made_key_str(w, "type", m->unigram ? "Unigram" : "BPE");
    made_key_bool(w, "sentencepiece", true);
    made_key_bool(w, "byte_fallback", m->byte_fallback);
    if (m->unigram && m->unk >= 0) {
        jw_key(w, "unk_id");
        jw_int(w, m->unk);
    } else if (m->unk >= 0) {
        jw_key(w, "unk_token");
        jw_strn(w, m->pieces[m->unk].s, m->pieces[m->unk].len);
    }
    if (!m->unigram)
        made_key_bool(w, "fuse_unk", true);
    jw_key(w, "vocab");
    jw_arr(w);
    for (size_t i = 0; i < m->n; i++) {
        const struct sp_piece *p = &m->pieces[i];
        /* cut out of the text before the model sees it */
        bool outside = m->user_first && p->type == PIECE_USER_DEFINED;
        jw_arr(w);
        jw_strn(w, p->s, p->len);
        jw_real(w, (double)p->score);
        jw_int(w, outside ? PIECE_CONTROL : p->type);
        jw_end_arr(w);
    }
    jw_end_arr(w);
    jw_end_obj(w);
}

static void write_config(const struct sp_model *m, struct buf *out)
{
    struct jw w = jw_begin(out);
    jw_obj(&w);
    if (m->bos >= 0) {
        jw_key(&w, "bos_token");
        jw_strn(&w, m->pieces[m->bos].s, m->pieces[m->bos].len);
    }
    if (m->eos >= 0) {
        jw_key(&w, "eos_token");
        jw_strn(&w, m->pieces[m->eos].s, m->pieces[m->eos].len);
    }
    jw_end_obj(&w);
}

enum status sp_model_write(const struct sp_model *m, struct made *out, struct error *err)
{
    const int64_t ids[] = {m->unk, m->bos, m->eos, m->add_bos, m->add_eos};
    struct buf base64 = {0};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        if (ids[i] >= (int64_t)m->n)
            return err_set(err, ST_INVALID, "a special token of id %lld, but %zu pieces",
                           (long long)ids[i], m->n);
    struct jw w = jw_begin(&out->tokenizer);
    jw_obj(&w);
    jw_key(&w, "added_tokens");
    jw_arr(&w);
    for (size_t i = 0; i < m->n; i++) {
        const struct sp_piece *p = &m->pieces[i];
        bool special = p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN;
        if (p->len && (special || (m->user_first && p->type == PIECE_USER_DEFINED)))
            made_added(&w, (int64_t)i, p->s, p->len, special);
    }
    jw_end_arr(&w);
    write_normalizer(&w, m, &base64);
    made_space_decoder(&w, m->prefix && !m->suffix, m->prefix && m->suffix);
    made_template(&w, m->add_bos, m->add_eos);
    write_model(&w, m);
    jw_end_obj(&w);
    write_config(m, &out->config);
    bool failed = out->tokenizer.failed || out->config.failed || base64.failed;
    buf_fini(&base64);
    return failed ? err_set(err, ST_NO_MEMORY, "no memory for a tokenizer") : ST_OK;
}
