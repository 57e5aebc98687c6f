/* How much memory the control groups of this process leave it: who takes more, a container or a
 * service, is killed, however much the machine has. Version 2, and the "memory" of version 1.
 *
 * Parsing is pure; what is left asks the file system.
 *
 *     struct cgroup g;
 *     if (cgroup_parse(text_of_proc_self_cgroup, &g))
 *         left = cgroup_memory_left("/sys/fs/cgroup", &g);
 *
 * Plain data, no ownership. Thread: any.
 */
#ifndef BASE_CGROUP_H
#define BASE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>

struct cgroup {
    bool is_v1;     /* the hierarchy of "memory", which then has a folder of its own */
    char path[512]; /* below the root of the hierarchy: "/", "/a/b" */
};

/* The group that memory is counted in, of a text as /proc/self/cgroup has. One outside the process'
 * view ("/../x") and one with a name too long are "/". False: the text names none. */
bool cgroup_parse(const char *text, struct cgroup *out);
/* Bytes: of the group and of all those above it the least that a limit leaves. What a group uses
 * counts without the pages of files that it gives back first (inactive_file). `root`:
 * /sys/fs/cgroup. A container often sees its own group at the root and none at the path: groups
 * that are not there, or have no limit, do not count. SIZE_MAX: none counts. */
size_t cgroup_memory_left(const char *root, const struct cgroup *g);

#endif
