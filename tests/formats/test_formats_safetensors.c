#include <criterion/criterion.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "formats/safetensors.h"
#include "formats/weight_source.h"

/* A file of `header` padded with spaces to `pad` bytes, and `data` bytes 0, 1, 2 ... */
static struct buf make_file(const char *header, size_t pad, size_t data)
{
    struct buf b = {0};
    size_t len = strlen(header) > pad ? strlen(header) : pad;
    for (int i = 0; i < 8; i++)
        buf_putc(&b, (char)(len >> (8 * i)));
    buf_puts(&b, header);
    for (size_t i = strlen(header); i < len; i++)
        buf_putc(&b, ' ');
    for (size_t i = 0; i < data; i++)
        buf_putc(&b, (char)i);
    return b;
}

static enum status open_text(const char *header, size_t data, struct checkpoint **out,
                             struct buf *bytes, struct error *err)
{
    *bytes = make_file(header, 0, data);
    return checkpoint_open_bytes("file", bytes->data, bytes->len, out, err);
}

Test(safetensors, reads_tensors)
{
    struct checkpoint *c;
    struct buf b;
    struct error err = {0};
    cr_assert_eq(open_text("{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[6,10]},"
                           "\"a\":{\"dtype\":\"BF16\",\"shape\":[3,1],\"data_offsets\":[0,6]},"
                           "\"c\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[6,6]}}",
                           10, &c, &b, &err),
                 ST_OK, "%s", err.text);
    cr_assert_eq(checkpoint_count(c), 3);
    cr_assert_eq(checkpoint_files(c), 1);
    cr_assert_eq(checkpoint_data_bytes(c), 10);
    const struct tensor *a = checkpoint_find(c, "a");
    cr_assert_not_null(a);
    cr_assert(a->type == TENSOR_BF16 && a->rank == 2 && a->shape[0] == 3 && a->shape[1] == 1);
    cr_assert(a->elements == 3 && a->bytes == 6 && memcmp(a->data, "\0\1\2\3\4\5", 6) == 0);
    const struct tensor *s = checkpoint_find(c, "b");
    cr_assert(s->rank == 0 && s->elements == 1 && memcmp(s->data, "\6\7\x8\x9", 4) == 0);
    const struct tensor *e = checkpoint_find(c, "c");
    cr_assert(e->elements == 0 && e->bytes == 0);
    char text[32];
    cr_assert_str_eq(tensor_shape_text(e, text, sizeof text), "[0, 5]");
    cr_assert_str_eq(tensor_shape_text(e, text, 5), "[0, ");
    cr_assert_null(checkpoint_find(c, "d"));
    cr_assert_null(checkpoint_at(c, 3));
    cr_assert_str_eq(checkpoint_at(c, 0)->name, "a");
    checkpoint_close(c);
    buf_fini(&b);
}

/* Legal, if odd. */
Test(safetensors, accepts_oddities)
{
    static const struct {
        const char *header;
        size_t data;
    } cases[] = {
        {"{}", 0},
        {"{}\r \t\n", 0},
        {"{\"__metadata__\":{}}", 0},
        {"{\"x\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2},
        {"{\"x\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3},
        {"{\"x\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":[1]}}", 1},
        {"{\"x\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1},
        {"{\"x\":{\"dtype\":\"C64\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct checkpoint *c;
        struct buf b;
        struct error err = {0};
        cr_assert_eq(open_text(cases[i].header, cases[i].data, &c, &b, &err), ST_OK, "%s: %s",
                     cases[i].header, err.text);
        checkpoint_close(c);
        buf_fini(&b);
    }
}

#define U8_TENSOR(name, shape, offsets)                                                            \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

Test(safetensors, refuses_faults)
{
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } cases[] = {
        {"[]", 0, "'{'"},
        {" {}", 0, "'{'"},
        {"{", 0, "'{'"},
        {"{\"x\":", 0, "header"},
        {"{} x", 0, "header"},
        {"{\"x\":1}", 0, "expected an object"},
        {"{\"x\":{}}", 0, "dtype: expected a string"},
        {"{\"x\":{\"dtype\":\"F99\",\"shape\":[],\"data_offsets\":[0,0]}}", 0, "F99"},
        {"{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "shape: expected an array"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets"},
        {"{" U8_TENSOR("x", "[-1]", "[0,1]") "}", 1, "shape[0]"},
        {"{" U8_TENSOR("x", "[1.0]", "[0,1]") "}", 1, "shape[0]"},
        {"{" U8_TENSOR("x", "[\"1\"]", "[0,1]") "}", 1, "shape[0]"},
        {"{" U8_TENSOR("x", "[2,18446744073709551614]", "[0,1]") "}", 1, "shape[1]"},
        {"{" U8_TENSOR("x", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows"},
        {"{\"x\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
         "do not hold"},
        {"{" U8_TENSOR("x", "[2]", "[0,1]") "}", 1, "do not hold"},
        {"{\"x\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "do not hold"},
        {"{" U8_TENSOR("x", "[1]", "[1,0]") "}", 1, "begin <= end"},
        {"{" U8_TENSOR("x", "[1]", "[0,1,2]") "}", 1, "begin <= end"},
        {"{" U8_TENSOR("x", "[2]", "[-1,1]") "}", 1, "begin <= end"},
        {"{" U8_TENSOR("x", "[2]", "[0,2]") "}", 1, "past"},
        {"{" U8_TENSOR("x", "[1]", "[9223372036854775806,9223372036854775807]") "}", 1, "past"},
        {"{" U8_TENSOR("x", "[1]", "[1,2]") "}", 2, "hole"},
        {"{" U8_TENSOR("x", "[1]", "[0,1]") "," U8_TENSOR("y", "[1]", "[2,3]") "}", 3, "hole"},
        {"{" U8_TENSOR("x", "[2]", "[0,2]") "," U8_TENSOR("y", "[2]", "[1,3]") "}", 3, "overlap"},
        {"{" U8_TENSOR("x", "[2]", "[0,2]") "," U8_TENSOR("y", "[2]", "[0,2]") "}", 2, "overlap"},
        {"{" U8_TENSOR("x", "[2]", "[0,2]") "," U8_TENSOR("y", "[0]", "[1,1]") "}", 2, "overlap"},
        {"{" U8_TENSOR("x", "[1]", "[0,1]") "}", 2, "belong to no tensor"},
        {"{}", 1, "belong to no tensor"},
        {"{" U8_TENSOR("x", "[1]", "[0,1]") "," U8_TENSOR("x", "[1]", "[1,2]") "}", 2, "header"},
        {"{\"__metadata__\":1}", 0, "__metadata__"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "expected a string"},
        {"{\"a\\u0000b\":{}}", 0, "header"},
        {"{\"\xff\":{}}", 0, "header"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct checkpoint *c;
        struct buf b;
        struct error err = {0};
        cr_assert_eq(open_text(cases[i].header, cases[i].data, &c, &b, &err), ST_INVALID,
                     "accepted: %s", cases[i].header);
        cr_assert_not_null(strstr(err.text, cases[i].says), "%s: says \"%s\"", cases[i].header,
                           err.text);
        cr_assert(strncmp(err.text, "file: ", 6) == 0, "%s", err.text);
        buf_fini(&b);
    }
}

Test(safetensors, refuses_lengths_and_every_truncation)
{
    struct checkpoint *c;
    struct buf b = make_file("{" U8_TENSOR("x", "[4]", "[0,4]") "}", 80, 4);
    for (size_t len = 0; len < b.len; len++) {
        char *cut = malloc(len + 1); /* its own block, so that a sanitizer sees a read past it */
        memcpy(cut, b.data, len);
        cr_assert_eq(checkpoint_open_bytes("file", cut, len, &c, NULL), ST_INVALID, "%zu", len);
        free(cut);
    }
    cr_assert_eq(checkpoint_open_bytes("file", b.data, b.len, &c, NULL), ST_OK);
    checkpoint_close(c);
    for (int byte = 1; byte < 8; byte++) {
        b.data[byte] = (char)0xff;
        cr_assert_eq(checkpoint_open_bytes("file", b.data, b.len, &c, NULL), ST_INVALID);
        b.data[byte] = 0;
    }
    buf_fini(&b);
}

Test(safetensors, rank_is_bounded)
{
    struct buf h = {0};
    buf_puts(&h, "{\"x\":{\"dtype\":\"U8\",\"shape\":[");
    for (int i = 0; i < SAFETENSORS_RANK_MAX + 1; i++)
        buf_puts(&h, i ? ",1" : "1");
    buf_puts(&h, "],\"data_offsets\":[0,1]}}");
    struct checkpoint *c;
    struct buf b;
    struct error err = {0};
    cr_assert_eq(open_text(h.data, 1, &c, &b, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "dimensions"));
    buf_fini(&b);
    buf_fini(&h);
}

Test(safetensors, many_tensors_are_not_quadratic, .timeout = 60)
{
    enum { N = 200000 };
    struct buf h = {0};
    buf_putc(&h, '{');
    for (int i = 0; i < N; i++)
        buf_printf(&h, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                   i ? "," : "", i, N - 1 - i, N - i);
    buf_putc(&h, '}');
    struct checkpoint *c;
    struct buf b;
    struct error err = {0};
    cr_assert_eq(open_text(h.data, N, &c, &b, &err), ST_OK, "%s", err.text);
    cr_assert_eq(checkpoint_count(c), N);
    cr_assert_eq(((const unsigned char *)checkpoint_find(c, "t0")->data)[0], (N - 1) & 0xff);
    checkpoint_close(c);
    buf_fini(&b);
    buf_fini(&h);
}

/* ---- folders ---- */

static char folder[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/baton-formats-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    char path[512];
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        remove(path);
    }
    if (d)
        closedir(d);
    rmdir(folder);
}

static void put(const char *name, const char *bytes, size_t len)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(bytes, 1, len, f) == len);
    fclose(f);
}

static void put_shard(const char *name, const char *header, size_t data)
{
    struct buf b = make_file(header, 0, data);
    put(name, b.data, b.len);
    buf_fini(&b);
}

static void put_index(const char *json)
{
    put("model.safetensors.index.json", json, strlen(json));
}

Test(checkpoint, shards, .init = make_folder, .fini = remove_folder)
{
    struct checkpoint *c;
    struct error err = {0};
    put_shard("one.safetensors",
              "{" U8_TENSOR("a", "[2]", "[0,2]") "," U8_TENSOR("b", "[1]", "[2,3]") "}", 3);
    put_shard("two.safetensors",
              "{" U8_TENSOR("b", "[4]", "[0,4]") "," U8_TENSOR("c", "[2]", "[4,6]") "}", 6);
    put_index("{\"metadata\":{\"total_size\":8},\"weight_map\":{\"c\":\"two.safetensors\","
              "\"b\":\"two.safetensors\",\"a\":\"one.safetensors\"}}");
    cr_assert_eq(checkpoint_open(folder, &c, &err), ST_OK, "%s", err.text);
    cr_assert_eq(checkpoint_count(c), 3);
    cr_assert_eq(checkpoint_files(c), 2);
    cr_assert_eq(checkpoint_data_bytes(c), 8);
    cr_assert_eq(checkpoint_find(c, "b")->bytes, 4, "the index decides where b is read from");
    cr_assert_eq(memcmp(checkpoint_find(c, "c")->data, "\4\5", 2), 0);
    checkpoint_close(c);
    /* a whole file goes first */
    put_shard("model.safetensors", "{" U8_TENSOR("z", "[1]", "[0,1]") "}", 1);
    cr_assert_eq(checkpoint_open(folder, &c, &err), ST_OK, "%s", err.text);
    cr_assert_not_null(checkpoint_find(c, "z"));
    checkpoint_close(c);
}

/* The index and what it names, and nothing else that lies there. */
Test(checkpoint, files_that_were_opened, .init = make_folder, .fini = remove_folder)
{
    static const char *const names[] = {"/one.safetensors", "/two.safetensors",
                                        "/model.safetensors.index.json"};
    struct weight_source *s;
    struct error err = {0};
    size_t n;
    put_shard("one.safetensors", "{" U8_TENSOR("a", "[2]", "[0,2]") "}", 2);
    put_shard("two.safetensors", "{" U8_TENSOR("b", "[4]", "[0,4]") "}", 4);
    put_shard("zero.safetensors", "{" U8_TENSOR("c", "[4]", "[0,4]") "}", 4);
    put_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    cr_assert_eq(weight_source_open(folder, &s, &err), ST_OK, "%s", err.text);
    const struct opened_file *files = weight_source_files(s, &n);
    cr_assert_eq(n, 3);
    for (size_t i = 0; i < n; i++) {
        struct file_state now;
        cr_assert_not_null(strstr(files[i].path, names[i]), "%s", files[i].path);
        cr_assert(file_state_read(files[i].path, &now));
        cr_assert(memcmp(&now, &files[i].state, sizeof now) == 0);
        cr_assert_eq(files[i].map != NULL, i < 2);
    }
    weight_source_close(s);
    put_shard("model.safetensors", "{" U8_TENSOR("z", "[1]", "[0,1]") "}", 1);
    cr_assert_eq(weight_source_open(folder, &s, &err), ST_OK, "%s", err.text);
    files = weight_source_files(s, &n);
    cr_assert(n == 1 && strstr(files[0].path, "/model.safetensors"));
    weight_source_close(s);
}

Test(checkpoint, follows_links_as_download_caches_have_them, .init = make_folder,
     .fini = remove_folder)
{
    char path[512];
    struct checkpoint *c;
    put_shard("blob", "{" U8_TENSOR("z", "[1]", "[0,1]") "}", 1);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    cr_assert_eq(symlink("blob", path), 0);
    cr_assert_eq(checkpoint_open(folder, &c, NULL), ST_OK);
    checkpoint_close(c);
}

Test(checkpoint, refuses_bad_indexes, .init = make_folder, .fini = remove_folder)
{
    static const struct {
        const char *json;
        enum status st;
    } cases[] = {
        {"{", ST_INVALID},
        {"[]", ST_INVALID},
        {"{}", ST_INVALID},
        {"{\"weight_map\":{}}", ST_INVALID},
        {"{\"weight_map\":[\"one.safetensors\"]}", ST_INVALID},
        {"{\"weight_map\":{\"a\":1}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"x/../one.safetensors\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"..\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\".\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\".hidden\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"one.safetensors\\u0000.txt\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"one.safetensors\\n\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"sub\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"pipe\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", ST_NOT_FOUND},
        {"{\"weight_map\":{\"nope\":\"one.safetensors\"}}", ST_INVALID},
        {"{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", ST_INVALID},
    };
    char path[512];
    struct checkpoint *c;
    struct error err = {0};
    cr_assert_eq(checkpoint_open(folder, &c, &err), ST_NOT_FOUND);
    put_shard("one.safetensors", "{" U8_TENSOR("a", "[2]", "[0,2]") "}", 2);
    snprintf(path, sizeof path, "%s/sub", folder);
    cr_assert_eq(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/pipe", folder);
    cr_assert_eq(mkfifo(path, 0644), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_index(cases[i].json);
        cr_assert_eq(checkpoint_open(folder, &c, &err), cases[i].st, "%s: %s", cases[i].json,
                     err.text);
    }
    put("model.safetensors", "", 0);
    cr_assert_eq(checkpoint_open(folder, &c, &err), ST_INVALID, "an empty file");
}

/* Files that others made: what the reference implementation accepts and refuses. */
Test(safetensors, shared_malformed_files)
{
    static const char *const legal[] = {"test_whitespace_padded_header_0.safetensors",
                                        "test_zero_sized_tensor_0.safetensors"};
    const char *dir = BATON_SOURCE_DIR "/../shared/data/malformed/safetensors";
    DIR *d = opendir(dir);
    int seen = 0;
    if (!d)
        cr_skip_test("%s is not there", dir);
    for (const struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".safetensors"))
            continue;
        char path[1024];
        struct checkpoint *c;
        struct error err = {0};
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        bool is_legal = strcmp(e->d_name, legal[0]) == 0 || strcmp(e->d_name, legal[1]) == 0;
        enum status st = checkpoint_open_file(path, &c, &err);
        cr_assert_eq(st, is_legal ? ST_OK : ST_INVALID, "%s: %s", e->d_name, err.text);
        if (!st)
            checkpoint_close(c);
        seen++;
    }
    closedir(d);
    cr_assert_geq(seen, 6);
}
