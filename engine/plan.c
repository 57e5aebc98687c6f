#include "engine/plan.h"

#include <assert.h>

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t seat_decodes(struct plan_item *items, int32_t n, int32_t decodes, int32_t seats,
                            int32_t rotate)
{
    int32_t start = decodes > seats ? rotate % decodes : 0, nth = 0, seated = 0;
    for (int pass = 0; pass < 2; pass++) {
        nth = 0;
        for (int32_t i = 0; i < n && seated < seats; i++) {
            if (!items[i].decode)
                continue;
            bool mine = pass == 0 ? nth >= start : nth < start;
            nth++;
            if (mine) {
                items[i].bring = 1;
                seated++;
            }
        }
    }
    return seated;
}

struct share {
    struct plan_item *items;
    int32_t n, seats, tokens; /* left */
};

static void give(struct share *s, struct plan_item *item, int32_t tokens)
{
    tokens = min32(tokens, min32(s->tokens, item->need - item->bring));
    if (tokens <= 0 || (item->bring == 0 && s->seats == 0))
        return;
    if (item->bring == 0)
        s->seats--;
    item->bring += tokens;
    s->tokens -= tokens;
}

static struct plan_item *least_to_do(const struct share *s)
{
    struct plan_item *best = 0;
    for (int32_t i = 0; i < s->n; i++) {
        struct plan_item *item = &s->items[i];
        if (!item->decode && item->bring == 0 && (!best || item->need < best->need))
            best = item;
    }
    return best;
}

static int32_t share_chunk(struct share *s)
{
    int32_t before = s->tokens;
    struct plan_item *oldest = 0;
    for (int32_t i = 0; i < s->n && !oldest; i++)
        if (!s->items[i].decode)
            oldest = &s->items[i];
    if (!oldest)
        return 0;
    give(s, oldest, (s->tokens + 1) / 2);
    while (s->tokens > 0 && s->seats > 0) {
        struct plan_item *item = least_to_do(s);
        if (!item)
            break;
        give(s, item, item->need);
    }
    give(s, oldest, s->tokens);
    for (int32_t i = 0; i < s->n && s->tokens > 0; i++)
        if (!s->items[i].decode && s->items[i].bring > 0)
            give(s, &s->items[i], s->tokens);
    return before - s->tokens;
}

void plan_batch(struct plan_item *items, int32_t n, const struct plan_budget *budget,
                struct plan_result *out)
{
    assert(budget->max_sequences >= 1 && budget->chunk_tokens >= 1);
    int32_t decodes = 0;
    for (int32_t i = 0; i < n; i++) {
        assert(items[i].need >= 1);
        items[i].bring = 0;
        decodes += items[i].decode;
    }
    bool prefill_waits = decodes < n;
    int32_t seats = budget->max_sequences;
    /* With one seat only, the two kinds take turns. */
    if (prefill_waits && (seats > 1 || decodes == 0 || budget->rotate % 2 != 0))
        seats--;
    bool alternate = prefill_waits && decodes > 0 && budget->max_sequences == 1;
    *out = (struct plan_result){.rotate = budget->rotate};
    out->decode_tokens =
        seat_decodes(items, n, decodes, seats, alternate ? budget->rotate / 2 : budget->rotate);
    if (out->decode_tokens < decodes)
        out->rotate = (int32_t)(((int64_t)budget->rotate + (seats > 0 ? seats : 1)) % INT32_MAX);
    struct share s = {.items = items,
                      .n = n,
                      .seats = budget->max_sequences - out->decode_tokens,
                      .tokens = budget->chunk_tokens};
    out->prefill_tokens = share_chunk(&s);
    for (int32_t i = 0; i < n; i++)
        out->sequences += items[i].bring > 0;
    if (alternate)
        out->rotate = (budget->rotate + 1) % INT32_MAX;
}

int32_t plan_chunk_tokens(const struct plan_cost *cost, int64_t budget_ns, int32_t max,
                          bool decoding)
{
    if (cost->prefill_ns_per_token <= 0) /* unknown: a short one measures it */
        return min32(max, 4 * PLAN_CHUNK_MIN);
    int64_t left = budget_ns - (decoding ? cost->decode_ns_per_step : 0);
    int64_t tokens = left / cost->prefill_ns_per_token;
    if (tokens < PLAN_CHUNK_MIN)
        tokens = PLAN_CHUNK_MIN;
    return tokens < max ? (int32_t)tokens : max;
}

static void smooth(int64_t *value, int64_t sample)
{
    if (sample < 1)
        sample = 1;
    *value = *value == 0 ? sample : *value + (sample - *value) / 8;
    if (*value < 1)
        *value = 1;
}

void plan_measure(struct plan_cost *cost, int32_t prefill_tokens, int32_t decode_tokens, int64_t ns)
{
    if (ns < 0)
        return;
    if (prefill_tokens > 0) {
        /* What decodes cost may have been measured when there were many more of them: a step that
         * did both bounds it, and is not all theirs. */
        int64_t decode = decode_tokens > 0 ? cost->decode_ns_per_step : 0;
        if (decode > ns)
            smooth(&cost->decode_ns_per_step, ns);
        if (decode > ns / 2)
            decode = ns / 2;
        smooth(&cost->prefill_ns_per_token, (ns - decode) / prefill_tokens);
    } else if (decode_tokens > 0) {
        smooth(&cost->decode_ns_per_step, ns);
    }
}
