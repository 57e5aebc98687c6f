/* The arena, the check before unpacking, and the small conversions that all codecs share. */
#include "proto/codec_pb.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Lists of ids and pairs are handed on as they lie in the message. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire's lists are little-endian");
_Static_assert(sizeof(struct msg_bias) == 8 && sizeof(struct msg_logprob) == 8, "wire pairs");

#define CODEC_DEPTH_MAX 8 /* our schemas nest four deep */

struct block { /* of the arena; user memory follows */
    struct block *next, **back;
    size_t bytes;
    size_t pad;
};

struct budget {
    struct codec_arena *arena;
    size_t left;
};

static void *budget_alloc(void *data, size_t bytes)
{
    struct budget *g = data;
    if (bytes > g->left - (g->left < sizeof(struct block) ? g->left : sizeof(struct block)))
        return NULL;
    struct block *b = malloc(sizeof *b + bytes);
    if (b == NULL)
        return NULL;
    struct block *first = g->arena->head;
    *b = (struct block){.next = first, .back = (struct block **)&g->arena->head, .bytes = bytes};
    if (first != NULL)
        first->back = &b->next;
    g->arena->head = b;
    g->left -= bytes + sizeof *b;
    return b + 1;
}

static void budget_free(void *data, void *p)
{
    struct budget *g = data;
    if (p == NULL)
        return;
    struct block *b = (struct block *)p - 1;
    *b->back = b->next;
    if (b->next != NULL)
        b->next->back = b->back;
    g->left += b->bytes + sizeof *b;
    free(b);
}

void codec_arena_fini(struct codec_arena *a)
{
    for (struct block *b = a->head, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    a->head = NULL;
}

void *codec_alloc(struct codec_arena *a, size_t n, size_t bytes)
{
    struct budget g = {.arena = a, .left = SIZE_MAX / 2};
    void *p = budget_alloc(&g, n * bytes + 1);
    if (p != NULL)
        memset(p, 0, n * bytes + 1);
    return p;
}

struct cursor {
    const uint8_t *p, *end;
};

static bool read_varint(struct cursor *c, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && c->p < c->end; shift += 7) {
        uint8_t byte = *c->p++;
        v |= (uint64_t)(byte & 0x7f) << (shift & 63);
        if ((byte & 0x80) == 0) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool check_string(const uint8_t *p, size_t len)
{
    return memchr(p, 0, len) == NULL && utf8_valid((const char *)p, len);
}

static bool check_message(const ProtobufCMessageDescriptor *type, struct cursor c, int depth)
{
    if (depth > CODEC_DEPTH_MAX)
        return false;
    while (c.p < c.end) {
        uint64_t key, len;
        if (!read_varint(&c, &key) || key >> 3 == 0 || key >> 3 >= (1 << 29))
            return false;
        switch (key & 7) {
        case 0:
            if (!read_varint(&c, &len))
                return false;
            continue;
        case 1:
        case 5:
            len = (key & 7) == 1 ? 8 : 4;
            break;
        case 2:
            if (!read_varint(&c, &len))
                return false;
            break;
        default: /* groups are of another age */
            return false;
        }
        if (len > (size_t)(c.end - c.p))
            return false;
        const ProtobufCFieldDescriptor *f =
            (key & 7) == 2 ? protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3))
                           : NULL;
        if (f != NULL && f->type == PROTOBUF_C_TYPE_STRING && !check_string(c.p, len))
            return false;
        if (f != NULL && f->type == PROTOBUF_C_TYPE_MESSAGE &&
            !check_message(f->descriptor, (struct cursor){c.p, c.p + len}, depth + 1))
            return false;
        c.p += len;
    }
    return true;
}

void *codec_parse(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
                  struct codec_arena *a)
{
    static const uint8_t nothing[1];
    if (len == 0)
        data = nothing;
    if (!check_message(type, (struct cursor){data, data + len}, 0))
        return NULL;
    size_t most = len < SIZE_MAX / 16 ? CODEC_ARENA_FLOOR + CODEC_ARENA_RATIO * len : 0;
    struct budget g = {.arena = a, .left = most};
    ProtobufCAllocator allocator = {
        .alloc = budget_alloc, .free = budget_free, .allocator_data = &g};
    return protobuf_c_message_unpack(type, &allocator, len, data);
}

void codec_pack(struct buf *out, const void *message)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    if (!buf_reserve(out, bytes))
        return;
    out->len += protobuf_c_message_pack(message, (uint8_t *)out->data + out->len);
    out->data[out->len] = '\0';
}

void **codec_submessages(struct buf *out, struct codec_arena *a, size_t n, size_t bytes)
{
    void **v = codec_alloc(a, n, sizeof *v);
    char *body = codec_alloc(a, n, bytes);
    if (v == NULL || body == NULL) {
        out->failed = true;
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        v[i] = body + i * bytes;
    return v;
}

bool codec_ids(ProtobufCBinaryData b, uint32_t max, struct msg_ids *out)
{
    if (b.len % 4 != 0 || b.len / 4 > max)
        return false;
    const int32_t *v = (const int32_t *)(const void *)b.data;
    int32_t any = 0;
    for (size_t i = 0; i < b.len / 4; i++)
        any |= v[i];
    *out = (struct msg_ids){.v = v, .n = (uint32_t)(b.len / 4)};
    return any >= 0;
}

ProtobufCBinaryData codec_ids_bytes(struct msg_ids ids)
{
    return (ProtobufCBinaryData){.len = (size_t)ids.n * 4, .data = (uint8_t *)(uintptr_t)ids.v};
}

bool codec_str(const char *s, size_t max, const char **out)
{
    *out = s != NULL ? s : "";
    return strnlen(*out, max + 1) <= max;
}

char *codec_pb_str(const char *s)
{
    return s != NULL ? (char *)(uintptr_t)s : (char *)(uintptr_t)protobuf_c_empty_string;
}
