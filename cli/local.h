/* A model, its tokenizer and one engine in this process, with no network: what `generate` and the
 * model benchmarks run on.
 *
 * Owner: local_open() fills a struct that local_close() empties. Thread: one.
 */
#ifndef CLI_LOCAL_H
#define CLI_LOCAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/flags.h"
#include "base/status.h"
#include "base/team.h"
#include "engine/engine.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

struct local_options {
    const char *dir;
    const char *cpu_features;  /* auto */
    const char *weights;       /* auto */
    const char *weights_cache; /* none */
    const char *kv_dtype;      /* fp32 */
    int64_t threads;           /* 0: all cores */
    int64_t block_tokens, chunk_tokens_max, max_batch;
    int64_t pool_tokens; /* room for this many tokens; 0: one full context */
    int64_t max_context; /* 0: the model's */
    bool prefix_cache;
    bool grammars; /* requests may ask for one; needs the tokenizer */
};

struct local {
    struct team *team;
    struct model *model;
    struct tokenizer *tokenizer;
    struct grammar_vocab *vocab;
    struct engine *engine;
    void *pool;
    struct kv_layout layout;
    int32_t max_context;
};

struct local_options local_defaults(void);
/* `events` are the engine's. The tokenizer is left out when `with_tokenizer` is false. */
enum status local_open(struct local *l, const struct local_options *o,
                       const struct engine_events *events, bool with_tokenizer, struct error *err);
void local_close(struct local *l);
/* Reads "1,2,3" (spaces allowed) into *out. ST_INVALID. */
enum status local_parse_ids(const char *text, struct ids *out, struct error *err);

/* Appends all that `f` still gives; `name` is for the error. */
enum status local_read_all(FILE *f, const char *name, struct buf *out, struct error *err);

/* Rows of a flag table for the options above; kv_default is what kv_dtype was set to. */
#define LOCAL_FLAGS(o, kv_default)                                                                 \
    {.name = "threads",                                                                            \
     .kind = FLAG_INT,                                                                             \
     .target = &(o).threads,                                                                       \
     .value = "K",                                                                                 \
     .help = "compute threads; 0: all CPUs that may be used",                                      \
     .min = 0,                                                                                     \
     .max = 1024},                                                                                 \
        {.name = "cpu-features",                                                                   \
         .kind = FLAG_STR,                                                                         \
         .target = &(o).cpu_features,                                                              \
         .value = "NAME",                                                                          \
         .help = "auto, or a set: portable, avx2, avx512, avx512_vnni, avx512_bf16, amx, "         \
                 "amx_emulated"},                                                                  \
        {.name = "weights",                                                                        \
         .kind = FLAG_STR,                                                                         \
         .target = &(o).weights,                                                                   \
         .value = "FORM",                                                                          \
         .help = "auto, packed, int8, wide or float: what is rounded (docs/formats.md)"},          \
        {.name = "weights-cache",                                                                  \
         .kind = FLAG_STR,                                                                         \
         .target = &(o).weights_cache,                                                             \
         .value = "FOLDER",                                                                        \
         .help = "where converted weights are kept for the next start; model: beside it "          \
                 "(default none)"},                                                                \
        {.name = "kv-dtype",                                                                       \
         .kind = FLAG_STR,                                                                         \
         .target = &(o).kv_dtype,                                                                  \
         .value = "TYPE",                                                                          \
         .help = "fp32, bf16, fp16, fp8, int8 or int4 "                                            \
                 "(default " kv_default ")"},                                                      \
        {.name = "block-tokens",                                                                   \
         .kind = FLAG_INT,                                                                         \
         .target = &(o).block_tokens,                                                              \
         .value = "N",                                                                             \
         .help = "tokens per KV block (default 16)",                                               \
         .min = 1,                                                                                 \
         .max = 4096},                                                                             \
        {.name = "chunk-tokens-max",                                                               \
         .kind = FLAG_INT,                                                                         \
         .target = &(o).chunk_tokens_max,                                                          \
         .value = "N",                                                                             \
         .help = "prompt tokens per step (default 512)",                                           \
         .min = 1,                                                                                 \
         .max = 65536},                                                                            \
    {                                                                                              \
        .name = "prefix-cache", .kind = FLAG_BOOL, .target = &(o).prefix_cache,                    \
        .help = "keep and reuse the KV of equal prompt beginnings (default true)"                  \
    }

#endif
