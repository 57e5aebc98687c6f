/* `baton doctor`: what this host lacks for serving, and what to do about it. One line per check:
 * ok, warn (it will run, but not as well as it could) or fail (it will not run). Exits 1 on a
 * fail. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/flags.h"
#include "base/numa.h"
#include "base/topology.h"
#include "cli/commands.h"
#include "cli/facts.h"
#include "comm/ucx.h"

enum verdict { OK, WARN, FAIL };

static int fails;

static void say(enum verdict v, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void say(enum verdict v, const char *what, const char *fmt, ...)
{
    static const char *const names[] = {"ok  ", "warn", "fail"};
    va_list args;
    printf("%s  %-14s ", names[v], what);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fails += v == FAIL;
}

/* First line of a small file, "" when there is none. */
static const char *read_line(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    out[0] = '\0';
    if (f) {
        if (!fgets(out, (int)cap, f))
            out[0] = '\0';
        fclose(f);
    }
    out[strcspn(out, "\n")] = '\0';
    return out;
}

static void check_cpu(void)
{
    struct facts_machine m;
    facts_machine_read(&m);
    bool portable = strcmp(m.body, "portable") == 0;
    say(portable ? WARN : OK, "cpu", "%s: %s kernels%s", m.cpu, m.body,
        portable ? "; neither AVX2 nor AVX-512, so serving is slow" : "");
    say(m.cores < 2 ? WARN : OK, "cores", "%ld%s", m.cores,
        m.cores < 2 ? "; a prefill and a decode node want one each" : "");
    say(m.memory_gbytes < 2 ? WARN : OK, "memory", "%.1f GB%s", m.memory_gbytes,
        m.memory_gbytes < 2 ? "; give nodes a smaller --pool-bytes" : "");
}

/* Kernel threads want a core each; what spans memory nodes reads part of its weights from afar. */
static void check_topology(void)
{
    static struct topology t;
    bool allowed[TOPOLOGY_CPUS_MAX];
    bool known = topology_allowed(allowed);
    if (!topology_read("/sys/devices/system", &t)) {
        say(WARN, "topology", "/sys/devices/system/cpu cannot be read; threads cannot be placed");
        return;
    }
    struct topology_counts all = topology_count(&t, NULL);
    struct topology_counts own = topology_count(&t, known ? allowed : NULL);
    say(own.nodes > 1 ? WARN : OK, "topology",
        "%d of %d cores, %d of %d threads, %d of %d sockets, %d of %d memory nodes%s", own.cores,
        all.cores, own.cpus, all.cpus, own.packages, all.packages, own.nodes, all.nodes,
        own.nodes > 1 ? "; run one node process on each memory node (numactl --cpunodebind "
                        "--membind)"
                      : "");
}

/* Where node.pin puts memory: asked of the kernel, which in a container may refuse. */
static void check_numa(void)
{
    static struct topology t;
    if (!topology_read("/sys/devices/system", &t) || topology_count(&t, NULL).nodes < 2) {
        say(OK, "numa", "one memory node; there is nothing to place");
        return;
    }
    int rc = numa_try();
    if (numa_is_chosen())
        say(OK, "numa", "memory goes where this process was started with (numactl)");
    else if (rc != 0)
        say(WARN, "numa",
            "mbind: %s; with node.pin memory lies where it is first written: give "
            "the container CAP_SYS_NICE, or start nodes with numactl",
            strerror(rc));
    else
        say(OK, "numa", "with node.pin memory goes to the nodes of the threads");
}

static void check_memlock(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        say(WARN, "memlock", "cannot be read: %s", strerror(errno));
    else if (limit.rlim_cur == RLIM_INFINITY)
        say(OK, "memlock", "unlimited");
    else
        say(limit.rlim_cur < (rlim_t)1 << 30 ? WARN : OK, "memlock", "%llu MiB%s",
            (unsigned long long)(limit.rlim_cur >> 20),
            limit.rlim_cur < (rlim_t)1 << 30
                ? "; RDMA registers the KV pool: set `ulimit -l unlimited` (TCP and shared memory "
                  "do not need it)"
                : "");
}

static void check_files(void)
{
    struct rlimit limit;
    struct statvfs fs;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        say(limit.rlim_max < 4096 ? WARN : OK, "descriptors", "%llu, at most %llu%s",
            (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max,
            limit.rlim_max < 4096 ? "; each client takes one: raise `ulimit -Hn`" : "");
    if (statvfs("/dev/shm", &fs) != 0)
        say(WARN, "shm", "/dev/shm: %s; UCX wants it between processes of one host",
            strerror(errno));
    else
        say((double)fs.f_bavail * (double)fs.f_frsize < 64e6 ? WARN : OK, "shm",
            "%.2f GB free in /dev/shm", (double)fs.f_bavail * (double)fs.f_frsize / 1e9);
}

static void check_hugepages(void)
{
    char mode[128], total[64];
    read_line("/sys/kernel/mm/transparent_hugepage/enabled", mode, sizeof mode);
    read_line("/proc/sys/vm/nr_hugepages", total, sizeof total);
    bool never = strstr(mode, "[never]") != NULL;
    say(never ? WARN : OK, "hugepages", "transparent: %s, reserved: %s%s", mode[0] ? mode : "none",
        total[0] ? total : "0",
        never ? "; echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" : "");
}

static int list_dir(const char *path, const char *prefix, char *out, size_t cap)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    size_t at = 0;
    int n = 0;
    out[0] = '\0';
    while (dir && (e = readdir(dir))) {
        const char *rest = e->d_name + strlen(prefix);
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix)) != 0 ||
            (prefix[0] && (rest[0] < '0' || rest[0] > '9')))
            continue;
        n++;
        if (at < cap)
            at += (size_t)snprintf(out + at, cap - at, " %s", e->d_name);
    }
    if (dir)
        closedir(dir);
    return n;
}

static void check_devices(void)
{
    char names[256];
    if (list_dir("/sys/class/infiniband", "", names, sizeof names) > 0)
        say(OK, "rdma", "%s", names + 1);
    else
        say(OK, "rdma", "no devices: KV between hosts goes over TCP");
    if (list_dir("/dev", "nvidia", names, sizeof names) > 0)
        say(OK, "gpu", "%s", names + 1);
    else
        say(OK, "gpu", "none: the CPU computes");
}

static void check_ucx(void)
{
    struct ucx_worker *w = NULL;
    struct error err = {0};
    struct ucx_worker_args args = {.device = "", .keepalive_ns = 10 * NS_PER_S};
    enum status st = ucx_worker_create(&args, &w, &err);
    if (st == ST_OK) {
        say(OK, "ucx", "a worker starts, transports %s", ucx_worker_transports(w));
        ucx_worker_destroy(w);
    } else if (st == ST_UNSUPPORTED) {
        say(WARN, "ucx",
            "not built in: KV moves only within this host; install libucx-dev and "
            "build again");
    } else {
        say(FAIL, "ucx", "%s", err.text);
    }
}

static void check_port(int port, const char *what)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char name[24];
    snprintf(name, sizeof name, "port %d", port);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0)
        say(OK, name, "free for the router's %s", what);
    else
        say(WARN, name, "%s; give the router another with --%s", strerror(errno),
            port == 8000 ? "listen" : "grpc");
    if (fd >= 0)
        close(fd);
}

static void check_clock(void)
{
    char source[64];
    read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", source,
              sizeof source);
    int64_t begin = clock_now_ns(), now = begin, steps = 0;
    while (now - begin < 2 * NS_PER_MS) {
        now = clock_now_ns();
        steps++;
    }
    double ns = (double)(now - begin) / (double)steps;
    say(ns > 500 ? WARN : OK, "clock", "%s, %.0f ns to read%s", source[0] ? source : "unknown", ns,
        ns > 500 ? "; a slow clock blurs short latencies" : "");
}

int cmd_doctor(int argc, char **argv)
{
    struct flags f = {.program = "baton doctor",
                      .usage = "[options]",
                      .about =
                          "Checks this host: what serving lacks here, and what to do about it."};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    fails = 0;
    check_cpu();
    check_topology();
    check_numa();
    check_memlock();
    check_files();
    check_hugepages();
    check_devices();
    check_ucx();
    check_port(8000, "HTTP");
    check_port(8001, "gRPC");
    check_clock();
    return fails > 0;
}
