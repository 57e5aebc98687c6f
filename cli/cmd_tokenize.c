/* `baton tokenize MODEL`: lines of text to lines of ids, and back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/flags.h"
#include "cli/commands.h"
#include "cli/local.h"
#include "tokenizer/tokenizer.h"

struct options {
    const char *dir;
    bool whole, special, decode;
};

static enum status print_ids(const struct tokenizer *t, const struct options *o, const char *text,
                             size_t len, struct error *err)
{
    struct ids ids = {0};
    unsigned flags = o->special ? TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL : TOKENIZE_PLAIN;
    enum status st = tokenizer_encode(t, text, len, flags, &ids, err);
    for (size_t i = 0; st == ST_OK && i < ids.n; i++)
        printf(i == 0 ? "%d" : " %d", ids.v[i]);
    if (st == ST_OK)
        putchar('\n');
    ids_fini(&ids);
    return st;
}

static enum status print_text(const struct tokenizer *t, const struct options *o, const char *text,
                              struct error *err)
{
    struct ids ids = {0};
    struct buf out = {0};
    enum status st = local_parse_ids(text, &ids, err);
    size_t vocab = tokenizer_vocab_size(t);
    for (size_t i = 0; i < ids.n && st == ST_OK; i++)
        if ((size_t)ids.v[i] >= vocab)
            st = err_set(err, ST_INVALID, "token id %d is not below the vocabulary's %zu", ids.v[i],
                         vocab);
    if (st == ST_OK) {
        tokenizer_decode(t, ids.v, ids.n, !o->special, &out);
        if (out.failed)
            st = err_set(err, ST_NO_MEMORY, "no memory for the text");
    }
    if (st == ST_OK && out.len > 0)
        fwrite(out.data, 1, out.len, stdout);
    if (st == ST_OK && !o->whole)
        putchar('\n');
    buf_fini(&out);
    ids_fini(&ids);
    return st;
}

static enum status one(const struct tokenizer *t, const struct options *o, const char *text,
                       size_t len, struct error *err)
{
    return o->decode ? print_text(t, o, text, err) : print_ids(t, o, text, len, err);
}

static enum status each_line(const struct tokenizer *t, const struct options *o, struct error *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    enum status st = ST_OK;
    while (st == ST_OK && (n = getline(&line, &cap, stdin)) >= 0) {
        if (n > 0 && line[n - 1] == '\n')
            line[--n] = '\0';
        st = one(t, o, line, (size_t)n, err);
    }
    if (st == ST_OK && ferror(stdin))
        st = err_set(err, ST_IO, "stdin: %s", strerror(errno));
    free(line);
    return st;
}

static enum status whole(const struct tokenizer *t, const struct options *o, struct error *err)
{
    struct buf text = {0};
    enum status st = local_read_all(stdin, "stdin", &text, err);
    if (st == ST_OK && o->decode) /* ids may stand on many lines */
        for (size_t i = 0; i < text.len; i++)
            if (text.data[i] == '\n' || text.data[i] == '\r' || text.data[i] == '\t')
                text.data[i] = ' ';
    if (st == ST_OK)
        st = one(t, o, text.data ? text.data : "", text.len, err);
    buf_fini(&text);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct options o = {0};
    struct flag table[] = {
        {.name = "whole",
         .kind = FLAG_BOOL,
         .target = &o.whole,
         .help = "all of stdin is one text, not a text per line"},
        {.name = "special",
         .kind = FLAG_BOOL,
         .target = &o.special,
         .help = "add BOS and the like, read special tokens in the text; with --decode: show them"},
        {.name = "decode", .kind = FLAG_BOOL, .target = &o.decode, .help = "ids to text"},
    };
    struct flags f = {.program = "baton tokenize",
                      .usage = "MODEL [options] < TEXT",
                      .about = "Text on stdin to token ids, a line of ids per line of text.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &o.dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n != 1) {
        fprintf(stderr, "baton tokenize: expected MODEL (see baton tokenize --help)\n");
        return 2;
    }
    struct error err = {0};
    struct tokenizer *t = NULL;
    enum status st = tokenizer_load(o.dir, &t, &err);
    if (st == ST_OK)
        st = o.whole ? whole(t, &o, &err) : each_line(t, &o, &err);
    tokenizer_free(t);
    if (fflush(stdout) != 0 && st == ST_OK)
        st = err_set(&err, ST_IO, "stdout: %s", strerror(errno));
    if (st == ST_OK)
        return 0;
    fprintf(stderr, "baton tokenize: %s\n", err.text);
    return 1;
}
