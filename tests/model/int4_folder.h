/* A copy of a golden's folder whose projections have 4 bits, as the tools that make such folders
 * leave them: integers in groups of a row as compressed-tensors, GPTQ or AWQ packs them, or MXFP4.
 * Embedding and head stay as they are, as do matrices that are no whole number of groups wide.
 * Values are rounded to the nearest, not corrected for each other as GPTQ does. Owner:
 * int4_folder_make() gives a folder under /tmp, which folder_remove() removes. Thread: any. Aborts
 * on errors. */
#ifndef TESTS_MODEL_INT4_FOLDER_H
#define TESTS_MODEL_INT4_FOLDER_H

#include "tests/model/folder_writer.h"

enum int4_kind {
    INT4_32, /* compressed-tensors, symmetric, in groups of so many */
    INT4_64,
    INT4_128,
    INT4_ZEROS,   /* of 128, with zero points */
    INT4_ORDERED, /* GPTQ of 128, columns in an order that every matrix has for itself */
    INT4_GPTQ,    /* of 128 */
    INT4_AWQ,     /* of 64 */
    INT4_MXFP4,   /* compressed-tensors' */
    INT4_KINDS
};

void int4_folder_make(const char *golden, enum int4_kind kind, char path[FOLDER_PATH]);

#endif
