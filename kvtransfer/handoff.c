#include "kvtransfer/handoff.h"

#include <assert.h>
#include <string.h>

/* ---- landing ---- */

static int32_t box_rows(const struct kv_slice *s)
{
    return (s->layer_end - s->layer_begin) * (s->head_end - s->head_begin);
}

static int32_t box_words(const struct kv_slice *s)
{
    return (s->token_end - s->token_begin + 63) / 64;
}

size_t landing_bytes(const struct kv_slice *need)
{
    return 2 * 8 * (size_t)box_rows(need) * (size_t)box_words(need);
}

enum row_op { ROW_COUNT_NEW, ROW_TAKE, ROW_GIVE_BACK, ROW_LAND };

static int32_t first_needed(const struct kv_groups *groups, int32_t layer, int32_t begin,
                            int32_t end)
{
    int32_t from = groups ? kv_groups_need_from(groups, groups->group_of[layer], end) : 0;
    return from > begin ? from : begin;
}

static int64_t box_apply(struct landing *l, const struct kv_slice *box, enum row_op op);

void landing_init(struct landing *l, const struct kv_slice *need, const struct kv_groups *groups,
                  void *memory)
{
    memset(l, 0, sizeof(*l));
    l->need = *need;
    l->groups = groups;
    l->words = box_words(need);
    l->landed = memory;
    l->taken = l->landed + (size_t)box_rows(need) * (size_t)l->words;
    memset(memory, 0, landing_bytes(need));
    l->missing = (int64_t)box_rows(need) * (need->token_end - need->token_begin);
    for (int32_t layer = need->layer_begin; layer < need->layer_end; layer++) {
        struct kv_slice none = *need;
        none.layer_begin = layer;
        none.layer_end = layer + 1;
        none.token_end = first_needed(groups, layer, need->token_begin, need->token_end);
        if (none.token_begin < none.token_end)
            l->missing -= box_apply(l, &none, ROW_LAND);
    }
}

/* Bits [begin, end) of word w, for a row whose bits are tokens relative to need.token_begin. */
static uint64_t word_mask(int32_t w, int32_t begin, int32_t end)
{
    int32_t lo = begin - w * 64, hi = end - w * 64;
    if (lo < 0)
        lo = 0;
    if (hi > 64)
        hi = 64;
    if (lo >= hi)
        return 0;
    uint64_t upto_hi = hi == 64 ? ~UINT64_C(0) : (UINT64_C(1) << hi) - 1;
    return upto_hi & ~((UINT64_C(1) << lo) - 1);
}

/* Applies `op` to every bit of `box` (within need); returns how many bits it concerned. */
static int64_t box_apply(struct landing *l, const struct kv_slice *box, enum row_op op)
{
    int32_t begin = box->token_begin - l->need.token_begin;
    int32_t end = box->token_end - l->need.token_begin;
    int32_t heads = l->need.head_end - l->need.head_begin;
    int64_t count = 0;
    for (int32_t layer = box->layer_begin; layer < box->layer_end; layer++) {
        for (int32_t head = box->head_begin; head < box->head_end; head++) {
            size_t row = ((size_t)(layer - l->need.layer_begin) * (size_t)heads +
                          (size_t)(head - l->need.head_begin)) *
                         (size_t)l->words;
            for (int32_t w = begin / 64; w <= (end - 1) / 64; w++) {
                uint64_t mask = word_mask(w, begin, end);
                uint64_t *landed = &l->landed[row + (size_t)w], *taken = &l->taken[row + (size_t)w];
                uint64_t fresh = mask & ~*landed;
                switch (op) {
                case ROW_COUNT_NEW:
                    count += __builtin_popcountll(fresh & ~*taken);
                    break;
                case ROW_TAKE:
                    *taken |= fresh;
                    break;
                case ROW_GIVE_BACK:
                    *taken &= ~mask;
                    break;
                case ROW_LAND:
                    count += __builtin_popcountll(fresh);
                    *landed |= mask;
                    *taken &= ~mask;
                    break;
                }
            }
        }
    }
    return count;
}

/* What any of the box's layers does not need has no memory to go to. A box of layers that need
 * unlike parts loses what only some of them do: it comes again, layer by layer, as missing. */
static bool clip_to_needed(const struct landing *l, struct kv_slice *box)
{
    for (int32_t layer = box->layer_begin; layer < box->layer_end; layer++)
        box->token_begin = first_needed(l->groups, layer, box->token_begin, l->need.token_end);
    return box->token_begin < box->token_end;
}

enum landing_verdict landing_offer(struct landing *l, const struct kv_slice *offered,
                                   struct kv_slice *take)
{
    /* Layers must be ours. Heads and tokens may lie outside: another rank's, or a prefix that we
     * have. */
    if (offered->layer_begin < l->need.layer_begin || offered->layer_end > l->need.layer_end)
        return LANDING_WRONG;
    if (!kv_slice_intersect(offered, &l->need, take) || !clip_to_needed(l, take) ||
        box_apply(l, take, ROW_COUNT_NEW) == 0)
        return LANDING_HAVE;
    box_apply(l, take, ROW_TAKE);
    l->in_flight++;
    return LANDING_TAKE;
}

void landing_settle(struct landing *l, const struct kv_slice *take, bool good)
{
    assert(l->in_flight > 0);
    l->in_flight--;
    if (!good) {
        box_apply(l, take, ROW_GIVE_BACK);
        return;
    }
    l->missing -= box_apply(l, take, ROW_LAND);
    assert(l->missing >= 0);
    if (l->missing == 0 && l->state == LANDING_FILLED)
        l->state = LANDING_COMPLETE;
}

bool landing_filled(struct landing *l, int32_t kv_tokens)
{
    if (kv_tokens < l->need.token_end)
        return false;
    l->answer = true;
    if (l->state == LANDING_OPEN)
        l->state = l->missing == 0 ? LANDING_COMPLETE : LANDING_FILLED;
    return true;
}

/* Adds a range to the answer, joining it with the one before where they make one box (same tokens,
 * next head or layer). */
static void missing_add(struct wire_missing *m, const struct kv_slice *r)
{
    if (m->n > 0) {
        struct kv_slice *p = &m->ranges[m->n - 1];
        bool same_tokens = p->token_begin == r->token_begin && p->token_end == r->token_end;
        bool same_layers = p->layer_begin == r->layer_begin && p->layer_end == r->layer_end;
        bool same_heads = p->head_begin == r->head_begin && p->head_end == r->head_end;
        if (same_tokens && same_layers && p->head_end == r->head_begin) {
            p->head_end = r->head_end;
            return;
        }
        if (same_tokens && same_heads && p->layer_end == r->layer_begin) {
            p->layer_end = r->layer_end;
            return;
        }
    }
    if (m->n < WIRE_RANGES_MAX) {
        m->ranges[m->n++] = *r;
        return;
    }
    /* Too scattered to list: the last range grows to hold the rest; what is there already will be
     * dropped. */
    struct kv_slice *p = &m->ranges[m->n - 1];
#define GROW(begin, end)                                                                           \
    do {                                                                                           \
        if (r->begin < p->begin)                                                                   \
            p->begin = r->begin;                                                                   \
        if (r->end > p->end)                                                                       \
            p->end = r->end;                                                                       \
    } while (0)
    GROW(layer_begin, layer_end);
    GROW(token_begin, token_end);
    GROW(head_begin, head_end);
#undef GROW
}

/* Lists the runs of missing tokens, a layer at a time; the heads of a layer that miss the same
 * become one range. */
static void missing_list(const struct landing *l, struct wire_missing *m)
{
    int32_t heads = l->need.head_end - l->need.head_begin;
    int32_t tokens = l->need.token_end - l->need.token_begin;
    m->n = 0;
    for (int32_t layer = 0; layer < l->need.layer_end - l->need.layer_begin; layer++) {
        struct wire_missing here = {.n = 0};
        for (int32_t head = 0; head < heads; head++) {
            const uint64_t *row = l->landed + (size_t)(layer * heads + head) * (size_t)l->words;
            for (int32_t t = 0; t < tokens;) {
                if (row[t / 64] >> (t % 64) & 1) {
                    t++;
                    continue;
                }
                int32_t end = t;
                while (end < tokens && !(row[end / 64] >> (end % 64) & 1))
                    end++;
                struct kv_slice r = {l->need.layer_begin + layer, l->need.layer_begin + layer + 1,
                                     l->need.token_begin + t,     l->need.token_begin + end,
                                     l->need.head_begin + head,   l->need.head_begin + head + 1};
                missing_add(&here, &r);
                t = end;
            }
        }
        for (uint32_t i = 0; i < here.n; i++)
            missing_add(m, &here.ranges[i]);
    }
}

enum landing_reply landing_reply(struct landing *l, struct wire_missing *missing)
{
    /* Once all is there, a pull that hangs on a dying link holds up nobody. */
    if (!l->answer || (l->in_flight > 0 && l->state != LANDING_COMPLETE))
        return LANDING_QUIET;
    l->answer = false;
    if (l->state == LANDING_COMPLETE)
        return LANDING_SAY_LANDED;
    missing_list(l, missing);
    return LANDING_SAY_MISSING;
}

/* ---- offering ---- */

size_t offering_bytes(int32_t layers)
{
    return 2 * sizeof(int32_t) * (size_t)layers;
}

void offering_init(struct offering *o, const struct offering_args *args, void *memory)
{
    memset(o, 0, sizeof(*o));
    o->layers = args->layers;
    o->head_begin = args->head_begin;
    o->head_end = args->head_end;
    o->begin = args->have;
    o->end = args->end;
    o->token_bytes = args->token_bytes;
    o->slice_bytes_max = args->slice_bytes_max;
    o->window = args->window;
    o->groups = args->groups;
    o->ready = memory;
    o->sent = o->ready + args->layers;
    for (int32_t i = 0; i < args->layers; i++) {
        o->ready[i] = 0;
        o->sent[i] = first_needed(o->groups, i, o->begin, o->end);
    }
}

void offering_ready(struct offering *o, int32_t layer, int32_t tokens)
{
    assert(layer >= 0 && layer < o->layers && tokens <= o->end);
    if (tokens > o->ready[layer])
        o->ready[layer] = tokens;
}

void offering_fill(struct offering *o)
{
    o->filled = true;
    for (int32_t i = 0; i < o->layers; i++)
        o->ready[i] = o->end;
}

/* A slice is of layers whose blocks are the same. */
static bool same_group(const struct offering *o, int32_t a, int32_t b)
{
    return !o->groups || o->groups->group_of[a] == o->groups->group_of[b];
}

/* The next box: the lowest layer that has something, joined with the layers above that have just
 * the same, up to the size of a slice; at least one token of one layer. */
static bool next_fresh(struct offering *o, struct kv_slice *s)
{
    for (int32_t i = 0; i < o->layers; i++) {
        if (o->sent[i] >= o->ready[i])
            continue;
        int64_t tokens_max = o->slice_bytes_max / o->token_bytes;
        int32_t begin = o->sent[i], end = o->ready[i];
        if (end - begin > tokens_max)
            end = begin + (int32_t)(tokens_max > 0 ? tokens_max : 1);
        int32_t last = i + 1;
        while (last < o->layers && same_group(o, i, last) && o->sent[last] == begin &&
               o->ready[last] >= end &&
               (int64_t)(last + 1 - i) * (end - begin) * o->token_bytes <= o->slice_bytes_max)
            last++;
        for (int32_t k = i; k < last; k++)
            o->sent[k] = end;
        *s = (struct kv_slice){i, last, begin, end, o->head_begin, o->head_end};
        return true;
    }
    return false;
}

/* Cuts a slice-sized piece off the last repair range. False: of this layer nothing is needed
 * there. */
static bool cut_repair(struct offering *o, struct kv_slice *s)
{
    struct kv_slice *r = &o->repair[o->n_repair - 1];
    int64_t tokens_max = o->slice_bytes_max / o->token_bytes;
    if (tokens_max < 1)
        tokens_max = 1;
    *s = *r;
    s->layer_end = s->layer_begin + 1;
    s->token_begin = first_needed(o->groups, s->layer_begin, s->token_begin, o->end);
    bool any = s->token_begin < s->token_end;
    if (s->token_end - s->token_begin > tokens_max)
        s->token_end = s->token_begin + (int32_t)tokens_max;
    if (s->token_end < r->token_end) {
        /* A piece of one layer: the rest of that layer, and the other layers, stay listed. */
        if (r->layer_end - r->layer_begin > 1) {
            /* There is room: only such a rest takes the last place, and a rest is one layer. */
            assert(o->n_repair <= WIRE_RANGES_MAX);
            struct kv_slice rest = *r;
            rest.layer_end = rest.layer_begin + 1;
            rest.token_begin = s->token_end;
            r->layer_begin++;
            o->repair[o->n_repair++] = rest;
        } else {
            r->token_begin = s->token_end;
        }
    } else {
        r->layer_begin++;
    }
    if (o->repair[o->n_repair - 1].layer_begin >= o->repair[o->n_repair - 1].layer_end)
        o->n_repair--;
    return any;
}

static bool next_repair(struct offering *o, struct kv_slice *s)
{
    while (o->n_repair > 0)
        if (cut_repair(o, s))
            return true;
    return false;
}

enum offering_act offering_next(struct offering *o, int64_t now_ns, struct kv_slice *slice)
{
    if (o->state == OFFERING_DONE || o->state == OFFERING_FAILED)
        return OFFERING_IDLE;
    if (o->in_flight < o->window && (next_fresh(o, slice) || next_repair(o, slice))) {
        o->in_flight++;
        o->state = OFFERING_STREAMING;
        return OFFERING_SLICE;
    }
    if (!o->filled || o->in_flight > 0)
        return OFFERING_IDLE;
    if (o->state == OFFERING_WAITING && now_ns - o->asked_ns < HANDOFF_ANSWER_NS)
        return OFFERING_IDLE;
    o->state = OFFERING_WAITING;
    o->asked_ns = now_ns;
    return OFFERING_SAY_FILLED;
}

void offering_quiet(struct offering *o)
{
    assert(o->in_flight > 0);
    o->in_flight--;
}

void offering_return(struct offering *o, const struct kv_slice *slice)
{
    if (o->n_repair < WIRE_RANGES_MAX) {
        o->repair[o->n_repair++] = *slice;
        return;
    }
    o->n_repair = 0;
    for (int32_t i = 0; i < o->layers; i++)
        o->sent[i] = first_needed(o->groups, i, o->begin, o->end);
}

void offering_landed(struct offering *o)
{
    if (o->filled && o->state != OFFERING_FAILED)
        o->state = OFFERING_DONE;
}

bool offering_missing(struct offering *o, const struct wire_missing *m)
{
    const struct kv_slice box = {0, o->layers, o->begin, o->end, o->head_begin, o->head_end};
    struct kv_slice any_heads = box;
    any_heads.head_begin = 0;
    any_heads.head_end = INT32_MAX;
    /* A repeated Filled may be answered twice: an answer to an earlier one, while we offer again,
     * is old news. */
    if (o->state != OFFERING_WAITING)
        return true;
    o->n_repair = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        struct kv_slice r;
        if (kv_slice_intersect(&m->ranges[i], &box, &r))
            o->repair[o->n_repair++] = r;
        else if (!kv_slice_intersect(&m->ranges[i], &any_heads, &r))
            return false;
    }
    if (o->n_repair == 0)
        return true;
    o->state = ++o->rounds > HANDOFF_ROUNDS_MAX ? OFFERING_FAILED : OFFERING_STREAMING;
    return true;
}

void offering_link_lost(struct offering *o)
{
    if (o->state == OFFERING_DONE || o->state == OFFERING_FAILED)
        return;
    if (o->link_lost_once) {
        o->state = OFFERING_FAILED;
        return;
    }
    o->link_lost_once = true;
    o->n_repair = 0;
    o->state = OFFERING_STREAMING;
    for (int32_t i = 0; i < o->layers; i++)
        o->sent[i] = first_needed(o->groups, i, o->begin, o->end);
}

static bool can_post(const struct offering *o)
{
    if (o->state == OFFERING_DONE || o->state == OFFERING_FAILED || o->in_flight >= o->window)
        return false;
    bool any = o->n_repair > 0;
    for (int32_t i = 0; i < o->layers && !any; i++)
        any = o->sent[i] < o->ready[i];
    return any;
}

int64_t offering_wake_ns(const struct offering *o)
{
    if (can_post(o))
        return 0;
    return o->state == OFFERING_WAITING ? o->asked_ns + HANDOFF_ANSWER_NS : NS_NEVER;
}
