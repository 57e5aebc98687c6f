#include "base/cgroup.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Whether a list of controllers ("cpu,memory") has "memory". */
static bool has_memory(const char *list, size_t n)
{
    static const char name[] = "memory";
    while (n > 0) {
        const char *comma = memchr(list, ',', n);
        const size_t one = comma ? (size_t)(comma - list) : n;
        if (one == sizeof name - 1 && memcmp(list, name, one) == 0)
            return true;
        list += comma ? one + 1 : n;
        n -= comma ? one + 1 : n;
    }
    return false;
}

static void set_path(struct cgroup *out, const char *path, size_t n)
{
    if (n >= sizeof out->path || n == 0 || *path != '/')
        n = 0;
    memcpy(out->path, path, n);
    out->path[n] = '\0';
    if (n == 0 || strstr(out->path, "/.."))
        strcpy(out->path, "/");
}

bool cgroup_parse(const char *text, struct cgroup *out)
{
    bool found = false;
    for (const char *line = text; *line;) {
        const size_t n = strcspn(line, "\n");
        const char *list = memchr(line, ':', n);
        const char *path = list ? memchr(list + 1, ':', n - (size_t)(list + 1 - line)) : NULL;
        if (path) {
            const size_t controllers = (size_t)(path - list - 1);
            const size_t length = n - (size_t)(path + 1 - line);
            const bool is_v1 = has_memory(list + 1, controllers);
            if (is_v1 || controllers == 0) {
                out->is_v1 = is_v1;
                set_path(out, path + 1, length);
                found = true;
            }
            if (is_v1) /* counts it where both versions are there */
                return true;
        }
        line += line[n] ? n + 1 : n;
    }
    return found;
}

static FILE *open_in(const char *folder, const char *name)
{
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path ? fopen(path, "r") : NULL;
}

/* The number that the file begins with; SIZE_MAX: it has none ("max"), or there is no file. */
static size_t read_number(const char *folder, const char *name)
{
    unsigned long long v;
    FILE *f = open_in(folder, name);
    int n = f ? fscanf(f, "%llu", &v) : 0;
    if (f)
        fclose(f);
    return n == 1 && v < SIZE_MAX ? (size_t)v : SIZE_MAX;
}

/* Version 1 counts a group's own pages apart from those of the groups in it too ("total_"). */
static size_t read_inactive(const char *folder, bool is_v1)
{
    const char *format = is_v1 ? "total_inactive_file %llu" : "inactive_file %llu";
    char line[128];
    unsigned long long v = 0;
    FILE *f = open_in(folder, "memory.stat");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, format, &v) == 1)
            break;
    if (f)
        fclose(f);
    return (size_t)v;
}

static size_t left_in(const char *folder, bool is_v1)
{
    const size_t most = read_number(folder, is_v1 ? "memory.limit_in_bytes" : "memory.max");
    size_t used = read_number(folder, is_v1 ? "memory.usage_in_bytes" : "memory.current");
    if (most == SIZE_MAX || used == SIZE_MAX)
        return SIZE_MAX;
    const size_t inactive = read_inactive(folder, is_v1);
    used -= inactive < used ? inactive : used;
    return most > used ? most - used : 0;
}

size_t cgroup_memory_left(const char *root, const struct cgroup *g)
{
    char folder[1024];
    const char *hierarchy = g->is_v1 ? "/memory" : "";
    const size_t top = strlen(root) + strlen(hierarchy);
    const char *path = strcmp(g->path, "/") == 0 ? "" : g->path;
    size_t least = SIZE_MAX;
    if (top + strlen(path) >= sizeof folder)
        return SIZE_MAX;
    snprintf(folder, sizeof folder, "%s%s%s", root, hierarchy, path);
    for (;;) {
        const size_t left = left_in(folder, g->is_v1);
        least = left < least ? left : least;
        if (strlen(folder) <= top)
            return least;
        *strrchr(folder, '/') = '\0'; /* a path begins with one */
    }
}
