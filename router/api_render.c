/* The JSON of answers: completions and chat completions, whole and in chunks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "router/api_render.h"

#define LOGPROB_MIN (-9999.0) /* JSON has no infinity */

/* ---- tokens ---- */

bool api_tokens_push(struct api_tokens *a, const struct msg_token *t)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 8;
        struct api_token *v = realloc(a->v, cap * sizeof *v);
        if (!v)
            return false;
        a->v = v;
        a->cap = cap;
    }
    struct api_token *x = &a->v[a->n];
    *x = (struct api_token){
        .id = t->id, .position = t->position, .logprob = t->logprob, .n_top = t->n_top};
    if (t->n_top) {
        x->top = malloc(t->n_top * sizeof *x->top);
        if (!x->top)
            return false;
        memcpy(x->top, t->top, t->n_top * sizeof *x->top);
    }
    a->n++;
    return true;
}

bool api_tokens_of_prompt(struct api_tokens *a, struct msg_ids prompt)
{
    a->v = calloc((size_t)prompt.n + 1, sizeof *a->v);
    if (!a->v)
        return false;
    a->n = a->cap = prompt.n;
    for (uint32_t i = 0; i < prompt.n; i++)
        a->v[i] = (struct api_token){.id = prompt.v[i], .position = (int32_t)i};
    return true;
}

bool api_tokens_score(struct api_tokens *a, const struct msg_score *s, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if ((size_t)s[i].position >= a->n)
            return false;
        struct api_token *x = &a->v[s[i].position];
        if (s[i].n_top && !x->top) {
            x->top = malloc(s[i].n_top * sizeof *x->top);
            if (!x->top)
                return false;
            memcpy(x->top, s[i].top, s[i].n_top * sizeof *x->top);
            x->n_top = s[i].n_top;
        }
        x->logprob = s[i].logprob;
        x->rank = s[i].rank;
    }
    return true;
}

void api_tokens_clear(struct api_tokens *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i].top);
    a->n = 0;
}

void api_tokens_fini(struct api_tokens *a)
{
    api_tokens_clear(a);
    free(a->v);
    *a = (struct api_tokens){0};
}

/* By the bytes that begin one: a character that is spread over tokens counts once. */
size_t api_count_characters(const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    return n;
}

static void put_logprob(struct jw *w, float logprob)
{
    jw_real(w, isfinite(logprob) ? (double)logprob : LOGPROB_MIN);
}

static void token_bytes(const struct api_answer *a, int32_t id, struct buf *out)
{
    buf_clear(out);
    tokenizer_token_bytes(a->tokenizer, id, out);
}

static const char *bytes_of(const struct buf *b)
{
    return b->data ? b->data : "";
}

/* {"token", "logprob", "bytes"}, the object left open. */
static void begin_chat_token(struct jw *w, const struct api_answer *a, struct msg_logprob t)
{
    struct buf b = {0};
    token_bytes(a, t.id, &b);
    jw_obj(w);
    jw_key(w, "token");
    jw_strn(w, bytes_of(&b), b.len);
    jw_key(w, "logprob");
    put_logprob(w, t.logprob);
    jw_key(w, "bytes");
    jw_arr(w);
    for (size_t i = 0; i < b.len; i++)
        jw_int(w, (unsigned char)b.data[i]);
    jw_end_arr(w);
    buf_fini(&b);
}

static void put_chat_logprobs(struct jw *w, const struct api_answer *a,
                              const struct api_tokens *tokens)
{
    jw_obj(w);
    jw_key(w, "content");
    jw_arr(w);
    for (size_t i = 0; i < tokens->n; i++) {
        const struct api_token *t = &tokens->v[i];
        begin_chat_token(w, a, (struct msg_logprob){t->id, t->logprob});
        jw_key(w, "top_logprobs");
        jw_arr(w);
        for (uint32_t k = 0; k < t->n_top; k++) {
            begin_chat_token(w, a, t->top[k]);
            jw_end_obj(w);
        }
        jw_end_arr(w);
        jw_end_obj(w);
    }
    jw_end_arr(w);
    jw_key(w, "refusal");
    jw_null(w);
    jw_end_obj(w);
}

/* {token: logprob}: the alternatives, and the chosen one where it is not among them. Two ids that
 * read the same give one key, the likelier. */
static void put_top_map(struct jw *w, const struct api_answer *a, const struct api_token *t,
                        uint32_t most)
{
    struct buf keys = {0}, b = {0};
    uint32_t n = t->n_top < most ? t->n_top : most;
    jw_obj(w);
    for (uint32_t k = 0; k <= n; k++) {
        struct msg_logprob x = k < n ? t->top[k] : (struct msg_logprob){t->id, t->logprob};
        struct buf key = {0};
        token_bytes(a, x.id, &b);
        struct jw kw = jw_begin(&key); /* as it will be written: compared and used as it is */
        jw_strn(&kw, bytes_of(&b), b.len);
        buf_putc(&key, '\n');
        if (!key.failed && (!keys.len || !memmem(keys.data, keys.len, key.data, key.len))) {
            buf_append(&keys, key.data, key.len);
            struct buf clean = {0};
            /* keys are NUL-terminated: a NUL byte ends one early, as it would for most readers */
            for (size_t i = 0; i < b.len;) {
                uint32_t cp;
                size_t step = utf8_decode(b.data + i, b.len - i, &cp);
                buf_append(&clean, step ? b.data + i : "\xef\xbf\xbd", step ? step : 3);
                i += step ? step : 1;
            }
            jw_key(w, bytes_of(&clean));
            put_logprob(w, x.logprob);
            buf_fini(&clean);
        }
        buf_fini(&key);
    }
    jw_end_obj(w);
    buf_fini(&keys);
    buf_fini(&b);
}

/* The two lists of a choice as one: first the prompt's, where it is echoed, then what was
 * generated. A prompt's token that has no score (the first) is null. */
static const struct api_token *nth_token(const struct api_choice_out *c, size_t i, bool *scored)
{
    size_t echoed = c->echo ? c->echo->n : 0;
    *scored = i >= echoed || c->echo->v[i].rank > 0;
    return i < echoed ? &c->echo->v[i] : &c->tokens->v[i - echoed];
}

static void put_offsets(struct jw *w, const struct api_answer *a, const struct api_choice_out *c,
                        size_t n)
{
    struct buf b = {0};
    size_t at = c->text_offset;
    bool scored;
    jw_key(w, "text_offset");
    jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        const struct api_token *t = nth_token(c, i, &scored);
        jw_uint(w, at);
        /* The beginning that the tokenizer adds is not in the text. */
        if (i == 0 && c->echo && t->id == tokenizer_bos(a->tokenizer))
            continue;
        token_bytes(a, t->id, &b);
        at += api_count_characters(bytes_of(&b), b.len);
    }
    jw_end_arr(w);
    buf_fini(&b);
}

static void put_completion_logprobs(struct jw *w, const struct api_answer *a,
                                    const struct api_choice_out *c)
{
    size_t n = (c->echo ? c->echo->n : 0) + c->tokens->n;
    struct buf b = {0};
    bool scored;
    jw_obj(w);
    jw_key(w, "tokens");
    jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        token_bytes(a, nth_token(c, i, &scored)->id, &b);
        jw_strn(w, bytes_of(&b), b.len);
    }
    jw_end_arr(w);
    jw_key(w, "token_logprobs");
    jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        const struct api_token *t = nth_token(c, i, &scored);
        if (scored)
            put_logprob(w, t->logprob);
        else
            jw_null(w);
    }
    jw_end_arr(w);
    jw_key(w, "top_logprobs");
    jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        const struct api_token *t = nth_token(c, i, &scored);
        if (scored)
            put_top_map(w, a, t, c->echo && i < c->echo->n ? (uint32_t)a->echo_top : t->n_top);
        else
            jw_null(w);
    }
    jw_end_arr(w);
    put_offsets(w, a, c, n);
    jw_end_obj(w);
    buf_fini(&b);
}

static void put_ranked(struct jw *w, const struct api_answer *a, struct msg_logprob x, int32_t rank)
{
    char key[16];
    struct buf b = {0};
    snprintf(key, sizeof key, "%d", x.id);
    token_bytes(a, x.id, &b);
    jw_key(w, key);
    jw_obj(w);
    jw_key(w, "logprob");
    put_logprob(w, x.logprob);
    jw_key(w, "rank");
    jw_int(w, rank);
    jw_key(w, "decoded_token");
    jw_strn(w, bytes_of(&b), b.len);
    jw_end_obj(w);
    buf_fini(&b);
}

/* [null, {"ID": {"logprob", "rank", "decoded_token"}}]: the token itself, then the likeliest. */
static void put_prompt_logprobs(struct jw *w, const struct api_answer *a,
                                const struct api_tokens *tokens)
{
    jw_key(w, "prompt_logprobs");
    jw_arr(w);
    for (size_t i = 0; i < tokens->n; i++) {
        const struct api_token *t = &tokens->v[i];
        if (t->rank == 0) {
            jw_null(w);
            continue;
        }
        jw_obj(w);
        put_ranked(w, a, (struct msg_logprob){t->id, t->logprob}, t->rank);
        for (uint32_t k = 0; k < t->n_top && (int32_t)k < a->prompt_top; k++) {
            if (t->top[k].id != t->id)
                put_ranked(w, a, t->top[k], (int32_t)k + 1);
        }
        jw_end_obj(w);
    }
    jw_end_arr(w);
}

/* ---- choices ---- */

static void put_finish(struct jw *w, const struct api_choice_out *c)
{
    jw_key(w, "finish_reason");
    if (c->finish)
        jw_str(w, c->finish);
    else
        jw_null(w);
    jw_key(w, "stop_reason");
    if (c->stop_text)
        jw_str(w, c->stop_text);
    else if (c->stop_id >= 0)
        jw_int(w, c->stop_id);
    else
        jw_null(w);
}

static void put_logprobs(struct jw *w, const struct api_answer *a, const struct api_choice_out *c)
{
    jw_key(w, "logprobs");
    if (!c->tokens || !a->logprobs)
        jw_null(w);
    else if (a->kind == API_CHAT)
        put_chat_logprobs(w, a, c->tokens);
    else
        put_completion_logprobs(w, a, c);
}

static void put_text(struct jw *w, const char *key, struct api_text_ref text)
{
    jw_key(w, key);
    jw_strn(w, text.len ? text.text : "", text.len);
}

/* In a stream: what is new of each call. The first says index, id, type and name. */
static void put_calls(struct jw *w, const struct api_answer *a, const struct api_calls *calls)
{
    jw_key(w, "tool_calls");
    jw_arr(w);
    for (size_t i = a->stream ? calls->first : 0; i < calls->n; i++) {
        const struct api_call *c = &calls->v[i];
        if (a->stream && c->said && !c->arguments.len)
            continue;
        jw_obj(w);
        if (a->stream) {
            jw_key(w, "index");
            jw_uint(w, i);
        }
        if (!c->said) {
            jw_key(w, "id");
            jw_str(w, c->id);
            jw_key(w, "type");
            jw_str(w, "function");
        }
        jw_key(w, "function");
        jw_obj(w);
        if (!c->said) {
            jw_key(w, "name");
            jw_str(w, c->name);
        }
        put_text(w, "arguments", (struct api_text_ref){c->arguments.data, c->arguments.len});
        jw_end_obj(w);
        jw_end_obj(w);
    }
    jw_end_arr(w);
}

/* A message, or in a stream what is new of it. */
static void put_message(struct jw *w, const struct api_answer *a, const struct api_choice_out *c)
{
    const struct api_output *o = c->output;
    bool calls = o && (a->stream ? api_output_calls_pending(o) : o->calls.n > 0);
    jw_key(w, a->stream ? "delta" : "message");
    jw_obj(w);
    if (!a->stream || c->role) {
        jw_key(w, "role");
        jw_str(w, "assistant");
    }
    if (!a->stream && calls && !c->text.len) {
        jw_key(w, "content");
        jw_null(w);
    } else if (!a->stream || c->role || c->text.len) {
        put_text(w, "content", c->text);
    }
    if (o && o->reasoning.len) {
        struct api_text_ref text = {o->reasoning.data, o->reasoning.len};
        put_text(w, "reasoning_content", text);
        put_text(w, "reasoning", text);
    }
    if (calls)
        put_calls(w, a, &o->calls);
    if (!a->stream) {
        jw_key(w, "refusal");
        jw_null(w);
    }
    jw_end_obj(w);
}

static void put_choice(struct jw *w, const struct api_answer *a, const struct api_choice_out *c)
{
    jw_obj(w);
    jw_key(w, "index");
    jw_int(w, c->index);
    if (a->kind == API_COMPLETION) {
        put_text(w, "text", c->text);
    } else {
        put_message(w, a, c);
    }
    put_logprobs(w, a, c);
    put_finish(w, c);
    if (c->prompt)
        put_prompt_logprobs(w, a, c->prompt);
    jw_end_obj(w);
}

void api_render_usage(struct jw *w, const struct msg_usage *u, int32_t reasoning_tokens)
{
    jw_obj(w);
    jw_key(w, "prompt_tokens");
    jw_int(w, u->prompt_tokens);
    jw_key(w, "completion_tokens");
    jw_int(w, u->completion_tokens);
    jw_key(w, "total_tokens");
    jw_int(w, (int64_t)u->prompt_tokens + u->completion_tokens);
    jw_key(w, "prompt_tokens_details");
    jw_obj(w);
    jw_key(w, "cached_tokens");
    jw_int(w, u->cached_tokens);
    jw_end_obj(w);
    jw_key(w, "completion_tokens_details");
    jw_obj(w);
    jw_key(w, "reasoning_tokens");
    jw_int(w, reasoning_tokens);
    jw_end_obj(w);
    jw_end_obj(w);
}

/* The members before the choices, the object left open. */
static void begin_answer(struct jw *w, const struct api_answer *a)
{
    jw_obj(w);
    jw_key(w, "id");
    jw_str(w, a->id);
    jw_key(w, "object");
    jw_str(w, a->kind == API_COMPLETION ? "text_completion"
              : a->stream               ? "chat.completion.chunk"
                                        : "chat.completion");
    jw_key(w, "created");
    jw_int(w, a->created_s);
    jw_key(w, "model");
    jw_str(w, a->model);
    jw_key(w, "system_fingerprint");
    jw_null(w);
    jw_key(w, "choices");
    jw_arr(w);
}

void api_render_answer(struct buf *out, const struct api_answer *a,
                       const struct api_choice_out *choices, size_t n,
                       const struct msg_usage *usage)
{
    struct jw w = jw_begin(out);
    begin_answer(&w, a);
    for (size_t i = 0; i < n; i++)
        put_choice(&w, a, &choices[i]);
    jw_end_arr(&w);
    jw_key(&w, "usage");
    api_render_usage(&w, usage, a->reasoning_tokens);
    if (a->chat_prompt)
        put_prompt_logprobs(&w, a, a->chat_prompt);
    jw_end_obj(&w);
}

void api_render_chunk(struct buf *out, const struct api_answer *a, const struct api_choice_out *c,
                      const struct msg_usage *usage)
{
    buf_puts(out, "data: ");
    struct jw w = jw_begin(out);
    begin_answer(&w, a);
    if (c)
        put_choice(&w, a, c);
    jw_end_arr(&w);
    if (a->include_usage) {
        jw_key(&w, "usage");
        if (usage)
            api_render_usage(&w, usage, a->reasoning_tokens);
        else
            jw_null(&w);
    }
    jw_end_obj(&w);
    buf_puts(out, "\n\n");
}
