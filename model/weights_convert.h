/* Weights that are not computed with as they lie in the file: parts of tensors that are read as
 * floats or integers and written, in the form that is computed with, to memory of the model's own,
 * by the whole team. Private to this folder.
 *
 * Owner: conversion_run() gives the memory to the weights; conversion_fini() frees the list.
 * Thread: the one that loads.
 */
#ifndef MODEL_WEIGHTS_CONVERT_H
#define MODEL_WEIGHTS_CONVERT_H

#include <stdatomic.h>
#include <stddef.h>

#include "base/stop.h"
#include "base/team.h"
#include "formats/weight_source.h"
#include "model/weights_cache.h"
#include "model/weights_list.h"

/* A weight that is converted or copied: part of a tensor to memory of our own. */
struct conversion_job {
    const struct weight *weight;
    struct weight_spec spec;
    enum dtype to;
    bool packs;         /* else to floats */
    bool rounds;        /* to integers first */
    bool panels;        /* which then stand in panels; or FP8 as it is, where that is `to` */
    struct packed form; /* its place is `out` */
    size_t bytes;       /* of `out` */
    char *out;
    void *own; /* memory of its own, where it turned out to need more */
};

struct conversion {
    const struct weight_source *source;
    const char *dir;   /* the checkpoint; names it in messages */
    const char *cache; /* where the result is kept for the next start (weights_cache.h); or NULL */
    const char *form;  /* in the name there, for what makes other jobs of one checkpoint */
    struct weights_files files;   /* of the checkpoint */
    struct weights_origin origin; /* of them, where there is a cache; content: see there */
    bool is_hashed;               /* origin.content is known */
    bool cannot_hash;             /* it was tried */
    struct stop *stop;            /* or NULL */
    struct error *err;
    struct conversion_job *jobs;
    size_t n_jobs, cap_jobs, n_packed, bytes_all;
    atomic_size_t next;
    _Atomic uint64_t read; /* bytes of the checkpoint */
    atomic_int bad; /* 1 + the first job whose numbers are none, or for which there is no memory */
    int64_t said_ns;
};

/* Lists a part of a tensor; its struct matrix gets data when all are converted. ST_NO_MEMORY. */
enum status conversion_add(struct conversion *c, const struct weight *w,
                           const struct weight_spec *s, enum dtype to);
/* The same, in panels (kernels/panels.h): to bf16, or FP8 as it is (weight_as_fp8()). */
enum status conversion_add_panels(struct conversion *c, const struct weight *w,
                                  const struct weight_spec *s, enum dtype to);
/* The same, packed in this form; its scale type is found out on the way. */
enum status conversion_pack(struct conversion *c, const struct weight *w,
                            const struct weight_spec *s, const struct packed *form);
/* The same, of what are floats: rounded to the integers of this form (8 bits, one group a row). */
enum status conversion_round(struct conversion *c, const struct weight *w,
                             const struct weight_spec *s, const struct packed *form);
/* Maps what was kept, or converts all, with a line of progress now and then. ST_INVALID: an element
 * is no number. ST_CANCELLED: it was to stop. */
enum status conversion_run(struct conversion *c, struct team *team, struct model_weights *out);
void conversion_fini(struct conversion *c);
/* What a job's result takes, were its floats, or its scales, of this type. */
size_t conversion_result_bytes(const struct conversion_job *j, enum dtype type);

/* The first row of the spec's expert, or of the only matrix. */
static inline uint64_t weights_first_row(const struct weight_spec *s)
{
    return s->experts > 0 ? (uint64_t)s->expert * (uint64_t)(s->cols ? s->rows : 1) : 0;
}

#endif
