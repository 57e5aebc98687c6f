/* Quantized copies of a golden, by name: all that the makers of this folder make. Owner:
 * quantized_model_make() gives a folder or file under /tmp, which folder_remove() removes. Thread:
 * any. Aborts on errors. */
#ifndef TESTS_MODEL_QUANTIZED_MODEL_H
#define TESTS_MODEL_QUANTIZED_MODEL_H

#include <stddef.h>

#include "tests/model/folder_writer.h"

/* "int4-128", "gguf-q8_0" ...; NULL past the end. */
const char *quantized_model_name(size_t i);
/* False: no such name. A GGUF file is made of LlamaForCausalLM alone. */
bool quantized_model_make(const char *golden, const char *name, char path[FOLDER_PATH]);

#endif
