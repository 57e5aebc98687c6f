#include "model/weights_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

#define PIECE_BYTES (UINT64_C(8) << 20) /* that one thread hashes at a time */
#define READ_BYTES ((size_t)256 << 10)  /* stays in a second-level cache */

/* ---- which they are ---- */

/* `name` is what of a file's name belongs to the checkpoint: it may be moved as a whole. */
typedef void visit_fn(void *ctx, const char *name, const char *path, const struct stat *s);

/* The other files of NAME-00001-of-0000N.gguf. */
static void visit_splits(const char *first, visit_fn *visit, void *ctx)
{
    const size_t tail = sizeof "-00001-of-00002.gguf" - 1, len = strlen(first);
    char other[4096];
    struct stat s;
    int of = 0;
    if (len < tail || sscanf(first + len - tail, "-00001-of-%5d.gguf", &of) != 1)
        return;
    for (int i = 2; i <= of; i++) {
        int n = snprintf(other, sizeof other, "%.*s-%05d-of-%05d.gguf", (int)(len - tail), first, i,
                         of);
        if (n > 0 && (size_t)n < sizeof other && stat(other, &s) == 0 && S_ISREG(s.st_mode))
            visit(ctx, other + len - tail, other, &s);
    }
}

/* In any order. */
static void visit_files(const char *checkpoint, visit_fn *visit, void *ctx)
{
    char path[4096];
    struct stat s;
    DIR *dir = opendir(checkpoint);
    if (!dir && stat(checkpoint, &s) == 0 && S_ISREG(s.st_mode)) {
        visit(ctx, "", checkpoint, &s);
        visit_splits(checkpoint, visit, ctx);
    }
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        const char *end = strrchr(e->d_name, '.');
        if (!end || (strcmp(end, ".safetensors") != 0 && strcmp(end, ".gguf") != 0))
            continue;
        int n = snprintf(path, sizeof path, "%s/%s", checkpoint, e->d_name);
        if (n > 0 && (size_t)n < sizeof path && stat(path, &s) == 0 && S_ISREG(s.st_mode))
            visit(ctx, e->d_name, path, &s);
    }
    if (dir)
        closedir(dir);
}

/* ---- names, sizes and times ---- */

/* Sums, for files come in any order. */
static void add_hashes(struct weights_key *key, const uint64_t *facts, size_t bytes)
{
    for (int i = 0; i < 2; i++)
        key->w[i] += hash_bytes((uint64_t)i + 1, facts, bytes);
}

static void mix_file(void *ctx, const char *name, const char *path, const struct stat *s)
{
    const uint64_t facts[] = {(uint64_t)s->st_size, hash_bytes(0, name, strlen(name))};
    (void)path;
    add_hashes(ctx, facts, sizeof facts);
}

void weights_files_mix(struct weights_key *key, const char *checkpoint)
{
    visit_files(checkpoint, mix_file, key);
}

static void stamp_file(void *ctx, const char *name, const char *path, const struct stat *s)
{
    const uint64_t facts[] = {(uint64_t)s->st_dev,          (uint64_t)s->st_ino,
                              (uint64_t)s->st_size,         (uint64_t)s->st_mtim.tv_sec,
                              (uint64_t)s->st_mtim.tv_nsec, (uint64_t)s->st_ctim.tv_sec,
                              (uint64_t)s->st_ctim.tv_nsec, hash_bytes(0, name, strlen(name))};
    (void)path;
    add_hashes(ctx, facts, sizeof facts);
}

struct weights_key weights_files_stamp(const char *checkpoint)
{
    struct weights_key stamp = {0};
    visit_files(checkpoint, stamp_file, &stamp);
    return stamp;
}

/* ---- what they hold ---- */

struct piece {
    char *path; /* of the file, of which one piece is the owner: its first */
    uint64_t at, bytes, hash;
};

struct hashing {
    struct piece *pieces;
    size_t n, cap;
    atomic_size_t next;
    atomic_bool failed;
};

static struct piece *add_piece(struct hashing *h)
{
    if (h->n == h->cap) {
        size_t cap = h->cap ? 2 * h->cap : 64;
        struct piece *pieces = realloc(h->pieces, cap * sizeof *pieces);
        if (!pieces)
            return NULL;
        h->pieces = pieces;
        h->cap = cap;
    }
    return &h->pieces[h->n++];
}

static void list_file(void *ctx, const char *name, const char *path, const struct stat *s)
{
    struct hashing *h = ctx;
    char *own = strdup(path);
    const uint64_t size = (uint64_t)s->st_size, seed = hash_bytes(0, name, strlen(name));
    for (uint64_t at = 0; at == 0 || at < size; at += PIECE_BYTES) {
        struct piece *p = own ? add_piece(h) : NULL;
        if (!p) {
            if (at == 0)
                free(own);
            atomic_store(&h->failed, true);
            return;
        }
        *p = (struct piece){.path = own,
                            .at = at,
                            .bytes = size - at < PIECE_BYTES ? size - at : PIECE_BYTES,
                            .hash = hash_bytes(seed, &at, sizeof at)};
    }
}

static bool hash_piece(struct piece *p, char *buffer)
{
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    uint64_t done = 0;
    bool good = fd >= 0;
    while (good && done < p->bytes) {
        /* Where a read ends is part of the hash: each is filled. */
        size_t want = p->bytes - done < READ_BYTES ? (size_t)(p->bytes - done) : READ_BYTES;
        size_t have = 0;
        for (ssize_t n = 1; have < want && n > 0; have += (size_t)n) {
            n = pread(fd, buffer + have, want - have, (off_t)(p->at + done + have));
            if (n <= 0)
                break;
        }
        good = have == want;
        p->hash = hash_bytes(p->hash, buffer, have);
        done += have;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

static void hash_body(void *arg, int part, int parts)
{
    struct hashing *h = arg;
    char *buffer = malloc(READ_BYTES);
    (void)part, (void)parts;
    if (!buffer)
        atomic_store(&h->failed, true);
    for (size_t i; buffer && (i = atomic_fetch_add(&h->next, 1)) < h->n;)
        if (!hash_piece(&h->pieces[i], buffer))
            atomic_store(&h->failed, true);
    free(buffer);
}

bool weights_files_hash(const char *checkpoint, struct team *team, uint64_t *out)
{
    struct hashing h = {0};
    visit_files(checkpoint, list_file, &h);
    if (!atomic_load(&h.failed))
        team_run(team, hash_body, &h);
    *out = 0;
    /* A piece's hash has its file's name and its place in it: a sum will do. */
    for (size_t i = 0; i < h.n; i++) {
        *out += hash_bytes(h.pieces[i].hash, NULL, 0);
        if (h.pieces[i].at == 0)
            free(h.pieces[i].path);
    }
    free(h.pieces);
    return h.n > 0 && !atomic_load(&h.failed);
}
