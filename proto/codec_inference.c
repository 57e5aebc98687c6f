/* The public API: baton.v1.Inference. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "baton/v1/inference.pb-c.h"
#include "proto/codec_pb.h"

#define PUBLIC_STOPS_MAX 64
#define PUBLIC_STOP_BYTES_MAX 4096
#define PUBLIC_NAME_MAX 4096

/* The public lists are varints; inside, ids are int32. */
static bool read_ids(const uint32_t *v, size_t n, uint32_t max, struct msg_ids *out)
{
    uint32_t any = 0;
    if (n > max)
        return false;
    for (size_t i = 0; i < n; i++)
        any |= v[i];
    *out = (struct msg_ids){.v = (const int32_t *)v, .n = (uint32_t)n};
    return any <= INT32_MAX;
}

static bool read_bias(const Baton__V1__SamplingParams *p, struct codec_arena *a,
                      struct msg_sampling *s)
{
    if (p->n_logit_bias > MSG_BIAS_MAX)
        return false;
    struct msg_bias *v = codec_alloc(a, p->n_logit_bias, sizeof *v);
    if (v == NULL)
        return false;
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        if (p->logit_bias[i]->key > INT32_MAX || !isfinite(p->logit_bias[i]->value))
            return false;
        v[i] = (struct msg_bias){(int32_t)p->logit_bias[i]->key, p->logit_bias[i]->value};
    }
    s->bias = v;
    s->n_bias = (uint32_t)p->n_logit_bias;
    return true;
}

/* Choices become the JSON array that they are inside. */
static bool read_choice(const Baton__V1__Choice *p, struct codec_arena *a, struct msg_grammar *g)
{
    struct buf text = {.max = MSG_GRAMMAR_BYTES_MAX};
    struct jw w = jw_begin(&text);
    jw_arr(&w);
    for (size_t i = 0; i < p->n_texts && !text.failed; i++)
        jw_str(&w, p->texts[i]);
    jw_end_arr(&w);
    char *copy = text.failed ? NULL : codec_alloc(a, text.len, 1);
    if (copy != NULL)
        memcpy(copy, text.data, text.len);
    *g = (struct msg_grammar){MSG_GRAMMAR_CHOICE, copy, (uint32_t)text.len, 0};
    buf_fini(&text);
    return copy != NULL;
}

static bool read_grammar(const Baton__V1__SamplingParams *p, struct codec_arena *a,
                         struct msg_grammar *g)
{
    switch (p->grammar_option_case) {
    case BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_JSON_OBJECT:
        g->kind = p->json_object ? MSG_GRAMMAR_JSON_OBJECT : MSG_GRAMMAR_NONE;
        return true;
    case BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_JSON_SCHEMA:
        *g = (struct msg_grammar){MSG_GRAMMAR_JSON_SCHEMA, p->json_schema, 0, 0};
        break;
    case BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_REGEX:
        *g = (struct msg_grammar){MSG_GRAMMAR_REGEX, p->regex, 0, 0};
        break;
    case BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_GBNF:
        *g = (struct msg_grammar){MSG_GRAMMAR_GBNF, p->gbnf, 0, 0};
        break;
    case BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_CHOICE:
        return read_choice(p->choice, a, g);
    default:
        return true;
    }
    size_t len = strnlen(g->text, MSG_GRAMMAR_BYTES_MAX + 1);
    g->len = (uint32_t)len;
    return len <= MSG_GRAMMAR_BYTES_MAX;
}

#define SET(p, option, OPTION, NAME)                                                               \
    ((p)->option##_option_case == BATON__V1__SAMPLING_PARAMS__##OPTION##_OPTION_##NAME)

/* Notes the first field that is not as it has to be. */
static bool is_right(struct msg_generate *m, const char *field, bool right)
{
    if (!right && !m->wrong)
        m->wrong = field;
    return right;
}

static bool all_finite(struct msg_generate *m)
{
    const struct msg_sampling *s = &m->sampling;
    return is_right(m, "temperature", isfinite(s->temperature)) &&
           is_right(m, "top_p", isfinite(s->top_p)) && is_right(m, "min_p", isfinite(s->min_p)) &&
           is_right(m, "repetition_penalty", isfinite(s->repetition_penalty)) &&
           is_right(m, "presence_penalty", isfinite(s->presence_penalty)) &&
           is_right(m, "frequency_penalty", isfinite(s->frequency_penalty));
}

static bool read_sampling(const Baton__V1__SamplingParams *p, struct codec_arena *a,
                          struct msg_generate *m)
{
    struct msg_sampling *s = &m->sampling;
    m->has_temperature = SET(p, temperature, TEMPERATURE, TEMPERATURE);
    m->has_top_p = SET(p, top_p, TOP_P, TOP_P);
    m->has_top_k = SET(p, top_k, TOP_K, TOP_K);
    m->has_min_p = SET(p, min_p, MIN_P, MIN_P);
    m->has_repetition_penalty = SET(p, repetition_penalty, REPETITION_PENALTY, REPETITION_PENALTY);
    m->has_seed = SET(p, seed, SEED, SEED);
    bool has_logprobs = SET(p, logprobs, LOGPROBS, LOGPROBS);
    if (!is_right(m, "top_k", !m->has_top_k || p->top_k <= INT32_MAX) ||
        !is_right(m, "max_tokens", p->max_tokens <= INT32_MAX) ||
        !is_right(m, "min_tokens", p->min_tokens <= INT32_MAX) ||
        !is_right(m, "logprobs", !has_logprobs || p->logprobs <= MSG_LOGPROBS_MAX))
        return false;
    m->has_prompt_logprobs = SET(p, prompt_logprobs, PROMPT_LOGPROBS, PROMPT_LOGPROBS);
    m->prompt_only = p->prompt_only != 0;
    if (!is_right(m, "prompt_logprobs",
                  !m->has_prompt_logprobs || p->prompt_logprobs <= MSG_LOGPROBS_MAX))
        return false;
    if (m->has_prompt_logprobs)
        m->prompt_logprobs = (int32_t)p->prompt_logprobs;
    if (m->has_temperature)
        s->temperature = p->temperature;
    if (m->has_top_p)
        s->top_p = p->top_p;
    if (m->has_top_k)
        s->top_k = (int32_t)p->top_k;
    if (m->has_min_p)
        s->min_p = p->min_p;
    if (m->has_repetition_penalty)
        s->repetition_penalty = p->repetition_penalty;
    if (m->has_seed)
        s->seed = p->seed;
    if (has_logprobs)
        s->logprobs = (int32_t)p->logprobs;
    s->presence_penalty = p->presence_penalty;
    s->frequency_penalty = p->frequency_penalty;
    s->max_tokens = (int32_t)p->max_tokens;
    s->min_tokens = (int32_t)p->min_tokens;
    s->ignore_eos = p->ignore_eos != 0;
    return all_finite(m) &&
           is_right(
               m, "stop_token_ids",
               read_ids(p->stop_token_ids, p->n_stop_token_ids, MSG_STOP_IDS_MAX, &s->stop_ids)) &&
           is_right(m, "logit_bias", read_bias(p, a, s)) &&
           is_right(m, "grammar", read_grammar(p, a, &s->grammar));
}

static bool read_stops(const Baton__V1__GenerateRequest *p, struct msg_generate *m)
{
    if (p->n_stop > PUBLIC_STOPS_MAX)
        return false;
    for (size_t i = 0; i < p->n_stop; i++)
        if (strnlen(p->stop[i], PUBLIC_STOP_BYTES_MAX + 1) > PUBLIC_STOP_BYTES_MAX)
            return false;
    m->stop = (const char *const *)p->stop;
    m->n_stop = (uint32_t)p->n_stop;
    return true;
}

enum status codec_get_generate(const uint8_t *data, size_t len, struct codec_arena *a,
                               struct msg_generate *m)
{
    const Baton__V1__GenerateRequest *p =
        codec_parse(&baton__v1__generate_request__descriptor, data, len, a);
    *m = (struct msg_generate){.wrong = p ? "n" : NULL};
    if (p == NULL || p->n > MSG_CHOICES_MAX)
        return ST_PROTOCOL;
    *m = (struct msg_generate){
        .n = p->n > 0 ? (int32_t)p->n : 1,
        .add_special = p->add_special_tokens_option_case ==
                           BATON__V1__GENERATE_REQUEST__ADD_SPECIAL_TOKENS_OPTION__NOT_SET ||
                       p->add_special_tokens,
        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .logprobs = -1},
    };
    bool ok =
        is_right(m, "model", codec_str(p->model, PUBLIC_NAME_MAX, &m->model)) &&
        is_right(m, "request_id", codec_str(p->request_id, MSG_REQUEST_ID_MAX, &m->request_id)) &&
        is_right(m, "cache_salt", codec_str(p->cache_salt, PUBLIC_NAME_MAX, &m->cache_salt)) &&
        is_right(m, "stop", read_stops(p, m)) &&
        (p->sampling == NULL || read_sampling(p->sampling, a, m));
    if (p->prompt_case == BATON__V1__GENERATE_REQUEST__PROMPT_TEXT)
        m->text = p->text;
    else if (p->prompt_case == BATON__V1__GENERATE_REQUEST__PROMPT_IDS)
        ok = ok && is_right(m, "ids", read_ids(p->ids->ids, p->ids->n_ids, MSG_IDS_MAX, &m->ids));
    return ok ? ST_OK : ST_PROTOCOL;
}

static bool fill_choice(Baton__V1__Choice *p, const struct msg_grammar *g, struct codec_arena *a)
{
    json *list = NULL;
    bool ok = json_read(g->text, g->len, &list, NULL) == ST_OK;
    p->n_texts = json_count(list);
    p->texts = codec_alloc(a, p->n_texts, sizeof *p->texts);
    for (size_t i = 0; ok && p->texts != NULL && i < p->n_texts; i++) {
        const json *v = json_at(list, i);
        p->texts[i] = codec_alloc(a, json_str_len(v), 1);
        ok = p->texts[i] != NULL && memcpy(p->texts[i], json_as_str(v, ""), json_str_len(v));
    }
    json_free(list);
    return ok && p->texts != NULL;
}

/* Texts are not terminated: each gets a copy that is. */
static bool fill_grammar(Baton__V1__SamplingParams *p, const struct msg_grammar *g,
                         struct codec_arena *a)
{
    char *text = codec_alloc(a, g->len, 1);
    Baton__V1__Choice *choice = codec_alloc(a, 1, sizeof *choice);
    if (text == NULL || choice == NULL)
        return false;
    if (g->len > 0)
        memcpy(text, g->text, g->len);
    switch (g->kind) {
    case MSG_GRAMMAR_JSON_OBJECT:
        p->grammar_option_case = BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_JSON_OBJECT;
        p->json_object = true;
        return true;
    case MSG_GRAMMAR_JSON_SCHEMA:
        p->grammar_option_case = BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_JSON_SCHEMA;
        p->json_schema = text;
        return true;
    case MSG_GRAMMAR_REGEX:
        p->grammar_option_case = BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_REGEX;
        p->regex = text;
        return true;
    case MSG_GRAMMAR_GBNF:
        p->grammar_option_case = BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_GBNF;
        p->gbnf = text;
        return true;
    case MSG_GRAMMAR_CHOICE:
        baton__v1__choice__init(choice);
        p->grammar_option_case = BATON__V1__SAMPLING_PARAMS__GRAMMAR_OPTION_CHOICE;
        p->choice = choice;
        return fill_choice(choice, g, a);
    default:
        return true;
    }
}

static bool fill_sampling(Baton__V1__SamplingParams *p, const struct msg_generate *m,
                          struct buf *out, struct codec_arena *a)
{
    const struct msg_sampling *s = &m->sampling;
#define GIVE(has, option, OPTION)                                                                  \
    if (has) {                                                                                     \
        p->option##_option_case = BATON__V1__SAMPLING_PARAMS__##OPTION##_OPTION_##OPTION;          \
        p->option = s->option;                                                                     \
    }
    GIVE(m->has_temperature, temperature, TEMPERATURE)
    GIVE(m->has_top_p, top_p, TOP_P)
    GIVE(m->has_top_k, top_k, TOP_K)
    GIVE(m->has_min_p, min_p, MIN_P)
    GIVE(m->has_repetition_penalty, repetition_penalty, REPETITION_PENALTY)
    GIVE(m->has_seed, seed, SEED)
    GIVE(s->logprobs >= 0, logprobs, LOGPROBS)
#undef GIVE
    if (m->has_prompt_logprobs) {
        p->prompt_logprobs_option_case =
            BATON__V1__SAMPLING_PARAMS__PROMPT_LOGPROBS_OPTION_PROMPT_LOGPROBS;
        p->prompt_logprobs = (uint32_t)m->prompt_logprobs;
    }
    p->prompt_only = m->prompt_only;
    p->presence_penalty = s->presence_penalty;
    p->frequency_penalty = s->frequency_penalty;
    p->max_tokens = (uint32_t)s->max_tokens;
    p->min_tokens = (uint32_t)s->min_tokens;
    p->ignore_eos = s->ignore_eos;
    p->stop_token_ids = (uint32_t *)(uintptr_t)s->stop_ids.v;
    p->n_stop_token_ids = s->stop_ids.n;
    p->n_logit_bias = s->n_bias;
    p->logit_bias = (Baton__V1__SamplingParams__LogitBiasEntry **)codec_submessages(
        out, a, s->n_bias, sizeof **p->logit_bias);
    if (p->logit_bias == NULL)
        return false;
    for (uint32_t i = 0; i < s->n_bias; i++) {
        baton__v1__sampling_params__logit_bias_entry__init(p->logit_bias[i]);
        p->logit_bias[i]->key = (uint32_t)s->bias[i].id;
        p->logit_bias[i]->value = s->bias[i].bias;
    }
    return fill_grammar(p, &s->grammar, a);
}

void codec_put_generate(struct buf *out, const struct msg_generate *m)
{
    struct codec_arena a = {0};
    Baton__V1__TokenIds ids = BATON__V1__TOKEN_IDS__INIT;
    Baton__V1__SamplingParams sampling = BATON__V1__SAMPLING_PARAMS__INIT;
    Baton__V1__GenerateRequest p = BATON__V1__GENERATE_REQUEST__INIT;
    p.model = codec_pb_str(m->model);
    p.request_id = codec_pb_str(m->request_id);
    p.cache_salt = codec_pb_str(m->cache_salt);
    p.n = (uint32_t)m->n;
    p.stop = (char **)(uintptr_t)m->stop;
    p.n_stop = m->n_stop;
    p.add_special_tokens_option_case =
        BATON__V1__GENERATE_REQUEST__ADD_SPECIAL_TOKENS_OPTION_ADD_SPECIAL_TOKENS;
    p.add_special_tokens = m->add_special;
    if (m->text != NULL) {
        p.prompt_case = BATON__V1__GENERATE_REQUEST__PROMPT_TEXT;
        p.text = codec_pb_str(m->text);
    } else {
        ids.ids = (uint32_t *)(uintptr_t)m->ids.v;
        ids.n_ids = m->ids.n;
        p.prompt_case = BATON__V1__GENERATE_REQUEST__PROMPT_IDS;
        p.ids = &ids;
    }
    p.sampling = &sampling;
    if (fill_sampling(&sampling, m, out, &a))
        codec_pack(out, &p);
    codec_arena_fini(&a);
}

enum status codec_get_tokenize(const uint8_t *data, size_t len, struct codec_arena *a,
                               const char **model, const char **text, bool *add_special)
{
    const Baton__V1__TokenizeRequest *p =
        codec_parse(&baton__v1__tokenize_request__descriptor, data, len, a);
    if (p == NULL || !codec_str(p->model, PUBLIC_NAME_MAX, model))
        return ST_PROTOCOL;
    *text = p->text;
    *add_special = p->add_special_tokens_option_case ==
                       BATON__V1__TOKENIZE_REQUEST__ADD_SPECIAL_TOKENS_OPTION__NOT_SET ||
                   p->add_special_tokens;
    return ST_OK;
}

void codec_put_tokenized(struct buf *out, const struct msg_ids *ids)
{
    Baton__V1__TokenizeResponse p = BATON__V1__TOKENIZE_RESPONSE__INIT;
    p.ids = (uint32_t *)(uintptr_t)ids->v;
    p.n_ids = ids->n;
    codec_pack(out, &p);
}

void codec_put_models(struct buf *out, const char *const *names, size_t n, int32_t max_context)
{
    struct codec_arena a = {0};
    Baton__V1__ModelsResponse p = BATON__V1__MODELS_RESPONSE__INIT;
    p.models = (Baton__V1__Model **)codec_submessages(out, &a, n, sizeof **p.models);
    if (p.models != NULL) {
        p.n_models = n;
        for (size_t i = 0; i < n; i++) {
            baton__v1__model__init(p.models[i]);
            p.models[i]->name = codec_pb_str(names[i]);
            p.models[i]->max_context = (uint32_t)max_context;
        }
        codec_pack(out, &p);
    }
    codec_arena_fini(&a);
}
