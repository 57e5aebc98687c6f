#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

/* `size` is what the system says; the file may have another by now. */
static enum status read_all(int fd, const char *path, size_t size, size_t max, struct buf *out,
                            struct error *err)
{
    size_t begin = out->len;
    for (;;) {
        size_t have = out->len - begin;
        size_t want = have <= size ? size - have + 1 : 4096; /* one more byte shows the end */
        if (!buf_reserve(out, want))
            return err_set(err, ST_NO_MEMORY, "%s: no memory to read it", path);
        ssize_t n = read(fd, out->data + out->len, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ST_IO, "%s: %s", path, strerror(errno));
        out->len += (size_t)n;
        out->data[out->len] = '\0';
        if (n == 0)
            return ST_OK;
        if (out->len - begin > max)
            return err_set(err, ST_INVALID, "%s: larger than %zu bytes", path, max);
    }
}

enum status file_read(const char *path, size_t max, struct buf *out, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ST_NOT_FOUND : ST_IO, "%s: %s",
                       path, strerror(errno));
    struct stat info;
    enum status st;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        st = err_set(err, ST_INVALID, "%s: not a regular file", path);
    else if ((uint64_t)info.st_size > max)
        st = err_set(err, ST_INVALID, "%s: %lld bytes, at most %zu", path, (long long)info.st_size,
                     max);
    else
        st = read_all(fd, path, (size_t)info.st_size, max, out, err);
    close(fd);
    return st;
}

enum status file_read_text(const char *path, size_t max, char **out, struct error *err)
{
    struct buf b = {0};
    enum status st = file_read(path, max, &b, err);
    if (st == ST_OK && strlen(b.data) != b.len)
        st = err_set(err, ST_INVALID, "%s: not a text: it has a NUL byte", path);
    if (st == ST_OK)
        *out = buf_take(&b, NULL);
    buf_fini(&b);
    return st;
}

struct file_state file_state_of(const struct stat *s)
{
    return (struct file_state){
        .inode = (uint64_t)s->st_ino,
        .bytes = (uint64_t)s->st_size,
        .modified_ns = (int64_t)s->st_mtim.tv_sec * NS_PER_S + s->st_mtim.tv_nsec,
        .changed_ns = (int64_t)s->st_ctim.tv_sec * NS_PER_S + s->st_ctim.tv_nsec};
}

bool file_state_read(const char *path, struct file_state *out)
{
    struct stat s;
    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return false;
    *out = file_state_of(&s);
    return true;
}
