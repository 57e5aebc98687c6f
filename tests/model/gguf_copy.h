/* A copy of a golden's folder, of LlamaForCausalLM without biases, as a GGUF file without a
 * tokenizer, whose matrices are all of one quantized type; those that are no whole number of its
 * blocks wide are Q8_0. Values are rounded to the nearest. Owner: gguf_copy_make() gives a file
 * under /tmp, which folder_remove() removes. Thread: any. Aborts on errors. */
#ifndef TESTS_MODEL_GGUF_COPY_H
#define TESTS_MODEL_GGUF_COPY_H

#include "formats/ggml_type.h"
#include "tests/model/folder_writer.h"

/* GGML_Q8_0, _Q4_0, _Q4_K, _Q6_K or _MXFP4. */
void gguf_copy_make(const char *golden, enum ggml_type type, char path[FOLDER_PATH]);

#endif
