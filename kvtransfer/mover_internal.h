/* What the files of the mover share. Not for others. */
#ifndef KVTRANSFER_MOVER_INTERNAL_H
#define KVTRANSFER_MOVER_INTERNAL_H

#include "kvtransfer/mover.h"

#define MOVER_LINKS_MAX 256
#define MOVER_WAITING_MAX 1024
#define MOVER_NONE UINT64_MAX

/* A connection that we made, found again by its address. link NULL: slot free. */
struct mover_link {
    struct transport_link *link;
    struct transport *transport;
    uint8_t *address;
    size_t address_bytes;
    int64_t used_ns; /* last time an offering chose it: the oldest idle one makes room */
    bool closing;    /* to make room: not to be chosen any more */
};

/* A staging buffer and what it is taken for. */
enum staging_use { STAGING_FREE, STAGING_SEND, STAGING_PULL };
struct staging {
    enum staging_use use;
    uint8_t *memory;
    uint64_t user; /* of the plan or the sending; its generation guards against reuse */
    uint32_t generation;
    struct transport_link *link; /* PULL: it cannot go down before the pull is over */
    int32_t rank;                /* SEND */
    int32_t way;                 /* index of the transport */
    struct kv_slice slice, take; /* as offered; PULL: the part to land */
    uint32_t crc;
    enum dtype dtype;
    size_t bytes;
};

/* An offer that is to be taken and waits for staging. */
struct waiting {
    struct transport *transport;
    struct transport_incoming *incoming;
    struct staging as; /* all but the memory */
};

struct plan {
    bool used, reported, quiet_due;
    uint32_t generation;
    uint64_t user;
    struct msg_ticket ticket;
    struct landing landing;
    void *landing_memory;
    int32_t *blocks;
    int32_t n_blocks;
    struct transport_link *reply[MSG_RANKS_MAX]; /* who said Filled and has no answer yet */
    int32_t n_reply;
    void *first_memory;
    const struct msg_token *first;
    uint32_t n_first;
};

struct rank_send {
    struct offering offering;
    void *offering_memory;
    struct msg_rank_address address; /* strings and bytes owned */
    struct mover_link *link;
};

struct sending {
    bool used, reported, quiet_due, failed;
    enum status failure;
    uint32_t generation;
    uint64_t user;
    struct msg_ticket ticket;
    int32_t *blocks;
    int32_t n_blocks, token_end;
    struct rank_send *ranks;
    int32_t n_ranks;
    void *first_memory;
    const struct msg_token *first;
    uint32_t n_first;
    int64_t deadline_ns, offered_ns, filled_ns, landed_ns; /* 0: not yet */
};

struct mover {
    struct mover_args args;
    struct mover_link links[MOVER_LINKS_MAX];
    struct staging *staging;
    uint8_t *staging_memory;
    uint8_t *mapped; /* where slices out of a mapped pool are checked: never waits for a peer */
    struct waiting *waiting;
    int32_t n_waiting;
    struct plan *plans;
    struct sending *sendings;
    struct mover_stats stats;
    struct buf address[MOVER_TRANSPORTS_MAX];
    struct buf frame;  /* scratch */
    int32_t next_send; /* round robin */
    bool news;         /* something may have become reportable since mover_next() found nothing */
    int64_t now_ns;
    uint32_t generation;
    struct metric *m_in[MOVER_TRANSPORTS_MAX], *m_out[MOVER_TRANSPORTS_MAX];
};

int32_t mover_transport_index(const struct mover *m, const struct transport *t);
/* Bytes that did cross. */
void mover_count_in(struct mover *m, int32_t way, size_t bytes);
void mover_count_out(struct mover *m, int32_t way, size_t bytes);
/* Blocks of all groups, one group's behind the other's; NULL: no memory. */
int32_t *mover_copy_blocks(const struct mover *m, const int32_t *blocks, int32_t n_blocks,
                           int32_t stride);
struct staging *mover_staging_take(struct mover *m, enum staging_use use);
void mover_staging_free(struct mover *m, struct staging *s);

/* mover_recv.c */
void mover_on_offer(struct mover *m, const struct transport_event *ev, const struct wire_frame *f);
void mover_on_filled(struct mover *m, const struct transport_event *ev, const struct wire_frame *f);
void mover_on_pulled(struct mover *m, const struct transport_event *ev);
bool mover_recv_work(struct mover *m);
void mover_recv_link_down(struct mover *m, struct transport_link *link);
void mover_plan_fini(struct plan *p);

/* mover_send.c */
void mover_on_answer(struct mover *m, const struct transport_event *ev, const struct wire_frame *f);
void mover_on_sent(struct mover *m, const struct transport_event *ev);
bool mover_send_work(struct mover *m);
void mover_send_link_down(struct mover *m, struct mover_link *link);
void mover_sending_fini(struct sending *s);

/* mover.c */
/* ST_OK: *out; ST_PENDING: no slot yet, try again; ST_LINK: cannot be reached. */
enum status mover_link_to(struct mover *m, const struct msg_rank_address *a,
                          struct mover_link **out);

#endif
