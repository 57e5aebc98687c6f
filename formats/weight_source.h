/* The weights of a model, whatever holds them: a Hugging Face folder (plain or quantized
 * safetensors) or a GGUF file. Each weight has a name, a shape and rows of floats.
 *
 * Names are those of the checkpoint: for a HF folder the names of the float model
 * ("model.layers.0.mlp.up_proj.weight", however its parts are stored: qweight and scales, _blocks
 * and _scales, weight_packed ...), for GGUF its own ("blk.0.ffn_up.weight"). Rows are outputs and
 * columns inputs, as nn.Linear has them; so gpt-oss's MXFP4 experts come as [experts, outputs,
 * inputs], although its float form is stored the other way round.
 *
 * A weight in F32, F16 or BF16 can be used where it lies (`data`); every other is converted by
 * weight_read_rows(). What belongs together is checked when the source is opened: a scale without
 * its weight, a missing scale, shapes that do not fit, indexes out of range are refused by name.
 *
 * Owner: the source owns all that is reached through it, until weight_source_close(). Thread: one
 * opens and closes; everything else, weight_read_rows() above all, is for any number at once.
 *
 *     const struct weight *w = weight_source_find(s, "model.embed_tokens.weight");
 *     if (w && !w->data && w->readable)
 *         weight_read_rows(w, r0, r1, out);   // (r1 - r0) * w->cols floats
 */
#ifndef FORMATS_WEIGHT_SOURCE_H
#define FORMATS_WEIGHT_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

struct weight {
    const char *name;
    const uint64_t *shape; /* [rank], row-major */
    int rank;
    uint64_t rows, cols;   /* cols: the last dimension (1 for a scalar); rows: all else */
    char format[40];       /* "BF16", "Q4_K", "GPTQ 4 bits, groups of 128": for people */
    uint64_t stored_bytes; /* with scales and the like */
    enum tensor_type type; /* TENSOR_F32, _F16 or _BF16: may be used directly; else TENSOR_TYPES */
    const void *data;      /* row-major, possibly unaligned; NULL: not directly */
    bool readable;         /* false: of a type that gives no floats (see `format`) */
};

struct weight_source;

/* The GGUF file that holds a model's weights: `path` itself, or that of a folder without
 * safetensors, whatever config.json says there. ST_NOT_FOUND: none does; else as gguf_find_file().
 */
enum status weight_source_find_gguf(const char *path, char *out, size_t cap, struct error *err);
/* A folder (safetensors where there are some, else its GGUF file), a .gguf or a .safetensors file.
 * ST_NOT_FOUND, ST_IO, ST_INVALID, ST_UNSUPPORTED (a quantization that we cannot read, by name). */
enum status weight_source_open(const char *path, struct weight_source **out, struct error *err);
/* The same checks over one safetensors or GGUF file in memory, which the caller keeps alive;
 * `quantization_config` is JSON text, or NULL. */
struct weight_bytes {
    const void *bytes;
    size_t len;
    const char *quantization_config;
    size_t config_len;
};
enum status weight_source_open_bytes(const struct weight_bytes *in, struct weight_source **out,
                                     struct error *err);
void weight_source_close(struct weight_source *s);

/* Files that were read so far no longer count as this process' memory; what is read again does. */
void weight_source_let_go(const struct weight_source *s);
/* What was opened: files of tensors, in an order of their own, then their index where there is one.
 * Of bytes in memory: none. */
const struct opened_file *weight_source_files(const struct weight_source *s, size_t *n);

const struct weight *weight_source_find(const struct weight_source *s, const char *name);
size_t weight_source_count(const struct weight_source *s);
const struct weight *weight_source_at(const struct weight_source *s, size_t i); /* by name */
uint64_t weight_source_stored_bytes(const struct weight_source *s);
/* "fp8", "gptq" ..., "gguf"; NULL: not quantized. */
const char *weight_source_quantization(const struct weight_source *s);
/* What is underneath: one of the two is NULL. */
const struct checkpoint *weight_source_checkpoint(const struct weight_source *s);
const struct gguf *weight_source_gguf(const struct weight_source *s);

/* Rows [r0, r1) of a readable weight, as floats: r0 <= r1 <= rows, asserted. */
void weight_read_rows(const struct weight *w, uint64_t r0, uint64_t r1, float *out);

/* A weight stored as FP8 (e4m3) and a grid of scales: element [r, c] is the byte's value times the
 * scale of its block. Rows are of several matrices, `matrix_rows` each, with grids of their own. */
struct weight_fp8 {
    const uint8_t *data; /* [rows][cols] */
    uint64_t matrix_rows, row_block, col_block, scale_cols;
};
bool weight_as_fp8(const struct weight *w, struct weight_fp8 *out);
/* Scales of a row of a weight that weight_as_fp8() has said yes to: [scale_cols]. */
void weight_read_fp8_scales(const struct weight *w, uint64_t row, float *out);

#endif
