/* Which files a model is served with: a tokenizer.json, or what stands in for it. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "formats/gguf.h"
#include "tokenizer/internal.h"
#include "tokenizer/load/load.h"

#define CONFIG_BYTES_MAX ((size_t)16 << 20)
#define TEMPLATE_BYTES_MAX ((size_t)4 << 20)
#define PATH_BYTES 4096

/* A file of the folder; false: the path is too long, or nothing is there. */
static bool file_there(const char *dir, const char *name, char path[PATH_BYTES])
{
    return snprintf(path, PATH_BYTES, "%s/%s", dir, name) < PATH_BYTES && access(path, F_OK) == 0;
}

/* Reads one file of the folder; one that is not there leaves *out NULL. */
static enum status read_optional(const char *dir, const char *name, size_t max, json **out,
                                 struct error *err)
{
    char path[PATH_BYTES];
    return file_there(dir, name, path) ? json_read_file(path, max, out, err) : ST_OK;
}

/* *out stays as it is where there is no such file, or nothing in it. */
static enum status read_template(const char *dir, const char *name, char **out, struct error *err)
{
    char path[PATH_BYTES];
    struct buf text = {0};
    if (!file_there(dir, name, path))
        return ST_OK;
    enum status st = file_read(path, TEMPLATE_BYTES_MAX, &text, err);
    if (!st && text.len) {
        free(*out);
        *out = buf_take(&text, NULL);
    }
    buf_fini(&text);
    return st;
}

/* chat_template.jinja, where there is one, goes before all that the configuration has. */
static enum status read_templates(const char *dir, struct tokenizer *t, struct error *err)
{
    char *own = NULL;
    enum status st = read_template(dir, "chat_template.jinja", &own, err);
    if (own) {
        free(t->chat_template);
        free(t->tool_template);
        t->chat_template = own;
        t->tool_template = NULL;
    }
    if (st == ST_OK)
        st = read_template(dir, "additional_chat_templates/tool_use.jinja", &t->tool_template, err);
    return st;
}

/* The name of the folder's one *.tiktoken file into `name`; false: none, or several. */
static bool find_tiktoken(const char *dir, char name[256])
{
    DIR *d = opendir(dir);
    size_t found = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n > 9 && n < 256 && !strcmp(e->d_name + n - 9, ".tiktoken") && found++ == 0)
            memcpy(name, e->d_name, n + 1);
    }
    if (d)
        closedir(d);
    return found == 1;
}

static enum status make_of_file(const char *dir, const char *name, const json *config,
                                struct made *out, struct error *err)
{
    char path[PATH_BYTES];
    struct buf bytes = {0};
    if (!file_there(dir, name, path))
        return err_set(err, ST_NOT_FOUND, "%.200s: no %.60s", dir, name);
    enum status st = file_read(path, MADE_FILE_BYTES_MAX, &bytes, err);
    if (st) {
        buf_fini(&bytes);
        return st;
    }
    st = load_is_tiktoken(bytes.data, bytes.len)
             ? load_tiktoken(name, bytes.data, bytes.len, config, out, err)
             : load_sentencepiece(bytes.data, bytes.len, config, out, err);
    if (st)
        err_prefix(err, "%.200s", path);
    buf_fini(&bytes);
    return st;
}

static enum status make_of_gguf(const char *path, struct made *out, struct error *err)
{
    struct gguf *g = NULL;
    enum status st = gguf_open(path, &g, err);
    if (st)
        return st;
    st = load_gguf(g, out, err);
    gguf_close(g);
    if (st)
        err_prefix(err, "%.200s", path);
    return st;
}

/* What a folder without a tokenizer.json has instead. *legacy: GPT-2's two files. */
static enum status make_of_folder(const char *dir, const json *config, struct made *out,
                                  bool *legacy, struct error *err)
{
    char path[PATH_BYTES], name[256];
    *legacy = false;
    if (file_there(dir, "tokenizer.model", path))
        return make_of_file(dir, "tokenizer.model", config, out, err);
    if (file_there(dir, "tiktoken.model", path))
        return make_of_file(dir, "tiktoken.model", config, out, err);
    if (find_tiktoken(dir, name))
        return make_of_file(dir, name, config, out, err);
    *legacy = file_there(dir, "vocab.json", path);
    if (!*legacy && gguf_find_file(dir, path, sizeof(path), NULL) == ST_OK)
        return make_of_gguf(path, out, err);
    *legacy = true;
    out->tokenizer.max = TOKENIZER_BYTES_MAX;
    return legacy_make_json(dir, config, &out->tokenizer, err);
}

/* Parses what was made. A configuration of the folder's own goes before the one that was made. */
static enum status read_made(const struct made *made, json **tokenizer, json **config,
                             struct error *err)
{
    enum status st = json_read(made->tokenizer.data, made->tokenizer.len, tokenizer, err);
    if (!st && made->config.len && !*config)
        st = json_read(made->config.data, made->config.len, config, err);
    return st;
}

static bool is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static enum status load_files(const char *dir, struct loader_input *in, json **files,
                              struct error *err)
{
    struct made made = {0};
    enum status st = ST_OK;
    if (is_file(dir)) {
        st = make_of_gguf(dir, &made, err);
    } else {
        st = read_optional(dir, "tokenizer_config.json", CONFIG_BYTES_MAX, &files[1], err);
        if (!st)
            st = read_optional(dir, "special_tokens_map.json", CONFIG_BYTES_MAX, &files[2], err);
        if (!st)
            st = read_optional(dir, "tokenizer.json", TOKENIZER_BYTES_MAX, &files[0], err);
        if (!st && !files[0])
            st = make_of_folder(dir, files[1], &made, &in->made, err);
    }
    if (!st && !files[0])
        st = read_made(&made, &files[0], &files[1], err);
    made_fini(&made);
    in->tokenizer = files[0];
    in->config = files[1];
    in->specials = files[2];
    return st;
}

enum status tokenizer_load(const char *path, struct tokenizer **out, struct error *err)
{
    json *files[3] = {NULL, NULL, NULL};
    struct loader_input in = {0};
    struct tokenizer *t = NULL;
    enum status st = load_files(path, &in, files, err);
    if (!st) {
        st = loader_build(&in, &t, err);
        if (st)
            err_prefix(err, "%s%s", path, is_file(path) ? "" : "/tokenizer.json");
    }
    if (!st)
        st = read_templates(path, t, err);
    if (st)
        tokenizer_free(t);
    else
        *out = t;
    for (int i = 0; i < 3; i++)
        json_free(files[i]);
    return st;
}
