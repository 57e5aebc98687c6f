#include "tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>

void vocab_fini(struct vocab *v)
{
    free(v->text);
    free(v->entries);
    free(v->slots);
    free(v->by_id);
    *v = (struct vocab){0};
}

static uint64_t string_hash(const char *s, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ len;
    while (len >= 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        s += 8;
        len -= 8;
    }
    uint64_t w = 0;
    memcpy(&w, s, len);
    h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

/* Slot of the string, or the free one where it would go. */
static size_t slot_of(const struct vocab *v, const char *s, size_t len)
{
    size_t mask = v->n_slots - 1, i = string_hash(s, len) & mask;
    while (v->slots[i]) {
        const struct vocab_entry *e = &v->entries[v->slots[i] - 1];
        if (e->len == len && !memcmp(v->text + e->off, s, len))
            return i;
        i = (i + 1) & mask;
    }
    return i;
}

static bool grow_slots(struct vocab *v)
{
    if (v->n_slots && v->n * 2 < v->n_slots)
        return true;
    size_t n = v->n_slots ? v->n_slots * 2 : 1024;
    uint32_t *old = v->slots;
    uint32_t *slots = calloc(n, sizeof(*slots));
    if (!slots)
        return false;
    v->slots = slots;
    v->n_slots = n;
    for (size_t i = 0; i < v->n; i++) {
        const struct vocab_entry *e = &v->entries[i];
        v->slots[slot_of(v, v->text + e->off, e->len)] = (uint32_t)i + 1;
    }
    free(old);
    return true;
}

static bool grow(void **array, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return true;
    size_t n = *cap ? *cap : 256;
    while (n < want)
        n *= 2;
    void *p = realloc(*array, n * size);
    if (!p)
        return false;
    *array = p;
    *cap = n;
    return true;
}

static bool grow_ids(struct vocab *v, size_t end)
{
    if (end <= v->id_end)
        return true;
    if (!grow((void **)&v->by_id, &v->id_cap, end, sizeof(*v->by_id)))
        return false;
    memset(v->by_id + v->id_end, 0, (end - v->id_end) * sizeof(*v->by_id));
    v->id_end = end;
    return true;
}

enum status vocab_add(struct vocab *v, const char *s, size_t len, int64_t id, struct error *err)
{
    if (id < 0 || id >= VOCAB_ID_MAX)
        return err_set(err, ST_INVALID, "token id %lld is outside 0..%d", (long long)id,
                       VOCAB_ID_MAX - 1);
    if (v->n >= VOCAB_ENTRIES_MAX || len > UINT32_MAX - v->text_len - 1)
        return err_set(err, ST_INVALID, "vocabulary of more than %u entries", VOCAB_ENTRIES_MAX);
    if (!grow_slots(v))
        return err_set(err, ST_NO_MEMORY, "vocabulary: no memory");
    size_t slot = slot_of(v, s, len);
    if (v->slots[slot]) { /* a second id for the string: it reads back, the first one is written */
        if (!grow_ids(v, (size_t)id + 1))
            return err_set(err, ST_NO_MEMORY, "vocabulary: no memory");
        if (!v->by_id[id])
            v->by_id[id] = v->slots[slot];
        return ST_OK;
    }
    if (!grow((void **)&v->text, &v->text_cap, v->text_len + len + 1, 1) ||
        !grow((void **)&v->entries, &v->cap, v->n + 1, sizeof(*v->entries)) ||
        !grow_ids(v, (size_t)id + 1))
        return err_set(err, ST_NO_MEMORY, "vocabulary: no memory");
    memcpy(v->text + v->text_len, s, len);
    v->text[v->text_len + len] = 0;
    v->entries[v->n] = (struct vocab_entry){(uint32_t)v->text_len, (uint32_t)len, (int32_t)id};
    v->text_len += len + 1;
    v->n++;
    v->slots[slot] = (uint32_t)v->n;
    v->by_id[id] = (uint32_t)v->n;
    return ST_OK;
}

int32_t vocab_find(const struct vocab *v, const char *s, size_t len)
{
    if (!v->n_slots)
        return -1;
    uint32_t e = v->slots[slot_of(v, s, len)];
    return e ? v->entries[e - 1].id : -1;
}

const char *vocab_string(const struct vocab *v, int32_t id, size_t *len)
{
    if (id < 0 || (size_t)id >= v->id_end || !v->by_id[id])
        return NULL;
    const struct vocab_entry *e = &v->entries[v->by_id[id] - 1];
    if (len)
        *len = e->len;
    return v->text + e->off;
}
