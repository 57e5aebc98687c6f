#include "kernels/kv_groups.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

struct kinds {
    int32_t n;
    int32_t window[KV_GROUPS_MAX], layers[KV_GROUPS_MAX];
};

static bool count_kind(struct kinds *k, int32_t window)
{
    int32_t i = 0;
    while (i < k->n && k->window[i] != window)
        i++;
    if (i == KV_GROUPS_MAX)
        return false;
    if (i == k->n) {
        k->window[i] = window;
        k->layers[i] = 0;
        k->n++;
    }
    k->layers[i]++;
    return true;
}

/* The kind that sees everything stands first, if it is there. */
static bool count_kinds(struct kinds *k, const int32_t *window, int32_t layers)
{
    k->n = 0;
    for (int32_t i = 0; i < layers; i++)
        if (window[i] == 0)
            count_kind(k, 0);
    for (int32_t i = 0; i < layers; i++)
        if (window[i] != 0 && !count_kind(k, window[i]))
            return false;
    return true;
}

static int32_t groups_of(const struct kinds *k, int32_t page_layers)
{
    int32_t n = 0;
    for (int32_t i = 0; i < k->n; i++)
        n += (k->layers[i] + page_layers - 1) / page_layers;
    return n;
}

/* Pages as large as the smallest kind, larger where the groups would be too many. */
static int32_t choose_page(const struct kinds *k)
{
    int32_t page_layers = k->layers[0];
    for (int32_t i = 1; i < k->n; i++)
        if (k->layers[i] < page_layers)
            page_layers = k->layers[i];
    while (groups_of(k, page_layers) > KV_GROUPS_MAX)
        page_layers++;
    return page_layers;
}

void kv_groups_make(const int32_t *window, int32_t layers, struct kv_groups *out)
{
    static const int32_t all_seen[KV_LAYERS_MAX];
    struct kinds k;
    assert(layers > 0 && layers <= KV_LAYERS_MAX);
    if (!count_kinds(&k, window, layers)) {
        window = all_seen;
        count_kinds(&k, window, layers);
    }
    memset(out, 0, sizeof *out);
    out->layers = layers;
    out->slack = KV_WINDOW_SLACK;
    out->page_layers = choose_page(&k);
    for (int32_t i = 0; i < k.n; i++) {
        int32_t place = out->page_layers;
        for (int32_t layer = 0; layer < layers; layer++) {
            if (window[layer] != k.window[i])
                continue;
            if (place == out->page_layers) {
                out->window[out->n++] = k.window[i];
                place = 0;
            }
            out->group_of[layer] = (uint8_t)(out->n - 1);
            out->place_of[layer] = (int16_t)place++;
        }
    }
}
