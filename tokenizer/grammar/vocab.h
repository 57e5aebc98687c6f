/* The token trie, in preorder: a node is followed by its children; `skip` is the index behind its
 * whole subtree. Only this folder's files include it. */
#ifndef TOKENIZER_GRAMMAR_VOCAB_H
#define TOKENIZER_GRAMMAR_VOCAB_H

#include "tokenizer/grammar/grammar.h"

#define VOCAB_TOKEN_BYTES_MAX 1024 /* longer tokens are never allowed */

struct vocab_node {
    uint32_t skip;
    int32_t token;    /* -1: none ends here; more tokens of the same bytes are siblings */
    uint16_t depth;   /* of its byte: 1 below the root */
    uint16_t deepest; /* of its tokens and those below: the length of the longest */
    uint8_t byte;
};

struct grammar_vocab {
    struct vocab_node *nodes;
    uint32_t n_nodes;
    int32_t size;
    uint32_t depth_max;
    bool spelled[256]; /* bytes that some token has */
    char *bytes;       /* of all tokens */
    uint32_t *offsets; /* [size + 1]; an empty token stands for no text */
};

#endif
