/* What the two files of the shared memory transport share: a link, and the packets that it carries.
 * transport_shm.c tells how it works.
 *
 * Thread: the transport's owner.
 */
#ifndef KVTRANSFER_TRANSPORT_SHM_INTERNAL_H
#define KVTRANSFER_TRANSPORT_SHM_INTERNAL_H

#include "base/list.h"
#include "kvtransfer/transport.h"

#define PACKET_DATA_BYTES (48u << 10)

enum packet_kind { PACKET_HELLO = 0x42744831, PACKET_FRAME = 0x42744631 };

struct packet {
    uint32_t kind, total, offset, bytes; /* of the frame, where this piece begins, its length */
    uint8_t data[PACKET_DATA_BYTES];
};
#define PACKET_HEAD_BYTES offsetof(struct packet, data)

struct shm_event {
    struct list queue;
    enum transport_event_kind kind;
    struct shm_link *link;
    size_t frame_bytes;
    uint8_t *frame;
};

struct shm_link {
    struct transport_link base;
    struct shm_event down_event; /* part of the link, so that DOWN cannot get lost */
    struct list in_shm;
    int fd, pid_fd;
    bool heard, down, wants_out; /* the peer's hello is in; DOWN is queued */
    int64_t born_ns;
    struct kv_pool_view peer;
    size_t peer_bytes;
    struct list outbox;
    size_t outbox_bytes;
    uint8_t *inbox; /* a frame being put together */
    uint32_t inbox_total, inbox_have;
};

struct shm {
    struct transport base;
    struct transport_shm_args args;
    int epoll_fd, listen_fd, timer_fd, share_fd;
    char name[40];
    struct list links, events;
    int32_t n_links, n_unheard;
    struct shm_event *last; /* lent to the last poll's caller */
    struct packet packet;
};

/* transport_shm.c */
/* Closes the link, once; DOWN follows. */
void shm_link_down(struct shm *s, struct shm_link *l, const char *why);
bool shm_watch(struct shm *s, int op, int fd, uint32_t events, void *what);

/* transport_shm_hello.c */
/* Who is at the other end; false when it is not to be trusted. */
bool shm_identify(struct shm *s, struct shm_link *l);
void shm_greet(struct shm *s, struct shm_link *l);
/* Maps the peer's pool. `fd` stays the caller's; below 0: none came. */
void shm_take_hello(struct shm *s, struct shm_link *l, const struct packet *p, int fd);
/* A link waits for its hello; it has come, or the link has gone. */
void shm_hello_awaited(struct shm *s);
void shm_hello_settled(struct shm *s);
/* The timer has rung: links that have waited too long go down. */
void shm_check_hellos(struct shm *s);

#endif
