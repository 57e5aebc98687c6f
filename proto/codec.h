/* Plain structs to protobuf bytes and back; protobuf-c is confined to codec_*.c. Encoders append to
 * *out and fail only when memory is out (out->failed). Decoders give ST_PROTOCOL for malformed or
 * over-limit input; on success the message's pointers live in *arena until codec_arena_fini().
 * Pure; any thread.
 */
#ifndef PROTO_CODEC_H
#define PROTO_CODEC_H

#include "base/buf.h"
#include "proto/messages.h"

struct codec_arena { /* zero-initialise; one per decoded message, reusable after codec_arena_fini()
                      */
    void *head;
};
void codec_arena_fini(struct codec_arena *a);

/* Decode.Start: the client's stream is a sequence of {start | control} */
void codec_put_start(struct buf *out, const struct msg_start *m);
void codec_put_control(struct buf *out, const struct msg_decode_control *m);
enum status codec_get_decode_request(const uint8_t *data, size_t len, struct codec_arena *a,
                                     bool *is_start, struct msg_start *start,
                                     struct msg_decode_control *control);
void codec_put_decode_event(struct buf *out, const struct msg_decode_event *m);
enum status codec_get_decode_event(const uint8_t *data, size_t len, struct codec_arena *a,
                                   struct msg_decode_event *m);

void codec_put_prefill(struct buf *out, const struct msg_prefill *m);
enum status codec_get_prefill(const uint8_t *data, size_t len, struct codec_arena *a,
                              struct msg_prefill *m);
void codec_put_prefill_event(struct buf *out, const struct msg_prefill_event *m);
enum status codec_get_prefill_event(const uint8_t *data, size_t len, struct codec_arena *a,
                                    struct msg_prefill_event *m);

void codec_put_admin(struct buf *out, enum msg_admin_verb verb);
enum status codec_get_admin(const uint8_t *data, size_t len, enum msg_admin_verb *verb);
void codec_put_status(struct buf *out, const struct msg_status *m);
enum status codec_get_status(const uint8_t *data, size_t len, struct codec_arena *a,
                             struct msg_status *m);

void codec_put_generate(struct buf *out, const struct msg_generate *m);
enum status codec_get_generate(const uint8_t *data, size_t len, struct codec_arena *a,
                               struct msg_generate *m);
void codec_put_generate_event(struct buf *out, const struct msg_generate_event *m);
enum status codec_get_generate_event(const uint8_t *data, size_t len, struct codec_arena *a,
                                     struct msg_generate_event *m);
/* baton.v1.Inference Tokenize {model, text, add_special} -> {ids}; Models {} -> {names,
 * max_context} */
enum status codec_get_tokenize(const uint8_t *data, size_t len, struct codec_arena *a,
                               const char **model, const char **text, bool *add_special);
void codec_put_tokenized(struct buf *out, const struct msg_ids *ids);
void codec_put_models(struct buf *out, const char *const *names, size_t n, int32_t max_context);

#endif
