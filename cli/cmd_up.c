/* `baton up`: a whole cluster on this host from one command. The parent starts a process per node,
 * learns their addresses from the line each prints, starts the router with that list, and then only
 * watches: it has no part in serving. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/flags.h"
#include "base/log.h"
#include "base/topology.h"
#include "cli/commands.h"

#define START_NS (300 * NS_PER_S) /* a large model may take its time to be read */
#define STOP_EXTRA_NS (15 * NS_PER_S)
#define CHILDREN_MAX (CONFIG_NODES_MAX + 1)
#define LINE_MAX_BYTES 2048

struct child {
    const char *program; /* baton-prefill ... */
    char name[32];
    enum node_role role;
    pid_t pid; /* 0: not running */
    int out_fd;
    char line[LINE_MAX_BYTES]; /* of its stdout, as far as it has come */
    size_t line_bytes;
    bool ready; /* a router: and it has all nodes */
    char grpc[300], http[300];
    char ready_line[LINE_MAX_BYTES]; /* what a router says when it serves */
};

struct up {
    struct config config;
    int64_t prefill, decode, aggregated, tp_prefill, tp_decode;
    struct child children[CHILDREN_MAX]; /* the router comes last */
    int n;
    char bin_dir[PATH_MAX];
    int signal_fd;
    bool stopping;
};

static int fail(const char *fmt, const char *a, const char *b)
{
    fprintf(stderr, "baton up: ");
    fprintf(stderr, fmt, a, b);
    fprintf(stderr, "\n");
    return -1;
}

/* ---- starting ---- */

static int find_programs(struct up *u)
{
    ssize_t n = readlink("/proc/self/exe", u->bin_dir, sizeof(u->bin_dir) - 1);
    if (n <= 0)
        return fail("cannot find my own folder: %s%s", strerror(errno), "");
    u->bin_dir[n] = '\0';
    char *slash = strrchr(u->bin_dir, '/');
    if (slash)
        *slash = '\0';
    return 0;
}

/* The child's whole configuration as a file that needs no name: it is inherited as descriptor 3. */
static int write_config(const struct config *c)
{
    static char text[1 << 17];
    config_dump(c, text, sizeof(text));
    int fd = memfd_create("baton-config", 0);
    size_t len = strlen(text);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static void run_child(const struct up *u, const struct child *c, int config_fd, int out_fd)
{
    char path[PATH_MAX + 64];
    sigset_t none;
    snprintf(path, sizeof(path), "%s/%s", u->bin_dir, c->program);
    /* Its own group: a Ctrl-C at the terminal is for us alone, who then stop all in order. */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(out_fd, STDOUT_FILENO);
    if (config_fd != 3)
        dup2(config_fd, 3);
    else
        fcntl(3, F_SETFD, 0);
    execl(path, c->program, "--config", "/proc/self/fd/3", (char *)NULL);
    dprintf(STDERR_FILENO, "baton up: %s: %s\n", path, strerror(errno));
    _exit(127);
}

static int start_child(struct up *u, struct child *c)
{
    int pipe_fds[2], config_fd = write_config(&u->config);
    if (config_fd < 0 || pipe2(pipe_fds, O_CLOEXEC) != 0)
        return fail("%s: %s", c->name, strerror(errno));
    c->pid = fork();
    if (c->pid == 0)
        run_child(u, c, config_fd, pipe_fds[1]);
    close(config_fd);
    close(pipe_fds[1]);
    c->out_fd = pipe_fds[0];
    fcntl(c->out_fd, F_SETFL, O_NONBLOCK);
    if (c->pid < 0) {
        c->pid = 0;
        return fail("%s: %s", c->name, strerror(errno));
    }
    return 0;
}

static void set_text(char **at, const char *text)
{
    free(*at);
    *at = strdup(text);
}

static int start_node(struct up *u, enum node_role role, int index)
{
    static const char *const letters[] = {
        [ROLE_PREFILL] = "p", [ROLE_DECODE] = "d", [ROLE_BOTH] = "a"};
    struct child *c = &u->children[u->n++];
    c->role = role;
    c->program = role == ROLE_PREFILL ? "baton-prefill" : "baton-decode";
    snprintf(c->name, sizeof(c->name), "%s%d", letters[role], index);
    set_text(&u->config.node.name, c->name);
    set_text(&u->config.node.listen, "127.0.0.1:0");
    set_text(&u->config.node.http, "127.0.0.1:0");
    u->config.node.role = role;
    return start_child(u, c);
}

/* ---- what children say ---- */

/* Copies the value of `key=` from a line of space-separated pairs. */
static bool line_value(const char *line, const char *key, char *out, size_t cap)
{
    size_t len = strlen(key);
    for (const char *at = line; (at = strstr(at, key)) != NULL; at += len) {
        if (at != line && at[-1] != ' ')
            continue;
        size_t n = strcspn(at + len, " ");
        if (n == 0 || n >= cap)
            return false;
        memcpy(out, at + len, n);
        out[n] = '\0';
        return true;
    }
    return false;
}

static void on_node_line(struct child *c, const char *line)
{
    static const char *const roles[] = {
        [ROLE_PREFILL] = "prefill", [ROLE_DECODE] = "decode", [ROLE_BOTH] = "both"};
    if (strncmp(line, "node ", 5) != 0 || !line_value(line, "grpc=", c->grpc, sizeof(c->grpc)) ||
        !line_value(line, "http=", c->http, sizeof(c->http)))
        return;
    c->ready = true;
    printf("node name=%s role=%s rank=0 pid=%d http=%s\n", c->name, roles[c->role], (int)c->pid,
           c->http);
    fflush(stdout);
}

/* A router serves from its first decode node on; we are ready when it has all that were asked for:
 * the first request is to be prefilled where the later ones are. */
static void on_router_line(struct child *c, const char *line)
{
    if (strncmp(line, "ready ", 6) == 0) {
        line_value(line, "grpc=", c->grpc, sizeof(c->grpc));
        line_value(line, "http=", c->http, sizeof(c->http));
        snprintf(c->ready_line, sizeof(c->ready_line), "%s", line);
    } else if (strncmp(line, "complete ", 9) == 0 && !c->ready) {
        c->ready = true;
        printf("%s\n", c->ready_line);
        fflush(stdout);
    }
}

static void read_child(struct child *c)
{
    for (;;) {
        ssize_t n = read(c->out_fd, c->line + c->line_bytes, sizeof(c->line) - 1 - c->line_bytes);
        if (n == 0) {
            close(c->out_fd);
            c->out_fd = -1;
        }
        if (n <= 0)
            return;
        c->line_bytes += (size_t)n;
        c->line[c->line_bytes] = '\0';
        char *begin = c->line, *end;
        while ((end = strchr(begin, '\n')) != NULL) {
            *end = '\0';
            if (c->role == ROLE_ROUTER)
                on_router_line(c, begin);
            else
                on_node_line(c, begin);
            begin = end + 1;
        }
        c->line_bytes -= (size_t)(begin - c->line);
        memmove(c->line, begin, c->line_bytes);
        if (c->line_bytes == sizeof(c->line) - 1)
            c->line_bytes = 0; /* not a line of ours */
    }
}

/* Collects children that have ended; true when one did that was not told to. */
static bool reap(struct up *u)
{
    bool unexpected = false;
    for (int i = 0; i < u->n; i++) {
        struct child *c = &u->children[i];
        int status;
        if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
            continue;
        if (!u->stopping) {
            unexpected = true;
            if (WIFSIGNALED(status))
                fprintf(stderr, "baton up: %s (pid %d) was killed by signal %d\n", c->name,
                        (int)c->pid, WTERMSIG(status));
            else
                fprintf(stderr, "baton up: %s (pid %d) has exited with status %d\n", c->name,
                        (int)c->pid, WEXITSTATUS(status));
        }
        c->pid = 0;
    }
    return unexpected;
}

/* Waits for something to happen; true when a signal asked us to stop. */
static bool wait_some(struct up *u, int timeout_ms)
{
    struct pollfd fds[CHILDREN_MAX + 1];
    int n = 0;
    fds[n++] = (struct pollfd){.fd = u->signal_fd, .events = POLLIN};
    for (int i = 0; i < u->n; i++)
        fds[n++] = (struct pollfd){.fd = u->children[i].out_fd, .events = POLLIN};
    poll(fds, (nfds_t)n, timeout_ms);
    for (int i = 0; i < u->n; i++)
        if (u->children[i].out_fd >= 0)
            read_child(&u->children[i]);
    struct signalfd_siginfo info;
    bool stop = false;
    while (read(u->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        stop |= info.ssi_signo == SIGINT || info.ssi_signo == SIGTERM;
    return stop;
}

/* Until children [from, n) have said that they are ready. 1: asked to stop; -1: they never will. */
static int wait_ready(struct up *u, int from)
{
    int64_t give_up = clock_now_ns() + START_NS;
    for (;;) {
        int ready = 0;
        for (int i = from; i < u->n; i++)
            ready += u->children[i].ready;
        if (ready == u->n - from)
            return 0; /* whoever has died since then is a matter of serving */
        if (reap(u))
            return -1;
        if (clock_now_ns() > give_up)
            return fail("not ready after %s s%s", "300", "");
        if (wait_some(u, 200))
            return 1;
    }
}

/* ---- stopping ---- */

static void signal_children(const struct up *u, int from, int to, int sig)
{
    for (int i = from; i < to; i++)
        if (u->children[i].pid > 0)
            kill(u->children[i].pid, sig);
}

static int alive(const struct up *u, int from, int to)
{
    int n = 0;
    for (int i = from; i < to; i++)
        n += u->children[i].pid > 0;
    return n;
}

static void stop_range(struct up *u, int from, int to, int64_t within_ns)
{
    int64_t give_up = clock_now_ns() + within_ns;
    signal_children(u, from, to, SIGTERM);
    while (alive(u, from, to) > 0 && clock_now_ns() < give_up) {
        wait_some(u, 50);
        reap(u);
    }
    if (alive(u, from, to) > 0) {
        fprintf(stderr, "baton up: %d processes did not stop in time and were killed\n",
                alive(u, from, to));
        signal_children(u, from, to, SIGKILL);
        for (int i = from; i < to; i++)
            if (u->children[i].pid > 0)
                waitpid(u->children[i].pid, NULL, 0);
    }
}

/* The router first, which lets running requests end; then the nodes have nothing left. */
static void stop_all(struct up *u)
{
    int nodes = u->n;
    u->stopping = true;
    if (u->n > 0 && u->children[u->n - 1].role == ROLE_ROUTER) {
        nodes = u->n - 1;
        stop_range(u, nodes, u->n, u->config.timeouts.drain_ns + STOP_EXTRA_NS);
    }
    stop_range(u, 0, nodes, STOP_EXTRA_NS);
    for (int i = 0; i < u->n; i++)
        if (u->children[i].out_fd >= 0)
            close(u->children[i].out_fd);
}

/* ---- the command ---- */

static int start_nodes(struct up *u)
{
    for (int i = 0; i < u->prefill; i++)
        if (start_node(u, ROLE_PREFILL, i) != 0)
            return -1;
    for (int i = 0; i < u->decode; i++)
        if (start_node(u, ROLE_DECODE, i) != 0)
            return -1;
    for (int i = 0; i < u->aggregated; i++)
        if (start_node(u, ROLE_BOTH, i) != 0)
            return -1;
    return wait_ready(u, 0);
}

static int start_router(struct up *u)
{
    struct child *c = &u->children[u->n];
    for (size_t i = 0; i < u->config.router.n_nodes; i++)
        free(u->config.router.nodes[i].address);
    u->config.router.n_nodes = 0;
    for (int i = 0; i < u->n; i++) {
        struct config_node *node = &u->config.router.nodes[u->config.router.n_nodes++];
        node->role = u->children[i].role;
        node->address = strdup(u->children[i].grpc);
    }
    *c = (struct child){.program = "baton-router", .name = "router", .role = ROLE_ROUTER};
    u->config.node.role = ROLE_ROUTER;
    u->n++;
    if (start_child(u, c) != 0)
        return -1;
    return wait_ready(u, u->n - 1);
}

static int serve(struct up *u)
{
    const struct child *router = &u->children[u->n - 1];
    printf("\ntry:  curl %s/v1/completions -H 'content-type: application/json' \\\n"
           "           -d '{\"model\":\"%s\",\"prompt\":\"Once upon a time\",\"max_tokens\":64}'\n"
           "stop: Ctrl-C\n",
           router->http, u->config.model.name);
    fflush(stdout);
    for (;;) {
        if (wait_some(u, 1000))
            return 0;
        if (!reap(u))
            continue;
        if (router->pid == 0)
            return fail("the router is gone%s%s", "", "");
        if (alive(u, 0, u->n - 1) == 0)
            return fail("all nodes are gone%s%s", "", "");
    }
}

static int check(struct up *u, struct error *err)
{
    if (u->tp_prefill != 1 || u->tp_decode != 1)
        return fail("--tp-prefill and --tp-decode: one rank per node is what is built in%s%s", "",
                    "");
    if (u->prefill + u->decode + u->aggregated > CONFIG_NODES_MAX || u->decode + u->aggregated < 1)
        return fail("at least one decode or aggregated node is needed%s%s", "", "");
    if (config_check(&u->config, err) != ST_OK)
        return fail("%s%s", err->text, "");
    int64_t ranks = u->prefill + u->decode + u->aggregated;
    int64_t cores = topology_cpus();
    /* Each would choose the same CPUs: all that its place depends on is the same for all. */
    if (u->config.node.pin && ranks > 1)
        return fail("node.pin: one node process to a set of CPUs; start each by itself%s%s", "",
                    "");
    if (u->config.node.threads == 0)
        u->config.node.threads = cores / ranks > 0 ? cores / ranks : 1;
    return 0;
}

static int parse(struct up *u, int argc, char **argv, struct error *err)
{
    const char *config = NULL, *model = NULL, *transport = NULL, *listen = NULL, *grpc = NULL;
    const char *kv_dtype = NULL, *pool = NULL, *keys = NULL, *tools = NULL, *reasoning = NULL;
    int64_t threads = 0, block_tokens = 0, max_batch = 0;
    struct flag table[] = {
        {"model", FLAG_STR, &model, "DIR", "model folder (Hugging Face layout)"},
        {"prefill", FLAG_INT, &u->prefill, "N", "prefill nodes (default 1)", 0, 64},
        {"decode", FLAG_INT, &u->decode, "N", "decode nodes (default 1)", 0, 64},
        {"aggregated", FLAG_INT, &u->aggregated, "N", "nodes that do both (default 0)", 0, 64},
        {"tp-prefill", FLAG_INT, &u->tp_prefill, "T", "ranks per prefill node (1)", 1, 64},
        {"tp-decode", FLAG_INT, &u->tp_decode, "T", "ranks per decode node (1)", 1, 64},
        {"threads", FLAG_INT, &threads, "K", "kernel threads per rank (cores / ranks)", 0, 1024},
        {"transport", FLAG_STR, &transport, "auto|shm|ucx", "how KV travels"},
        {"listen", FLAG_STR, &listen, "HOST:PORT", "the router's HTTP (127.0.0.1:8000)"},
        {"grpc", FLAG_STR, &grpc, "HOST:PORT", "the router's gRPC (127.0.0.1:8001)"},
        {"kv-dtype", FLAG_STR, &kv_dtype, "auto|bf16|fp16|fp32|fp8|int8|int4",
         "element of the KV cache"},
        {"block-tokens", FLAG_INT, &block_tokens, "N", "tokens of a KV block", 0, 1024},
        {"pool-bytes", FLAG_STR, &pool, "BYTES", "KV memory of each node (1GiB)"},
        {"max-batch", FLAG_INT, &max_batch, "N", "sequences that run at a time", 0, 65536},
        {"api-keys-file", FLAG_STR, &keys, "FILE", "accepted API keys, one per line"},
        {"tool-parser", FLAG_STR, &tools, "NAME", "how the model writes tool calls (auto)"},
        {"reasoning-parser", FLAG_STR, &reasoning, "NAME", "how it writes reasoning (auto)"},
        {"config", FLAG_STR, &config, "FILE", "configuration in YAML; flags override it"},
    };
    struct flags flags = {.program = "baton up",
                          .usage = "[options]",
                          .about = "Starts a whole cluster on this host: nodes and a router, a "
                                   "process each, and stops it on Ctrl-C.",
                          .table = table,
                          .n = sizeof(table) / sizeof(table[0])};
    int rc = flags_parse(&flags, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc;
    if (config && config_read_file(&u->config, config, err) != ST_OK)
        return fail("%s%s", err->text, "");
    char threads_text[24], block_text[24], batch_text[24];
    snprintf(threads_text, sizeof(threads_text), "%lld", (long long)threads);
    snprintf(block_text, sizeof(block_text), "%lld", (long long)block_tokens);
    snprintf(batch_text, sizeof(batch_text), "%lld", (long long)max_batch);
    const char *const values[][3] = {
        {"model.path", model, "--model"},
        {"kv.transport", transport, "--transport"},
        {"router.listen", listen, "--listen"},
        {"router.grpc", grpc, "--grpc"},
        {"kv.dtype", kv_dtype, "--kv-dtype"},
        {"kv.pool_bytes", pool, "--pool-bytes"},
        {"router.api_keys_file", keys, "--api-keys-file"},
        {"router.tool_parser", tools, "--tool-parser"},
        {"router.reasoning_parser", reasoning, "--reasoning-parser"},
        {"node.threads", threads ? threads_text : NULL, "--threads"},
        {"kv.block_tokens", block_tokens ? block_text : NULL, "--block-tokens"},
        {"engine.max_batch", max_batch ? batch_text : NULL, "--max-batch"},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        if (values[i][1] &&
            config_set(&u->config, values[i][0], values[i][1], values[i][2], err) != ST_OK)
            return fail("%s%s", err->text, "");
    /* What was said on the command line; a configuration's own words stand where nothing was. */
    if (strcmp(log_level_name(), "info") != 0)
        set_text(&u->config.log.level, log_level_name());
    if (strcmp(log_format_name(), "text") != 0)
        set_text(&u->config.log.format, log_format_name());
    if (!u->config.model.path)
        set_text(&u->config.model.path, "models/tiny");
    /* Children are started in this folder too, but a path in a log should say where. */
    char *full = realpath(u->config.model.path, NULL);
    if (!full)
        return fail("%s: %s; give a model folder with --model DIR", u->config.model.path,
                    strerror(errno));
    if (!u->config.model.name && u->config.model.path[0])
        config_resolve(&u->config);
    free(u->config.model.path);
    u->config.model.path = full;
    return 0;
}

int cmd_up(int argc, char **argv)
{
    static struct up up;
    struct up *u = &up;
    struct error err = {0};
    sigset_t set;
    *u = (struct up){.prefill = 1, .decode = 1, .tp_prefill = 1, .tp_decode = 1, .signal_fd = -1};
    config_default(&u->config);
    int rc = parse(u, argc, argv, &err);
    if (rc == 0)
        rc = check(u, &err);
    if (rc == 0)
        rc = find_programs(u);
    if (rc != 0) {
        config_fini(&u->config);
        return rc < 0 ? 1 : rc == 1 ? 0 : 2;
    }
    /* Whoever read our lines may have gone after the first; the cluster serves on. */
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    u->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    rc = start_nodes(u);
    if (rc == 0)
        rc = start_router(u);
    if (rc == 0)
        rc = serve(u);
    stop_all(u);
    close(u->signal_fd);
    config_fini(&u->config);
    return rc < 0;
}
