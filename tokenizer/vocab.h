/* A vocabulary: strings with ids, both ways. Holes (ids without a string) and ids that two strings
 * share are legal; of two strings with one id the later one is what the id reads back as.
 *
 * Owner: the tokenizer. Filled at load, then immutable: any thread may read.
 */
#ifndef TOKENIZER_VOCAB_H
#define TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define VOCAB_ENTRIES_MAX (4u << 20)
#define VOCAB_ID_MAX (8 << 20) /* exclusive */

struct vocab_entry {
    uint32_t off, len; /* in text; NUL-terminated there */
    int32_t id;
};

struct vocab {
    char *text;
    size_t text_len, text_cap;
    struct vocab_entry *entries;
    size_t n, cap;
    uint32_t *slots; /* open addressing: entry + 1, 0 free */
    size_t n_slots;
    uint32_t *by_id; /* entry + 1, 0 a hole */
    size_t id_end, id_cap;
};

/* ST_INVALID: id out of range or too many entries; ST_NO_MEMORY. A string that is there keeps its
 * first id. */
enum status vocab_add(struct vocab *v, const char *s, size_t len, int64_t id, struct error *err);
void vocab_fini(struct vocab *v);

int32_t vocab_find(const struct vocab *v, const char *s, size_t len); /* -1: none */
/* NULL for a hole or out of range. */
const char *vocab_string(const struct vocab *v, int32_t id, size_t *len);

#endif
