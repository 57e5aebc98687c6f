/* What mixtures, of feed-forward blocks and of attention heads, have in common: which experts a
 * token goes to, and the products of all of them.
 *
 * The pairs (token, chosen expert) are sorted by expert, so that each expert that was chosen is
 * read once, and rows are made ready for gemms in that order, from where they lie. The products
 * are one list of work (kernels/gemm_share.h), cut while it is done (base/work.h). */
#include <string.h>

#include "kernels/expert_pairs.h"
#include "model/model_impl.h"

struct pair_list moe_route(const struct layer_run *l, const struct matrix *router, const float *x,
                           int32_t tokens)
{
    const struct model *m = l->r->m;
    const struct model_config *c = &m->config;
    const struct scratch *s = &m->scratch;
    run_gemm(
        l, (struct op_gemm){
               .out = s->router, .x = x, .w = router, .bias = l->w->router_bias, .tokens = tokens});
    run_meet(l->r);
    struct op_route a = {.expert = s->expert,
                         .weight = s->weight,
                         .logits = s->router,
                         .bias = l->w->choice_bias,
                         .score = c->moe.score,
                         .scale = c->moe.scale,
                         .tokens = tokens,
                         .experts = c->moe.experts,
                         .top_k = c->moe.top_k,
                         .groups = c->moe.groups,
                         .top_groups = c->moe.top_groups,
                         .normalize = c->moe.normalize};
    m->ops->route(&a, l->me.part, l->me.parts);
    run_meet(l->r);
    const struct expert_pairs pairs = {s->pair_of, s->pair_row, s->expert_end};
    if (l->me.part == 0)
        expert_pairs_sort(s->expert, tokens, c->moe.top_k, c->moe.experts, &pairs);
    run_meet(l->r);
    return (struct pair_list){tokens * c->moe.top_k, c->moe.experts, s->expert_end};
}

/* Experts that were chosen, one after the other, each with its pairs [begin, end); begun with
 * zeros. */
struct expert_rows {
    int32_t next, begin, end;
};

/* The matrix of the next one, NULL behind the last. */
static const struct matrix *next_matrix(const struct pair_list *p, const struct pair_product *of,
                                        struct expert_rows *r)
{
    for (; r->next < p->experts; r->next++) {
        r->begin = r->end;
        r->end = p->expert_end[r->next];
        if (r->end > r->begin)
            return (const struct matrix *)((const char *)of->w + (size_t)r->next++ * of->step);
    }
    return NULL;
}

static const int32_t *order_of(const struct matrix *w)
{
    return w->packed ? w->packed->order : NULL;
}

/* Whether both read the same rows of integers. */
static bool same_orders(const struct pair_list *p, const struct pair_product *a,
                        const struct pair_product *b)
{
    const struct matrix *x, *y;
    for (struct expert_rows i = {0}, j = {0}; (x = next_matrix(p, a, &i));) {
        y = next_matrix(p, b, &j);
        if (order_of(x) != order_of(y))
            return false;
    }
    return true;
}

/* What gemms by these products read, of all that were chosen. */
enum { READS_FLOATS = 1, READS_BF16 = 2, READS_BYTES = 4, READS_ORDERS = 8 };

static int reads_of(const struct pair_list *p, const struct pair_product *of, int n)
{
    const struct matrix *w;
    int reads = 0;
    for (int i = 0; i < n; i++)
        for (struct expert_rows r = {0}; (w = next_matrix(p, &of[i], &r));) {
            reads |= matrix_reads_bytes(w) ? READS_BYTES : w->rounds ? READS_BF16 : READS_FLOATS;
            reads |= order_of(w) ? READS_ORDERS : 0;
        }
    return reads;
}

static void quantize_pairs(const struct layer_run *l, const struct pair_list *p,
                           const struct pair_product *of, struct op_quantize a, bool orders)
{
    const struct matrix *w;
    const struct ops *ops = l->r->m->ops;
    const struct rows8 all = a.out;
    const float *x = a.x;
    const int32_t *row = a.row;
    if (!orders) {
        ops->quantize(&a, l->me.part, l->me.parts);
        return;
    }
    for (struct expert_rows r = {0}; (w = next_matrix(p, of, &r));) {
        a.out = rows8_from(&all, (size_t)r.begin);
        a.x = row ? x : x + (size_t)r.begin * (size_t)a.dim;
        a.row = row ? row + r.begin : NULL;
        a.tokens = r.end - r.begin;
        a.order = order_of(w);
        ops->quantize(&a, l->me.part, l->me.parts);
    }
}

/* run_ready() of the pairs' rows, in the order of the pairs; floats go to pair_in unless they are
 * in that order. */
static void ready_pairs(const struct layer_run *l, const struct pair_list *p, const float *x,
                        const int32_t *row, const struct pair_product *of, int n)
{
    const struct scratch *s = &l->r->m->scratch;
    const int reads = reads_of(p, of, n);
    const int32_t dim = of->w->cols;
    const size_t width = (size_t)dim;
    size_t begin, end;
    if (reads & READS_BYTES) {
        const struct op_quantize a = {
            .out = scratch_x8(s, dim), .x = x, .row = row, .tokens = p->pairs, .dim = dim};
        quantize_pairs(l, p, of, a, reads & READS_ORDERS);
    }
    if (reads & READS_BF16)
        l->r->m->ops->round(
            &(struct op_round){.out = s->x16, .x = x, .row = row, .tokens = p->pairs, .dim = dim},
            l->me.part, l->me.parts);
    if (row && (reads & READS_FLOATS)) {
        team_split((size_t)p->pairs, 1, l->me.part, l->me.parts, &begin, &end);
        for (size_t i = begin; i < end; i++)
            memcpy(s->pair_in + i * width, x + (size_t)row[i] * width, width * sizeof(float));
    }
    run_meet(l->r);
}

/* This member's part of one expert's product. */
static void run_product(const struct layer_run *l, struct gemm_share *share, struct op_gemm a,
                        int32_t first)
{
    const struct scratch *s = &l->r->m->scratch;
    const struct rows8 all = scratch_x8(s, a.w->cols), x8 = rows8_from(&all, (size_t)first);
    if (!gemm_share_take(share, &a))
        return;
    if (matrix_reads_bytes(a.w))
        a.x8 = &x8;
    if (a.w->rounds)
        a.x16 = s->x16 + (size_t)first * rows16_stride(a.w->cols);
    l->r->m->ops->gemm(&a, 0, 1);
}

/* All products of an expert, then those of the next: what of them is in this share. */
static void run_share(const struct layer_run *l, const struct pair_list *p, const float *x,
                      const struct pair_product *of, int n, struct gemm_share share)
{
    const struct matrix *w;
    for (struct expert_rows r = {0}, at; at = r, next_matrix(p, of, &r);)
        for (int i = 0; i < n; i++) {
            struct expert_rows same = at;
            w = next_matrix(p, &of[i], &same);
            const size_t expert = (size_t)same.next - 1, row = (size_t)same.begin;
            const char *bias = (const char *)of[i].bias;
            struct op_gemm a = {.out = of[i].out + row * (size_t)w->rows,
                                .x = x + row * (size_t)w->cols,
                                .w = w,
                                .tokens = same.end - same.begin};
            if (bias)
                memcpy(&a.bias, bias + expert * of[i].step, sizeof a.bias);
            run_product(l, &share, a, same.begin);
        }
}

static void run_products(const struct layer_run *l, const struct pair_list *p, const float *x,
                         const struct pair_product *of, int n)
{
    const struct matrix *w;
    uint64_t cost = 0, bytes = 0;
    for (int i = 0; i < n; i++)
        for (struct expert_rows r = {0}; (w = next_matrix(p, &of[i], &r));) {
            cost += gemm_cost(w, r.end - r.begin);
            bytes += gemm_weight_bytes(w);
        }
    if (l->me.part == 0)
        l->r->m->scratch.expert_bytes += bytes;
    struct work *work = l->r->m->work;
    const size_t pieces = gemm_share_pieces(cost, (size_t)l->me.parts);
    size_t begin, end;
    work_begin(work, l->me.part, pieces, 1);
    while (work_take(work, l->me.part, &begin, &end))
        run_share(l, p, x, of, n, gemm_share_of(cost, begin, end, pieces));
    run_meet(l->r);
}

void moe_gemm(const struct layer_run *l, const struct pair_list *p, const float *x,
              const int32_t *row, const struct pair_product *products, int n)
{
    for (int i = 0, count; i < n; i += count) {
        for (count = 1; i + count < n && same_orders(p, &products[i], &products[i + count]);)
            count++;
        ready_pairs(l, p, x, row, &products[i], count);
        run_products(l, p, row ? l->r->m->scratch.pair_in : x, &products[i], count);
    }
}
