/* A checked, read-only view of the tensors of a Hugging Face folder (or of one .safetensors file).
 *
 * checkpoint_open() maps `model.safetensors`, or every shard that `model.safetensors.index.json`
 * names, and checks every length, offset, count and shape before it is used: files are hostile
 * input. Any element type of the format is listed; what can be computed with is the caller's
 * business. Data is never copied, and may be unaligned.
 *
 * Owner: the checkpoint owns the maps and all names and shapes reached through it, until
 * checkpoint_close(). Thread: read by any number, opened and closed by one. It does not guard
 * against a file that is cut short while it is mapped: touching the lost pages raises SIGBUS.
 * Replace a served checkpoint by renaming a new file over it, never by rewriting it in place.
 *
 *     const struct tensor *t = checkpoint_find(c, "model.norm.weight");
 *     if (t && t->type == TENSOR_BF16 && t->rank == 1) ...
 */
#ifndef FORMATS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/opened_file.h"

#define SAFETENSORS_HEADER_MAX_BYTES UINT64_C(100000000)
#define SAFETENSORS_TENSORS_MAX 1000000
#define SAFETENSORS_RANK_MAX 64
#define SAFETENSORS_SHARDS_MAX 4096

enum tensor_type {
    TENSOR_BOOL,
    TENSOR_F4,
    TENSOR_F6_E2M3,
    TENSOR_F6_E3M2,
    TENSOR_U8,
    TENSOR_I8,
    TENSOR_F8_E5M2,
    TENSOR_F8_E4M3,
    TENSOR_F8_E8M0,
    TENSOR_F8_E4M3FNUZ,
    TENSOR_F8_E5M2FNUZ,
    TENSOR_I16,
    TENSOR_U16,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_I32,
    TENSOR_U32,
    TENSOR_F32,
    TENSOR_C64,
    TENSOR_F64,
    TENSOR_I64,
    TENSOR_U64,
    TENSOR_TYPES
};

struct tensor {
    const char *name;
    const uint64_t *shape; /* [rank]; a product of zero is an empty tensor */
    const void *data;      /* `bytes` of it, row-major, little-endian, possibly unaligned */
    uint64_t bytes, elements;
    enum tensor_type type;
    int rank;
};

struct checkpoint;

const char *tensor_type_name(enum tensor_type type); /* as in the file: "BF16" */
unsigned tensor_type_bits(enum tensor_type type);
/* "[2, 3]" into out; returns out. */
const char *tensor_shape_text(const struct tensor *t, char *out, size_t cap);

/* ST_NOT_FOUND: neither file is there. ST_INVALID: malformed; the text names file and tensor. A
 * shard's name must be a plain file name and lead to a regular file (symbolic links are followed:
 * caches of downloads are made of them). */
enum status checkpoint_open(const char *dir, struct checkpoint **out, struct error *err);
enum status checkpoint_open_file(const char *path, struct checkpoint **out, struct error *err);
/* The same checks over bytes in memory that the caller keeps alive; `label` names them in messages.
 */
enum status checkpoint_open_bytes(const char *label, const void *bytes, size_t len,
                                  struct checkpoint **out, struct error *err);
void checkpoint_close(struct checkpoint *c);
void checkpoint_let_go(const struct checkpoint *c); /* see weight_source_let_go() */

const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name); /* or NULL */
size_t checkpoint_count(const struct checkpoint *c);
const struct tensor *checkpoint_at(const struct checkpoint *c, size_t i); /* in order of name */
size_t checkpoint_files(const struct checkpoint *c);
struct opened_file checkpoint_file_at(const struct checkpoint *c, size_t i);
/* The index: from right before it was read. NULL: there is none. */
const struct opened_file *checkpoint_index(const struct checkpoint *c);
uint64_t checkpoint_data_bytes(const struct checkpoint *c); /* sum over the tensors listed */

#endif
