/* A checkpoint: one safetensors file, or the shards that an index names. With an index, its
 * weight_map is the table of contents: what it lists must be there, what it does not list is not
 * used. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "formats/safetensors.h"
#include "formats/safetensors_file.h"

#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME "model.safetensors.index.json"
#define INDEX_MAX_BYTES ((size_t)100000000)
#define PATH_MAX_BYTES 4096

struct checkpoint {
    struct safetensors_file *files;
    char **labels; /* name of each file, for an index */
    size_t n_files;
    struct opened_file index; /* its path is ours; NULL: there is none */
    struct tensor *tensors;   /* in order of name; with one file they are the file's own */
    char *names;              /* the index's copies of the names; NULL with one file */
    size_t count;
    uint64_t data_bytes;
};

static enum status checkpoint_new(size_t files, struct checkpoint **out, struct error *err)
{
    struct checkpoint *c = calloc(1, sizeof *c);
    if (c)
        c->files = calloc(files, sizeof *c->files);
    if (c)
        c->labels = calloc(files, sizeof *c->labels);
    if (!c || !c->files || !c->labels) {
        checkpoint_close(c);
        return err_set(err, ST_NO_MEMORY, "no memory for %zu checkpoint files", files);
    }
    *out = c;
    return ST_OK;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c)
        return;
    if (c->names)
        free(c->tensors);
    free(c->names);
    for (size_t i = 0; i < c->n_files; i++) {
        safetensors_file_fini(&c->files[i]);
        free(c->labels[i]);
    }
    free(c->files);
    free(c->labels);
    free((char *)(uintptr_t)c->index.path);
    free(c);
}

void checkpoint_let_go(const struct checkpoint *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        file_map_let_go(&c->files[i].map);
}

static void sum_bytes(struct checkpoint *c)
{
    /* cannot overflow: the tensors of a file tile it, and files are mapped side by side in one
     * address space */
    for (size_t i = 0; i < c->count; i++)
        c->data_bytes += c->tensors[i].bytes;
}

static void adopt_single(struct checkpoint *c)
{
    c->n_files = 1;
    c->tensors = c->files[0].tensors;
    c->count = c->files[0].count;
    sum_bytes(c);
}

enum status checkpoint_open_file(const char *path, struct checkpoint **out, struct error *err)
{
    struct checkpoint *c;
    enum status st = checkpoint_new(1, &c, err);
    if (st)
        return st;
    st = safetensors_file_open(path, path, &c->files[0], err);
    if (st) {
        checkpoint_close(c);
        return st;
    }
    adopt_single(c);
    *out = c;
    return ST_OK;
}

enum status checkpoint_open_bytes(const char *label, const void *bytes, size_t len,
                                  struct checkpoint **out, struct error *err)
{
    struct checkpoint *c;
    enum status st = checkpoint_new(1, &c, err);
    if (st)
        return st;
    st = safetensors_file_parse(label, bytes, len, &c->files[0], err);
    if (st) {
        checkpoint_close(c);
        return st;
    }
    adopt_single(c);
    *out = c;
    return ST_OK;
}

/* A plain name in the same folder: nothing that walks, hides or confuses a log. */
static bool shard_name_ok(const char *name, size_t len)
{
    if (len == 0 || len > 255 || strlen(name) != len || name[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (name[i] == '/' || name[i] == '\\' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    }
    return true;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of the map, sorted, in c->labels. */
static enum status collect_shards(struct checkpoint *c, const json *map, const char *path,
                                  struct error *err)
{
    size_t n = json_count(map), kept = 0;
    const char **names = malloc((n + 1) * sizeof *names);
    if (!names)
        return err_set(err, ST_NO_MEMORY, "%s: no memory for %zu names", path, n);
    enum status st = ST_OK;
    size_t i = 0;
    for (void *it = json_first(map); it && !st; it = json_next(map, it)) {
        const json *v = json_iter_value(it);
        names[i] = json_as_str(v, "");
        if (!shard_name_ok(names[i], json_str_len(v)))
            st = err_set(err, ST_INVALID,
                         "%s: weight_map: %.120s: expected a file name in the same folder", path,
                         json_iter_key(it));
        i++;
    }
    if (!st)
        qsort(names, n, sizeof *names, compare_strings);
    for (i = 0; i < n && !st; i++) {
        if (kept && strcmp(c->labels[kept - 1], names[i]) == 0)
            continue;
        if (kept == SAFETENSORS_SHARDS_MAX)
            st = err_set(err, ST_INVALID, "%s: weight_map: more than %d files", path,
                         SAFETENSORS_SHARDS_MAX);
        else if (!(c->labels[kept] = strdup(names[i])))
            st = err_set(err, ST_NO_MEMORY, "%s: no memory for names", path);
        else
            c->n_files = ++kept;
    }
    free(names);
    return st;
}

static const struct safetensors_file *find_shard(const struct checkpoint *c, const char *name)
{
    char **hit = bsearch(&name, c->labels, c->n_files, sizeof *c->labels, compare_strings);
    return &c->files[hit - c->labels];
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static enum status collect_tensors(struct checkpoint *c, const json *map, const char *path,
                                   struct error *err)
{
    size_t n = json_count(map), bytes = 0;
    for (void *it = json_first(map); it; it = json_next(map, it))
        bytes += strlen(json_iter_key(it)) + 1;
    c->names = malloc(bytes + 1);
    c->tensors = c->names ? calloc(n + 1, sizeof *c->tensors) : NULL;
    if (!c->tensors)
        return err_set(err, ST_NO_MEMORY, "%s: no memory for %zu tensors", path, n);
    char *name = c->names;
    for (void *it = json_first(map); it; it = json_next(map, it)) {
        const char *key = json_iter_key(it), *file = json_as_str(json_iter_value(it), "");
        const struct safetensors_file *shard = find_shard(c, file);
        const struct tensor *t = safetensors_search(shard->tensors, shard->count, key);
        if (!t)
            return err_set(err, ST_INVALID, "%s: weight_map: %.120s is not in %.120s", path, key,
                           file);
        c->tensors[c->count] = *t;
        c->tensors[c->count++].name = strcpy(name, key);
        name += strlen(key) + 1;
    }
    if (c->count)
        qsort(c->tensors, c->count, sizeof *c->tensors, compare_tensors);
    sum_bytes(c);
    return ST_OK;
}

static enum status open_shards(struct checkpoint *c, const char *dir, struct error *err)
{
    for (size_t i = 0; i < c->n_files; i++) {
        char path[PATH_MAX_BYTES];
        if (snprintf(path, sizeof path, "%s/%s", dir, c->labels[i]) >= (int)sizeof path)
            return err_set(err, ST_INVALID, "%.200s: path too long", dir);
        enum status st = safetensors_file_open(path, path, &c->files[i], err);
        if (st)
            return st;
    }
    return ST_OK;
}

static enum status open_index(const char *dir, const char *path, struct checkpoint **out,
                              struct error *err)
{
    json *root = NULL;
    struct opened_file index = {0};
    (void)file_state_read(path, &index.state); /* what it is not, reading it says */
    enum status st = json_read_file(path, INDEX_MAX_BYTES, &root, err);
    if (st)
        return st;
    const json *map = json_get(root, "weight_map");
    size_t n = json_count(map);
    struct checkpoint *c = NULL;
    if (json_kind_of(map) != JSON_OBJ || n == 0)
        st = err_set(err, ST_INVALID, "%s: weight_map: expected an object of tensor to file", path);
    else if (n > SAFETENSORS_TENSORS_MAX)
        st = err_set(err, ST_INVALID, "%s: weight_map: %zu tensors, at most %d", path, n,
                     SAFETENSORS_TENSORS_MAX);
    if (!st)
        st = checkpoint_new(n < SAFETENSORS_SHARDS_MAX ? n : SAFETENSORS_SHARDS_MAX, &c, err);
    if (!st && !(index.path = strdup(path)))
        st = err_set(err, ST_NO_MEMORY, "%s: no memory for its name", path);
    if (!st)
        c->index = index;
    if (!st)
        st = collect_shards(c, map, path, err);
    if (!st)
        st = open_shards(c, dir, err);
    if (!st)
        st = collect_tensors(c, map, path, err);
    json_free(root);
    if (st)
        checkpoint_close(c);
    else
        *out = c;
    return st;
}

enum status checkpoint_open(const char *dir, struct checkpoint **out, struct error *err)
{
    char single[PATH_MAX_BYTES], index[PATH_MAX_BYTES];
    if (snprintf(single, sizeof single, "%s/" SINGLE_NAME, dir) >= (int)sizeof single ||
        snprintf(index, sizeof index, "%s/" INDEX_NAME, dir) >= (int)sizeof index)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    if (access(single, F_OK) == 0)
        return checkpoint_open_file(single, out, err);
    if (access(index, F_OK) == 0)
        return open_index(dir, index, out, err);
    return err_set(err, ST_NOT_FOUND, "%s: neither " SINGLE_NAME " nor " INDEX_NAME " is there",
                   dir);
}

const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    return safetensors_search(c->tensors, c->count, name);
}

size_t checkpoint_count(const struct checkpoint *c)
{
    return c->count;
}

const struct tensor *checkpoint_at(const struct checkpoint *c, size_t i)
{
    return i < c->count ? &c->tensors[i] : NULL;
}

size_t checkpoint_files(const struct checkpoint *c)
{
    return c->n_files;
}

struct opened_file checkpoint_file_at(const struct checkpoint *c, size_t i)
{
    return file_map_opened(&c->files[i].map);
}

const struct opened_file *checkpoint_index(const struct checkpoint *c)
{
    return c->index.path ? &c->index : NULL;
}

uint64_t checkpoint_data_bytes(const struct checkpoint *c)
{
    return c->data_bytes;
}
