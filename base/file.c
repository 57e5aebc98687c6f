#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status read_all(int fd, const char *path, size_t max, struct buf *out,
                            struct error *err)
{
    char chunk[4096];
    size_t begin = out->len;
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ST_IO, "%s: %s", path, strerror(errno));
        if (n == 0)
            break;
        if ((size_t)n > max - (out->len - begin))
            return err_set(err, ST_INVALID, "%s: larger than %zu bytes", path, max);
        buf_append(out, chunk, (size_t)n);
        if (out->failed)
            return err_set(err, ST_NO_MEMORY, "%s: no memory to read it", path);
    }
    explicit_bzero(chunk, sizeof(chunk)); /* it may have been a key */
    return ST_OK;
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
    else
        st = read_all(fd, path, max, out, err);
    close(fd);
    return st;
}

enum status file_read_text(const char *path, size_t max, char **out, struct error *err)
{
    struct buf b = {0};
    enum status st = file_read(path, max, &b, err);
    buf_append(&b, "", 0); /* an empty file is an empty text */
    if (st == ST_OK && b.failed)
        st = err_set(err, ST_NO_MEMORY, "%s: no memory to read it", path);
    if (st == ST_OK && strlen(b.data) != b.len)
        st = err_set(err, ST_INVALID, "%s: not a text: it has a NUL byte", path);
    if (st == ST_OK)
        *out = buf_take(&b, NULL);
    buf_fini(&b);
    return st;
}
