#include "base/config_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/flags.h"
#include "base/log.h"

#define ROWS_MAX 96
#define NAME_BYTES 64

/* Short names that more than one key could claim, and one that is no key's last part. */
static const struct {
    const char *name, *for_router, *for_node;
} short_names[] = {
    {"model", "model.path", "model.path"},
    {"listen", "router.listen", "node.listen"},
    {"name", "model.name", "node.name"},
    {"device", "node.device", "node.device"},
};

/* What parsing needs: two flags for a key (the whole name and, where there is one, the short one)
 * share a target. */
struct scratch {
    const char *config_file;
    struct {
        char name[NAME_BYTES], help[400];
        const char *text;
        bool yes;
        struct flag *flags[3];
        size_t n_flags;
    } rows[ROWS_MAX];
    char short_name[ROWS_MAX][NAME_BYTES];
    struct flag flags[3 * ROWS_MAX];
    size_t n_flags;
};

static bool is_router(const char *program)
{
    return strstr(program, "router") != NULL;
}

static void dashed(char out[NAME_BYTES], const char *key)
{
    size_t i = 0;
    for (; key[i] != '\0' && i + 1 < NAME_BYTES; i++)
        out[i] = key[i] == '.' || key[i] == '_' ? '-' : key[i];
    out[i] = '\0';
}

static const char *last_part(const char *key)
{
    return strrchr(key, '.') + 1;
}

/* The last part of a key is its short name when no other key ends alike. */
static bool last_part_is_unique(size_t row)
{
    for (size_t i = 0; i < config_table_n; i++)
        if (i != row &&
            strcmp(last_part(config_table[i].key), last_part(config_table[row].key)) == 0)
            return false;
    return true;
}

static void add_flag(struct scratch *s, size_t row, const char *name, const char *help)
{
    const struct config_key *key = &config_table[row];
    struct flag *f = &s->flags[s->n_flags++];
    *f = (struct flag){.name = name, .help = help};
    if (key->kind == CK_BOOL) {
        f->kind = FLAG_BOOL;
        f->target = &s->rows[row].yes;
    } else {
        f->kind = FLAG_STR;
        f->target = &s->rows[row].text;
        f->value = key->value != NULL ? key->value : key->words;
    }
    assert(s->rows[row].n_flags < 3);
    s->rows[row].flags[s->rows[row].n_flags++] = f;
}

static const char *short_name_of(struct scratch *s, size_t row, bool router)
{
    const char *key = config_table[row].key;
    for (size_t i = 0; i < sizeof short_names / sizeof short_names[0]; i++)
        if (strcmp(router ? short_names[i].for_router : short_names[i].for_node, key) == 0)
            return short_names[i].name;
    if (!last_part_is_unique(row))
        return NULL;
    dashed(s->short_name[row], last_part(key));
    return s->short_name[row];
}

static void add_row(struct scratch *s, size_t row, bool router)
{
    const struct config_key *key = &config_table[row];
    bool listed = (key->programs & (router ? CP_ROUTER : CP_NODE)) != 0;
    const char *brief = short_name_of(s, row, router);
    dashed(s->rows[row].name, key->key);
    char also[NAME_BYTES + 8] = "";
    if (brief != NULL)
        snprintf(also, sizeof also, "; also --%s", brief);
    const int n =
        snprintf(s->rows[row].help, sizeof s->rows[row].help, "%s (default %s%s)", key->help,
                 key->fallback == NULL    ? "none"
                 : *key->fallback == '\0' ? "\"\""
                                          : key->fallback,
                 also);
    assert(n > 0 && (size_t)n < sizeof s->rows[row].help);
    (void)n;
    add_flag(s, row, s->rows[row].name, listed ? s->rows[row].help : NULL);
    if (brief != NULL)
        add_flag(s, row, brief, NULL);
}

static enum status apply(struct scratch *s, struct config *c, struct error *err)
{
    for (size_t row = 0; row < config_table_n; row++) {
        for (size_t i = 0; i < s->rows[row].n_flags; i++) {
            const struct flag *f = s->rows[row].flags[i];
            if (!f->seen)
                continue;
            char where[NAME_BYTES + 2];
            snprintf(where, sizeof where, "--%s", f->name);
            const char *text = f->kind != FLAG_BOOL ? s->rows[row].text
                               : s->rows[row].yes   ? "true"
                                                    : "false";
            enum status st = config_set(c, config_table[row].key, text, where, err);
            if (st != ST_OK)
                return st;
        }
    }
    return ST_OK;
}

static void start_log(const struct config *c, const char *program)
{
    enum log_level level;
    bool known = log_level_parse(c->log.level, &level);
    assert(known); /* the table lets no other word in */
    log_init(program, level, strcmp(c->log.format, "json") == 0 ? LOG_JSON : LOG_TEXT);
}

int config_parse_args(struct config *c, const char *program, const char *about, int argc,
                      char **argv, struct error *err)
{
    struct error own;
    if (err == NULL)
        err = &own;
    struct scratch *s = calloc(1, sizeof *s);
    assert(s != NULL && config_table_n <= ROWS_MAX);
    bool router = is_router(program);
    s->flags[s->n_flags++] = (struct flag){.name = "config",
                                           .kind = FLAG_STR,
                                           .target = &s->config_file,
                                           .value = "FILE",
                                           .help = "configuration in YAML; flags override it"};
    for (size_t row = 0; row < config_table_n; row++)
        add_row(s, row, router);
    struct flags flags = {.program = program, .about = about, .table = s->flags, .n = s->n_flags};
    int rc = flags_parse(&flags, argc, argv, NULL, 0, NULL);
    if (rc == 0) {
        enum status st = ST_OK;
        if (s->config_file != NULL)
            st = config_read_file(c, s->config_file, err);
        if (st == ST_OK)
            st = apply(s, c, err);
        if (st == ST_OK)
            st = config_check(c, err);
        if (st == ST_OK) {
            config_resolve(c);
            start_log(c, program);
        } else {
            fprintf(stderr, "%s: %s\n", program, err->text);
            rc = 2;
        }
    }
    free(s);
    return rc;
}
