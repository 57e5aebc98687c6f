/* A tokenizer on the command line, for comparing with others:
 *   tok_tool DIR encode [plain]     stdin: one JSON string a line; stdout: its ids
 *   tok_tool DIR decode [skip]      stdin: ids of a text a line; stdout: the text as a JSON string
 *   tok_tool DIR stream [skip]      the same through the streaming detokenizer
 *   tok_tool DIR speed FILE [N]     encodes FILE N times in pieces of 16 KiB and prints MB per
 * second of processor time "plain" neither adds nor parses special tokens. DIR may also be a .json
 * file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

static bool read_file(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    char block[65536];
    size_t n;
    if (!f)
        return false;
    while ((n = fread(block, 1, sizeof(block), f)) > 0)
        buf_append(out, block, n);
    fclose(f);
    return true;
}

static struct tokenizer *load(const char *path)
{
    struct error err = {0};
    struct tokenizer *t = NULL;
    struct buf text = {0};
    enum status st;
    size_t n = strlen(path);
    if (n > 5 && !strcmp(path + n - 5, ".json") && read_file(path, &text))
        st = tokenizer_load_text(text.data, text.len, NULL, 0, &t, &err);
    else
        st = tokenizer_load(path, &t, &err);
    buf_fini(&text);
    if (st) {
        fprintf(stderr, "%s: %s\n", status_name(st), err.text);
        exit(1);
    }
    return t;
}

static void encode_line(const struct tokenizer *t, const char *line, size_t len, bool plain)
{
    struct error err = {0};
    struct ids ids = {0};
    json *v = NULL;
    struct buf wrapped = {0};
    buf_printf(&wrapped, "[%.*s]", (int)len, line);
    if (json_read(wrapped.data, wrapped.len, &v, &err) ||
        tokenizer_encode(t, json_as_str(json_at(v, 0), ""), json_str_len(json_at(v, 0)),
                         plain ? TOKENIZE_PLAIN : TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL,
                         &ids, &err)) {
        printf("error: %s\n", err.text);
    } else {
        for (size_t i = 0; i < ids.n; i++)
            printf("%s%d", i ? " " : "", ids.v[i]);
        printf("\n");
    }
    json_free(v);
    buf_fini(&wrapped);
    ids_fini(&ids);
}

static void decode_line(const struct tokenizer *t, const char *line, bool skip, bool stream)
{
    struct ids ids = {0};
    struct buf text = {0}, quoted = {0};
    char *end;
    for (long id; id = strtol(line, &end, 10), end != line; line = end)
        ids_push(&ids, (int32_t)id);
    if (stream) {
        struct detok *d = detok_create(t, skip);
        for (size_t i = 0; i < ids.n; i++)
            detok_push(d, ids.v[i], &text);
        detok_flush(d, &text);
        detok_destroy(d);
    } else {
        tokenizer_decode(t, ids.v, ids.n, skip, &text);
    }
    struct jw w = jw_begin(&quoted);
    jw_strn(&w, text.data ? text.data : "", text.len);
    printf("%s\n", quoted.data);
    ids_fini(&ids);
    buf_fini(&text);
    buf_fini(&quoted);
}

static void measure(const struct tokenizer *t, const char *path, int times)
{
    struct buf text = {0};
    struct ids ids = {0};
    if (!read_file(path, &text))
        exit(1);
    for (int k = 0; k < times; k++) {
        clock_t start = clock();
        ids.n = 0;
        for (size_t at = 0; at < text.len; at += 16384) {
            size_t n = text.len - at < 16384 ? text.len - at : 16384;
            tokenizer_encode(t, text.data + at, n, TOKENIZE_PLAIN, &ids, NULL);
        }
        double s = (double)(clock() - start) / CLOCKS_PER_SEC;
        printf("%zu bytes, %zu tokens, %.1f MB/s\n", text.len, ids.n, (double)text.len / s / 1e6);
    }
    buf_fini(&text);
    ids_fini(&ids);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    struct tokenizer *t = load(argv[1]);
    const char *verb = argv[2], *option = argc > 3 ? argv[3] : "";
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (!strcmp(verb, "speed")) {
        measure(t, option, argc > 4 ? atoi(argv[4]) : 3);
    } else {
        while ((n = getline(&line, &cap, stdin)) > 0) {
            if (!strcmp(verb, "encode"))
                encode_line(t, line, (size_t)n, !strcmp(option, "plain"));
            else
                decode_line(t, line, !strcmp(option, "skip"), !strcmp(verb, "stream"));
        }
    }
    free(line);
    tokenizer_free(t);
    return 0;
}
