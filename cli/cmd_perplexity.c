/* `baton perplexity MODEL`: how well a model foretells a text, and how far what it says is from
 * what another run said of the same text: the cost of a quantization, of a KV type, of another
 * program.
 *
 * The text is cut into chunks as llama-perplexity cuts it: each is read from an empty cache, its
 * first id replaced by BOS where the tokenizer sets one, and its second half is scored. The engine
 * is not asked: it gives a few scores of an id, here the whole row counts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/facts.h"
#include "cli/local.h"
#include "cli/logits_file.h"

#define ROWS_MAX 64 /* with logits, of one forward */

struct options {
    struct local_options local;
    const char *text, *base, *save, *json;
    int64_t context, chunks;
};

/* A mean and how sure it is. */
struct mean {
    double sum, squares;
    int64_t n;
};

struct scores {
    struct mean nats, base_nats, divergence;
    double divergence_most;
    int64_t same_top;
};

struct perplexity {
    struct local local;
    struct logits_file text; /* sizes and ids; no file of its own */
    struct logits_file base, save;
    struct scores scores;
    int32_t bos; /* -1: none is set */
    uint8_t is_long;
    float *logits, *base_logprobs;
    int32_t *ids, *positions, *seq_of, *wanted, *blocks;
    const int32_t **tables;
};

static void mean_add(struct mean *m, double v)
{
    m->sum += v;
    m->squares += v * v;
    m->n++;
}

static double mean_of(const struct mean *m)
{
    return m->n > 0 ? m->sum / (double)m->n : 0;
}

/* Its standard error. */
static double mean_error(const struct mean *m)
{
    if (m->n < 2)
        return 0;
    double n = (double)m->n, of = m->sum / n;
    return sqrt(fmax(m->squares / n - of * of, 0) / (n - 1));
}

/* ---- one chunk ---- */

static int32_t greatest(const float *v, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

/* KL(base || what the model says), over the tokens whose probability the base's file has. */
static double divergence(const float *base, const float *logits, int32_t vocab)
{
    double nats = 0, sum = 0;
    float most = -INFINITY;
    for (int32_t i = 0; i < vocab; i++)
        if (base[i] > -INFINITY)
            most = fmaxf(most, logits[i]);
    for (int32_t i = 0; i < vocab; i++)
        if (base[i] > -INFINITY) {
            nats += exp((double)base[i]) * (double)(base[i] - (logits[i] - most));
            sum += exp((double)(logits[i] - most));
        }
    return nats + log(sum);
}

static void compare(struct perplexity *p, const float *logits, int32_t next)
{
    struct scores *s = &p->scores;
    const float *base = p->base_logprobs;
    const double nats = divergence(base, logits, p->text.vocab);
    mean_add(&s->divergence, nats);
    mean_add(&s->base_nats, -(double)fmaxf(base[next], p->base.least));
    s->divergence_most = fmax(s->divergence_most, nats);
    /* Codes of 16 bits can be equal where the numbers were not. */
    s->same_top += base[greatest(base, p->text.vocab)] <= base[greatest(logits, p->text.vocab)];
}

static enum status score_row(struct perplexity *p, const float *logits, int32_t next,
                             struct error *err)
{
    enum status st = ST_OK;
    const double norm = logits_norm(logits, p->text.vocab);
    if (!isfinite(norm))
        return err_set(err, ST_INTERNAL, "the model gave no usable logits");
    mean_add(&p->scores.nats, norm - (double)logits[next]);
    if (p->base.f && (st = logits_read(&p->base, p->base_logprobs, err)) == ST_OK)
        compare(p, logits, next);
    if (st == ST_OK && p->save.f)
        st = logits_write(&p->save, logits, err);
    return st;
}

/* Positions [begin, end) of a chunk; those that are scored give logits. */
static int32_t forward(struct perplexity *p, const int32_t *chunk, int32_t begin, int32_t end)
{
    const int32_t first = LOGITS_FIRST(p->text.context);
    struct batch b = {.ids = p->ids,
                      .positions = p->positions,
                      .seq_of = p->seq_of,
                      .block_tables = p->tables,
                      .logits_rows = p->wanted,
                      .is_long = &p->is_long,
                      .sequences = 1};
    for (int32_t at = begin; at < end; at++, b.tokens++) {
        p->ids[b.tokens] = at == 0 && p->bos >= 0 ? p->bos : chunk[at];
        p->positions[b.tokens] = at;
        if (at >= first)
            p->wanted[b.n_logits++] = b.tokens;
    }
    model_forward(p->local.model, &b,
                  &(struct model_kv){.pool = p->local.pool, .layout = p->local.layout}, p->logits,
                  NULL, NULL);
    return b.n_logits;
}

static enum status score_chunk(struct perplexity *p, const struct options *o, const int32_t *chunk,
                               struct error *err)
{
    const int32_t end = p->text.context - 1, first = LOGITS_FIRST(p->text.context);
    const int32_t most = (int32_t)o->local.chunk_tokens_max;
    const int32_t scored = most < ROWS_MAX ? most : ROWS_MAX;
    enum status st = ST_OK;
    for (int32_t at = 0, n; st == ST_OK && at < end; at += n) {
        const int32_t left = at < first ? first - at : end - at, fit = at < first ? most : scored;
        n = left < fit ? left : fit;
        int32_t rows = forward(p, chunk, at, at + n);
        for (int32_t i = 0; st == ST_OK && i < rows; i++)
            st =
                score_row(p, p->logits + (size_t)i * (size_t)p->text.vocab, chunk[at + i + 1], err);
    }
    return st;
}

/* ---- what is scored ---- */

/* What the tokenizer puts before every text, where that is one id. */
static enum status find_bos(struct perplexity *p, struct error *err)
{
    struct ids ids = {0};
    enum status st = tokenizer_encode(p->local.tokenizer, "", 0, TOKENIZE_ADD_SPECIAL, &ids, err);
    p->bos =
        st == ST_OK && ids.n > 0 && ids.v[0] == tokenizer_bos(p->local.tokenizer) ? ids.v[0] : -1;
    ids_fini(&ids);
    return st;
}

static enum status read_ids(const struct perplexity *p, const struct options *o, struct ids *out,
                            struct error *err)
{
    struct buf text = {0};
    const bool is_stdin = strcmp(o->text, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(o->text, "rb");
    enum status st = f ? local_read_all(f, o->text, &text, err)
                       : err_set(err, ST_NOT_FOUND, "%s: cannot open", o->text);
    if (f && !is_stdin)
        fclose(f);
    if (st == ST_OK)
        st = tokenizer_encode(p->local.tokenizer, text.data ? text.data : "", text.len,
                              TOKENIZE_ADD_SPECIAL, out, err);
    buf_fini(&text);
    return st;
}

/* The first `n` ids as the text's, all of which the model has to know. */
static enum status take_ids(struct perplexity *p, const int32_t *ids, struct error *err)
{
    struct logits_file *t = &p->text;
    const size_t n = (size_t)t->chunks * (size_t)t->context;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= t->vocab)
            return err_set(err, ST_INVALID, "id %d is not one of the model's %d", ids[i], t->vocab);
    t->ids = malloc(n * sizeof *ids);
    if (!t->ids)
        return err_set(err, ST_NO_MEMORY, "no memory");
    memcpy(t->ids, ids, n * sizeof *ids);
    return ST_OK;
}

static int32_t at_most(int64_t limit, int32_t n)
{
    return limit > 0 && limit < n ? (int32_t)limit : n;
}

static enum status cut_text(struct perplexity *p, const struct options *o, struct error *err)
{
    struct ids ids = {0};
    enum status st = read_ids(p, o, &ids, err);
    const size_t chunks = ids.n / (size_t)o->context;
    p->text.context = (int32_t)o->context;
    if (st == ST_OK && (chunks < 1 || chunks > INT32_MAX))
        st = err_set(err, ST_INVALID, "%s: %zu tokens; a chunk takes %d (--context)", o->text,
                     ids.n, p->text.context);
    if (st == ST_OK) {
        p->text.chunks = at_most(o->chunks, (int32_t)chunks);
        st = take_ids(p, ids.v, err);
    }
    ids_fini(&ids);
    return st;
}

static enum status take_base(struct perplexity *p, const struct options *o, struct error *err)
{
    enum status st = logits_open(&p->base, o->base, err);
    if (st != ST_OK)
        return st;
    if (p->base.vocab != p->text.vocab)
        return err_set(err, ST_INVALID, "%s: of a vocabulary of %d, the model has %d", o->base,
                       p->base.vocab, p->text.vocab);
    p->text.context = p->base.context;
    p->text.chunks = at_most(o->chunks, p->base.chunks);
    return take_ids(p, p->base.ids, err);
}

static enum status allocate(struct perplexity *p, const struct options *o, struct error *err)
{
    const struct kv_layout *l = &p->local.layout;
    const size_t rows = (size_t)o->local.chunk_tokens_max, groups = (size_t)kv_groups_of(l);
    const size_t each = (size_t)l->blocks / groups, vocab = (size_t)p->text.vocab;
    p->logits = malloc(ROWS_MAX * vocab * sizeof *p->logits);
    p->base_logprobs = malloc(vocab * sizeof *p->base_logprobs);
    p->ids = malloc(rows * sizeof *p->ids);
    p->positions = malloc(rows * sizeof *p->positions);
    p->seq_of = calloc(rows, sizeof *p->seq_of);
    p->wanted = malloc(rows * sizeof *p->wanted);
    p->blocks = malloc((size_t)l->blocks * sizeof *p->blocks);
    p->tables = malloc(groups * sizeof *p->tables);
    if (!p->logits || !p->base_logprobs || !p->ids || !p->positions || !p->seq_of || !p->wanted ||
        !p->blocks || !p->tables)
        return err_set(err, ST_NO_MEMORY, "no memory");
    for (int32_t i = 0; i < l->blocks; i++)
        p->blocks[i] = i;
    for (size_t g = 0; g < groups; g++)
        p->tables[g] = p->blocks + g * each;
    return ST_OK;
}

static enum status prepare(struct perplexity *p, const struct options *o, struct error *err)
{
    enum status st = find_bos(p, err);
    p->text.vocab = model_get_config(p->local.model)->vocab;
    if (st == ST_OK && p->bos >= p->text.vocab)
        st = err_set(err, ST_INVALID, "the tokenizer begins texts with %d, the model has %d ids",
                     p->bos, p->text.vocab);
    if (st == ST_OK)
        st = o->base ? take_base(p, o, err) : cut_text(p, o, err);
    if (st == ST_OK && p->text.context > p->local.max_context)
        st = err_set(err, ST_INVALID, "a context of %d does not fit the model's %d",
                     p->text.context, p->local.max_context);
    if (st == ST_OK)
        st = allocate(p, o, err);
    if (st == ST_OK && o->save)
        st = logits_create(&p->save, o->save, &p->text, err);
    p->is_long = model_is_long(p->local.model, p->text.context);
    return st;
}

/* ---- results ---- */

static void print_mean(const char *name, const struct mean *m)
{
    printf("%-16s %.4e +- %.1e nats per token\n", name, mean_of(m), mean_error(m));
}

static void print_text(const struct perplexity *p)
{
    const struct scores *s = &p->scores;
    const double perplexity = exp(mean_of(&s->nats));
    printf("%-16s %d chunks of %d tokens, %lld scored\n", "text", p->text.chunks, p->text.context,
           (long long)s->nats.n);
    printf("%-16s %.4f +- %.4f\n", "perplexity", perplexity, perplexity * mean_error(&s->nats));
    if (s->divergence.n == 0)
        return;
    printf("%-16s %.4f\n", "of the base", exp(mean_of(&s->base_nats)));
    print_mean("KL divergence", &s->divergence);
    printf("%-16s %.4e\n", "at most", s->divergence_most);
    printf("%-16s %.2f %%\n", "same top token",
           100 * (double)s->same_top / (double)s->divergence.n);
}

static void put_mean(struct jw *w, const char *key, const struct mean *m)
{
    jw_key(w, key);
    jw_obj(w);
    jw_key(w, "mean");
    jw_real(w, mean_of(m));
    jw_key(w, "standard_error");
    jw_real(w, mean_error(m));
    jw_end_obj(w);
}

static enum status write_json(const struct perplexity *p, const struct options *o, int argc,
                              char **argv, struct error *err)
{
    const struct scores *s = &p->scores;
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton perplexity", argc, argv);
    jw_key(&w, "model");
    jw_str(&w, o->local.dir);
    jw_key(&w, "context");
    jw_int(&w, p->text.context);
    jw_key(&w, "chunks");
    jw_int(&w, p->text.chunks);
    jw_key(&w, "scored");
    jw_int(&w, s->nats.n);
    jw_key(&w, "perplexity");
    jw_real(&w, exp(mean_of(&s->nats)));
    put_mean(&w, "nats_per_token", &s->nats);
    if (s->divergence.n > 0) {
        jw_key(&w, "base_perplexity");
        jw_real(&w, exp(mean_of(&s->base_nats)));
        put_mean(&w, "divergence", &s->divergence);
        jw_key(&w, "divergence_most");
        jw_real(&w, s->divergence_most);
        jw_key(&w, "same_top");
        jw_real(&w, (double)s->same_top / (double)s->divergence.n);
    }
    jw_end_obj(&w);
    enum status st = facts_write_file(o->json, &text, err);
    buf_fini(&text);
    return st;
}

/* ---- the command ---- */

static void perplexity_fini(struct perplexity *p)
{
    logits_close(&p->base, NULL);
    logits_close(&p->save, NULL);
    logits_close(&p->text, NULL);
    free(p->logits);
    free(p->base_logprobs);
    free(p->ids);
    free(p->positions);
    free(p->seq_of);
    free(p->wanted);
    free(p->blocks);
    free(p->tables);
    local_close(&p->local);
}

static enum status run(const struct options *o, int argc, char **argv, struct error *err)
{
    const struct engine_events none = {0};
    struct perplexity p = {0};
    enum status st = local_open(&p.local, &o->local, &none, true, err);
    if (st == ST_OK)
        st = prepare(&p, o, err);
    for (int32_t i = 0; st == ST_OK && i < p.text.chunks; i++)
        st = score_chunk(&p, o, p.text.ids + (size_t)i * (size_t)p.text.context, err);
    if (st == ST_OK)
        st = logits_close(&p.save, err);
    if (st == ST_OK && o->json)
        st = write_json(&p, o, argc, argv, err);
    if (st == ST_OK && !(o->json && strcmp(o->json, "-") == 0))
        print_text(&p);
    perplexity_fini(&p);
    return st;
}

int cmd_perplexity(int argc, char **argv)
{
    struct options o = {.local = local_defaults(), .context = 512};
    struct flag table[] = {
        {"text", FLAG_STR, &o.text, "FILE", "the text; -: stdin"},
        {"base", FLAG_STR, &o.base, "FILE",
         "compare with the run that saved this, over its very tokens, instead of --text"},
        {"save", FLAG_STR, &o.save, "FILE",
         "write what was said: 2 bytes per entry of the vocabulary and scored token; "
         "llama-perplexity reads and writes the same (--kl-divergence-base)"},
        {"context", FLAG_INT, &o.context, "N", "tokens of a chunk; the second half is scored (512)",
         4, 1 << 24},
        {"chunks", FLAG_INT, &o.chunks, "N", "score this many at most; 0: all (0)", 0, 1 << 24},
        {"json", FLAG_STR, &o.json, "FILE", "write the result as JSON; -: to stdout"},
        LOCAL_FLAGS(o.local, "fp32; a node: that of the weights"),
    };
    struct flags f = {.program = "baton perplexity",
                      .usage = "MODEL (--text FILE | --base FILE) [options]",
                      .about = "Says how well a model foretells a text, and how far it is from "
                               "what another run said of it.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &o.local.dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n != 1 || !o.text == !o.base) {
        fprintf(stderr, "baton perplexity: expected MODEL and one of --text, --base (see baton "
                        "perplexity --help)\n");
        return 2;
    }
    struct error err = {0};
    if (run(&o, argc, argv, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton perplexity: %s\n", err.text);
    return 1;
}
