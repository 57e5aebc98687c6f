#include "cli/logits_file.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAGIC "_logits_"
#define MAGIC_BYTES 8
#define PART ".part"
#define HEAD_BYTES (MAGIC_BYTES + 3 * 4)
#define RANGE_NATS 16.0f /* more under the greatest is not told apart */
#define CODE_MAX 65535.0f
#define CODES_BEFORE 4 /* two floats stand before the codes */
#define DIMENSION_MAX (1 << 24)

static size_t row_codes(const struct logits_file *f)
{
    return CODES_BEFORE + ((size_t)f->vocab + 1) / 2 * 2;
}

double logits_norm(const float *logits, int32_t n)
{
    float most = logits[0];
    double sum = 0;
    for (int32_t i = 1; i < n; i++)
        most = logits[i] > most ? logits[i] : most;
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)(logits[i] - most));
    return (double)most + log(sum);
}

static enum status allocate(struct logits_file *f, struct error *err)
{
    f->ids = calloc((size_t)f->chunks * (size_t)f->context, sizeof *f->ids);
    f->codes = calloc(row_codes(f), sizeof *f->codes);
    return f->ids && f->codes ? ST_OK : err_set(err, ST_NO_MEMORY, "%s: no memory", f->path);
}

static enum status put(struct logits_file *f, const void *data, size_t bytes, struct error *err)
{
    errno = 0;
    if (fwrite(data, 1, bytes, f->f) == bytes)
        return ST_OK;
    return err_set(err, ST_IO, "%s: %s", f->path, strerror(errno ? errno : EIO));
}

static enum status get(struct logits_file *f, void *data, size_t bytes, struct error *err)
{
    errno = 0;
    if (fread(data, 1, bytes, f->f) == bytes)
        return ST_OK;
    return err_set(err, ST_IO, "%s: %s", f->path, errno ? strerror(errno) : "it ends too early");
}

static size_t ids_bytes(const struct logits_file *f)
{
    return (size_t)f->chunks * (size_t)f->context * sizeof *f->ids;
}

/* Devices and pipes are written to as they are. */
static enum status open_part(struct logits_file *f, struct error *err)
{
    struct stat facts;
    const char *path = f->path;
    if (stat(path, &facts) != 0 || S_ISREG(facts.st_mode)) {
        const size_t bytes = strlen(path) + sizeof PART;
        if (!(f->part = malloc(bytes)))
            return err_set(err, ST_NO_MEMORY, "%s: no memory", path);
        snprintf(f->part, bytes, "%s%s", path, PART);
        path = f->part;
    }
    f->f = fopen(path, "wb");
    return f->f ? ST_OK : err_set(err, ST_IO, "%s: %s", path, strerror(errno));
}

enum status logits_create(struct logits_file *out, const char *path, const struct logits_file *like,
                          struct error *err)
{
    const int32_t sizes[] = {like->context, like->vocab, like->chunks};
    *out = (struct logits_file){
        .path = path, .context = like->context, .vocab = like->vocab, .chunks = like->chunks};
    enum status st = allocate(out, err);
    if (st == ST_OK)
        st = open_part(out, err);
    if (st == ST_OK) {
        memcpy(out->ids, like->ids, ids_bytes(out));
        st = put(out, MAGIC, MAGIC_BYTES, err);
    }
    if (st == ST_OK)
        st = put(out, sizes, sizeof sizes, err);
    if (st == ST_OK)
        st = put(out, out->ids, ids_bytes(out), err);
    if (st != ST_OK)
        logits_close(out, NULL);
    return st;
}

/* Its head, against its size: all counts are bounded by what is there. */
static enum status read_head(struct logits_file *f, uint64_t file_bytes, struct error *err)
{
    char magic[MAGIC_BYTES];
    int32_t sizes[3];
    if (file_bytes < HEAD_BYTES || get(f, magic, sizeof magic, NULL) != ST_OK ||
        get(f, sizes, sizeof sizes, NULL) != ST_OK || memcmp(magic, MAGIC, MAGIC_BYTES) != 0)
        return err_set(err, ST_INVALID, "%s: not a file of log probabilities", f->path);
    f->context = sizes[0], f->vocab = sizes[1], f->chunks = sizes[2];
    if (f->context < 4 || f->context > DIMENSION_MAX || f->vocab < 1 || f->vocab > DIMENSION_MAX ||
        f->chunks < 1 || f->chunks > DIMENSION_MAX)
        return err_set(err, ST_INVALID,
                       "%s: sizes that cannot be: context %d, vocabulary %d, %d "
                       "chunks",
                       f->path, f->context, f->vocab, f->chunks);
    uint64_t chunk = (uint64_t)f->context * sizeof *f->ids +
                     (uint64_t)LOGITS_SCORED(f->context) * row_codes(f) * sizeof *f->codes;
    if ((file_bytes - HEAD_BYTES) / chunk != (uint64_t)f->chunks ||
        (file_bytes - HEAD_BYTES) % chunk != 0)
        return err_set(err, ST_INVALID, "%s: not whole", f->path);
    return ST_OK;
}

enum status logits_open(struct logits_file *out, const char *path, struct error *err)
{
    struct stat facts;
    enum status st = ST_OK;
    *out = (struct logits_file){.path = path};
    if (stat(path, &facts) != 0 || !S_ISREG(facts.st_mode) || !(out->f = fopen(path, "rb")))
        return err_set(err, ST_NOT_FOUND, "%s: not a file that can be read", path);
    st = read_head(out, (uint64_t)facts.st_size, err);
    if (st == ST_OK)
        st = allocate(out, err);
    if (st == ST_OK)
        st = get(out, out->ids, ids_bytes(out), err);
    for (size_t i = 0; st == ST_OK && i < ids_bytes(out) / sizeof *out->ids; i++)
        if (out->ids[i] < 0 || out->ids[i] >= out->vocab)
            st = err_set(err, ST_INVALID, "%s: an id outside of its vocabulary", path);
    if (st != ST_OK)
        logits_close(out, NULL);
    return st;
}

enum status logits_write(struct logits_file *f, const float *logits, struct error *err)
{
    float most = logits[0], least = logits[0];
    for (int32_t i = 1; i < f->vocab; i++) {
        most = logits[i] > most ? logits[i] : most;
        least = logits[i] < least ? logits[i] : least;
    }
    least = fmaxf(least, most - RANGE_NATS);
    const float head[2] = {(most - least) / CODE_MAX,
                           (float)((double)least - logits_norm(logits, f->vocab))};
    memcpy(f->codes, head, sizeof head);
    for (int32_t i = 0; i < f->vocab; i++) {
        float above = head[0] > 0 ? fmaxf(logits[i] - least, 0) / head[0] : 0;
        f->codes[CODES_BEFORE + i] = (uint16_t)lrintf(fminf(above, CODE_MAX));
    }
    enum status st = put(f, f->codes, row_codes(f) * sizeof *f->codes, err);
    f->rows += st == ST_OK;
    return st;
}

enum status logits_read(struct logits_file *f, float *logprobs, struct error *err)
{
    float head[2];
    enum status st = get(f, f->codes, row_codes(f) * sizeof *f->codes, err);
    if (st != ST_OK)
        return st;
    memcpy(head, f->codes, sizeof head);
    if (!isfinite(head[0]) || !isfinite(head[1]) || head[0] < 0)
        return err_set(err, ST_INVALID, "%s: a row that is not of finite numbers", f->path);
    f->least = head[1];
    for (int32_t i = 0; i < f->vocab; i++)
        logprobs[i] = f->codes[CODES_BEFORE + i] == 0 && head[0] > 0 /* 0: all are equal */
                          ? -INFINITY
                          : head[1] + head[0] * (float)f->codes[CODES_BEFORE + i];
    /* Codes are rounded: without this every row would differ from itself by about half a step. */
    const float norm = (float)logits_norm(logprobs, f->vocab);
    if (!isfinite(norm))
        return err_set(err, ST_INVALID, "%s: a row that foretells nothing", f->path);
    for (int32_t i = 0; i < f->vocab; i++)
        logprobs[i] -= norm;
    return ST_OK;
}

enum status logits_close(struct logits_file *f, struct error *err)
{
    enum status st = ST_OK;
    const bool whole = f->rows == (int64_t)f->chunks * LOGITS_SCORED(f->context);
    errno = 0;
    if (f->f && fclose(f->f) != 0)
        st = err_set(err, ST_IO, "%s: %s", f->path, strerror(errno));
    if (f->f && f->part && (st != ST_OK || !whole))
        remove(f->part);
    else if (f->f && f->part && rename(f->part, f->path) != 0)
        st = err_set(err, ST_IO, "%s: %s", f->path, strerror(errno));
    free(f->part);
    free(f->ids);
    free(f->codes);
    *f = (struct logits_file){0};
    return st;
}
