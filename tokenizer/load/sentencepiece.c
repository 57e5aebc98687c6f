/* tokenizer.model: a SentencePiece ModelProto, read field by field. The wire format of protocol
 * buffers is a list of (field number, wire type, value); unknown fields are passed over. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/load/load.h"
#include "tokenizer/model.h"

struct wire {
    const unsigned char *at, *end;
    bool bad;
};

/* One field: its number and, by wire type, a number or bytes. */
struct field {
    uint32_t number;
    int type; /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
    uint64_t n;
    const unsigned char *bytes;
    size_t len;
};

static uint64_t read_varint(struct wire *w)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end)
            break;
        unsigned char c = *w->at++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return v;
    }
    w->bad = true;
    return 0;
}

/* false: the end, or `bad`. */
static bool next_field(struct wire *w, struct field *f)
{
    if (w->bad || w->at == w->end)
        return false;
    uint64_t tag = read_varint(w);
    *f = (struct field){.number = (uint32_t)(tag >> 3), .type = (int)(tag & 7)};
    size_t left = (size_t)(w->end - w->at), fixed = f->type == 1 ? 8 : 4;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        w->bad = true;
    } else if (f->type == 0) {
        f->n = read_varint(w);
    } else if (f->type == 2) {
        f->n = read_varint(w);
        left = (size_t)(w->end - w->at);
        w->bad = w->bad || f->n > left;
        f->bytes = w->at;
        f->len = w->bad ? 0 : (size_t)f->n;
        w->at += f->len;
    } else if ((f->type == 1 || f->type == 5) && left >= fixed) {
        for (size_t i = fixed; i-- > 0;)
            f->n = f->n << 8 | w->at[i];
        w->at += fixed;
    } else {
        w->bad = true;
    }
    return !w->bad;
}

static enum status malformed(const char *what, struct error *err)
{
    return err_set(err, ST_INVALID, "%s: not a SentencePiece model: its fields are malformed",
                   what);
}

/* SentencePiece { piece = 1; score = 2; type = 3 } */
static enum status read_piece(struct sp_model *m, const struct field *message, struct error *err)
{
    struct wire w = {message->bytes, message->bytes + message->len, false};
    struct sp_piece p = {.s = "", .type = PIECE_NORMAL};
    struct field f;
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.type == 2) {
            p.s = (const char *)f.bytes;
            p.len = f.len;
        } else if (f.number == 2 && f.type == 5) {
            uint32_t bits = (uint32_t)f.n;
            memcpy(&p.score, &bits, sizeof(p.score));
        } else if (f.number == 3 && f.type == 0) {
            p.type = f.n <= PIECE_BYTE ? (int)f.n : 0;
        }
    }
    if (w.bad)
        return malformed("pieces", err);
    if (p.len > PIECE_MAX || !utf8_valid(p.s, p.len) || p.type < PIECE_NORMAL)
        return err_set(err, ST_INVALID, "piece %zu: too long, not UTF-8, or of unknown type", m->n);
    return sp_model_add(m, &p, err);
}

/* TrainerSpec { model_type = 3; treat_whitespace_as_suffix = 24; byte_fallback = 35; unk_id = 40;
 * bos_id = 41; eos_id = 42 } */
static enum status read_trainer(struct sp_model *m, const struct field *message, struct error *err)
{
    struct wire w = {message->bytes, message->bytes + message->len, false};
    struct field f;
    uint64_t type = 1;
    while (next_field(&w, &f)) {
        if (f.type != 0)
            continue;
        int64_t id = (int32_t)(uint32_t)f.n;
        if (f.number == 3)
            type = f.n;
        else if (f.number == 24)
            m->suffix = f.n;
        else if (f.number == 35)
            m->byte_fallback = f.n;
        else if (f.number == 40)
            m->unk = id;
        else if (f.number == 41)
            m->bos = id;
        else if (f.number == 42)
            m->eos = id;
    }
    if (w.bad)
        return malformed("trainer_spec", err);
    if (type != 1 && type != 2)
        return err_set(err, ST_UNSUPPORTED,
                       "a SentencePiece model of type %s; unigram and bpe are "
                       "supported",
                       type == 3   ? "word"
                       : type == 4 ? "char"
                                   : "unknown");
    m->unigram = type == 1;
    return ST_OK;
}

/* NormalizerSpec { precompiled_charsmap = 2; add_dummy_prefix = 3; remove_extra_whitespaces = 4;
 * escape_whitespaces = 5 } */
static enum status read_normalizer(struct sp_model *m, const struct field *message,
                                   struct error *err)
{
    struct wire w = {message->bytes, message->bytes + message->len, false};
    struct field f;
    while (next_field(&w, &f)) {
        if (f.number == 2 && f.type == 2) {
            m->charsmap = f.bytes;
            m->charsmap_len = f.len;
        } else if (f.number == 3 && f.type == 0) {
            m->prefix = f.n;
        } else if (f.number == 4 && f.type == 0) {
            m->collapse = f.n;
        } else if (f.number == 5 && f.type == 0) {
            m->escape = f.n;
        }
    }
    return w.bad ? malformed("normalizer_spec", err) : ST_OK;
}

/* ModelProto { pieces = 1; trainer_spec = 2; normalizer_spec = 3 } */
static enum status read_model(struct sp_model *m, const void *bytes, size_t len, struct error *err)
{
    struct wire w = {bytes, (const unsigned char *)bytes + len, false};
    struct field f;
    enum status st = ST_OK;
    while (!st && next_field(&w, &f)) {
        if (f.type != 2)
            continue;
        if (f.number == 1)
            st = read_piece(m, &f, err);
        else if (f.number == 2)
            st = read_trainer(m, &f, err);
        else if (f.number == 3)
            st = read_normalizer(m, &f, err);
    }
    if (st)
        return st;
    if (w.bad)
        return malformed("model", err);
    return m->n ? ST_OK : err_set(err, ST_INVALID, "a SentencePiece model without pieces");
}

/* What is put around a text: as the configuration says, else as the class of tokenizer does it;
 * without a configuration a BOS, as those who publish nothing else have it. */
static void choose_around(struct sp_model *m, const json *config)
{
    const char *class = json_as_str(json_get(config, "tokenizer_class"), NULL);
    bool t5 = class && (!strncmp(class, "T5", 2) || !strncmp(class, "MT5", 3));
    bool llama = !class || !strncmp(class, "Llama", 5) || !strncmp(class, "Gemma", 5) ||
                 !strncmp(class, "CodeLlama", 9) || !strncmp(class, "Mistral", 7);
    if (json_as_bool(json_get(config, "add_bos_token"), llama && !t5))
        m->add_bos = m->bos;
    if (json_as_bool(json_get(config, "add_eos_token"), t5))
        m->add_eos = m->eos;
    m->first_only = !json_as_bool(json_get(config, "legacy"), true);
}

enum status load_sentencepiece(const void *bytes, size_t len, const json *config, struct made *out,
                               struct error *err)
{
    struct sp_model m = {.unigram = true,
                         .unk = 0,
                         .bos = 1,
                         .eos = 2,
                         .prefix = true,
                         .collapse = true,
                         .escape = true,
                         .add_bos = -1,
                         .add_eos = -1};
    enum status st = read_model(&m, bytes, len, err);
    /* a model trained without one of them says so with -1, or lacks the piece */
    int64_t *ids[] = {&m.bos, &m.eos};
    for (int i = 0; i < 2 && !st; i++)
        if (*ids[i] < 0 || *ids[i] >= (int64_t)m.n || m.pieces[*ids[i]].type != PIECE_CONTROL)
            *ids[i] = -1;
    if (!st && (m.unk < 0 || m.unk >= (int64_t)m.n || m.pieces[m.unk].type != PIECE_UNKNOWN))
        st = err_set(err, ST_INVALID, "a SentencePiece model whose unk_id %lld is no unknown piece",
                     (long long)m.unk);
    if (!st) {
        choose_around(&m, config);
        st = sp_model_write(&m, out, err);
    }
    free(m.pieces);
    return st;
}
