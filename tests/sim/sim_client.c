/* Clients: submit, read at their own pace, stop, go away; and know what they must be told. */
#include <string.h>

#include "engine/sampler.h"
#include "sim/sim_world.h"

void sim_count_event(struct world *w, enum sim_event e, const struct core_req *q)
{
    if (q)
        w->coverage->events[e][q->sm.state]++;
}

static void client_scores(void *ctx, void *client, const struct msg_score *s, int32_t n)
{
    struct sim_client *k = client;
    struct world *w = k->world;
    for (int32_t i = 0; i < n; i++, k->next_score++) {
        if (!k->scored || k->ended || k->said[0] > 0)
            world_fail(w, "client %d: a score that nobody expected", k->index);
        else if (s[i].position != k->next_score || k->next_score >= (int32_t)k->prompt.n)
            world_fail(w, "client %d: score of position %d, not %d", k->index, s[i].position,
                       k->next_score);
        else if (s[i].logprob != k->score[k->next_score])
            world_fail(w, "client %d position %d: score %g, expected %g", k->index, s[i].position,
                       (double)s[i].logprob, (double)k->score[k->next_score]);
    }
}

static void client_token(void *ctx, void *client, const struct msg_token *t)
{
    struct sim_client *k = client;
    struct world *w = k->world;
    int32_t c = t->choice;
    w->coverage->tokens++;
    if (k->scored && k->next_score < (int32_t)k->prompt.n)
        world_fail(w, "client %d: a token before the last score", k->index);
    int32_t repeats = w->plant == PLANT_LAW8_SAID_TWICE && world_chance(w, 0.05) ? 2 : 1;
    for (int32_t i = 0; i < repeats; i++) {
        if (k->stopped[c])
            continue;
        if (k->ended || k->finished[c])
            world_fail(w, "client %d choice %d: a token after the end", k->index, c);
        else if (t->position != k->said[c])
            world_fail(w, "client %d choice %d: position %d after %d tokens", k->index, c,
                       t->position, k->said[c]);
        else if (k->said[c] >= k->n_expect[c] || k->expect[c][k->said[c]] != t->id)
            world_fail(w, "client %d choice %d position %d: token %d, expected %d", k->index, c,
                       t->position, t->id,
                       k->said[c] < k->n_expect[c] ? k->expect[c][k->said[c]] : -1);
        k->said[c]++;
    }
    if (k->stop_at[c] > 0 && k->said[c] >= k->stop_at[c] && !k->stopped[c]) {
        k->stopped[c] = true;
        sim_count_event(w, SIM_STOP, slots_get(w->core->requests, k->id));
        core_stop_choice(w->core, k->id, c);
    }
    /* Passed on after a while: a slow reader. */
    struct sim_msg *m = sim_post(w, w->now_ns + k->slow_ns, MSG_CONSUMED, NULL);
    m->client = k->index;
    m->tokens = 1;
}

static void client_finish(void *ctx, void *client, const struct msg_finish *f)
{
    struct sim_client *k = client;
    struct world *w = k->world;
    if (k->finished[f->choice] || k->ended)
        world_fail(w, "client %d choice %d: finished twice", k->index, f->choice);
    k->finished[f->choice] = true;
    if (!k->stopped[f->choice] &&
        (k->said[f->choice] != k->n_expect[f->choice] || f->reason != k->reason[f->choice]))
        world_fail(w, "client %d choice %d: finished after %d of %d tokens, reason %d of %d",
                   k->index, f->choice, k->said[f->choice], k->n_expect[f->choice], f->reason,
                   k->reason[f->choice]);
}

static void client_end(void *ctx, void *client, enum status status, const char *text,
                       const struct msg_usage *usage)
{
    struct sim_client *k = client;
    struct world *w = k->world;
    if (k->ended)
        world_fail(w, "client %d: ended twice", k->index);
    k->ended = true;
    k->live = false;
    k->end = status;
    if (status == ST_OK && k->scored && k->next_score < (int32_t)k->prompt.n)
        world_fail(w, "client %d: ended well with %d of %u scores", k->index, k->next_score - 1,
                   k->prompt.n - 1);
    if (status == ST_OK) {
        for (int32_t c = 0; c < k->n; c++)
            if (!k->finished[c] && !k->stopped[c])
                world_fail(w, "client %d: ended well, but choice %d has not finished", k->index, c);
    } else if (!(k->cancelled && status == ST_CANCELLED)) {
        world_fail(w, "client %d: ended with %s: %s", k->index, status_name(status), text);
    }
}

void sim_client_effects(struct core_effects *out)
{
    out->scores = client_scores;
    out->token = client_token;
    out->finish = client_finish;
    out->end = client_end;
}

static void random_prompt(struct world *w, struct sim_client *k)
{
    int32_t n = (int32_t)world_between(w, 1, world_chance(w, 0.3) ? 20 : SIM_PROMPT_MAX);
    /* Some share a beginning, so that prefix caches are hit. */
    bool shared = world_chance(w, 0.5);
    struct rng common = rng_seed(w->seed ^ 0x5eed);
    int32_t same = shared ? (int32_t)world_between(w, 0, n) : 0;
    for (int32_t i = 0; i < n; i++)
        k->prompt_ids[i] =
            1 + (int32_t)(i < same ? rng_below(&common, 62) : rng_below(&w->rng, 62));
    k->prompt = (struct msg_ids){.v = k->prompt_ids, .n = (uint32_t)n};
}

static void expect_scores(struct world *w, struct sim_client *k, const struct fake_model *truth)
{
    float logits[64];
    struct sampler *s = sampler_create(truth->vocab);
    k->scored = true;
    k->next_score = 1;
    for (int32_t p = 1; p < (int32_t)k->prompt.n; p++) {
        struct msg_score x;
        fake_logits(truth, k->prompt_ids, p, logits);
        if (sampler_score(s, logits, k->prompt_ids[p], 0, &x) != ST_OK)
            world_fail(w, "the truth has no score");
        k->score[p] = x.logprob;
    }
    sampler_destroy(s);
    if (world_chance(w, 0.4))
        k->sampling.max_tokens = 0;
}

/* Few, so that some are asked for again, or twice at once. */
static void ask_for_grammar(struct world *w, struct sim_client *k)
{
    static const char *const patterns[] = {"[a-m]{3,9}(,[0-9]{2}){0,4}\\.", "([a-z]+ ?,)*[A-V]{5}",
                                           "(abc|def|[0-9]{4}){2,6}", "[a-zA-V,]*\\."};
    struct rng own = rng_seed(w->seed ^ (0x6772616d6d6172 + (uint64_t)k->index));
    if (w->letters == NULL || rng_below(&own, 2) == 0)
        return;
    const char *text = patterns[rng_below(&own, sizeof(patterns) / sizeof(patterns[0]))];
    k->sampling.grammar = (struct msg_grammar){MSG_GRAMMAR_REGEX, text, (uint32_t)strlen(text)};
}

void sim_client_init(struct world *w, int index)
{
    struct sim_client *k = &w->clients[index];
    k->world = w;
    k->index = index;
    random_prompt(w, k);
    k->n = world_chance(w, 0.25) ? (int32_t)world_between(w, 2, SIM_CHOICES_MAX) : 1;
    k->sampling = sampling_default();
    k->sampling.temperature = world_chance(w, 0.5) ? 0.0f : 0.9f;
    k->sampling.seed = rng_next(&w->rng);
    k->sampling.max_tokens = (int32_t)world_between(w, 1, SIM_TOKENS_MAX);
    if (world_chance(w, 0.2)) {
        k->sampling.repetition_penalty = 1.3f;
        k->sampling.presence_penalty = 0.4f;
    }
    if (world_chance(w, 0.2))
        k->sampling.logprobs = 2;
    k->sampling.ignore_eos = world_chance(w, 0.3);
    ask_for_grammar(w, k);
    struct fake_model truth = fake_model_default();
    if (w->windows[1])
        fake_slide(&truth, w->windows, 2, w->slack);
    truth.vocab = 64;
    truth.grammars = w->letters ? w->letters->vocab : NULL;
    if (world_chance(w, 0.25))
        expect_scores(w, k, &truth);
    for (int32_t c = 0; c < k->n; c++) {
        k->n_expect[c] =
            fake_generate(&truth, &k->prompt, NULL, &k->sampling, c, k->expect[c], &k->reason[c]);
        if (k->sampling.max_tokens == 0)
            k->reason[c] = MSG_FINISH_LENGTH;
        if (world_chance(w, 0.15))
            k->stop_at[c] = (int32_t)world_between(w, 1, SIM_TOKENS_MAX);
    }
    k->submit_ns = world_between(w, 0, 400 * NS_PER_MS);
    k->slow_ns = world_chance(w, 0.1) ? world_between(w, NS_PER_MS, 200 * NS_PER_MS)
                                      : world_between(w, 0, 100 * NS_PER_US);
    k->cancel_ns =
        world_chance(w, 0.3) ? k->submit_ns + world_between(w, 0, 60 * NS_PER_MS) : NS_NEVER;
}

static void submit(struct world *w, struct sim_client *k)
{
    struct error err = {0};
    const struct core_request req = {.request_id = "sim",
                                     .prompt = k->prompt,
                                     .n = k->n,
                                     .sampling = k->sampling,
                                     .score = k->scored,
                                     .score_top = k->index % 3,
                                     .cache_salt = k->index % 5 == 4 ? "other tenant" : "",
                                     .client = k};
    enum status st = core_submit(w->core, &req, w->now_ns, &k->id, &err);
    if (st == ST_LINK || st == ST_BUSY) {
        k->submit_ns = w->now_ns + 50 * NS_PER_MS; /* as clients do: again later */
        return;
    }
    k->submitted = true;
    if (st != ST_OK)
        world_fail(w, "client %d: not admitted: %s", k->index, err.text);
    k->live = st == ST_OK;
    w->coverage->requests++;
}

void sim_clients_work(struct world *w)
{
    for (int i = 0; i < w->n_clients && !w->router_dead; i++) {
        struct sim_client *k = &w->clients[i];
        if (!k->submitted && w->now_ns >= k->submit_ns)
            submit(w, k);
        if (k->live && !k->cancelled && w->now_ns >= k->cancel_ns) {
            struct core_req *q = slots_get(w->core->requests, k->id);
            k->cancelled = true;
            sim_count_event(w, SIM_CANCEL, q);
            core_cancel(w->core, k->id, ST_CANCELLED, "the client went away");
        }
    }
}
