/* What requests ask: random token ids of an exact number, lines of a file, or built-in openings of
 * stories, which differ from request to request so that no prefix cache answers for the model.
 *
 * Ids are drawn from those that the server's own /tokenize gives for ordinary text, else from 10 to
 * 999. Requests of a trace draw each block of 512 ids by its hash id, so that prompts share
 * prefixes as the trace's did. Same seed, same prompts. Owner: bench_prompts_fini() frees. Thread:
 * one.
 */
#ifndef CLI_BENCH_PROMPTS_H
#define CLI_BENCH_PROMPTS_H

#include "base/json.h"
#include "cli/bench/source.h"
#include "cli/oai.h"

#define BENCH_PROMPT_LINES_MAX 1000000

struct bench_prompts {
    char *text; /* of a file; lines point into it */
    const char **lines;
    size_t n_lines;
    int32_t *ids;
    size_t n_ids;
    uint64_t seed;
    bool chat;
};

/* `path` NULL: no file. */
enum status bench_prompts_init(struct bench_prompts *p, const char *path, struct error *err);
/* Finds ids that the server knows; never fails, says on stderr when it had to guess. */
void bench_prompts_find_ids(struct bench_prompts *p, const struct oai_server *s);
/* Writes "prompt" or "messages" of the index-th request into an open object. */
void bench_prompts_put(const struct bench_prompts *p, const struct bench_item *item, size_t index,
                       struct jw *w);
void bench_prompts_fini(struct bench_prompts *p);

#endif
