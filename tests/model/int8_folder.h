/* A copy of a golden's folder whose matrices have 8 bits as compressed-tensors has them: integers
 * with a scale to each row, which may want one for each token as well, or to each 32 of its
 * elements, of columns in an order that every matrix has for itself; or FP8 with a scale to each
 * row, or to blocks of 24 rows (stacked experts stay as they are then). What packs weights in every
 * architecture, for tests. Biases and norms stay as they are. Owner: int8_folder_make() gives a
 * folder under /tmp, which folder_remove() removes. Thread: any. Aborts on errors. */
#ifndef TESTS_MODEL_INT8_FOLDER_H
#define TESTS_MODEL_INT8_FOLDER_H

#include "tests/model/folder_writer.h"

enum int8_kind { INT8_ROWS, INT8_TOKENS, INT8_ORDERED, INT8_FP8, INT8_FP8_BLOCKS, INT8_KINDS };

void int8_folder_make(const char *golden, enum int8_kind kind, char path[FOLDER_PATH]);

#endif
