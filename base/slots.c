#include "base/slots.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct slots {
    size_t capacity, count, stride;
    uint32_t *generation; /* of the object that is there or comes next; never 0 */
    uint32_t *free_stack; /* the last freed is used first: it is warm in the cache */
    uint64_t *live;       /* a bit per slot */
    char *objects;
};

static size_t words(size_t capacity)
{
    return (capacity + 63) / 64;
}

struct slots *slots_create(size_t capacity, size_t object_bytes)
{
    assert(capacity > 0 && capacity < UINT32_MAX && object_bytes < SIZE_MAX / 2);
    struct slots *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->capacity = capacity;
    s->stride = (object_bytes + 15) / 16 * 16;
    s->generation = malloc(capacity * sizeof *s->generation);
    s->free_stack = malloc(capacity * sizeof *s->free_stack);
    s->live = calloc(words(capacity), sizeof *s->live);
    s->objects = calloc(capacity, s->stride ? s->stride : 16);
    if (!s->generation || !s->free_stack || !s->live || !s->objects) {
        slots_destroy(s);
        return NULL;
    }
    for (size_t i = 0; i < capacity; i++) {
        s->generation[i] = 1;
        s->free_stack[i] = (uint32_t)(capacity - 1 - i);
    }
    return s;
}

void slots_destroy(struct slots *s)
{
    if (s == NULL)
        return;
    free(s->generation);
    free(s->free_stack);
    free(s->live);
    free(s->objects);
    free(s);
}

static slot_id id_of(const struct slots *s, size_t slot)
{
    return (slot_id)s->generation[slot] << 32 | slot;
}

static bool is_live(const struct slots *s, slot_id id)
{
    size_t slot = (uint32_t)id;
    return slot < s->capacity && (s->live[slot / 64] >> slot % 64 & 1) != 0 &&
           s->generation[slot] == id >> 32;
}

void *slots_alloc(struct slots *s, slot_id *id)
{
    if (s->count == s->capacity)
        return NULL;
    size_t slot = s->free_stack[s->capacity - ++s->count];
    s->live[slot / 64] |= UINT64_C(1) << slot % 64;
    *id = id_of(s, slot);
    void *object = s->objects + slot * s->stride;
    memset(object, 0, s->stride);
    return object;
}

void *slots_get(struct slots *s, slot_id id)
{
    return is_live(s, id) ? s->objects + (uint32_t)id * s->stride : NULL;
}

void slots_free(struct slots *s, slot_id id)
{
    assert(is_live(s, id));
    size_t slot = (uint32_t)id;
    s->live[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    if (++s->generation[slot] == 0)
        s->generation[slot] = 1;
    s->free_stack[s->capacity - s->count--] = (uint32_t)slot;
}

size_t slots_count(const struct slots *s)
{
    return s->count;
}

size_t slots_capacity(const struct slots *s)
{
    return s->capacity;
}

slot_id slots_next(struct slots *s, slot_id after)
{
    size_t slot = after == 0 ? 0 : (size_t)(uint32_t)after + 1;
    while (slot < s->capacity) {
        uint64_t bits = s->live[slot / 64] >> slot % 64;
        if (bits != 0) {
            slot += (size_t)__builtin_ctzll(bits);
            return id_of(s, slot);
        }
        slot = (slot / 64 + 1) * 64;
    }
    return 0;
}
