/* Inside of the codecs: the parts that several internal messages share. Included by codec_*.c only.
 * Encoders fill protobuf-c structs whose pointers borrow from the plain ones; decoders check counts
 * and ranges. */
#ifndef PROTO_CODEC_PARTS_H
#define PROTO_CODEC_PARTS_H

#include "baton/v1/internal.pb-c.h"
#include "proto/codec_pb.h"

#define CODEC_TEXT_MAX 4096 /* names and reasons */

void codec_fill_sampling(Baton__V1__Sampling *p, const struct msg_sampling *s);
bool codec_read_sampling(const Baton__V1__Sampling *p, struct msg_sampling *s);
/* False (and out->failed) when memory is out. */
bool codec_fill_ranks(struct buf *out, struct codec_arena *a, const struct msg_rank_address *ranks,
                      uint32_t n, Baton__V1__RankAddress ***to);
bool codec_read_ranks(Baton__V1__RankAddress **ranks, size_t n, struct codec_arena *a,
                      const struct msg_rank_address **to);
bool codec_fill_tokens(struct buf *out, struct codec_arena *a, const struct msg_token *tokens,
                       uint32_t n, Baton__V1__Token ***to);
bool codec_read_tokens(Baton__V1__Token **tokens, size_t n, struct codec_arena *a,
                       const struct msg_token **to);
bool codec_fill_scores(struct buf *out, struct codec_arena *a, const struct msg_score *scores,
                       uint32_t n, Baton__V1__Score ***to);
/* Checks that positions are adjacent too. */
bool codec_read_scores(Baton__V1__Score **scores, size_t n, struct codec_arena *a,
                       const struct msg_score **to);
/* The message that is sent: NULL when nothing is wanted. */
Baton__V1__Scoring *codec_fill_scoring(Baton__V1__Scoring *p, const struct msg_scoring *s);
bool codec_read_scoring(const Baton__V1__Scoring *p, struct msg_scoring *s);
/* Absent parts read as zeros. */
void codec_read_ticket(const Baton__V1__Ticket *p, struct msg_ticket *t);
void codec_read_fingerprint(const Baton__V1__Fingerprint *p, uint64_t fingerprint[2]);
static inline bool codec_natural(int64_t v)
{
    return v >= 0;
}
#endif
