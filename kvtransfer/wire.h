/* Handoff frames: what travels between the ranks of a prefill and a decode node.
 *
 *     u32 magic "BTN1" | u16 version | u16 kind | u32 body bytes | u32 reserved | u64 ticket[2] |
 * body
 *
 * All little-endian. No frame carries an address or a key: an offer names tokens, layers and heads
 * (LAW 3); where they land is the receiver's business. An offer either is followed by its data (the
 * transport's payload) or, when the receiver maps the sender's pool, names the sender's blocks.
 * Decoding checks every length, count and range; what it accepts is bounded but not yet meaningful.
 * Pure; any thread.
 *
 * The data of a slice, and what its CRC32C covers, is canonical whatever the pools look like:
 *     for layer: for part in {K, V}: for head: for token: a vector of `dtype` (kv_vector.h)
 */
#ifndef KVTRANSFER_WIRE_H
#define KVTRANSFER_WIRE_H

#include "base/buf.h"
#include "kernels/kv_vector.h"
#include "proto/messages.h"

#define WIRE_MAGIC 0x314e5442u /* "BTN1" */
#define WIRE_VERSION 2
#define WIRE_HEADER_BYTES 32
#define WIRE_FRAME_MAX (4u << 20)
#define WIRE_BLOCKS_MAX 65536
#define WIRE_RANGES_MAX 64

enum wire_kind { WIRE_OFFER = 1, WIRE_FILLED, WIRE_LANDED, WIRE_MISSING };

/* A box of KV: layers x tokens x heads (kv heads of the whole model), half-open. */
struct kv_slice {
    int32_t layer_begin, layer_end;
    int32_t token_begin, token_end;
    int32_t head_begin, head_end;
};

struct wire_offer {
    struct kv_slice slice;
    enum dtype dtype;
    int32_t head_dim, value_dim; /* elements of a key and of a value */
    uint32_t crc;
    uint64_t bytes;
    /* When the receiver reads the sender's mapped pool: the sender's blocks that hold the tokens,
     * the first one holding token_begin at slot token_begin % block_tokens. n_blocks 0: the data
     * follows as payload. */
    int32_t block_tokens;
    uint32_t n_blocks;
    const int32_t *blocks;
};

struct wire_filled {
    int32_t kv_tokens; /* KV covers positions [0, kv_tokens) */
    const struct msg_token *first;
    uint32_t n_first;
};

struct wire_missing {
    struct kv_slice ranges[WIRE_RANGES_MAX];
    uint32_t n;
};

struct wire_frame {
    enum wire_kind kind;
    struct msg_ticket ticket;
    struct wire_offer offer;
    struct wire_filled filled;
    struct wire_missing missing;
    void *owned; /* arrays of offer and filled; freed by wire_frame_fini() */
};

/* Bytes of the slice that an offer says, by its dimensions and dtype. */
size_t wire_slice_bytes(const struct wire_offer *m);
void wire_put_offer(struct buf *out, struct msg_ticket t, const struct wire_offer *m);
void wire_put_filled(struct buf *out, struct msg_ticket t, const struct wire_filled *m);
void wire_put_landed(struct buf *out, struct msg_ticket t);
void wire_put_missing(struct buf *out, struct msg_ticket t, const struct wire_missing *m);
/* ST_PROTOCOL: not a frame of ours; ST_INCOMPATIBLE: another version; ST_NO_MEMORY. */
enum status wire_get(const void *data, size_t len, struct wire_frame *out);
void wire_frame_fini(struct wire_frame *f);
/* A copy of tokens with their alternatives in one allocation, to be freed; NULL: no memory. */
void *wire_copy_tokens(const struct msg_token *tokens, uint32_t n, const struct msg_token **out);

#endif
