#include "model/weights_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/huge.h"
#include "kernels/packed.h"

/* "BATONPK4". Another layout is another number, and so is another way to get there: whatever makes
 * other bytes of the same checkpoint, the mending of how a format is read too. */
#define MAGIC UINT64_C(0x344b504e4f544142)
#define PARTS_MAX (1u << 24)
#define DISK_LEFT (UINT64_C(1) << 30)
#define STAGE_BYTES ((size_t)4 << 20)
#define WRITE_BYTES ((uint64_t)64 << 20) /* at a time, of what is many stages: a multiple */

/* Both as the CPU has them: the file is for the host that wrote it. */
struct head {
    uint64_t magic;
    struct weights_key key;
    uint64_t content;
    uint64_t n, data; /* parts; where the first one begins */
    uint32_t crc;     /* of all of this before it, and of the entries */
    uint32_t zero;
    struct weights_key stamp; /* which is rewritten in place; half of one costs a hash */
};

struct entry {
    uint64_t at, bytes;
    uint32_t form, crc;
};

static uint64_t aligned(uint64_t v)
{
    return (v + PACKED_ALIGN - 1) / PACKED_ALIGN * PACKED_ALIGN;
}

/* ---- names ---- */

bool weights_cache_path(const char *where, const char *checkpoint, const char *kind, char *out,
                        size_t cap)
{
    size_t len = strlen(checkpoint);
    struct stat s;
    while (len > 1 && checkpoint[len - 1] == '/')
        len--;
    const char *name = checkpoint + len;
    while (name > checkpoint && name[-1] != '/')
        name--;
    bool folder = stat(checkpoint, &s) == 0 && S_ISDIR(s.st_mode);
    int n;
    if (strcmp(where, "model") == 0)
        n = snprintf(out, cap, "%.*s%s%s.packed", (int)len, checkpoint, folder ? "/baton" : "",
                     kind);
    else
        n = snprintf(out, cap, "%s/%.*s%s.packed", where, (int)(checkpoint + len - name), name,
                     kind);
    return n > 0 && (size_t)n < cap;
}

/* ---- reading ---- */

/* Others may not have put it there. */
static bool is_trusted(const struct stat *s)
{
    return S_ISREG(s->st_mode) && (s->st_uid == geteuid() || s->st_uid == 0) &&
           (s->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static uint32_t crc_of(const struct head *h, const void *entries)
{
    return hash_crc32c(hash_crc32c(0, h, offsetof(struct head, crc)), entries,
                       h->n * sizeof(struct entry));
}

static bool take_parts(struct weights_cache *c, const struct weights_key *key, size_t n)
{
    const char *map = c->map;
    struct head h;
    if (c->len < sizeof h)
        return false;
    memcpy(&h, map, sizeof h);
    if (h.magic != MAGIC || memcmp(&h.key, key, sizeof *key) != 0 || h.n != n || n > PARTS_MAX ||
        h.data > c->len || h.data < sizeof h + n * sizeof(struct entry) || h.zero != 0 ||
        crc_of(&h, map + sizeof h) != h.crc)
        return false;
    c->origin = (struct weights_origin){.key = h.key, .content = h.content, .stamp = h.stamp};
    c->parts = calloc(n + 1, sizeof *c->parts);
    for (size_t i = 0; c->parts && i < n; i++) {
        struct entry e;
        memcpy(&e, map + sizeof h + i * sizeof e, sizeof e);
        if (e.at < h.data || e.at > c->len || e.bytes > c->len - e.at || e.at % PACKED_ALIGN != 0)
            return false;
        c->parts[i] = (struct weights_part){map + e.at, e.bytes, e.form, e.crc};
    }
    c->n = n;
    return c->parts != NULL;
}

enum status weights_cache_open(const char *path, const struct weights_key *key, size_t n,
                               struct weights_cache *out, struct error *err)
{
    struct stat s;
    *out = (struct weights_cache){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? ST_NOT_FOUND : ST_IO, "%s: %s", path,
                       strerror(errno));
    if (fstat(fd, &s) != 0 || !is_trusted(&s)) {
        close(fd);
        return err_set(err, ST_INVALID, "%s: not a file of ours that nobody else can write", path);
    }
    out->len = (size_t)s.st_size;
    out->map = huge_map_file(fd, out->len);
    close(fd);
    if (!out->map || !take_parts(out, key, n)) {
        weights_cache_close(out);
        return err_set(err, ST_INVALID, "%s: of another checkpoint, or damaged", path);
    }
    return ST_OK;
}

bool weights_cache_check(const struct weights_cache *c, size_t part)
{
    const struct weights_part *p = &c->parts[part];
    return hash_crc32c(0, p->data, p->bytes) == p->crc;
}

void weights_cache_close(struct weights_cache *c)
{
    if (c->map)
        munmap(c->map, c->len);
    free(c->parts);
    *c = (struct weights_cache){0};
}

/* A network's file system may say only when a file is closed that there was no room for it. Not
 * synchronised with the disk: a start waits for it, and what a power cut tears the CRCs tell. */
static bool is_taken(int fd)
{
    int other = dup(fd);
    return other >= 0 && close(other) == 0;
}

enum status weights_cache_restamp(struct weights_cache *c, const char *path,
                                  const struct weights_key *stamp, struct error *err)
{
    struct head h;
    struct stat s;
    enum status st = ST_OK;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (fd < 0)
        return err_set(err, ST_IO, "%s: %s", path, strerror(errno));
    errno = 0;
    if (fstat(fd, &s) != 0 || !is_trusted(&s))
        st = err_set(err, ST_IO, "%s: not a file of ours that nobody else can write", path);
    /* Another start may have put another file there: that one's stamp is as good. */
    else if (pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h || memcmp(&h, c->map, sizeof h) != 0)
        st = ST_OK;
    else if (pwrite(fd, stamp, sizeof *stamp, offsetof(struct head, stamp)) !=
                 (ssize_t)sizeof *stamp ||
             !is_taken(fd))
        st = err_set(err, ST_IO, "%s: %s", path, strerror(errno ? errno : ENOSPC));
    else
        c->origin.stamp = *stamp;
    close(fd);
    return st;
}

/* ---- writing ---- */

static bool write_all(int fd, const void *data, uint64_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(fd, at, bytes < (1u << 30) ? (size_t)bytes : 1u << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        bytes -= (uint64_t)n;
    }
    return true;
}

/* Writes begin at multiples of STAGE_BYTES and are of as many, for the system puts a file in pages
 * as large as the writes it came in: of what begins anywhere only its middle would be. */
struct writer {
    int fd;
    size_t staged;
    char *stage;
    bool failed;
    struct stop *stop;
};

static void put(struct writer *w, const void *data, uint64_t bytes)
{
    const char *at = data;
    while (bytes > 0 && !w->failed) {
        const uint64_t all = bytes / STAGE_BYTES * STAGE_BYTES;
        const uint64_t whole = all < WRITE_BYTES ? all : WRITE_BYTES;
        if (stop_asked(w->stop)) {
            w->failed = true;
            return;
        }
        if (w->staged == 0 && whole > 0) {
            w->failed = !write_all(w->fd, at, whole);
            at += whole;
            bytes -= whole;
            continue;
        }
        size_t room = STAGE_BYTES - w->staged, n = bytes < room ? (size_t)bytes : room;
        memcpy(w->stage + w->staged, at, n);
        w->staged += n;
        at += n;
        bytes -= n;
        if (w->staged == STAGE_BYTES) {
            w->failed = !write_all(w->fd, w->stage, w->staged);
            w->staged = 0;
        }
    }
}

static bool write_parts(struct weights_cache_new *to, const struct head *h,
                        const struct entry *entries, const struct weights_part *parts)
{
    static const char zeros[PACKED_ALIGN];
    struct writer w = {.fd = to->fd, .stage = malloc(STAGE_BYTES), .stop = to->stop};
    uint64_t at = sizeof *h + h->n * sizeof *entries;
    w.failed = !w.stage;
    put(&w, h, sizeof *h);
    put(&w, entries, h->n * sizeof *entries);
    put(&w, zeros, h->data - at);
    for (uint64_t i = 0; i < h->n; i++) {
        put(&w, parts[i].data, parts[i].bytes);
        put(&w, zeros, aligned(parts[i].bytes) - parts[i].bytes);
    }
    bool written = !w.failed && write_all(to->fd, w.stage, w.staged);
    free(w.stage);
    return written;
}

static bool has_room(const char *path, uint64_t bytes)
{
    char folder[1024];
    struct statvfs v;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    return statvfs(slash ? folder : ".", &v) == 0 &&
           (uint64_t)v.f_bavail * v.f_frsize > bytes + DISK_LEFT;
}

/* Opens the file that is to become the cache, empty and locked: whoever else has it is writing it
 * now, and whoever had it and was killed has left it to us. -1: errno says why. */
static int open_part(const char *part)
{
    struct stat s, named;
    int fd = open(part, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int why = flock(fd, LOCK_EX | LOCK_NB) != 0 ? errno : 0;
    /* Whoever had the lock may have given the file its name by now: others map it. */
    if (!why && (fstat(fd, &s) != 0 || lstat(part, &named) != 0 || s.st_ino != named.st_ino ||
                 s.st_dev != named.st_dev || !S_ISREG(s.st_mode) || s.st_uid != geteuid() ||
                 s.st_nlink != 1))
        why = EEXIST;
    if (!why && (ftruncate(fd, 0) != 0 || fchmod(fd, 0600) != 0))
        why = errno;
    if (why)
        close(fd);
    errno = why;
    return why ? -1 : fd;
}

static uint64_t data_at(size_t n)
{
    return aligned(sizeof(struct head) + n * sizeof(struct entry));
}

enum status weights_cache_begin(const char *path, const struct weights_part *parts, size_t n,
                                struct weights_cache_new *out, struct error *err)
{
    uint64_t bytes = data_at(n);
    out->stop = NULL;
    for (size_t i = 0; i < n; i++)
        bytes += aligned(parts[i].bytes);
    if (snprintf(out->path, sizeof out->path, "%s", path) >= (int)sizeof out->path)
        return err_set(err, ST_INVALID, "%.200s: path too long", path);
    snprintf(out->part, sizeof out->part, "%s.part", out->path);
    out->fd = open_part(out->part);
    if (out->fd < 0)
        return err_set(err, ST_IO, "%s: %s", out->part, strerror(errno));
    if (has_room(path, bytes))
        return ST_OK;
    weights_cache_abandon(out);
    return err_set(err, ST_NO_MEMORY, "%s: no room for %llu MiB and one GiB more", path,
                   (unsigned long long)(bytes >> 20));
}

void weights_cache_abandon(struct weights_cache_new *w)
{
    unlink(w->part); /* before another gets the lock */
    close(w->fd);
    w->fd = -1;
}

enum status weights_cache_finish(struct weights_cache_new *w, const struct weights_origin *origin,
                                 struct weights_part *parts, size_t n, struct error *err)
{
    struct head h = {.magic = MAGIC,
                     .key = origin->key,
                     .content = origin->content,
                     .n = n,
                     .data = data_at(n),
                     .stamp = origin->stamp};
    struct entry *entries = calloc(n + 1, sizeof *entries);
    uint64_t at = h.data;
    enum status st = ST_OK;
    for (size_t i = 0; entries && i < n && !stop_asked(w->stop); i++) {
        parts[i].crc = hash_crc32c(0, parts[i].data, parts[i].bytes);
        entries[i] = (struct entry){at, parts[i].bytes, parts[i].form, parts[i].crc};
        at += aligned(parts[i].bytes);
    }
    if (!entries) {
        st = err_set(err, ST_NO_MEMORY, "%s: no memory", w->path);
    } else {
        h.crc = crc_of(&h, entries);
        const bool written = write_parts(w, &h, entries, parts) && is_taken(w->fd);
        if (stop_is_set(w->stop))
            st = err_set(err, ST_CANCELLED, "%s: asked to stop while it was written", w->part);
        else if (!written || rename(w->part, w->path) != 0)
            st = err_set(err, ST_IO, "%s: %s", w->part, strerror(errno));
    }
    free(entries);
    if (st) {
        weights_cache_abandon(w);
        return st;
    }
    close(w->fd);
    w->fd = -1;
    return ST_OK;
}
