/* Free text up to and including the first of some markers: the states are how much of a marker has
 * just been written (Aho and Corasick, "Efficient string matching", 1975), so that a text costs one
 * look-up a byte and a vocabulary one walk for each of the few states that tokens end in. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/compile.h"

#define NODES_MAX 1024

enum meaning { PLAIN, ENDS, NEVER };

struct net {
    uint16_t (*next)[256]; /* 0 is the beginning */
    uint16_t *fail, *order;
    enum meaning *meaning;
    uint32_t *states; /* the builder's */
    uint32_t n;
};

static void net_fini(struct net *net)
{
    free(net->next);
    free(net->fail);
    free(net->order);
    free(net->meaning);
    free(net->states);
}

static bool net_init(struct net *net)
{
    net->next = calloc(NODES_MAX, sizeof *net->next);
    net->fail = calloc(NODES_MAX, sizeof *net->fail);
    net->order = calloc(NODES_MAX, sizeof *net->order);
    net->meaning = calloc(NODES_MAX, sizeof *net->meaning);
    net->states = calloc(NODES_MAX, sizeof *net->states);
    net->n = 1;
    return net->next && net->fail && net->order && net->meaning && net->states;
}

static void add_marker(struct builder *b, struct net *net, const json *marker, enum meaning meaning)
{
    const char *text = json_as_str(marker, "");
    size_t len = json_str_len(marker);
    uint32_t at = 0;
    if (len == 0 || len > NODES_MAX - net->n) {
        build_fail(b, len ? ST_UNSUPPORTED : ST_INVALID,
                   "a marker must be a string that is not empty, all of them at most %d bytes",
                   NODES_MAX);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        uint16_t *to = &net->next[at][(uint8_t)text[i]];
        if (*to == 0)
            *to = (uint16_t)net->n++;
        at = *to;
    }
    if (net->meaning[at] != ENDS)
        net->meaning[at] = meaning;
}

/* From a trie to an automaton: where a node has no child, the child of the longest ending of it
 * that is a node too. Nodes in the order of their depth. */
static void close_net(struct net *net)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < 256; i++)
        if (net->next[0][i])
            net->order[n++] = net->next[0][i];
    for (uint32_t i = 0; i < n; i++) {
        uint16_t at = net->order[i], fail = net->fail[at];
        if (net->meaning[at] == PLAIN)
            net->meaning[at] = net->meaning[fail];
        for (uint32_t c = 0; c < 256; c++) {
            uint16_t child = net->next[at][c];
            if (child) {
                net->fail[child] = net->next[fail][c];
                net->order[n++] = child;
            } else {
                net->next[at][c] = net->next[fail][c];
            }
        }
    }
}

/* No text has the byte of special tokens' names. */
static void put_node(struct builder *b, const struct net *net, uint32_t node, uint32_t to)
{
    for (uint32_t lo = 0; lo < GRAMMAR_SPECIAL_BYTE;) {
        uint16_t target = net->next[node][lo];
        uint32_t hi = lo;
        while (hi + 1 < GRAMMAR_SPECIAL_BYTE && net->next[node][hi + 1] == target)
            hi++;
        const struct ga_range bytes = {.lo = (uint8_t)lo, .hi = (uint8_t)hi};
        if (net->meaning[target] != NEVER)
            build_bytes(b, net->states[node], net->meaning[target] ? to : net->states[target],
                        bytes);
        lo = hi + 1;
    }
}

static void lay_out(struct builder *b, struct net *net, uint32_t from, uint32_t to)
{
    net->states[0] = from;
    for (uint32_t i = 1; i < net->n; i++)
        net->states[i] = net->meaning[i] == PLAIN ? build_state(b) : 0;
    for (uint32_t i = 0; i < net->n && b->status == ST_OK; i++)
        if (net->meaning[i] == PLAIN)
            put_node(b, net, i, to);
}

/* The markers as special tokens; from every state, as a token begins anew. */
static void put_specials(struct builder *b, const struct net *net, const json *ends, uint32_t to)
{
    uint32_t special = build_state(b);
    for (uint32_t i = 0; i < net->n; i++)
        if (net->meaning[i] == PLAIN)
            build_eps(b, net->states[i], special);
    for (size_t i = 0; i < json_count(ends); i++)
        build_eps(b, build_special(b, special, json_at(ends, i)), to);
}

uint32_t build_special(struct builder *b, uint32_t from, const json *name)
{
    from = build_byte(b, from, GRAMMAR_SPECIAL_BYTE);
    from = build_text(b, from, json_as_str(name, ""), json_str_len(name));
    return build_byte(b, from, GRAMMAR_SPECIAL_BYTE);
}

uint32_t build_until(struct builder *b, uint32_t from, const json *ends, const json *never)
{
    struct net net = {0};
    uint32_t to = build_state(b), begin = build_state(b);
    if (!net_init(&net))
        build_fail(b, ST_NO_MEMORY, "no memory for the markers");
    else if (json_count(ends) == 0)
        build_fail(b, ST_INVALID, "there must be a marker");
    for (size_t i = 0; i < json_count(ends) && b->status == ST_OK; i++)
        add_marker(b, &net, json_at(ends, i), ENDS);
    for (size_t i = 0; i < json_count(never) && b->status == ST_OK; i++)
        add_marker(b, &net, json_at(never, i), NEVER);
    build_eps(b, from, begin);
    if (b->status == ST_OK) {
        close_net(&net);
        lay_out(b, &net, begin, to);
        put_specials(b, &net, ends, to);
    }
    net_fini(&net);
    return to;
}
