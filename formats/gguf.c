/* The view of one GGUF file or of all files of a split one: lookups, and how the parts of a split
 * are found and held against each other. */
#include "formats/gguf.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_file.h"

#define PATH_MAX_BYTES 4096
#define SUFFIX ".gguf"
#define SPLIT_TAIL_LEN (sizeof "-00001-of-00002" SUFFIX - 1)

struct gguf {
    struct gguf_file *files;
    size_t n_files;
    struct gguf_tensor *tensors; /* of all files, in order of name; with one file its own */
    size_t n_tensors;
    uint64_t data_bytes;
};

/* "-00001-of-00002.gguf" at the end of a path: its two numbers. */
static bool split_numbers(const char *path, unsigned *no, unsigned *of)
{
    size_t len = strlen(path);
    if (len < SPLIT_TAIL_LEN)
        return false;
    const char *tail = path + len - SPLIT_TAIL_LEN;
    if (tail[0] != '-' || memcmp(tail + 6, "-of-", 4) || strcmp(tail + 15, SUFFIX))
        return false;
    *no = *of = 0;
    for (int i = 0; i < 5; i++) {
        if (tail[1 + i] < '0' || tail[1 + i] > '9' || tail[10 + i] < '0' || tail[10 + i] > '9')
            return false;
        *no = *no * 10 + (unsigned)(tail[1 + i] - '0');
        *of = *of * 10 + (unsigned)(tail[10 + i] - '0');
    }
    return true;
}

static int64_t file_int(const struct gguf_file *f, const char *key, int64_t fallback)
{
    const struct gguf_value *v = gguf_file_find(f, key);
    return v && v->type != GGUF_ARRAY ? gguf_item_int(v, 0, fallback) : fallback;
}

static enum status check_part(const struct gguf_file *f, const char *path, size_t no, size_t of,
                              struct error *err)
{
    int64_t is = file_int(f, "split.no", -1), count = file_int(f, "split.count", -1);
    if (is == (int64_t)no && count == (int64_t)of)
        return ST_OK;
    return err_set(err, ST_INVALID, "%s: says it is split %lld of %lld, not %zu of %zu", path,
                   (long long)is, (long long)count, no, of);
}

static enum status open_parts(struct gguf *g, const char *path, size_t count, struct error *err)
{
    char other[PATH_MAX_BYTES];
    unsigned no = 0, of = 0;
    if (!split_numbers(path, &no, &of) || of != count)
        return err_set(err, ST_INVALID,
                       "%s: is one of %zu splits, so its name should end in -NNNNN-of-%05zu" SUFFIX,
                       path, count, count);
    if (no != 1)
        return err_set(err, ST_INVALID, "%s: is split %u of %u; give the first one", path, no, of);
    enum status st = check_part(&g->files[0], path, 0, count, err);
    int stem = (int)(strlen(path) - SPLIT_TAIL_LEN);
    for (size_t i = 1; i < count && !st; i++) {
        if (snprintf(other, sizeof other, "%.*s-%05zu-of-%05zu" SUFFIX, stem, path, i + 1, count) >=
            (int)sizeof other)
            return err_set(err, ST_INVALID, "%.200s: path too long", path);
        st = gguf_file_open(other, &g->files[i], err);
        if (st)
            return st;
        g->n_files = i + 1;
        st = check_part(&g->files[i], other, i, count, err);
    }
    return st;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

/* One table of the tensors of all files. */
static enum status join_tensors(struct gguf *g, const char *path, struct error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_files; i++)
        n += g->files[i].n_tensors;
    if (n > GGUF_TENSORS_MAX)
        return err_set(err, ST_INVALID, "%s: %zu tensors, at most %d", path, n, GGUF_TENSORS_MAX);
    int64_t want = file_int(&g->files[0], "split.tensors.count", (int64_t)n);
    if (want != (int64_t)n)
        return err_set(err, ST_INVALID, "%s: the splits have %zu tensors, not %lld", path, n,
                       (long long)want);
    g->tensors = calloc(n + 1, sizeof *g->tensors);
    if (!g->tensors)
        return err_set(err, ST_NO_MEMORY, "%s: no memory for %zu tensors", path, n);
    for (size_t i = 0; i < g->n_files; i++) {
        const struct gguf_file *f = &g->files[i];
        if (f->n_tensors)
            memcpy(g->tensors + g->n_tensors, f->tensors, f->n_tensors * sizeof *f->tensors);
        g->n_tensors += f->n_tensors;
    }
    qsort(g->tensors, n, sizeof *g->tensors, compare_names);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(g->tensors[i - 1].name, g->tensors[i].name))
            return err_set(err, ST_INVALID, "%s: tensor %.120s is in two splits", path,
                           g->tensors[i].name);
    return ST_OK;
}

static enum status finish(struct gguf *g, const char *path, struct error *err)
{
    int64_t splits = file_int(&g->files[0], "split.count", 1);
    enum status st = ST_OK;
    if (splits > GGUF_SPLITS_MAX)
        return err_set(err, ST_INVALID, "%s: %lld splits, at most %d", path, (long long)splits,
                       GGUF_SPLITS_MAX);
    if (splits > 1) {
        struct gguf_file *files = realloc(g->files, (size_t)splits * sizeof *files);
        if (!files)
            return err_set(err, ST_NO_MEMORY, "%s: no memory for %lld splits", path,
                           (long long)splits);
        g->files = files;
        st = open_parts(g, path, (size_t)splits, err);
        if (!st)
            st = join_tensors(g, path, err);
    } else {
        g->tensors = g->files[0].tensors;
        g->n_tensors = g->files[0].n_tensors;
    }
    for (size_t i = 0; i < g->n_tensors && !st; i++)
        g->data_bytes += g->tensors[i].bytes; /* cannot overflow: mapped without overlaps */
    return st;
}

static enum status create(struct gguf **out, struct error *err)
{
    struct gguf *g = calloc(1, sizeof *g);
    if (g)
        g->files = calloc(1, sizeof *g->files);
    if (!g || !g->files) {
        free(g);
        return err_set(err, ST_NO_MEMORY, "no memory for a GGUF file");
    }
    *out = g;
    return ST_OK;
}

enum status gguf_open(const char *path, struct gguf **out, struct error *err)
{
    struct gguf *g = NULL;
    enum status st = create(&g, err);
    if (st)
        return st;
    st = gguf_file_open(path, &g->files[0], err);
    g->n_files = !st;
    if (!st)
        st = finish(g, path, err);
    if (st)
        gguf_close(g);
    else
        *out = g;
    return st;
}

enum status gguf_open_bytes(const char *label, const void *bytes, size_t len, struct gguf **out,
                            struct error *err)
{
    struct gguf *g = NULL;
    enum status st = create(&g, err);
    if (st)
        return st;
    st = gguf_file_parse(label, bytes, len, &g->files[0], err);
    g->n_files = !st;
    if (!st && file_int(&g->files[0], "split.count", 1) > 1)
        st = err_set(err, ST_INVALID, "%s: one of several splits", label);
    if (!st)
        st = finish(g, label, err);
    if (st)
        gguf_close(g);
    else
        *out = g;
    return st;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    if (g->n_files == 0 || g->tensors != g->files[0].tensors)
        free(g->tensors);
    for (size_t i = 0; i < g->n_files; i++)
        gguf_file_fini(&g->files[i]);
    free(g->files);
    free(g);
}

void gguf_let_go(const struct gguf *g)
{
    for (size_t i = 0; i < g->n_files; i++)
        file_map_let_go(&g->files[i].map);
}

enum status gguf_find_file(const char *dir, char *out, size_t cap, struct error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return err_set(err, errno == ENOENT ? ST_NOT_FOUND : ST_IO, "%s: %s", dir, strerror(errno));
    char name[256] = "";
    size_t found = 0;
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        unsigned no = 1, of = 1;
        if (e->d_name[0] == '.' || len <= strlen(SUFFIX) || len >= sizeof name ||
            strcmp(e->d_name + len - strlen(SUFFIX), SUFFIX))
            continue;
        if (split_numbers(e->d_name, &no, &of) && no != 1)
            continue;
        found++;
        if (found == 1 || strcmp(e->d_name, name) < 0)
            memcpy(name, e->d_name, len + 1);
    }
    closedir(d);
    if (found == 0)
        return err_set(err, ST_NOT_FOUND, "%s: no GGUF file is there", dir);
    if (found > 1)
        return err_set(err, ST_INVALID, "%s: holds %zu GGUF models (%.120s is one); name the file",
                       dir, found, name);
    if (snprintf(out, cap, "%s/%s", dir, name) >= (int)cap)
        return err_set(err, ST_INVALID, "%.200s: path too long", dir);
    return ST_OK;
}

unsigned gguf_version(const struct gguf *g)
{
    return g->files[0].version;
}

size_t gguf_files(const struct gguf *g)
{
    return g->n_files;
}

struct opened_file gguf_file_at(const struct gguf *g, size_t i)
{
    return file_map_opened(&g->files[i].map);
}

size_t gguf_key_count(const struct gguf *g)
{
    return g->files[0].n_values;
}

const struct gguf_value *gguf_key_at(const struct gguf *g, size_t i)
{
    return i < g->files[0].n_values ? &g->files[0].values[i] : NULL;
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    return gguf_file_find(&g->files[0], key);
}

size_t gguf_tensor_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    return gguf_search_tensor(g->tensors, g->n_tensors, name);
}

uint64_t gguf_data_bytes(const struct gguf *g)
{
    return g->data_bytes;
}
