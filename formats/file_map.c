#include "formats/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum status file_map_open(const char *path, const char *label, struct file_map *out,
                          struct error *err)
{
    *out = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? ST_NOT_FOUND : ST_IO, "%s: %s", label,
                       strerror(errno));
    struct stat info;
    enum status st = ST_OK;
    if (fstat(fd, &info) != 0)
        st = err_set(err, ST_IO, "%s: %s", label, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        st = err_set(err, ST_INVALID, "%s: not a regular file", label);
    else if (info.st_size <= 0)
        st = err_set(err, ST_INVALID, "%s: an empty file", label);
    char *own = st ? NULL : strdup(path);
    if (!st && !own)
        st = err_set(err, ST_NO_MEMORY, "%s: no memory for its name", label);
    if (!st) {
        size_t len = (size_t)info.st_size;
        void *bytes = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
        if (bytes == MAP_FAILED)
            st = err_set(err, ST_IO, "%s: cannot map %zu bytes: %s", label, len, strerror(errno));
        else
            *out = (struct file_map){bytes, len, own, file_state_of(&info)};
    }
    if (st)
        free(own);
    close(fd);
    return st;
}

void file_map_let_go(const struct file_map *m)
{
    if (m->bytes)
        madvise(m->bytes, m->len, MADV_DONTNEED);
}

void file_map_close(struct file_map *m)
{
    if (m->bytes)
        munmap(m->bytes, m->len);
    free(m->path);
    *m = (struct file_map){0};
}

struct opened_file file_map_opened(const struct file_map *m)
{
    return (struct opened_file){m->path, m->bytes, m->state};
}
