/* The shared-memory transport against itself, and against somebody at its socket who says anything:
 * each lie ends that link and only that, and no descriptor stays behind. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "kvtransfer/kv_rig.h"

static const struct kv_layout layout = {2, 2, 8, 8, 16, 4, DTYPE_F32};

struct host {
    struct rig_pool pool;
    struct transport *t;
};

static void host_open(struct host *h)
{
    struct error err = {0};
    rig_pool_open(&h->pool, &layout, 0);
    const struct transport_shm_args a = {.pool_fd = h->pool.memory.fd, .pool = h->pool.view};
    cr_assert_eq(transport_shm_create(&a, &h->t, &err), ST_OK, "%s", err.text);
}

static void host_close(struct host *h)
{
    h->t->ops->destroy(h->t);
    rig_pool_close(&h->pool);
}

static bool next(struct host *h, struct transport_event *ev, int64_t for_ns)
{
    for (int64_t until = clock_now_ns() + for_ns; clock_now_ns() < until;) {
        if (h->t->ops->poll(h->t, ev))
            return true;
        clock_sleep_ns(NS_PER_MS / 10);
    }
    return false;
}

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- two of them ---- */

static void connect_to(struct host *from, struct host *to, struct transport_link **l)
{
    struct buf a = {0};
    cr_assert_eq(to->t->ops->address(to->t, &a, NULL), ST_OK);
    cr_assert_eq(from->t->ops->connect(from->t, a.data, a.len, l, NULL), ST_OK);
    buf_fini(&a);
}

Test(transport_shm, frames_and_pools)
{
    struct host a, b;
    struct transport_link *l;
    struct transport_event ev;
    host_open(&a);
    host_open(&b);
    connect_to(&a, &b, &l);
    static uint8_t frame[1 << 20];
    const size_t sizes[] = {1, 48 << 10, (48 << 10) + 1, sizeof(frame)};
    for (int i = 0; i < 4; i++) {
        memset(frame, i + 1, sizes[i]);
        cr_assert_eq(l->transport->ops->send(l, frame, sizes[i], NULL, 0, 0), ST_OK);
    }
    struct transport_link *back = NULL;
    for (int i = 0; i < 4; i++) {
        int64_t until = clock_now_ns() + 5 * NS_PER_S;
        while (!b.t->ops->poll(b.t, &ev) && clock_now_ns() < until)
            cr_assert_not(a.t->ops->poll(a.t, &ev)); /* lets it flush what did not fit */
        cr_assert_eq(ev.kind, TRANSPORT_FRAME);
        cr_assert_eq(ev.frame_bytes, sizes[i]);
        cr_assert_eq(((const uint8_t *)ev.frame)[sizes[i] - 1], i + 1);
        back = ev.link;
    }
    const struct kv_pool_view *theirs = b.t->ops->peer_pool(back);
    cr_assert_not_null(theirs);
    ((char *)a.pool.view.base)[77] = 12;
    cr_assert_eq(((char *)theirs->base)[77], 12);
    cr_assert_eq(memcmp(&theirs->layout, &layout, sizeof(layout)), 0);
    cr_assert_eq(b.t->ops->send(back, "hi", 2, NULL, 0, 0), ST_OK);
    cr_assert(next(&a, &ev, NS_PER_S));
    cr_assert(ev.link == l && ev.frame_bytes == 2);
    a.t->ops->disconnect(l);
    cr_assert_eq(a.t->ops->send(l, "x", 1, NULL, 0, 0), ST_LINK);
    cr_assert(next(&a, &ev, NS_PER_S) && ev.kind == TRANSPORT_DOWN && ev.link == l);
    cr_assert(next(&b, &ev, NS_PER_S) && ev.kind == TRANSPORT_DOWN && ev.link == back);
    cr_assert_not(next(&b, &ev, 20 * NS_PER_MS));
    host_close(&a);
    host_close(&b);
}

/* What a peer maps it cannot write, nor make writable. */
Test(transport_shm, mapped_read_only)
{
    struct host a, b;
    struct transport_link *l;
    struct transport_event ev;
    host_open(&a);
    host_open(&b);
    connect_to(&a, &b, &l);
    a.t->ops->send(l, "x", 1, NULL, 0, 0);
    cr_assert(next(&b, &ev, NS_PER_S));
    cr_assert_neq(mprotect(b.t->ops->peer_pool(ev.link)->base, 1, PROT_READ | PROT_WRITE), 0);
    cr_assert_eq(errno, EACCES);
    host_close(&a);
    host_close(&b);
}

/* Nor by way of the descriptor itself: it is the same user's, who may open it anew for writing. */
Test(transport_shm, sealed)
{
    struct rig_pool p;
    char self[64], byte = 1;
    rig_pool_open(&p, &layout, 0);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", p.memory.fd);
    int fd = open(self, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, 4096), -1);
    cr_assert_eq(ftruncate(fd, 1 << 30), -1);
    cr_assert_eq(pwrite(fd, &byte, 1, 0), -1);
    cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    cr_assert_eq(errno, EPERM);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    ((char *)p.memory.base)[5] = 7; /* its owner can */
    cr_assert_eq(pread(fd, &byte, 1, 5), 1);
    cr_assert_eq(byte, 7);
    close(fd);
    rig_pool_close(&p);
}

/* Who cannot reach us through shared memory is on another host, as it were: another user, another
 * network namespace, another version. */
Test(transport_shm, hosts)
{
    int fds[2];
    char theirs[256] = "", ours[256];
    cr_assert_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        bool other = setuid(65534) == 0;
        const char *host = other ? transport_shm_host() : "not root";
        _exit(write(fds[1], host, strlen(host)) < 0);
    }
    cr_assert_gt(read(fds[0], theirs, sizeof(theirs) - 1), 0);
    waitpid(pid, NULL, 0);
    snprintf(ours, sizeof(ours), "%s", transport_shm_host());
    cr_assert_gt(strlen(ours), 10);
    cr_assert_str_eq(ours, transport_shm_host());
    cr_assert_str_neq(ours, theirs);
    /* Neither is one that lays out pools in another way: UCX is taken then. */
    cr_assert_str_eq(strrchr(ours, '/') + 1, "3", "%s", ours);
}

Test(transport_shm, nobody_there)
{
    struct host a;
    struct transport_link *l;
    struct transport_event ev;
    char name[100];
    host_open(&a);
    memset(name, 'x', sizeof(name));
    cr_assert_eq(a.t->ops->connect(a.t, "", 0, &l, NULL), ST_INVALID);
    cr_assert_eq(a.t->ops->connect(a.t, name, sizeof(name), &l, NULL), ST_INVALID);
    cr_assert_eq(a.t->ops->connect(a.t, "nobody", 6, &l, NULL), ST_OK);
    cr_assert(next(&a, &ev, NS_PER_S) && ev.kind == TRANSPORT_DOWN && ev.link == l);
    host_close(&a);
}

/* ---- the liar ---- */

struct head {
    uint32_t kind, total, offset, bytes;
};
struct hello {
    uint32_t version, dtype;
    int32_t layers, kv_heads, head_dim, value_dim, block_tokens, blocks, head_base;
    uint64_t pool_bytes;
};
#define HELLO 0x42744831
#define FRAME 0x42744631

static int liar(struct host *h)
{
    struct buf a = {0};
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    cr_assert_eq(h->t->ops->address(h->t, &a, NULL), ST_OK);
    memcpy(to.sun_path + 1, a.data, a.len);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + a.len);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, len), 0);
    buf_fini(&a);
    return fd;
}

static void say(int fd, const struct head *h, const void *data, size_t bytes)
{
    char packet[1 << 16];
    memcpy(packet, h, sizeof(*h));
    memset(packet + sizeof(*h), 0, bytes);
    if (data)
        memcpy(packet + sizeof(*h), data, bytes);
    cr_assert_eq(send(fd, packet, sizeof(*h) + bytes, MSG_NOSIGNAL), (ssize_t)(sizeof(*h) + bytes));
}

static struct hello good_hello(void)
{
    return (struct hello){3, DTYPE_F32, 2, 2, 8, 8, 16, 4, 0, kv_pool_bytes(&layout)};
}

static void say_hello(int fd, const struct hello *hello, const int *fds, int n_fds)
{
    struct head h = {HELLO, sizeof(*hello), 0, sizeof(*hello)};
    char packet[sizeof(h) + sizeof(*hello)];
    memcpy(packet, &h, sizeof(h));
    memcpy(packet + sizeof(h), hello, sizeof(*hello));
    struct iovec io = {packet, sizeof(packet)};
    union {
        char bytes[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    if (n_fds > 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)n_fds * sizeof(int));
    }
    cr_assert_gt(sendmsg(fd, &m, MSG_NOSIGNAL), 0);
}

static int memory(size_t bytes, int seals)
{
    int fd = memfd_create("liar", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
    if (seals)
        fcntl(fd, F_ADD_SEALS, seals);
    return fd;
}

/* Ends in DOWN, and every descriptor that crossed is closed again. */
static void expect_down(struct host *h, int fd, int before, const char *what)
{
    struct transport_event ev;
    cr_assert(next(h, &ev, 2 * NS_PER_S), "%s: nothing happens", what);
    cr_assert_eq(ev.kind, TRANSPORT_DOWN, "%s", what);
    cr_assert_not(next(h, &ev, 5 * NS_PER_MS), "%s: more happens", what);
    close(fd);
    cr_assert_eq(open_fds(), before, "%s: %d descriptors, were %d", what, open_fds(), before);
}

Test(transport_shm, bad_hellos)
{
    struct host h;
    host_open(&h);
    int before = open_fds();
    for (int lie = 0; lie < 14; lie++) {
        struct hello x = good_hello();
        int seals = F_SEAL_SHRINK, n_fds = 1;
        size_t bytes = x.pool_bytes;
        char what[32];
        snprintf(what, sizeof(what), "hello %d", lie);
        switch (lie) {
        case 0:
            seals = 0;
            break;
        case 1:
            bytes--;
            break;
        case 2:
            n_fds = 0;
            break;
        case 3:
            n_fds = 2;
            break;
        case 4:
            x.version = 2; /* of pools with all keys of a block before all values */
            break;
        case 5:
            x.dtype = DTYPE_KV_COUNT;
            break;
        case 6:
            x.layers = -2;
            break;
        case 7:
            x.kv_heads = 0;
            break;
        case 8:
            x.head_dim = 1 << 20;
            break;
        case 9:
            x.blocks = INT32_MAX;
            break;
        case 10: /* a product that wraps to 0 */
            x = (struct hello){3, 0, 4096, 65536, 65536, 65536, 65536, 1 << 30, 0, 0};
            break;
        case 11:
            x.head_base = -1;
            break;
        case 12:
            n_fds = 8;
            break;
        default:
            x.pool_bytes++;
            break;
        }
        int fds[8], fd = liar(&h);
        for (int i = 0; i < 8; i++)
            fds[i] = memory(bytes, seals);
        say_hello(fd, &x, fds, n_fds);
        for (int i = 0; i < 8; i++)
            close(fds[i]);
        expect_down(&h, fd, before, what);
    }
    /* a file that is no memfd; a directory; a device */
    const char *const files[] = {"/proc/self/exe", "/", "/dev/zero"};
    for (int i = 0; i < 3; i++) {
        struct hello x = good_hello();
        int fd = liar(&h), file = open(files[i], O_RDONLY | O_CLOEXEC);
        say_hello(fd, &x, &file, 1);
        close(file);
        expect_down(&h, fd, before, files[i]);
    }
    host_close(&h);
}

Test(transport_shm, bad_packets)
{
    static const struct {
        const char *what;
        bool hello;
        struct head h[3];
        size_t data[3];
    } lies[] = {
        {"a frame before the hello", false, {{FRAME, 4, 0, 4}}, {4}},
        {"another kind", true, {{7, 4, 0, 4}}, {4}},
        {"nothing but a kind", true, {{FRAME, 4, 0, 0}}, {0}},
        {"more bytes than there are", true, {{FRAME, 400, 0, 400}}, {4}},
        {"fewer bytes than there are", true, {{FRAME, 4, 0, 2}}, {4}},
        {"a frame of nothing", true, {{FRAME, 0, 0, 0}}, {0}},
        {"a frame too large", true, {{FRAME, WIRE_FRAME_MAX + 1, 0, 4}}, {4}},
        {"a piece larger than its frame", true, {{FRAME, 3, 0, 4}}, {4}},
        {"a piece out of nowhere", true, {{FRAME, 8, 4, 4}}, {4}},
        {"an offset that wraps", true, {{FRAME, 8, 0xfffffffc, 4}}, {4}},
        {"a gap", true, {{FRAME, 12, 0, 4}, {FRAME, 12, 8, 4}}, {4, 4}},
        {"a piece twice", true, {{FRAME, 12, 0, 4}, {FRAME, 12, 0, 4}}, {4, 4}},
        {"a total that changes", true, {{FRAME, 12, 0, 4}, {FRAME, 400, 4, 4}}, {4, 4}},
        {"a frame inside a frame", true, {{FRAME, 12, 0, 4}, {FRAME, 4, 0, 4}}, {4, 4}},
        {"a packet too large", true, {{FRAME, 60000, 0, 60000}}, {60000}},
        {"a hello of another size", false, {{HELLO, 4, 0, 4}}, {4}},
        {"a hello again", true, {{HELLO, 40, 0, 40}}, {40}},
    };
    struct host h;
    host_open(&h);
    int before = open_fds();
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        int fd = liar(&h);
        if (lies[i].hello) {
            struct hello x = good_hello();
            int pool = memory(x.pool_bytes, F_SEAL_SHRINK);
            say_hello(fd, &x, &pool, 1);
            close(pool);
        }
        for (int k = 0; k < 3 && lies[i].h[k].kind; k++)
            say(fd, &lies[i].h[k], NULL, lies[i].data[k]);
        expect_down(&h, fd, before, lies[i].what);
    }
    int fd = liar(&h);
    cr_assert_eq(send(fd, "short", 5, MSG_NOSIGNAL), 5);
    expect_down(&h, fd, before, "half a head");
    host_close(&h);
}

/* Who says nothing is sent away; meanwhile, and after it, others are served. */
Test(transport_shm, silence, .timeout = 30)
{
    struct host h, other;
    struct transport_link *l;
    struct transport_event ev;
    host_open(&h);
    host_open(&other);
    int silent = liar(&h);
    connect_to(&other, &h, &l);
    cr_assert_eq(other.t->ops->send(l, "x", 1, NULL, 0, 0), ST_OK);
    cr_assert(next(&h, &ev, NS_PER_S) && ev.kind == TRANSPORT_FRAME);
    struct transport_link *good = ev.link;
    cr_assert(next(&h, &ev, 10 * NS_PER_S) && ev.kind == TRANSPORT_DOWN);
    cr_assert(ev.link != good);
    cr_assert_eq(other.t->ops->send(l, "y", 1, NULL, 0, 0), ST_OK);
    cr_assert(next(&h, &ev, NS_PER_S) && ev.kind == TRANSPORT_FRAME && ev.link == good);
    close(silent);
    host_close(&other);
    host_close(&h);
}

/* A crowd at the door does not get past the bound, and does not keep it shut. */
Test(transport_shm, crowd, .timeout = 30)
{
    enum { N = 300 };
    struct host h, other;
    struct transport_event ev;
    struct transport_link *l;
    int fds[N], n = 0;
    host_open(&h);
    host_open(&other);
    for (; n < N; n++) {
        fds[n] = liar(&h);
        cr_assert_not(h.t->ops->poll(h.t, &ev));
    }
    for (int i = 0; i < N; i++)
        close(fds[i]);
    int downs = 0;
    while (next(&h, &ev, 100 * NS_PER_MS)) {
        cr_assert_eq(ev.kind, TRANSPORT_DOWN);
        downs++;
    }
    cr_assert(downs > 0 && downs <= 256, "%d", downs);
    connect_to(&other, &h, &l);
    other.t->ops->send(l, "x", 1, NULL, 0, 0);
    cr_assert(next(&h, &ev, NS_PER_S) && ev.kind == TRANSPORT_FRAME);
    host_close(&other);
    host_close(&h);
}
