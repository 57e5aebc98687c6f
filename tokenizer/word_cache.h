/* A bounded cache from a short word to its few ids, shared by all threads without a lock.
 *
 * Sets of two entries, a cache line each, guarded by a sequence counter: a reader that meets
 * a writer just misses, a writer that meets another just does not store. So a hit is always right,
 * and nothing ever waits.
 */
#ifndef TOKENIZER_WORD_CACHE_H
#define TOKENIZER_WORD_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORD_CACHE_KEY_MAX 23 /* bytes */
#define WORD_CACHE_IDS_MAX 8  /* each < 2^24 */

struct word_cache;

struct word_cache *word_cache_create(void); /* NULL: no memory */
void word_cache_destroy(struct word_cache *c);

/* The word in the form the cache compares. */
struct word_key {
    uint64_t w[3];
    uint64_t hash;
};
/* len 1..WORD_CACHE_KEY_MAX */
struct word_key word_key_make(const char *s, size_t len);

/* Number of ids copied to out[WORD_CACHE_IDS_MAX]; -1: not there. */
int word_cache_get(const struct word_cache *c, const struct word_key *key, int32_t *out);
/* n <= WORD_CACHE_IDS_MAX */
void word_cache_put(struct word_cache *c, const struct word_key *key, const int32_t *ids, size_t n);

#endif
