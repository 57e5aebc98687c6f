#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/gguf.h"
#include "formats/gguf_maker.h"

static enum status open_buf(const struct buf *b, struct gguf **g, struct error *err)
{
    return gguf_open_bytes("file", b->data, b->len, g, err);
}

static bool str_is(struct gguf_str s, const char *want)
{
    return s.s && s.len == strlen(want) && !memcmp(s.s, want, s.len);
}

Test(gguf, reads_every_value_type)
{
    struct buf b = {0};
    put_head(&b, 3, 0, 15);
    put_key(&b, "u8", GGUF_U8), put_uint(&b, 200, 1);
    put_key(&b, "i8", GGUF_I8), put_uint(&b, 200, 1);
    put_key(&b, "u16", GGUF_U16), put_uint(&b, 60000, 2);
    put_key(&b, "i16", GGUF_I16), put_uint(&b, 60000, 2);
    put_key(&b, "u32", GGUF_U32), put_uint(&b, 4000000000, 4);
    put_key(&b, "i32", GGUF_I32), put_uint(&b, 4000000000, 4);
    put_key(&b, "u64", GGUF_U64), put_uint(&b, UINT64_MAX, 8);
    put_key(&b, "i64", GGUF_I64), put_uint(&b, UINT64_MAX, 8);
    put_key(&b, "f32", GGUF_F32), put_uint(&b, 0x3fc00000, 4);
    put_key(&b, "f64", GGUF_F64), put_uint(&b, 0x3ff8000000000000, 8);
    put_key(&b, "yes", GGUF_BOOL), put_uint(&b, 1, 1);
    put_key(&b, "text", GGUF_STRING), put_str(&b, "a line");
    put_key(&b, "texts", GGUF_ARRAY), put_uint(&b, GGUF_STRING, 4), put_uint(&b, 3, 8);
    put_str(&b, "one"), put_str(&b, ""), put_str(&b, "three");
    put_key(&b, "ints", GGUF_ARRAY), put_uint(&b, GGUF_I16, 4), put_uint(&b, 2, 8);
    put_uint(&b, 7, 2), put_uint(&b, 0xffff, 2);
    put_key(&b, "nested", GGUF_ARRAY), put_uint(&b, GGUF_ARRAY, 4), put_uint(&b, 1, 8);
    put_uint(&b, GGUF_STRING, 4), put_uint(&b, 1, 8), put_str(&b, "x");
    struct gguf *g;
    struct error err = {0};
    cr_assert_eq(open_buf(&b, &g, &err), ST_OK, "%s", err.text);
    cr_assert_eq(gguf_int(g, "u8", 0), 200);
    cr_assert_eq(gguf_int(g, "i8", 0), -56);
    cr_assert_eq(gguf_int(g, "u16", 0), 60000);
    cr_assert_eq(gguf_int(g, "i16", 0), -5536);
    cr_assert_eq(gguf_int(g, "u32", 0), 4000000000);
    cr_assert_eq(gguf_int(g, "i32", 0), -294967296);
    cr_assert_eq(gguf_int(g, "u64", 5), 5);
    cr_assert_eq(gguf_int(g, "i64", 5), -1);
    cr_assert_eq(gguf_int(g, "f32", 5), 5);
    cr_assert(gguf_number(g, "f32", 0) == 1.5 && gguf_number(g, "f64", 0) == 1.5);
    cr_assert(gguf_number(g, "i8", 0) == -56 && gguf_number(g, "text", 2) == 2);
    cr_assert(gguf_bool(g, "yes", false) && !gguf_bool(g, "no", false) && gguf_bool(g, "u8", true));
    cr_assert(str_is(gguf_string(g, "text"), "a line"));
    cr_assert_null(gguf_string(g, "texts").s);
    cr_assert_null(gguf_string(g, "absent").s);
    const struct gguf_value *v = gguf_find(g, "texts");
    cr_assert_eq(v->count, 3);
    cr_assert(str_is(gguf_item_string(v, 0), "one") && str_is(gguf_item_string(v, 1), ""));
    cr_assert(str_is(gguf_item_string(v, 2), "three"));
    cr_assert_null(gguf_item_string(v, 3).s);
    v = gguf_find(g, "ints");
    cr_assert(gguf_item_int(v, 0, 0) == 7 && gguf_item_int(v, 1, 0) == -1);
    cr_assert(gguf_item_int(v, 2, 9) == 9 && gguf_item_int(NULL, 0, 9) == 9);
    v = gguf_find(g, "nested");
    cr_assert(v->item == GGUF_ARRAY && gguf_item_int(v, 0, 9) == 9);
    cr_assert_eq(gguf_key_count(g), 15);
    cr_assert_str_eq(gguf_key_at(g, 0)->key, "f32");
    gguf_close(g);
    buf_fini(&b);
}

/* Two tensors: a [2, 3] of F32 and a Q8_0 row of 32. */
static struct buf make_tensors(uint32_t alignment)
{
    struct buf b = {0};
    put_head(&b, 2, 2, alignment != 32);
    if (alignment != 32)
        put_key(&b, "general.alignment", GGUF_U32), put_uint(&b, alignment, 4);
    put_tensor(&b, "a", (uint64_t[]){3, 2}, 2, GGML_F32, 0);
    put_tensor(&b, "b", (uint64_t[]){32}, 1, GGML_Q8_0,
               (24 + alignment - 1) / alignment * alignment);
    put_pad(&b, alignment);
    for (int i = 0; i < 24; i++)
        buf_putc(&b, (char)i);
    put_pad(&b, alignment);
    for (int i = 0; i < 34; i++)
        buf_putc(&b, (char)(100 + i));
    return b;
}

Test(gguf, reads_tensors)
{
    for (uint32_t alignment = 8; alignment <= 64; alignment *= 2) {
        struct buf b = make_tensors(alignment);
        struct gguf *g;
        struct error err = {0};
        cr_assert_eq(open_buf(&b, &g, &err), ST_OK, "%s", err.text);
        const struct gguf_tensor *a = gguf_find_tensor(g, "a"), *q = gguf_find_tensor(g, "b");
        cr_assert(a && a->rank == 2 && a->shape[0] == 2 && a->shape[1] == 3 && a->elements == 6);
        cr_assert(a->type == GGML_F32 && a->bytes == 24 && *(const char *)a->data == 0);
        cr_assert(q && q->type == GGML_Q8_0 && q->bytes == 34 && *(const char *)q->data == 100);
        cr_assert_null(gguf_find_tensor(g, "c"));
        cr_assert_eq(gguf_data_bytes(g), 58);
        cr_assert_eq(gguf_version(g), 2);
        gguf_close(g);
        buf_fini(&b);
    }
}

/* Every prefix of a good file is refused, or lacks nothing that it says it has. */
Test(gguf, refuses_every_cut)
{
    struct buf b = make_tensors(32);
    for (size_t n = 0; n < b.len; n++) {
        struct gguf *g;
        struct error err = {0};
        cr_assert_eq(gguf_open_bytes("cut", b.data, n, &g, &err), ST_INVALID, "%zu bytes", n);
        cr_assert(err.text[0] && !strchr(err.text, '\n'));
    }
    buf_fini(&b);
}

static void expect_refused(struct buf *b, enum status want, const char *says)
{
    struct gguf *g;
    struct error err = {0};
    cr_assert_eq(open_buf(b, &g, &err), want, "%s: %s", says, err.text);
    cr_assert_not_null(strstr(err.text, says), "\"%s\" lacks \"%s\"", err.text, says);
    buf_fini(b);
}

Test(gguf, refuses_bad_heads)
{
    struct buf b = {0};
    buf_puts(&b, "GGML....................");
    expect_refused(&b, ST_INVALID, "not a GGUF file");
    put_head(&b, 4, 0, 0);
    expect_refused(&b, ST_UNSUPPORTED, "version 4");
    put_head(&b, 0x03000000, 0, 0);
    expect_refused(&b, ST_UNSUPPORTED, "big-endian");
    put_head(&b, 3, UINT64_MAX, 0);
    expect_refused(&b, ST_INVALID, "tensors");
    put_head(&b, 3, 0, 90000);
    expect_refused(&b, ST_INVALID, "do not fit");
}

Test(gguf, refuses_bad_metadata)
{
    struct buf b = {0};
    put_head(&b, 3, 0, 1);
    put_key(&b, "k", 13), put_uint(&b, 0, 8);
    expect_refused(&b, ST_INVALID, "unknown value type 13");
    put_head(&b, 3, 0, 1);
    put_key(&b, "k", GGUF_BOOL), put_uint(&b, 2, 8);
    expect_refused(&b, ST_INVALID, "neither 0 nor 1");
    put_head(&b, 3, 0, 1);
    put_key(&b, "k", GGUF_STRING), put_uint(&b, UINT64_MAX, 8);
    expect_refused(&b, ST_INVALID, "longer than the file");
    put_head(&b, 3, 0, 1);
    put_key(&b, "k", GGUF_ARRAY), put_uint(&b, GGUF_U64, 4), put_uint(&b, UINT64_MAX / 8 + 2, 8);
    expect_refused(&b, ST_INVALID, "room");
    put_head(&b, 3, 0, 1);
    put_key(&b, "k", GGUF_ARRAY), put_uint(&b, GGUF_STRING, 4), put_uint(&b, UINT64_MAX, 8);
    expect_refused(&b, ST_INVALID, "room");
    put_head(&b, 3, 0, 1);
    put_key(&b, "k", GGUF_ARRAY);
    for (int i = 0; i < 6; i++)
        put_uint(&b, GGUF_ARRAY, 4), put_uint(&b, 1, 8);
    expect_refused(&b, ST_INVALID, "nested");
    put_head(&b, 3, 0, 1);
    put_key(&b, "a\nb", GGUF_U8), put_uint(&b, 0, 8);
    expect_refused(&b, ST_INVALID, "plain text");
    put_head(&b, 3, 0, 2);
    put_key(&b, "k", GGUF_U8), put_uint(&b, 0, 1), put_key(&b, "k", GGUF_U8), put_uint(&b, 0, 9);
    expect_refused(&b, ST_INVALID, "twice");
    for (uint32_t bad = 0; bad < 50; bad += 24) {
        put_head(&b, 3, 0, 1);
        put_key(&b, "general.alignment", GGUF_U32), put_uint(&b, bad, 4);
        expect_refused(&b, ST_INVALID, "power of two");
    }
}

struct tensor_case {
    uint64_t dims[5];
    uint32_t rank, type;
    uint64_t offset;
    const char *says;
};

Test(gguf, refuses_bad_tensors)
{
    static const struct tensor_case cases[] = {
        {{1}, 5, GGML_F32, 0, "dimensions"},
        {{1}, 1, 4, 0, "unknown element type 4"},
        {{1}, 1, 99, 0, "unknown element type 99"},
        {{1}, 1, UINT32_MAX, 0, "unknown element type"},
        {{33}, 1, GGML_Q4_0, 0, "whole blocks of Q4_0"},
        {{16}, 1, GGML_F32, 0, "past the"},
        {{1}, 1, GGML_F32, 64, "past the"},
        {{1}, 1, GGML_F32, UINT64_MAX - 31, "past the"},
        {{1}, 1, GGML_F32, 8, "alignment"},
        {{UINT64_MAX, 2}, 2, GGML_F32, 0, "overflows"},
        {{1ull << 40, 1ull << 40}, 2, GGML_F32, 0, "overflows"},
        {{1ull << 62}, 1, GGML_F64, 0, "overflows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = {0};
        put_head(&b, 3, 1, 0);
        put_tensor(&b, "t", cases[i].dims, cases[i].rank, cases[i].type, cases[i].offset);
        put_pad(&b, 32);
        for (int k = 0; k < 48; k++)
            buf_putc(&b, 0);
        expect_refused(&b, ST_INVALID, cases[i].says);
    }
    struct buf b = {0};
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "a", (uint64_t[]){9}, 1, GGML_F32, 0);
    put_tensor(&b, "b", (uint64_t[]){1}, 1, GGML_F32, 32);
    put_pad(&b, 32);
    for (int k = 0; k < 64; k++)
        buf_putc(&b, 0);
    expect_refused(&b, ST_INVALID, "overlap");
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "a", (uint64_t[]){0}, 1, GGML_F32, 0);
    put_tensor(&b, "a", (uint64_t[]){0}, 1, GGML_F32, 0);
    expect_refused(&b, ST_INVALID, "twice");
}

static char folder[64];

static void write_file(const char *name, const struct buf *b)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(b->data, 1, b->len, f) == b->len && fclose(f) == 0);
}

static struct buf make_part(const char *tensor, uint16_t no, uint16_t count, int32_t tensors)
{
    struct buf b = {0};
    put_head(&b, 3, 1, 3);
    put_key(&b, "split.no", GGUF_U16), put_uint(&b, no, 2);
    put_key(&b, "split.count", GGUF_U16), put_uint(&b, count, 2);
    put_key(&b, "split.tensors.count", GGUF_I32), put_uint(&b, (uint32_t)tensors, 4);
    put_tensor(&b, tensor, (uint64_t[]){1}, 1, GGML_F32, 0);
    put_pad(&b, 32);
    put_uint(&b, 0x3f800000u + no, 4);
    return b;
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/baton_gguf_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

static void write_split(const char *second, uint16_t second_no, int32_t tensors)
{
    struct buf a = make_part("x", 0, 2, tensors), b = make_part(second, second_no, 2, tensors);
    write_file("m-00001-of-00002.gguf", &a);
    write_file("m-00002-of-00002.gguf", &b);
    buf_fini(&a);
    buf_fini(&b);
}

Test(gguf, reads_splits, .init = make_folder, .fini = remove_folder)
{
    char path[256], other[300];
    struct gguf *g;
    struct error err = {0};
    write_split("y", 1, 2);
    cr_assert_eq(gguf_find_file(folder, path, sizeof path, &err), ST_OK, "%s", err.text);
    cr_assert_not_null(strstr(path, "-00001-of-"));
    cr_assert_eq(gguf_open(path, &g, &err), ST_OK, "%s", err.text);
    cr_assert(gguf_files(g) == 2 && gguf_tensor_count(g) == 2);
    cr_assert(gguf_find_tensor(g, "x") && gguf_find_tensor(g, "y"));
    cr_assert_eq(*(const uint8_t *)gguf_find_tensor(g, "y")->data, 1);
    for (size_t i = 0; i < 2; i++) {
        const struct opened_file f = gguf_file_at(g, i);
        struct file_state now;
        cr_assert(file_state_read(f.path, &now) && memcmp(&now, &f.state, sizeof now) == 0);
        cr_assert_not_null(strstr(f.path, i ? "/m-00002-of-" : "/m-00001-of-"));
        cr_assert_not_null(f.map);
    }
    gguf_close(g);

    snprintf(other, sizeof other, "%s/m-00002-of-00002.gguf", folder);
    cr_assert_eq(gguf_open(other, &g, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "give the first one"), "%s", err.text);
    write_split("x", 1, 2);
    cr_assert_eq(gguf_open(path, &g, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "in two splits"), "%s", err.text);
    write_split("y", 0, 2);
    cr_assert_eq(gguf_open(path, &g, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "not 1 of 2"), "%s", err.text);
    write_split("y", 1, 3);
    cr_assert_eq(gguf_open(path, &g, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "2 tensors, not 3"), "%s", err.text);
    unlink(other);
    cr_assert_eq(gguf_open(path, &g, &err), ST_NOT_FOUND);
    snprintf(other, sizeof other, "%s/other.gguf", folder);
    cr_assert_eq(rename(path, other), 0);
    cr_assert_eq(gguf_open(other, &g, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "its name should end"), "%s", err.text);
}

Test(gguf, finds_the_file_of_a_folder, .init = make_folder, .fini = remove_folder)
{
    char path[256];
    struct error err = {0};
    cr_assert_eq(gguf_find_file(folder, path, sizeof path, &err), ST_NOT_FOUND);
    struct buf b = make_tensors(32);
    write_file("b.gguf", &b);
    cr_assert_eq(gguf_find_file(folder, path, sizeof path, &err), ST_OK);
    cr_assert_not_null(strstr(path, "/b.gguf"));
    write_file("a.gguf", &b);
    cr_assert_eq(gguf_find_file(folder, path, sizeof path, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "name the file"), "%s", err.text);
    cr_assert_eq(gguf_find_file("/nonexistent", path, sizeof path, &err), ST_NOT_FOUND);
    struct gguf *g;
    cr_assert_eq(gguf_open(folder, &g, &err), ST_INVALID);
    buf_fini(&b);
}

/* Lengths and counts have 32 bits there. */
Test(gguf, reads_version_1)
{
    struct gguf *g;
    struct error err = {0};
    cr_assert_eq(gguf_open(BATON_SOURCE_DIR "/tests/fuzz/seeds/gguf/version1.gguf", &g, &err),
                 ST_OK, "%s", err.text);
    cr_assert(gguf_version(g) == 1 && str_is(gguf_string(g, "general.architecture"), "llama"));
    cr_assert(str_is(gguf_item_string(gguf_find(g, "tokenizer.ggml.tokens"), 1), "bc"));
    const struct gguf_tensor *t = gguf_find_tensor(g, "t");
    cr_assert(t && t->shape[0] == 1 && t->shape[1] == 2 && t->bytes == 8);
    cr_assert(((const float *)t->data)[1] == 2.0f);
    gguf_close(g);
}

/* A version 1 file of a trained model, and a vocabulary without tensors. */
Test(gguf, reads_published_files)
{
    struct gguf *g;
    struct error err = {0};
    const char *path = BATON_SOURCE_DIR "/../shared/data/models/stories260K/stories260K-f32.gguf";
    if (access(path, R_OK))
        cr_skip_test("%s is absent", path);
    cr_assert_eq(gguf_open(path, &g, &err), ST_OK, "%s", err.text);
    cr_assert_eq(gguf_version(g), 1);
    cr_assert(str_is(gguf_string(g, "general.architecture"), "llama"));
    cr_assert_eq(gguf_int(g, "llama.block_count", 0), 5);
    cr_assert_eq(gguf_tensor_count(g), 48);
    const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    cr_assert(t && t->shape[0] == 512 && t->shape[1] == 64 && t->type == GGML_F32);
    const struct gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    cr_assert(tokens && tokens->count == 512 && str_is(gguf_item_string(tokens, 1), "<s>"));
    gguf_close(g);
    path = BATON_SOURCE_DIR "/../shared/data/tokenizers/llamacpp/ggml-vocab-gpt-2.gguf";
    cr_assert_eq(gguf_open(path, &g, &err), ST_OK, "%s", err.text);
    cr_assert_eq(gguf_tensor_count(g), 0);
    cr_assert_eq(gguf_find(g, "tokenizer.ggml.tokens")->count, 50257);
    gguf_close(g);
}
