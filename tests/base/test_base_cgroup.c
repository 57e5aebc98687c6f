/* What control groups leave of memory, in folders that are not this machine's. */
#include <criterion/criterion.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cgroup.h"

#define MIB(n) ((size_t)(n) << 20)

Test(cgroup, of_a_process)
{
    static const struct {
        const char *text, *path; /* NULL: none */
        bool is_v1;
    } cases[] = {
        {"0::/\n", "/", false},
        {"0::/user.slice/a.service", "/user.slice/a.service", false},
        {"0::/a:b\n", "/a:b", false},
        {"0::/../outside\n", "/", false},
        {"0::\n", "/", false},
        {"12:pids:/x\n4:memory:/docker/1f\n0::/x\n", "/docker/1f", true},
        {"0::/x\n4:cpu,memory:/y\n", "/y", true},
        {"4:cpu,memory,pids:/y\n", "/y", true},
        {"4:memory_hog,cpuset:/y\n0::/x\n", "/x", false},
        {"9:name=memory:/y\n", NULL, false},
        {"1:name=systemd:/\n", NULL, false},
        {"", NULL, false},
        {"memory\n:\n", NULL, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cgroup g = {.path = "untouched"};
        cr_assert_eq(cgroup_parse(cases[i].text, &g), cases[i].path != NULL, "case %zu", i);
        if (!cases[i].path)
            continue;
        cr_expect_str_eq(g.path, cases[i].path, "case %zu", i);
        cr_expect_eq(g.is_v1, cases[i].is_v1, "case %zu", i);
    }
    struct cgroup g;
    char text[1024] = "0::/";
    memset(text + 4, 'x', sizeof text - 5);
    text[sizeof text - 1] = '\0';
    cr_assert(cgroup_parse(text, &g));
    cr_assert_str_eq(g.path, "/");
}

/* A folder as /sys/fs/cgroup, with the files that a test puts there. */
static char root[32];

static void begin(void)
{
    strcpy(root, "/tmp/baton-cgroup-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void end(void)
{
    char command[sizeof root + 16];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    cr_assert_eq(system(command), 0);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s%s", root, folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f, "%s", path);
    fputs(text, f);
    fclose(f);
}

/* In MiB; most 0: no limit. */
static void put_v2(const char *folder, size_t most, size_t used, size_t inactive)
{
    char text[100];
    snprintf(text, sizeof text, "%zu\n", MIB(most));
    put(folder, "memory.max", most ? text : "max\n");
    snprintf(text, sizeof text, "%zu\n", MIB(used));
    put(folder, "memory.current", text);
    snprintf(text, sizeof text, "anon 5\nfile %zu\ninactive_file %zu\nactive_file 7\n", MIB(used),
             MIB(inactive));
    put(folder, "memory.stat", text);
}

static void put_v1(const char *folder, size_t most, size_t used, size_t inactive)
{
    char text[100];
    snprintf(text, sizeof text, "%zu\n", most ? MIB(most) : (size_t)INT64_MAX / 4096 * 4096);
    put(folder, "memory.limit_in_bytes", text);
    snprintf(text, sizeof text, "%zu\n", MIB(used));
    put(folder, "memory.usage_in_bytes", text);
    snprintf(text, sizeof text, "inactive_file 4096\ntotal_inactive_file %zu\n", MIB(inactive));
    put(folder, "memory.stat", text);
}

static size_t left_at(bool is_v1, const char *path)
{
    struct cgroup g = {.is_v1 = is_v1};
    strcpy(g.path, path);
    return cgroup_memory_left(root, &g);
}

Test(cgroup, files_that_are_given_back_are_left, .init = begin, .fini = end)
{
    cr_expect_eq(left_at(false, "/"), SIZE_MAX); /* nothing is there */
    put_v2("", 4096, 3000, 0);
    cr_expect_eq(left_at(false, "/"), MIB(1096));
    put_v2("", 4096, 3000, 2900);
    cr_expect_eq(left_at(false, "/"), MIB(3996));
    put_v2("", 4096, 3000, 3001);
    cr_expect_eq(left_at(false, "/"), MIB(4096));
    put_v2("", 4096, 5000, 0);
    cr_expect_eq(left_at(false, "/"), 0);
    put_v2("", 0, 3000, 0);
    cr_expect_eq(left_at(false, "/"), SIZE_MAX);
}

Test(cgroup, the_least_of_all_above_counts, .init = begin, .fini = end)
{
    put_v2("/a", 4096, 100, 0);
    put_v2("/a/b", 0, 50, 0);
    cr_expect_eq(left_at(false, "/a/b"), MIB(3996));
    put_v2("/a/b", 900, 50, 10);
    cr_expect_eq(left_at(false, "/a/b"), MIB(860));
    put_v2("/a", 4096, 4000, 0);
    cr_expect_eq(left_at(false, "/a/b"), MIB(96));
    cr_expect_eq(left_at(false, "/a/b/gone"), MIB(96));
    cr_expect_eq(left_at(false, "/ab"), SIZE_MAX);
}

Test(cgroup, version_1_has_names_of_its_own, .init = begin, .fini = end)
{
    put_v1("/memory", 0, 100, 0);
    cr_expect_gt(left_at(true, "/"), MIB(1 << 20));
    put_v1("/memory/docker", 2048, 1500, 500);
    cr_expect_eq(left_at(true, "/docker"), MIB(1048));
    put_v1("/memory", 1000, 100, 0); /* a container's own, whose path is the host's */
    cr_expect_eq(left_at(true, "/kubepods/pod"), MIB(900));
    cr_expect_eq(left_at(false, "/"), SIZE_MAX);
}
