#include "model/weights_keep.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/huge.h"
#include "base/log.h"

static uint32_t form_of(const struct conversion_job *j)
{
    return j->packs ? 16u + (uint32_t)j->form.scale_type : (j->panels ? 32u : 0) + (uint32_t)j->to;
}

/* Whether a part can be this job's result; where `take`, it becomes that. */
static bool fits(struct conversion_job *j, const struct weights_part *p, bool take)
{
    uint32_t type = p->form - (j->packs ? 16u : j->panels ? 32u : 0);
    struct packed form = j->form;
    if (j->panels ? type != (uint32_t)j->to
                  : type >= DTYPE_COUNT || (j->packs && type == DTYPE_BF16))
        return false;
    form.scale_type = (enum dtype)type;
    if (p->bytes != conversion_result_bytes(j, (enum dtype)type))
        return false;
    if (!take)
        return true;
    j->to = (enum dtype)type;
    j->form = form;
    j->out = (char *)(uintptr_t)p->data;
    if (j->packs)
        packed_place(&j->form, j->out);
    return true;
}

struct cache_check {
    const struct weights_cache *cache;
    struct stop *stop;
    atomic_size_t next;
    atomic_bool damaged;
};

static void check_body(void *arg, int part, int parts)
{
    struct cache_check *c = arg;
    (void)parts;
    for (size_t i; !stop_here(c->stop, part) && (i = atomic_fetch_add(&c->next, 1)) < c->cache->n;)
        if (!weights_cache_check(c->cache, i))
            atomic_store(&c->damaged, true);
}

void weights_keep_mix(struct conversion *c)
{
    for (size_t i = 0; i < c->n_jobs; i++) {
        const struct conversion_job *j = &c->jobs[i];
        const struct weight_spec *s = &j->spec;
        const int32_t facts[] = {j->packs + 2 * j->panels + 4 * j->rounds,
                                 (int32_t)j->to,
                                 j->form.bits,
                                 j->form.group,
                                 j->form.zero,
                                 s->expert,
                                 s->first,
                                 s->step,
                                 s->take_rows,
                                 s->take_cols,
                                 s->skip,
                                 s->flip,
                                 s->rows,
                                 s->cols,
                                 j->form.has_table,
                                 j->form.has_min,
                                 j->form.has_order};
        for (int k = 0; k < 2; k++) {
            c->origin.key.w[k] = hash_bytes(c->origin.key.w[k], s->name, strlen(s->name));
            c->origin.key.w[k] = hash_bytes(c->origin.key.w[k], facts, sizeof facts);
        }
    }
}

/* Once: what could not be read is not tried again. */
static enum status hash_files(struct conversion *c, struct team *team, struct error *err)
{
    if (c->is_hashed)
        return ST_OK;
    if (c->cannot_hash)
        return err_set(err, ST_IO, "%s: could not be hashed before", c->dir);
    enum status st = weights_files_hash(c->files, team, c->stop, &c->origin.content, err);
    c->is_hashed = st == ST_OK;
    c->cannot_hash = !c->is_hashed;
    return st;
}

/* What was opened and hashed has been the same all the time. */
static enum status check_same(const struct conversion *c, struct error *err)
{
    return weights_files_same(c->files)
               ? ST_OK
               : err_set(err, ST_INVALID, "%s: its files changed while they were read", c->dir);
}

/* Whether the checkpoint's files hold what the cache was made of. */
static enum status check_files(struct conversion *c, const struct weights_cache *cache,
                               struct team *team, struct error *err)
{
    const struct weights_origin *was = &cache->origin;
    if (memcmp(&was->stamp, &c->origin.stamp, sizeof was->stamp) == 0)
        return ST_OK;
    enum status st = hash_files(c, team, err);
    if (!st && was->content != c->origin.content)
        st = err_set(err, ST_INVALID, "%s: its files have changed", c->dir);
    return st ? st : check_same(c, err);
}

static enum status check_cache(struct conversion *c, const struct weights_cache *cache,
                               struct team *team, struct error *err)
{
    struct cache_check check = {.cache = cache, .stop = c->stop};
    for (size_t i = 0; i < c->n_jobs; i++)
        if (!fits(&c->jobs[i], &cache->parts[i], false))
            return err_set(err, ST_INVALID, "%s: what was kept of it is of another form", c->dir);
    /* Before the cache is read: it would be driven out of memory. */
    enum status st = check_files(c, cache, team, err);
    if (st)
        return st;
    team_run(team, check_body, &check);
    if (stop_is_set(c->stop))
        return err_set(err, ST_CANCELLED, "%s: asked to stop while it was checked", c->dir);
    if (atomic_load(&check.damaged))
        return err_set(err, ST_INVALID, "%s: what was kept of it is damaged", c->dir);
    return ST_OK;
}

/* Spares the next start the hash. */
static void restamp(const struct conversion *c, struct weights_cache *cache, const char *path)
{
    struct error why = {0};
    char quoted[600];
    if (weights_files_settled(c->files) && weights_files_same(c->files) &&
        weights_cache_restamp(cache, path, &c->origin.stamp, &why))
        log_warn("weights_cache_not_stamped",
                 "why=%s do=\"every start hashes the checkpoint until the file is removed, or a "
                 "start can write to it\"",
                 log_quote(quoted, sizeof quoted, why.text));
}

static void say_mapped(const struct weights_cache *cache, const char *path)
{
    char quoted[1100];
    log_info("weights_mapped", "file=%s mib=%zu large_pages_mib=%zu",
             log_quote(quoted, sizeof quoted, path), cache->len >> 20,
             huge_mapped(cache->map) >> 20);
}

bool weights_keep_use(struct conversion *c, const char *path, struct team *team,
                      struct model_weights *out)
{
    struct error why = {0};
    char quoted[600];
    enum status st = weights_cache_open(path, &c->origin.key, c->n_jobs, &out->cache, &why);
    if (st == ST_NOT_FOUND)
        return false;
    if (!st)
        st = check_cache(c, &out->cache, team, &why);
    if (st) {
        if (st != ST_CANCELLED)
            log_warn("weights_cache_unusable", "why=%s",
                     log_quote(quoted, sizeof quoted, why.text));
        weights_cache_close(&out->cache);
        return false;
    }
    for (size_t i = 0; i < c->n_jobs; i++)
        fits(&c->jobs[i], &out->cache.parts[i], true);
    if (c->is_hashed)
        restamp(c, &out->cache, path);
    say_mapped(&out->cache, path);
    return true;
}

static enum status origin_for_keeping(struct conversion *c, struct team *team, struct error *err)
{
    enum status st = hash_files(c, team, err);
    if (!st)
        st = check_same(c, err);
    if (!st && !weights_files_settled(c->files))
        c->origin.stamp = (struct weights_key){{0, 0}};
    return st;
}

/* Whether it can be written is asked first: hashing for nothing would cost each start a reading of
 * the checkpoint. */
static enum status write_cache(struct conversion *c, const char *path, struct team *team,
                               struct error *err)
{
    struct weights_cache_new made;
    struct weights_part *parts = calloc(c->n_jobs + 1, sizeof *parts);
    if (!parts)
        return err_set(err, ST_NO_MEMORY, "no memory for a list");
    for (size_t i = 0; i < c->n_jobs; i++) {
        const struct conversion_job *j = &c->jobs[i];
        parts[i] = (struct weights_part){
            .data = j->out,
            .bytes = conversion_result_bytes(j, j->packs ? j->form.scale_type : j->to),
            .form = form_of(j)};
    }
    enum status st = weights_cache_begin(path, parts, c->n_jobs, &made, err);
    if (!st) {
        made.stop = c->stop;
        st = origin_for_keeping(c, team, err);
        if (st)
            weights_cache_abandon(&made);
        else
            st = weights_cache_finish(&made, &c->origin, parts, c->n_jobs, err);
    }
    free(parts);
    return st;
}

void weights_keep_write(struct conversion *c, const char *path, struct team *team)
{
    struct error why = {0};
    char quoted[1100];
    int64_t begin = clock_now_ns();
    if (write_cache(c, path, team, &why))
        log_info("weights_not_kept", "why=%s", log_quote(quoted, sizeof quoted, why.text));
    else
        log_info("weights_kept", "file=%s seconds=%.1f", log_quote(quoted, sizeof quoted, path),
                 (double)(clock_now_ns() - begin) * 1e-9);
}
