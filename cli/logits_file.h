/* Distributions of next tokens over a text, in a file: what `baton perplexity` compares with. The
 * format is that of llama.cpp's `llama-perplexity --save-all-logits`, so that either program can
 * be compared with the other:
 *
 *     "_logits_", u32 context, i32 vocabulary, i32 chunks, i32 ids[chunks][context]
 *     and for each chunk a row per scored position: f32 step, f32 least, u16 code[vocabulary, even]
 *
 * A log probability is least + step x code; what is more than 16 nats under the most probable token
 * is stored as if it were 16. Scored are the positions of a chunk's second half (LOGITS_FIRST),
 * each by the id that follows. Little-endian.
 *
 * What is written stands beside its path until it is whole: a run that fails leaves there what was
 * before, and one that compares with the same file reads it to the end.
 *
 * Owner: logits_create() and logits_open() fill a struct that logits_close() empties. Thread: one.
 */
#ifndef CLI_LOGITS_FILE_H
#define CLI_LOGITS_FILE_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* The first position of a chunk whose next token is scored, and how many there are. */
#define LOGITS_FIRST(context) ((context) / 2)
#define LOGITS_SCORED(context) ((context)-1 - LOGITS_FIRST(context))

struct logits_file {
    FILE *f;
    const char *path;
    int32_t context, vocab, chunks;
    int32_t *ids; /* [chunks][context], as the text gives them */
    uint16_t *codes;
    char *part;   /* what a file is called until it is whole; NULL */
    int64_t rows; /* written */
    float least;  /* of the row read last: what its improbable tokens have at most */
};

/* The same sizes as `like`, whose ids are copied. ST_IO, ST_NO_MEMORY. */
enum status logits_create(struct logits_file *out, const char *path, const struct logits_file *like,
                          struct error *err);
/* ST_NOT_FOUND, ST_INVALID (not such a file, or not whole), ST_NO_MEMORY. */
enum status logits_open(struct logits_file *out, const char *path, struct error *err);
/* The next row: logits[vocab] are written; log probabilities come back, of the tokens within 16
 * nats, normalised over these; of others -INFINITY. ST_IO, ST_INVALID. */
enum status logits_write(struct logits_file *f, const float *logits, struct error *err);
enum status logits_read(struct logits_file *f, float *logprobs, struct error *err);
/* ST_IO: what was written is not all on its way to the disk. */
enum status logits_close(struct logits_file *f, struct error *err);

/* log(sum of exp) of n logits: a logit less it is a log probability. */
double logits_norm(const float *logits, int32_t n);

#endif
