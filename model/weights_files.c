#include "model/weights_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#define PIECE_BYTES (UINT64_C(8) << 20) /* that one thread hashes at a time */
#define READ_BYTES ((size_t)256 << 10)  /* stays in a second-level cache */
#define PAGES_MAX (PIECE_BYTES >> 12)   /* of a piece */
#define SETTLED_NS (2 * NS_PER_S)       /* no file system has times coarser than that */
#define PROGRESS_NS (2 * NS_PER_S)
#define CHANGED (-1) /* beside values of errno */

/* ---- sizes and times ---- */

void weights_files_mix(struct weights_key *key, struct weights_files files)
{
    for (size_t i = 0; i < files.n; i++)
        for (int k = 0; k < 2; k++)
            key->w[k] = hash_bytes(key->w[k], &files.v[i].state.bytes, sizeof(uint64_t));
}

struct weights_key weights_files_stamp(struct weights_files files)
{
    struct weights_key stamp = {{1, 2}};
    for (size_t i = 0; i < files.n; i++)
        for (int k = 0; k < 2; k++)
            stamp.w[k] = hash_bytes(stamp.w[k], &files.v[i].state, sizeof files.v[i].state);
    return stamp;
}

bool weights_files_same(struct weights_files files)
{
    struct file_state now;
    for (size_t i = 0; i < files.n; i++)
        if (!file_state_read(files.v[i].path, &now) ||
            memcmp(&now, &files.v[i].state, sizeof now) != 0)
            return false;
    return true;
}

bool weights_files_settled(struct weights_files files)
{
    const int64_t now = clock_unix_ns();
    for (size_t i = 0; i < files.n; i++)
        if (files.v[i].state.changed_ns > now - SETTLED_NS)
            return false;
    return true;
}

/* ---- what they hold ---- */

struct piece {
    const struct opened_file *file;
    uint64_t at, bytes, hash;
    int why; /* it has no hash: an errno, or CHANGED */
};

struct hashing {
    struct piece *pieces;
    size_t n;
    uint64_t bytes;
    atomic_size_t next;
    atomic_bool failed;
    struct stop *stop;
    int64_t said_ns;
};

static bool list_pieces(struct hashing *h, struct weights_files files)
{
    for (size_t i = 0; i < files.n; i++) {
        h->bytes += files.v[i].state.bytes;
        h->n += (size_t)(files.v[i].state.bytes / PIECE_BYTES) + 1;
    }
    struct piece *p = h->pieces = calloc(h->n + 1, sizeof *h->pieces);
    for (uint64_t i = 0; p && i < files.n; i++) {
        const uint64_t size = files.v[i].state.bytes;
        for (uint64_t at = 0; at <= size; at += PIECE_BYTES, p++)
            *p = (struct piece){.file = &files.v[i],
                                .at = at,
                                .bytes = size - at < PIECE_BYTES ? size - at : PIECE_BYTES,
                                .hash = hash_bytes(i, &at, sizeof at)};
    }
    return h->pieces != NULL;
}

/* Where a read ends is part of the hash: each is filled. 0, an errno, or CHANGED. */
static int read_whole(int fd, char *out, size_t want, uint64_t at)
{
    while (want > 0) {
        ssize_t n = pread(fd, out, want, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : CHANGED;
        out += n;
        at += (uint64_t)n;
        want -= (size_t)n;
    }
    return 0;
}

/* Whether most of it is in the system's cache of files, or nobody says. */
static bool is_resident(const struct piece *p)
{
    unsigned char in[PAGES_MAX];
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), n = (p->bytes + page - 1) / page;
    const char *map = p->file->map;
    uint64_t have = 0;
    if (!map || n == 0 || n > PAGES_MAX ||
        mincore((char *)(uintptr_t)map + p->at, p->bytes, in) != 0)
        return true;
    for (uint64_t i = 0; i < n; i++)
        have += in[i] & 1;
    return 2 * have > n;
}

static int hash_piece(struct piece *p, char *buffer)
{
    struct stat s;
    int fd = open(p->file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? CHANGED : errno;
    int why = fstat(fd, &s) != 0 ? errno : 0;
    if (!why) {
        const struct file_state now = file_state_of(&s);
        why = memcmp(&now, &p->file->state, sizeof now) != 0 ? CHANGED : 0;
    }
    const bool stays = is_resident(p);
    size_t n;
    for (uint64_t done = 0; !why && done < p->bytes; done += n) {
        n = p->bytes - done < READ_BYTES ? (size_t)(p->bytes - done) : READ_BYTES;
        why = read_whole(fd, buffer, n, p->at + done);
        if (!why)
            p->hash = hash_bytes(p->hash, buffer, n);
    }
    if (!stays) /* pages that are mapped anywhere do */
        (void)posix_fadvise(fd, (off_t)p->at, (off_t)p->bytes, POSIX_FADV_DONTNEED);
    close(fd);
    return why;
}

static void say_hashing(struct hashing *h, size_t done)
{
    h->said_ns = clock_now_ns();
    log_info("checkpoint_hashing", "mib=%llu percent=%zu", (unsigned long long)(h->bytes >> 20),
             done * 100 / h->n);
}

static void hash_body(void *arg, int part, int parts)
{
    struct hashing *h = arg;
    char *buffer = malloc(READ_BYTES);
    (void)parts;
    for (size_t i; !atomic_load(&h->failed) && !stop_here(h->stop, part) &&
                   (i = atomic_fetch_add(&h->next, 1)) < h->n;) {
        h->pieces[i].why = buffer ? hash_piece(&h->pieces[i], buffer) : ENOMEM;
        if (h->pieces[i].why)
            atomic_store(&h->failed, true);
        if (part == 0 && clock_now_ns() - h->said_ns > PROGRESS_NS)
            say_hashing(h, i + 1);
    }
    free(buffer);
}

static enum status refuse(const struct piece *p, struct error *err)
{
    if (p->why == CHANGED)
        return err_set(err, ST_INVALID, "%s: changed while it was read", p->file->path);
    return err_set(err, p->why == ENOMEM ? ST_NO_MEMORY : ST_IO, "%s: cannot be hashed: %s",
                   p->file->path, strerror(p->why));
}

enum status weights_files_hash(struct weights_files files, struct team *team, struct stop *stop,
                               uint64_t *out, struct error *err)
{
    struct hashing h = {.stop = stop};
    const int64_t begin = clock_now_ns();
    if (files.n == 0)
        return err_set(err, ST_INVALID, "no files to be hashed");
    if (!list_pieces(&h, files))
        return err_set(err, ST_NO_MEMORY, "no memory to hash %zu files", files.n);
    say_hashing(&h, 0);
    team_run(team, hash_body, &h);
    enum status st = ST_OK;
    uint64_t sum = 0;
    /* A piece's hash has its file and its place in it: a sum will do. */
    for (size_t i = 0; i < h.n; i++) {
        if (h.pieces[i].why && !st)
            st = refuse(&h.pieces[i], err);
        sum += hash_bytes(h.pieces[i].hash, NULL, 0);
    }
    if (!st && stop_is_set(stop))
        st = err_set(err, ST_CANCELLED, "asked to stop while %zu files were hashed", files.n);
    if (!st) {
        *out = sum;
        log_info("checkpoint_hashed", "mib=%llu seconds=%.1f", (unsigned long long)(h.bytes >> 20),
                 (double)(clock_now_ns() - begin) * 1e-9);
    }
    free(h.pieces);
    return st;
}
