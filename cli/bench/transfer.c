/* `baton bench transfer`: KV handoffs between two processes, over each transport, by size and
 * layout.
 *
 * For each pair of transport and layout this process forks two others, a receiver and a sender,
 * each with a pool and a mover as a node has them. The receiver names what it expects, the sender
 * offers it all at once and says how long it took from its first offer to the receiver's Landed:
 * every slice has been pulled, checked and put into its blocks by then. This process only collects,
 * so that neither UCX nor its threads are ever forked. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/flags.h"
#include "cli/bench/bench.h"
#include "cli/facts.h"
#include "kvtransfer/mover.h"
#include "kvtransfer/shm_pool.h"

#define SIZES_MAX 16
#define REPETITIONS_MAX 100
#define ROWS_MAX (2 * 2 * SIZES_MAX)
#define WAIT_NS (30 * NS_PER_S)
#define USER 1
/* As nodes have them. */
#define STAGING_BUFFERS 32
#define OFFERS_IN_FLIGHT 4

static const char *const formulas[][2] = {
    {"bytes", "KV of one handoff as the sender stores it: tokens x 32 KiB (16 layers, K and V, 8 "
              "heads of 64, bf16)"},
    {"layout", "equal: both sides alike; converted: the receiver has blocks of 32 tokens instead "
               "of 16, and fp32"},
    {"seconds", "median, first offer to Landed: pulled, checked by CRC32C and in its blocks"},
    {"gbytes_per_second", "bytes / seconds"},
    {"fraction",
     "gbytes_per_second / the probe's gbytes_per_second (reading memory; better of before "
     "and after)"},
    {NULL, NULL}};

static const struct kv_layout sender_layout = {.layers = 16,
                                               .kv_heads = 8,
                                               .head_dim = 64,
                                               .value_dim = 64,
                                               .block_tokens = 16,
                                               .dtype = DTYPE_BF16};

struct options {
    const char *transports, *device, *sizes, *json;
    int64_t repetitions;
    bool quick;
};

struct row {
    const char *transport, *layout;
    int64_t bytes;
    double seconds;
};

struct bench {
    int32_t tokens[SIZES_MAX];
    size_t n_sizes;
    int repetitions;
    const char *device;
    struct row rows[ROWS_MAX];
    size_t n_rows;
    struct kernels_probe before, last, probe; /* the better ones of both */
    const struct kernels_probe *after;        /* `last`, or NULL: there was no memory */
};

/* ---- one side of a handoff ---- */

struct side {
    struct shm_pool memory;
    struct kv_pool_view pool;
    struct transport *transport;
    struct mover *mover;
    int32_t *blocks;
};

static int64_t token_bytes(void)
{
    const struct kv_layout *l = &sender_layout;
    return (int64_t)kv_token_bytes(l) * l->layers;
}

static enum status open_pool(struct side *s, struct kv_layout layout, int32_t tokens)
{
    layout.blocks = (tokens + layout.block_tokens - 1) / layout.block_tokens;
    struct error err = {0};
    enum status st = shm_pool_create(&s->memory, kv_pool_bytes(&layout), &err);
    s->blocks = malloc(sizeof(int32_t) * (size_t)layout.blocks);
    if (st != ST_OK || !s->blocks)
        return ST_NO_MEMORY;
    s->pool.base = s->memory.base;
    s->pool.layout = layout;
    memset(s->pool.base, 0x3c, s->memory.bytes); /* there, and finite in every dtype */
    /* Neighbours in the sequence are none in the pool, as after a while of serving. */
    for (int32_t i = 0; i < layout.blocks; i++)
        s->blocks[i] = i % 2 ? layout.blocks - 1 - i / 2 : i / 2;
    return ST_OK;
}

static enum status open_side(struct side *s, const struct bench *b, const struct kv_layout *layout,
                             const char *transport)
{
    struct error err = {0};
    int32_t tokens = 0;
    for (size_t k = 0; k < b->n_sizes; k++)
        tokens = b->tokens[k] > tokens ? b->tokens[k] : tokens;
    enum status st = open_pool(s, *layout, tokens);
    if (st == ST_OK && strcmp(transport, "shm") == 0) {
        const struct transport_shm_args a = {.pool_fd = s->memory.fd, .pool = s->pool};
        st = transport_shm_create(&a, &s->transport, &err);
    } else if (st == ST_OK) {
        const struct transport_ucx_args a = {.device = b->device, .keepalive_ns = 10 * NS_PER_S};
        st = transport_ucx_create(&a, &s->transport, &err);
    }
    if (st != ST_OK) {
        if (st != ST_UNSUPPORTED)
            fprintf(stderr, "baton bench transfer: %s: %s\n", transport, err.text);
        return st;
    }
    const struct mover_args args = {.transports = {s->transport},
                                    .n_transports = 1,
                                    .pool = s->pool,
                                    .staging_buffers = STAGING_BUFFERS,
                                    .max_plans = 4,
                                    .max_offerings = 4,
                                    .window = OFFERS_IN_FLIGHT};
    return mover_create(&args, &s->mover, &err);
}

static void close_side(struct side *s)
{
    mover_destroy(s->mover);
    s->transport->ops->destroy(s->transport);
}

/* Works until an event of that kind comes, or until the other side says something (then `ev` is
 * left alone and *spoken is set). False: it failed, or took too long. */
static bool work(struct side *s, enum mover_event_kind kind, int link, struct mover_event *ev,
                 bool *spoken)
{
    int64_t until = clock_now_ns() + WAIT_NS;
    while (clock_now_ns() < until) {
        bool any = mover_work(s->mover, clock_now_ns());
        while (mover_next(s->mover, ev)) {
            if (ev->kind == kind)
                return true;
            if (ev->kind == MOVER_FAILED)
                return false;
        }
        if (any || !s->transport->ops->arm(s->transport))
            continue;
        struct pollfd fds[] = {{.fd = s->transport->ops->fd(s->transport), .events = POLLIN},
                               {.fd = link, .events = POLLIN}};
        poll(fds, spoken ? 2 : 1, 10);
        if (spoken && fds[1].revents) {
            *spoken = true;
            return true;
        }
    }
    return false;
}

/* ---- the two processes ---- */

/* What the receiver says before each handoff. */
struct invitation {
    uint64_t ticket;
    int32_t tokens;
    uint32_t ucx_bytes;
    char host[256], shm[128];
    uint8_t ucx[MSG_ADDRESS_MAX];
};

static bool invite(struct side *s, int link, uint64_t ticket, int32_t tokens)
{
    static struct invitation i;
    struct msg_rank_address a;
    struct error err;
    if (mover_address(s->mover, &a, &err) != ST_OK || a.ucx_bytes > sizeof(i.ucx))
        return false;
    i = (struct invitation){.ticket = ticket, .tokens = tokens, .ucx_bytes = a.ucx_bytes};
    snprintf(i.host, sizeof(i.host), "%s", a.host ? a.host : "");
    snprintf(i.shm, sizeof(i.shm), "%s", a.shm ? a.shm : "");
    if (a.ucx_bytes > 0)
        memcpy(i.ucx, a.ucx, a.ucx_bytes);
    const struct mover_plan plan = {.user = USER,
                                    .ticket = {{ticket, ~ticket}},
                                    .token_end = tokens,
                                    .blocks = s->blocks,
                                    .n_blocks = (tokens + s->pool.layout.block_tokens - 1) /
                                                s->pool.layout.block_tokens};
    return mover_expect(s->mover, &plan) == ST_OK &&
           write(link, &i, sizeof(i)) == (ssize_t)sizeof(i);
}

static bool receive_all(struct side *s, const struct bench *b, int link)
{
    uint64_t ticket = 1;
    for (size_t k = 0; k < b->n_sizes; k++) {
        for (int r = 0; r <= b->repetitions; r++, ticket++) { /* one more, to warm up */
            struct mover_event ev;
            bool spoken = false;
            char done;
            if (!invite(s, link, ticket, b->tokens[k]))
                return false;
            if (!work(s, MOVER_LANDED, link, &ev, NULL))
                return false;
            /* The answer leaves; the sender says when it has it. */
            if (!work(s, MOVER_QUIET, link, &ev, &spoken) || !spoken || read(link, &done, 1) != 1)
                return false;
            mover_forget(s->mover, USER);
            if (!work(s, MOVER_QUIET, link, &ev, NULL))
                return false;
        }
    }
    return true;
}

/* One handoff; the time that it took, or -1. */
static int64_t send_one(struct side *s, const struct invitation *i)
{
    const struct kv_layout *l = &s->pool.layout;
    const struct msg_rank_address to = {.host = i->host,
                                        .shm = i->shm,
                                        .ucx = i->ucx,
                                        .ucx_bytes = i->ucx_bytes,
                                        .head_end = l->kv_heads};
    int64_t now = clock_now_ns();
    const struct mover_send send = {.user = USER,
                                    .ticket = {{i->ticket, ~i->ticket}},
                                    .token_end = i->tokens,
                                    .blocks = s->blocks,
                                    .n_blocks = (i->tokens + l->block_tokens - 1) / l->block_tokens,
                                    .ranks = &to,
                                    .n_ranks = 1,
                                    .deadline_ns = now + WAIT_NS};
    struct mover_event ev;
    if (mover_open(s->mover, &send, now) != ST_OK)
        return -1;
    for (int32_t layer = 0; layer < l->layers; layer++)
        mover_layer_ready(s->mover, USER, layer, i->tokens);
    mover_fill(s->mover, USER, NULL, 0, now);
    if (!work(s, MOVER_DELIVERED, -1, &ev, NULL))
        return -1;
    int64_t took = ev.transfer_ns;
    mover_close(s->mover, USER);
    return work(s, MOVER_QUIET, -1, &ev, NULL) ? took : -1;
}

static bool send_all(struct side *s, const struct bench *b, int link, int result)
{
    static struct invitation i;
    for (size_t k = 0; k < b->n_sizes; k++) {
        for (int r = 0; r <= b->repetitions; r++) {
            struct pollfd p = {.fd = link, .events = POLLIN};
            if (poll(&p, 1, (int)(WAIT_NS / NS_PER_MS)) != 1 ||
                read(link, &i, sizeof(i)) != (ssize_t)sizeof(i))
                return false;
            int64_t took = send_one(s, &i);
            if (took < 0 || write(link, "d", 1) != 1)
                return false;
            if (r > 0 && write(result, &took, sizeof(took)) != (ssize_t)sizeof(took))
                return false;
        }
    }
    return true;
}

struct pair {
    const char *transport, *layout;
    struct kv_layout receiver;
    int link[2], result[2];
    pid_t pids[2];
};

static void run_child(const struct bench *b, const struct pair *p, bool sending)
{
    struct side s = {.memory.fd = -1};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(p->link[!sending]);
    close(p->result[0]);
    enum status st = open_side(&s, b, sending ? &sender_layout : &p->receiver, p->transport);
    bool ok = st == ST_OK && (sending ? send_all(&s, b, p->link[1], p->result[1])
                                      : receive_all(&s, b, p->link[0]));
    if (st == ST_OK)
        close_side(&s);
    _exit(st == ST_UNSUPPORTED ? 2 : ok ? 0 : 1);
}

static enum status start_pair(const struct bench *b, struct pair *p, struct error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->link) != 0 ||
        pipe2(p->result, O_CLOEXEC) != 0)
        return err_set(err, ST_IO, "no descriptors: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        p->pids[i] = fork();
        if (p->pids[i] == 0)
            run_child(b, p, i == 1);
        if (p->pids[i] < 0)
            return err_set(err, ST_IO, "fork: %s", strerror(errno));
    }
    close(p->link[0]);
    close(p->link[1]);
    close(p->result[1]);
    return ST_OK;
}

/* ---- what comes of it ---- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool collect(struct bench *b, const struct pair *p)
{
    for (size_t k = 0; k < b->n_sizes; k++) {
        int64_t took[REPETITIONS_MAX];
        for (int r = 0; r < b->repetitions; r++)
            if (read(p->result[0], &took[r], sizeof(took[r])) != (ssize_t)sizeof(took[r]))
                return false;
        qsort(took, (size_t)b->repetitions, sizeof(*took), by_size);
        int64_t median = took[b->repetitions / 2];
        b->rows[b->n_rows++] = (struct row){.transport = p->transport,
                                            .layout = p->layout,
                                            .bytes = b->tokens[k] * token_bytes(),
                                            .seconds = (double)(median > 0 ? median : 1) / 1e9};
    }
    return true;
}

static enum status measure_pair(struct bench *b, struct pair *p, bool *unsupported,
                                struct error *err)
{
    enum status st = start_pair(b, p, err);
    bool whole = st == ST_OK && collect(b, p);
    *unsupported = false;
    for (int i = 0; i < 2; i++) {
        int status = 0;
        if (p->pids[i] <= 0)
            continue;
        if (st != ST_OK)
            kill(p->pids[i], SIGKILL);
        if (waitpid(p->pids[i], &status, 0) != p->pids[i])
            continue;
        *unsupported |= WIFEXITED(status) && WEXITSTATUS(status) == 2;
    }
    close(p->result[0]);
    if (st == ST_OK && !whole && !*unsupported)
        st = err_set(err, ST_TRANSFER, "%s, %s: a handoff failed", p->transport, p->layout);
    return st;
}

static enum status measure(struct bench *b, const char *transports, struct error *err)
{
    static const char *const names[] = {"shm", "ucx"};
    enum status st = facts_probe(0, &b->before, err);
    for (size_t i = 0; i < 2; i++) {
        if (!strstr(transports, names[i]))
            continue;
        for (int converted = 0; converted < 2 && st == ST_OK; converted++) {
            struct pair p = {.transport = names[i],
                             .layout = converted ? "converted" : "equal",
                             .receiver = sender_layout,
                             .result = {-1, -1}};
            bool unsupported;
            if (converted) {
                p.receiver.block_tokens = 32;
                p.receiver.dtype = DTYPE_F32;
            }
            st = measure_pair(b, &p, &unsupported, err);
            if (unsupported)
                fprintf(stderr, "baton bench transfer: this build has no %s\n", names[i]);
        }
    }
    if (st == ST_OK) {
        b->after = facts_probe_after(0, &b->last);
        b->probe = b->after ? kernels_probe_best(&b->before, b->after) : b->before;
    }
    return st;
}

static double rate(const struct row *r)
{
    return (double)r->bytes / 1e9 / r->seconds;
}

static void print_table(const struct bench *b)
{
    printf("memory %.1f GB/s\n\n%-9s %-10s %12s %14s %8s %8s\n", b->probe.gbytes_per_second,
           "transport", "layout", "bytes", "microseconds", "GB/s", "of it");
    for (size_t i = 0; i < b->n_rows; i++) {
        const struct row *r = &b->rows[i];
        printf("%-9s %-10s %12lld %14.1f %8.2f %7.1f%%\n", r->transport, r->layout,
               (long long)r->bytes, r->seconds * 1e6, rate(r),
               100 * rate(r) / b->probe.gbytes_per_second);
    }
    facts_print_formulas(formulas);
}

static void put_row(struct jw *w, const struct bench *b, const struct row *r)
{
    jw_obj(w);
    jw_key(w, "transport");
    jw_str(w, r->transport);
    jw_key(w, "layout");
    jw_str(w, r->layout);
    jw_key(w, "bytes");
    jw_int(w, r->bytes);
    jw_key(w, "seconds");
    jw_real(w, r->seconds);
    jw_key(w, "gbytes_per_second");
    jw_real(w, rate(r));
    jw_key(w, "fraction");
    jw_real(w, rate(r) / b->probe.gbytes_per_second);
    jw_end_obj(w);
}

static enum status write_json(const struct bench *b, const char *path, int argc, char **argv,
                              struct error *err)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_obj(&w);
    facts_put_run(&w, "baton bench transfer", argc, argv);
    jw_key(&w, "model");
    jw_str(&w, "none");
    facts_put_probes(&w, &b->before, b->after, 0);
    jw_key(&w, "rows");
    jw_arr(&w);
    for (size_t i = 0; i < b->n_rows; i++)
        put_row(&w, b, &b->rows[i]);
    jw_end_arr(&w);
    facts_put_formulas(&w, formulas);
    jw_end_obj(&w);
    enum status st = facts_write_file(path, &text, err);
    buf_fini(&text);
    return st;
}

/* ---- the command ---- */

static enum status read_options(const struct options *o, struct bench *b, struct error *err)
{
    bool shm = strcmp(o->transports, "shm") == 0, ucx = strcmp(o->transports, "ucx") == 0;
    if (!shm && !ucx && strcmp(o->transports, "shm,ucx") != 0)
        return err_set(err, ST_INVALID, "--transport: expected shm, ucx or shm,ucx, got \"%.40s\"",
                       o->transports);
    for (const char *at = o->sizes; *at;) {
        char *end;
        long long v = strtoll(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || v < 1 || v > 1LL << 31 ||
            b->n_sizes == SIZES_MAX)
            return err_set(err, ST_INVALID,
                           "--bytes: expected up to %d sizes from 1 to %lld, got \"%.80s\"",
                           SIZES_MAX, 1LL << 31, o->sizes);
        int64_t tokens = (v + token_bytes() - 1) / token_bytes();
        b->tokens[b->n_sizes++] = (int32_t)tokens;
        at = *end == ',' ? end + 1 : end;
    }
    b->repetitions = (int)o->repetitions;
    b->device = o->device;
    return b->n_sizes > 0 ? ST_OK : err_set(err, ST_INVALID, "--bytes: is empty");
}

int bench_transfer(int argc, char **argv)
{
    struct options o = {.transports = "shm,ucx",
                        .device = "lo",
                        .sizes = "32768,1048576,16777216,134217728",
                        .repetitions = 9};
    struct flag table[] = {
        {"transport", FLAG_STR, &o.transports, "shm,ucx", "how KV travels (both)"},
        {"device", FLAG_STR, &o.device, "NAME", "network device of ucx; empty: any (lo)"},
        {"bytes", FLAG_STR, &o.sizes, "32768,1048576",
         "sizes of a handoff, in bytes; rounded up to whole tokens"},
        {"repetitions", FLAG_INT, &o.repetitions, "N", "of each row; the median counts (9)", 1,
         REPETITIONS_MAX},
        {"quick", FLAG_BOOL, &o.quick, NULL, "up to 16 MiB, 5 repetitions, under 30 s"},
        {"json", FLAG_STR, &o.json, "FILE", "write the result as JSON; -: to stdout"},
    };
    struct flags f = {.program = "baton bench transfer",
                      .usage = "[options]",
                      .about = "Times KV handoffs between two processes of this host, by size, "
                               "transport and layout.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (o.quick) {
        o.sizes = table[2].seen ? o.sizes : "32768,1048576,16777216";
        o.repetitions = table[3].seen ? o.repetitions : 5;
    }
    static struct bench b;
    struct error err = {0};
    enum status st = read_options(&o, &b, &err);
    if (st == ST_OK)
        st = measure(&b, o.transports, &err);
    if (st == ST_OK)
        print_table(&b);
    if (st == ST_OK && o.json)
        st = write_json(&b, o.json, argc, argv, &err);
    if (st == ST_OK)
        return 0;
    fprintf(stderr, "baton bench transfer: %s\n", err.text);
    return 1;
}
