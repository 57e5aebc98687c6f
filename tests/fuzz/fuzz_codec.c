/* link: baton_proto */
/* Any bytes through every decoder: the first byte chooses which; what decodes is encoded and
 * decoded again. */
#include <stdlib.h>

#include "proto/codec.h"
#include "proto/codec_builtin.h"

#define BYTES(b) (const uint8_t *)(b).data, (b).len

static void must(enum status st)
{
    if (st != ST_OK)
        abort(); /* what a decoder let through must survive its own encoder */
}

static void decode_request(const uint8_t *data, size_t len, struct codec_arena *a, struct buf *b)
{
    struct msg_start start;
    struct msg_decode_control control;
    bool is_start;
    if (codec_get_decode_request(data, len, a, &is_start, &start, &control) != ST_OK)
        return;
    if (is_start)
        codec_put_start(b, &start);
    else
        codec_put_control(b, &control);
    must(codec_get_decode_request(BYTES(*b), a, &is_start, &start, &control));
}

#define ROUND(name, type)                                                                          \
    static void name(const uint8_t *data, size_t len, struct codec_arena *a, struct buf *b)        \
    {                                                                                              \
        struct type m;                                                                             \
        if (codec_get_##name(data, len, a, &m) != ST_OK)                                           \
            return;                                                                                \
        codec_put_##name(b, &m);                                                                   \
        must(codec_get_##name(BYTES(*b), a, &m));                                                  \
    }
ROUND(decode_event, msg_decode_event)
ROUND(prefill, msg_prefill)
ROUND(prefill_event, msg_prefill_event)
ROUND(status, msg_status)
ROUND(generate, msg_generate)
ROUND(generate_event, msg_generate_event)

static void small_ones(const uint8_t *data, size_t len, struct codec_arena *a, struct buf *b)
{
    enum msg_admin_verb verb;
    enum codec_health health;
    struct codec_reflect reflect;
    struct codec_reflected reply = {.code = 5, .message = "not found"};
    const char *model, *text;
    bool add_special;
    codec_get_admin(data, len, &verb);
    codec_get_tokenize(data, len, a, &model, &text, &add_special);
    codec_get_health_request(data, len, a, &text);
    codec_get_health(data, len, &health);
    if (codec_get_reflect(data, len, a, &reflect) == ST_OK)
        codec_put_reflect(b, &reflect, &reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static void (*const targets[])(const uint8_t *, size_t, struct codec_arena *, struct buf *) = {
        decode_request, decode_event, prefill,        prefill_event,
        status,         generate,     generate_event, small_ones,
    };
    struct codec_arena a = {0};
    struct buf b = {0};
    if (len == 0)
        return 0;
    targets[data[0] % (sizeof targets / sizeof targets[0])](data + 1, len - 1, &a, &b);
    buf_fini(&b);
    codec_arena_fini(&a);
    return 0;
}
