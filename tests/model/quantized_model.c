#include "tests/model/quantized_model.h"

#include <string.h>

#include "tests/model/gguf_copy.h"
#include "tests/model/int4_folder.h"
#include "tests/model/int8_folder.h"

enum maker { MAKE_INT8, MAKE_INT4, MAKE_GGUF };

static const struct {
    const char *name;
    enum maker maker;
    int kind; /* of the maker's own */
} models[] = {
    {"int8-rows", MAKE_INT8, INT8_ROWS},
    {"int8-tokens", MAKE_INT8, INT8_TOKENS},
    {"int8-32-ordered", MAKE_INT8, INT8_ORDERED},
    {"fp8-rows", MAKE_INT8, INT8_FP8},
    {"fp8-blocks", MAKE_INT8, INT8_FP8_BLOCKS},
    {"int4-32", MAKE_INT4, INT4_32},
    {"int4-64", MAKE_INT4, INT4_64},
    {"int4-128", MAKE_INT4, INT4_128},
    {"int4-128-zeros", MAKE_INT4, INT4_ZEROS},
    {"gptq-128", MAKE_INT4, INT4_GPTQ},
    {"gptq-128-ordered", MAKE_INT4, INT4_ORDERED},
    {"awq-64", MAKE_INT4, INT4_AWQ},
    {"mxfp4", MAKE_INT4, INT4_MXFP4},
    {"gguf-q8_0", MAKE_GGUF, GGML_Q8_0},
    {"gguf-q4_0", MAKE_GGUF, GGML_Q4_0},
    {"gguf-q4_k", MAKE_GGUF, GGML_Q4_K},
    {"gguf-q6_k", MAKE_GGUF, GGML_Q6_K},
    {"gguf-mxfp4", MAKE_GGUF, GGML_MXFP4},
};
#define MODELS (sizeof models / sizeof models[0])

const char *quantized_model_name(size_t i)
{
    return i < MODELS ? models[i].name : NULL;
}

bool quantized_model_make(const char *golden, const char *name, char path[FOLDER_PATH])
{
    for (size_t i = 0; i < MODELS; i++) {
        if (strcmp(models[i].name, name) != 0)
            continue;
        if (models[i].maker == MAKE_INT8)
            int8_folder_make(golden, (enum int8_kind)models[i].kind, path);
        else if (models[i].maker == MAKE_INT4)
            int4_folder_make(golden, (enum int4_kind)models[i].kind, path);
        else
            gguf_copy_make(golden, (enum ggml_type)models[i].kind, path);
        return true;
    }
    return false;
}
