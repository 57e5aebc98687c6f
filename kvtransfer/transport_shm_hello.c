/* How a link over shared memory begins: who is at the other end, the hello each way, and the time
 * that a peer has for its own. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "kvtransfer/transport_shm_internal.h"

#define SHM_VERSION 3 /* of the hello, and of where a pool has what (kv_layout.h) */
#define HELLO_NS (5 * NS_PER_S)

struct hello {
    uint32_t version, dtype;
    int32_t layers, kv_heads, head_dim, value_dim, block_tokens, blocks, head_base;
    uint64_t pool_bytes;
};

/* Whom shm_identify() would let in, who can find an abstract socket, and who knows where a pool has
 * what: the same user, of the same network namespace, of the same boot and version. */
const char *transport_shm_host(void)
{
    static char host[160];
    if (host[0])
        return host;
    char boot[64] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f) {
        if (!fgets(boot, sizeof(boot), f))
            boot[0] = '\0';
        fclose(f);
    }
    boot[strcspn(boot, "\n")] = '\0';
    struct stat net, user;
    if (boot[0] && stat("/proc/self/ns/net", &net) == 0 && stat("/proc/self/ns/user", &user) == 0)
        snprintf(host, sizeof(host), "%s/%llu/%llu/%u/%d", boot, (unsigned long long)net.st_ino,
                 (unsigned long long)user.st_ino, (unsigned)geteuid(), SHM_VERSION);
    else /* no telling: then nobody is */
        snprintf(host, sizeof(host), "unknown/%016llx", (unsigned long long)rng_entropy());
    return host;
}

/* ---- time ---- */

static void set_timer(struct shm *s)
{
    /* Ticks only while somebody has connected and not said hello. */
    struct itimerspec t = {0};
    if (s->n_unheard > 0)
        t.it_value.tv_sec = t.it_interval.tv_sec = 1;
    timerfd_settime(s->timer_fd, 0, &t, NULL);
}

void shm_hello_awaited(struct shm *s)
{
    s->n_unheard++;
    set_timer(s);
}

void shm_hello_settled(struct shm *s)
{
    s->n_unheard--;
    set_timer(s);
}

void shm_check_hellos(struct shm *s)
{
    uint64_t ticks;
    ssize_t got = read(s->timer_fd, &ticks, sizeof(ticks));
    int64_t now = clock_now_ns();
    (void)got;
    list_for_each_safe(it, next, &s->links)
    {
        struct shm_link *l = list_entry(it, struct shm_link, in_shm);
        if (!l->down && !l->heard && now - l->born_ns > HELLO_NS)
            shm_link_down(s, l, "no hello");
    }
}

/* ---- the peer ---- */

bool shm_identify(struct shm *s, struct shm_link *l)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    if (getsockopt(l->fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.uid != geteuid())
        return false;
    l->pid_fd = (int)syscall(SYS_pidfd_open, who.pid, 0);
    /* Without a pidfd (another pid namespace) the socket alone tells of its death. */
    if (l->pid_fd >= 0)
        shm_watch(s, EPOLL_CTL_ADD, l->pid_fd, EPOLLIN, l);
    return true;
}

void shm_greet(struct shm *s, struct shm_link *l)
{
    const struct kv_layout *k = &s->args.pool.layout;
    struct hello h = {.version = SHM_VERSION,
                      .dtype = (uint32_t)k->dtype,
                      .layers = k->layers,
                      .kv_heads = k->kv_heads,
                      .head_dim = k->head_dim,
                      .value_dim = k->value_dim,
                      .block_tokens = k->block_tokens,
                      .blocks = k->blocks,
                      .head_base = s->args.pool.head_base,
                      .pool_bytes = kv_pool_bytes(k)};
    struct packet *p = &s->packet;
    *p = (struct packet){.kind = PACKET_HELLO, .total = sizeof(h), .bytes = sizeof(h)};
    memcpy(p->data, &h, sizeof(h));
    struct iovec io = {.iov_base = p, .iov_len = PACKET_HEAD_BYTES + sizeof(h)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &s->share_fd, sizeof(int));
    /* The first packet of a fresh socket always fits its buffer. */
    if (sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        shm_link_down(s, l, "hello not sent");
}

static bool hello_sane(const struct shm *s, const struct hello *h, struct kv_layout *k)
{
    if (h->version != SHM_VERSION || h->dtype >= DTYPE_KV_COUNT || h->layers < 1 ||
        h->layers > 4096 || h->kv_heads < 1 || h->kv_heads > 65536 || h->head_dim < 1 ||
        h->head_dim > 65536 || h->value_dim < 0 || h->value_dim > 65536 || h->block_tokens < 1 ||
        h->block_tokens > 65536 || h->blocks < 1 || h->head_base < 0 || h->head_base > 65536)
        return false;
    *k = (struct kv_layout){.layers = h->layers,
                            .kv_heads = h->kv_heads,
                            .head_dim = h->head_dim,
                            .value_dim = h->value_dim,
                            .block_tokens = h->block_tokens,
                            .blocks = h->blocks,
                            .dtype = (enum dtype)h->dtype};
    /* The groups follow from the model. Of another model nothing will ever be read. */
    if (k->layers == s->args.pool.layout.layers)
        k->groups = s->args.pool.layout.groups;
    /* In floating point first: the product of hostile sizes must not wrap. */
    double bytes =
        1.0 * k->layers * (double)kv_token_bytes(k) * k->block_tokens * (double)k->blocks;
    return bytes < 1e15 && kv_pool_bytes(k) == h->pool_bytes;
}

void shm_take_hello(struct shm *s, struct shm_link *l, const struct packet *p, int fd)
{
    struct hello h;
    struct kv_layout k;
    struct stat st;
    if (p->bytes != sizeof(h) || l->heard || fd < 0) {
        shm_link_down(s, l, "a bad hello");
        return;
    }
    memcpy(&h, p->data, sizeof(h));
    int seals = fcntl(fd, F_GET_SEALS);
    if (!hello_sane(s, &h, &k) || fstat(fd, &st) != 0 || (uint64_t)st.st_size < h.pool_bytes ||
        seals < 0 || !(seals & F_SEAL_SHRINK)) {
        shm_link_down(s, l, "a pool that cannot be mapped");
        return;
    }
    void *base = mmap(NULL, h.pool_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        shm_link_down(s, l, "mmap");
        return;
    }
    l->peer = (struct kv_pool_view){.base = base, .layout = k, .head_base = h.head_base};
    l->peer_bytes = h.pool_bytes;
    l->heard = true;
    shm_hello_settled(s);
}
