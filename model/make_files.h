/* The small files of a made checkpoint, as text. Private to this folder. Owner: the caller's
 * buffers; pure. */
#ifndef MODEL_MAKE_FILES_H
#define MODEL_MAKE_FILES_H

#include "base/buf.h"
#include "model/config.h"

#define MAKE_BYTE_TOKENS 256
enum make_special {
    MAKE_BOS = MAKE_BYTE_TOKENS,
    MAKE_EOS,
    MAKE_IM_START,
    MAKE_IM_END,
    MAKE_TOKENS
};

/* Of the shape with that index (make_shapes.c). */
void make_config_json(size_t shape, enum dtype dtype, struct buf *out);
void make_generation_config_json(const struct model_config *c, struct buf *out);
void make_tokenizer_json(const struct model_config *c, struct buf *out);
void make_tokenizer_config_json(const struct model_config *c, struct buf *out);

#endif
