#include "model/weights_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/hash.h"
#include "kernels/packed.h"

/* "BATONPK2". Another layout is another number, and so is another way to get there: whatever makes
 * other bytes of the same checkpoint, the mending of how a format is read too. */
#define MAGIC UINT64_C(0x324b504e4f544142)
#define PARTS_MAX (1u << 24)
#define DISK_LEFT (UINT64_C(1) << 30)

/* Both as the CPU has them: the file is for the host that wrote it. */
struct head {
    uint64_t magic;
    struct weights_key key;
    uint64_t n, data; /* parts; where the first one begins */
    uint32_t crc;     /* of the entries */
    uint32_t zero;
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

static void mix_file(struct weights_key *key, const char *name, const struct stat *s)
{
    const uint64_t facts[] = {(uint64_t)s->st_size, (uint64_t)s->st_mtim.tv_sec,
                              (uint64_t)s->st_mtim.tv_nsec, hash_bytes(0, name, strlen(name))};
    /* A folder's files come in any order. */
    for (int i = 0; i < 2; i++)
        key->w[i] += hash_bytes((uint64_t)i + 1, facts, sizeof facts);
}

/* The other files of NAME-00001-of-0000N.gguf. */
static void mix_splits(struct weights_key *key, const char *first)
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
        if (n > 0 && (size_t)n < sizeof other && stat(other, &s) == 0)
            mix_file(key, other + len - tail, &s);
    }
}

void weights_cache_mix(struct weights_key *key, const char *checkpoint)
{
    struct stat s;
    DIR *dir = opendir(checkpoint);
    if (!dir && stat(checkpoint, &s) == 0) {
        mix_file(key, "", &s);
        mix_splits(key, checkpoint);
    }
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        const char *end = strrchr(e->d_name, '.');
        bool is_weights = end && (strcmp(end, ".safetensors") == 0 || strcmp(end, ".gguf") == 0);
        if (is_weights && fstatat(dirfd(dir), e->d_name, &s, 0) == 0)
            mix_file(key, e->d_name, &s);
    }
    if (dir)
        closedir(dir);
}

bool weights_cache_path(const char *where, const char *checkpoint, bool panels, char *out,
                        size_t cap)
{
    const char *tail = panels ? ".panels.packed" : ".packed";
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
        n = snprintf(out, cap, "%.*s%s%s", (int)len, checkpoint, folder ? "/baton" : "", tail);
    else
        n = snprintf(out, cap, "%s/%.*s%s", where, (int)(checkpoint + len - name), name, tail);
    return n > 0 && (size_t)n < cap;
}

/* ---- reading ---- */

/* Others may not have put it there. */
static bool is_trusted(const struct stat *s)
{
    return S_ISREG(s->st_mode) && (s->st_uid == geteuid() || s->st_uid == 0) &&
           (s->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool take_parts(struct weights_cache *c, const struct weights_key *key, size_t n)
{
    const char *map = c->map;
    struct head h;
    if (c->len < sizeof h)
        return false;
    memcpy(&h, map, sizeof h);
    if (h.magic != MAGIC || memcmp(&h.key, key, sizeof *key) != 0 || h.n != n || n > PARTS_MAX ||
        h.data > c->len || h.data < sizeof h + n * sizeof(struct entry) ||
        hash_crc32c(0, map + sizeof h, n * sizeof(struct entry)) != h.crc)
        return false;
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
    void *map = s.st_size > 0 ? mmap(NULL, out->len, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    out->map = map == MAP_FAILED ? NULL : map;
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

static bool write_parts(int fd, const struct head *h, const struct entry *entries,
                        const struct weights_part *parts)
{
    static const char zeros[PACKED_ALIGN];
    uint64_t at = sizeof *h + h->n * sizeof *entries;
    if (!write_all(fd, h, sizeof *h) || !write_all(fd, entries, h->n * sizeof *entries) ||
        !write_all(fd, zeros, h->data - at))
        return false;
    for (uint64_t i = 0; i < h->n; i++)
        if (!write_all(fd, parts[i].data, parts[i].bytes) ||
            !write_all(fd, zeros, aligned(parts[i].bytes) - parts[i].bytes))
            return false;
    return true;
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

enum status weights_cache_write(const char *path, const struct weights_key *key,
                                struct weights_part *parts, size_t n, struct error *err)
{
    char part[1200];
    struct head h = {.magic = MAGIC, .key = *key, .n = n};
    struct entry *entries = calloc(n + 1, sizeof *entries);
    if (!entries)
        return err_set(err, ST_NO_MEMORY, "%s: no memory", path);
    uint64_t at = h.data = aligned(sizeof h + n * sizeof *entries);
    for (size_t i = 0; i < n; i++) {
        parts[i].crc = hash_crc32c(0, parts[i].data, parts[i].bytes);
        entries[i] = (struct entry){at, parts[i].bytes, parts[i].form, parts[i].crc};
        at += aligned(parts[i].bytes);
    }
    h.crc = hash_crc32c(0, entries, n * sizeof *entries);
    snprintf(part, sizeof part, "%s.part", path);
    enum status st = ST_OK;
    int fd = open_part(part);
    if (fd < 0)
        st = err_set(err, ST_IO, "%s: %s", part, strerror(errno));
    else if (!has_room(path, at))
        st = err_set(err, ST_NO_MEMORY, "%s: no room for %llu MiB and one GiB more", path,
                     (unsigned long long)(at >> 20));
    /* Not synchronised: a start waits for it, and what a power cut tears the CRCs tell. */
    else if (!write_parts(fd, &h, entries, parts) || rename(part, path) != 0)
        st = err_set(err, ST_IO, "%s: %s", part, strerror(errno));
    if (fd >= 0 && st != ST_OK)
        unlink(part); /* before another gets the lock */
    if (fd >= 0)
        close(fd);
    free(entries);
    return st;
}
