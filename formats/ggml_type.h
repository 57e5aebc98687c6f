/* Element types of GGUF tensors: numbers, names and block sizes, as the format publishes them.
 *
 * A row of a tensor is a whole number of blocks; a block of `elements` takes `bytes`. The table
 * lists all known types, so that a file is checked and described whether or not its types can be
 * computed with. Thread: any; constants.
 */
#ifndef FORMATS_GGML_TYPE_H
#define FORMATS_GGML_TYPE_H

enum ggml_type {
    GGML_F32 = 0,
    GGML_F16 = 1,
    GGML_Q4_0 = 2,
    GGML_Q4_1 = 3,
    GGML_Q5_0 = 6,
    GGML_Q5_1 = 7,
    GGML_Q8_0 = 8,
    GGML_Q8_1 = 9,
    GGML_Q2_K = 10,
    GGML_Q3_K = 11,
    GGML_Q4_K = 12,
    GGML_Q5_K = 13,
    GGML_Q6_K = 14,
    GGML_Q8_K = 15,
    GGML_IQ2_XXS = 16,
    GGML_IQ2_XS = 17,
    GGML_IQ3_XXS = 18,
    GGML_IQ1_S = 19,
    GGML_IQ4_NL = 20,
    GGML_IQ3_S = 21,
    GGML_IQ2_S = 22,
    GGML_IQ4_XS = 23,
    GGML_I8 = 24,
    GGML_I16 = 25,
    GGML_I32 = 26,
    GGML_I64 = 27,
    GGML_F64 = 28,
    GGML_IQ1_M = 29,
    GGML_BF16 = 30,
    GGML_TQ1_0 = 34,
    GGML_TQ2_0 = 35,
    GGML_MXFP4 = 39,
    GGML_NVFP4 = 40,
    GGML_Q1_0 = 41,
    GGML_TYPES
};

/* elements 0: not a type of the format. */
struct ggml_block {
    const char *name;
    unsigned elements, bytes;
};
struct ggml_block ggml_type_block(enum ggml_type type);
const char *ggml_type_name(enum ggml_type type); /* "Q4_K"; "?" for none */

#endif
