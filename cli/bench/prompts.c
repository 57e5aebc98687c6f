#include "cli/bench/prompts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)256 << 20)
#define IDS_MAX 4096
#define GUESS_LOW 10
#define GUESS_HIGH 1000

static const char *const names[] = {"Anna",  "Ben",  "Clara", "David", "Emma", "Felix",
                                    "Greta", "Hugo", "Ida",   "Jonas", "Kira", "Leo",
                                    "Mia",   "Noah", "Olga",  "Paul"};
static const char *const kinds[] = {"small", "brave", "quiet", "clever", "tired",
                                    "happy", "old",   "young", "hungry", "curious"};
static const char *const beings[] = {"fox",  "girl",   "boy",    "cat",  "dog",    "bird",
                                     "bear", "rabbit", "farmer", "king", "sailor", "mouse"};
static const char *const places[] = {
    "in a forest",  "by the sea",   "in a big house", "on a hill",
    "near a river", "in a village", "under a bridge", "at the edge of a field"};
static const char *const words[] = {
    "the",   "sun",   "was",  "warm",   "and",  "a",     "little", "wind", "came", "from",
    "over",  "water", "she",  "said",   "that", "he",    "would",  "go",   "home", "with",
    "bread", "for",   "his",  "friend", "then", "they",  "saw",    "many", "red",  "birds",
    "in",    "tall",  "tree", "but",    "it",   "began", "to",     "rain", "so",   "all"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Cuts the text at its line ends, in place, and keeps the lines that are not blank. */
static enum status cut_lines(struct bench_prompts *p, const char *path, struct error *err)
{
    size_t cap = 0;
    char *save = NULL;
    for (char *line = strtok_r(p->text, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save)) {
        if (line[strspn(line, " \t")] == '\0')
            continue;
        if (p->n_lines == BENCH_PROMPT_LINES_MAX)
            return err_set(err, ST_INVALID, "%s: more than %d lines", path, BENCH_PROMPT_LINES_MAX);
        if (p->n_lines == cap) {
            cap = cap ? 2 * cap : 256;
            const char **more = realloc(p->lines, cap * sizeof *more);
            if (!more)
                return err_set(err, ST_NO_MEMORY, "%s: no memory", path);
            p->lines = more;
        }
        p->lines[p->n_lines++] = line;
    }
    return p->n_lines > 0 ? ST_OK : err_set(err, ST_INVALID, "%s: holds no prompts", path);
}

enum status bench_prompts_init(struct bench_prompts *p, const char *path, struct error *err)
{
    struct buf text = {.max = FILE_BYTES_MAX};
    char chunk[65536];
    size_t n;
    if (!path)
        return ST_OK;
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(err, ST_NOT_FOUND, "%s: %s", path, strerror(errno));
    buf_puts(&text, "");
    while (!text.failed && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(&text, chunk, n);
    bool bad = ferror(f) != 0;
    fclose(f);
    p->text = buf_take(&text, NULL);
    if (bad || !p->text)
        return err_set(err, ST_IO, "%s: cannot be read, or larger than %zu bytes", path,
                       FILE_BYTES_MAX);
    return cut_lines(p, path, err);
}

void bench_prompts_fini(struct bench_prompts *p)
{
    free(p->text);
    free(p->lines);
    free(p->ids);
    *p = (struct bench_prompts){0};
}

/* ---- ids ---- */

static void put_opening(uint64_t seed, size_t index, struct buf *out)
{
    struct rng r = rng_seed(rng_hash(seed, index, 1, 0));
    buf_printf(out, "Once upon a time, a %s %s named %s lived %s. ",
               kinds[rng_below(&r, COUNT(kinds))], beings[rng_below(&r, COUNT(beings))],
               names[rng_below(&r, COUNT(names))], places[rng_below(&r, COUNT(places))]);
    buf_printf(out, "One day %s met a %s %s and said:", names[rng_below(&r, COUNT(names))],
               kinds[rng_below(&r, COUNT(kinds))], beings[rng_below(&r, COUNT(beings))]);
}

static void put_words(uint64_t seed, size_t index, int32_t n, struct buf *out)
{
    struct rng r = rng_seed(rng_hash(seed, index, 2, 0));
    for (int32_t i = 0; i < n; i++)
        buf_printf(out, "%s%s", i ? " " : "", words[rng_below(&r, COUNT(words))]);
}

static void take_ids(struct bench_prompts *p, const json *tokens)
{
    for (size_t i = 0; i < json_count(tokens) && p->n_ids < IDS_MAX; i++) {
        int64_t id = json_as_int(json_at(tokens, i), -1);
        bool known = id < 0 || id > INT32_MAX;
        for (size_t k = 0; k < p->n_ids && !known; k++)
            known = p->ids[k] == id;
        if (!known)
            p->ids[p->n_ids++] = (int32_t)id;
    }
}

void bench_prompts_find_ids(struct bench_prompts *p, const struct oai_server *s)
{
    struct buf text = {0}, body = {0};
    json *answer = NULL;
    p->ids = calloc(IDS_MAX, sizeof *p->ids);
    if (!p->ids)
        return;
    for (size_t i = 0; i < 64; i++)
        put_opening(1, i, &text);
    put_words(1, 0, 256, &text);
    struct jw w = jw_begin(&body);
    jw_obj(&w);
    jw_key(&w, "model");
    jw_str(&w, s->model);
    jw_key(&w, "prompt");
    jw_str(&w, text.data);
    jw_key(&w, "add_special_tokens");
    jw_bool(&w, false);
    jw_end_obj(&w);
    struct error err = {0};
    if (oai_call(s, "/tokenize", &body, &answer, &err) == ST_OK)
        take_ids(p, json_get(answer, "tokens"));
    if (p->n_ids < 16) {
        fprintf(stderr, "no vocabulary from the server (%s): prompts of ids from %d to %d\n",
                err.text[0] ? err.text : "too few tokens", GUESS_LOW, GUESS_HIGH - 1);
        for (p->n_ids = 0; p->n_ids < GUESS_HIGH - GUESS_LOW; p->n_ids++)
            p->ids[p->n_ids] = GUESS_LOW + (int32_t)p->n_ids;
    }
    json_free(answer);
    buf_fini(&text);
    buf_fini(&body);
}

static void put_ids(const struct bench_prompts *p, const struct bench_item *item, size_t index,
                    struct jw *w)
{
    jw_arr(w);
    for (int32_t at = 0; at < item->input_tokens; at++) {
        size_t block = (size_t)at / BENCH_TRACE_BLOCK_TOKENS;
        uint64_t pick =
            block < item->n_hashes
                ? rng_hash(p->seed, item->hashes[block], (uint64_t)at % BENCH_TRACE_BLOCK_TOKENS, 3)
                : rng_hash(p->seed, index, (uint64_t)at, 4);
        jw_int(w, p->ids[pick % p->n_ids]);
    }
    jw_end_arr(w);
}

void bench_prompts_put(const struct bench_prompts *p, const struct bench_item *item, size_t index,
                       struct jw *w)
{
    struct buf text = {0};
    if (p->n_lines > 0)
        buf_puts(&text, p->lines[index % p->n_lines]);
    else if (item->input_tokens > 0)
        put_words(p->seed, index, p->chat || p->n_ids == 0 ? item->input_tokens : 0, &text);
    else
        put_opening(p->seed, index, &text);
    if (p->chat) {
        jw_key(w, "messages");
        jw_arr(w);
        jw_obj(w);
        jw_key(w, "role");
        jw_str(w, "user");
        jw_key(w, "content");
        jw_str(w, text.data ? text.data : "");
        jw_end_obj(w);
        jw_end_arr(w);
    } else {
        jw_key(w, "prompt");
        if (p->n_lines == 0 && item->input_tokens > 0 && p->n_ids > 0)
            put_ids(p, item, index, w);
        else
            jw_str(w, text.data ? text.data : "");
    }
    buf_fini(&text);
}
