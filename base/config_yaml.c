/* Walks libyaml's events by recursive descent. The recursion is as deep as the table's keys are: an
 * unknown key is refused before what hangs under it is looked at, so nesting in the text never
 * reaches the stack.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/config_table.h"
#include "base/file.h"
#include "base/log.h"

#define FILE_BYTES_MAX (1 << 20)
#define KEY_BYTES 160
#define KEYS_SEEN_MAX 128

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at */
    bool has_event;
    struct config *config;
    const char *name;
    struct error *err;
    const char
        *seen[KEYS_SEEN_MAX]; /* dotted keys of rows and sections: pointers into the table ... */
    size_t seen_len[KEYS_SEEN_MAX]; /* ... and how much of each */
    size_t n_seen;
};

static size_t line_of(const struct reader *r)
{
    return r->event.start_mark.line + 1;
}

static enum status fail(struct reader *r, const char *key, const char *want, const char *got)
{
    return err_set(r->err, ST_INVALID, "%s:%zu: %s: expected %s, got %s", r->name, line_of(r), key,
                   want, got);
}

/* What the event at hand is, in words. */
static const char *describe(const struct reader *r, char *out, size_t cap)
{
    char quoted[96], text[80];
    switch (r->event.type) {
    case YAML_SCALAR_EVENT: {
        size_t len = r->event.data.scalar.length;
        len = len < sizeof text - 1 ? len : sizeof text - 1;
        memcpy(text, r->event.data.scalar.value, len);
        text[len] = '\0';
        bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        snprintf(out, cap, "%s%s", plain ? "" : "the string ",
                 plain && len == 0 ? "nothing" : log_quote(quoted, sizeof quoted, text));
        return out;
    }
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    case YAML_MAPPING_START_EVENT:
        return "a mapping";
    case YAML_ALIAS_EVENT:
        return "an alias";
    default:
        return "the end";
    }
}

static enum status fail_here(struct reader *r, const char *key, const char *want)
{
    char got[160];
    return fail(r, key, want, describe(r, got, sizeof got));
}

static enum status syntax_error(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    size_t line = p->error == YAML_READER_ERROR ? 0 : p->problem_mark.line + 1;
    if (p->error == YAML_MEMORY_ERROR)
        return err_set(r->err, ST_NO_MEMORY, "%s: no memory to parse it", r->name);
    for (size_t i = 0; line == 0 && i < 1; i++)
        line = p->mark.line + 1; /* a bad byte: somewhere at or after what was read last */
    return err_set(r->err, ST_INVALID, "%s:%zu: syntax: expected well-formed YAML, got: %s%s%s",
                   r->name, line, p->context != NULL ? p->context : "",
                   p->context != NULL ? ": " : "", p->problem != NULL ? p->problem : "an error");
}

/* Steps to the next event, and refuses what a configuration has no use for. */
static enum status next(struct reader *r, const char *key)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
    if (!r->has_event)
        return syntax_error(r);
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        anchor = r->event.data.scalar.anchor;
        tag = r->event.data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = r->event.data.sequence_start.anchor;
        tag = r->event.data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = r->event.data.mapping_start.anchor;
        tag = r->event.data.mapping_start.tag;
        break;
    case YAML_ALIAS_EVENT:
        return fail(r, key, "a value", "an alias");
    default:
        break;
    }
    if (anchor != NULL)
        return fail(r, key, "a value without an anchor", "an anchor");
    if (tag != NULL)
        return fail(r, key, "a value without a tag", "a tag");
    return ST_OK;
}

/* A section is what some key of the table lies under; gives that key. */
static const struct config_key *section_find(const char *key, size_t len)
{
    for (size_t i = 0; i < config_table_n; i++)
        if (strncmp(config_table[i].key, key, len) == 0 && config_table[i].key[len] == '.')
            return &config_table[i];
    return NULL;
}

/* The keys that a section has, for the message about one that it has not. */
static enum status unknown_key(struct reader *r, const char *key, size_t prefix_len)
{
    char want[320] = "one of ";
    size_t n = strlen(want), last_len = 0;
    const char *last = "";
    for (size_t i = 0; i < config_table_n; i++) {
        if (strncmp(config_table[i].key, key, prefix_len) != 0)
            continue;
        const char *part = config_table[i].key + prefix_len;
        size_t len = strcspn(part, ".");
        if ((len == last_len && strncmp(part, last, len) == 0) || n + len + 3 > sizeof want)
            continue;
        n += (size_t)snprintf(want + n, sizeof want - n, "%s%.*s", last_len > 0 ? ", " : "",
                              (int)len, part);
        last = part;
        last_len = len;
    }
    return fail(r, key, want, "an unknown key");
}

static bool seen_before(struct reader *r, const char *table_key, size_t len)
{
    for (size_t i = 0; i < r->n_seen; i++)
        if (r->seen_len[i] == len && strncmp(r->seen[i], table_key, len) == 0)
            return true;
    assert(r->n_seen < KEYS_SEEN_MAX);
    r->seen[r->n_seen] = table_key;
    r->seen_len[r->n_seen++] = len;
    return false;
}

static enum status read_value(struct reader *r, const struct config_key *row)
{
    char want[CONFIG_WANT_BYTES];
    const yaml_event_t *e = &r->event;
    if (e->type == YAML_SCALAR_EVENT) {
        bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        if (config_value_set(r->config, row, (const char *)e->data.scalar.value,
                             e->data.scalar.length, plain ? CT_PLAIN : CT_QUOTED, want))
            return ST_OK;
    } else {
        struct config scratch = {0};
        config_value_set(&scratch, row, "\n", 1, CT_ANY, want); /* never a value: tells what is */
    }
    return fail_here(r, row->key, want);
}

/* One `{role: ROLE, address: HOST:PORT}`; the event at hand is its beginning. */
static enum status read_node(struct reader *r)
{
    char key[KEY_BYTES], role[16] = "", address[300] = "", want[CONFIG_WANT_BYTES];
    int n = snprintf(key, sizeof key, "router.nodes[%zu]", r->config->router.n_nodes);
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return fail_here(r, key, "a mapping {role: ROLE, address: HOST:PORT}");
    size_t line = line_of(r);
    enum status st;
    while ((st = next(r, key)) == ST_OK && r->event.type != YAML_MAPPING_END_EVENT) {
        const char *name = (const char *)r->event.data.scalar.value;
        bool scalar = r->event.type == YAML_SCALAR_EVENT;
        bool is_role = scalar && strcmp(name, "role") == 0;
        if (!is_role && (!scalar || strcmp(name, "address") != 0))
            return fail_here(r, key, "one of role, address");
        char *target = is_role ? role : address;
        size_t cap = is_role ? sizeof role : sizeof address;
        snprintf(key + n, sizeof key - (size_t)n, ".%s", is_role ? "role" : "address");
        if (*target != '\0')
            return fail(r, key, "it once", "it twice");
        if ((st = next(r, key)) != ST_OK)
            return st;
        const char *expected = is_role ? "one of prefill, decode, both" : "HOST:PORT";
        if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.length == 0 ||
            r->event.data.scalar.length >= cap ||
            strlen((const char *)r->event.data.scalar.value) != r->event.data.scalar.length)
            return fail_here(r, key, expected);
        memcpy(target, r->event.data.scalar.value, r->event.data.scalar.length + 1);
        struct config scratch = {0};
        bool ok =
            config_node_add(&scratch, is_role ? role : "both", is_role ? "h:1" : address, want);
        config_nodes_clear(&scratch);
        if (!ok)
            return fail_here(r, key, want);
        key[n] = '\0';
    }
    if (st != ST_OK)
        return st;
    if (*role == '\0' || *address == '\0')
        return err_set(r->err, ST_INVALID, "%s:%zu: %s: expected both role and address, got %s",
                       r->name, line, key, *role != '\0' ? "no address" : "no role");
    if (!config_node_add(r->config, role, address, want))
        return err_set(r->err, ST_INVALID, "%s:%zu: router.nodes: expected %s, got more", r->name,
                       line, want);
    return ST_OK;
}

static enum status read_nodes(struct reader *r)
{
    if (r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 4 &&
        strcmp((const char *)r->event.data.scalar.value, "null") == 0) {
        config_nodes_clear(r->config);
        return ST_OK;
    }
    if (r->event.type != YAML_SEQUENCE_START_EVENT)
        return fail_here(r, "router.nodes", "a list of {role: ROLE, address: HOST:PORT}");
    config_nodes_clear(r->config);
    enum status st;
    while ((st = next(r, "router.nodes")) == ST_OK && r->event.type != YAML_SEQUENCE_END_EVENT)
        if ((st = read_node(r)) != ST_OK)
            return st;
    return st;
}

/* The mapping of the section `prefix` ("", "router.", "router.limits."); its beginning is the event
 * at hand. */
static enum status read_section(struct reader *r, const char *prefix)
{
    enum status st;
    while ((st = next(r, *prefix != '\0' ? prefix : "(top)")) == ST_OK &&
           r->event.type != YAML_MAPPING_END_EVENT) {
        char key[KEY_BYTES];
        if (r->event.type != YAML_SCALAR_EVENT)
            return fail_here(r, *prefix != '\0' ? prefix : "(top)", "the name of a key");
        char quoted[96];
        const char *name = (const char *)r->event.data.scalar.value;
        bool sane = name[strspn(name, "abcdefghijklmnopqrstuvwxyz_")] == '\0' && *name != '\0' &&
                    strlen(name) == r->event.data.scalar.length && strlen(name) < 64;
        snprintf(key, sizeof key, "%s%s", prefix,
                 sane ? name : log_quote(quoted, sizeof quoted, name));
        size_t len = strlen(key);
        const struct config_key *row = sane ? config_key_find(key, len) : NULL;
        const struct config_key *under = sane ? section_find(key, len) : NULL;
        if (row == NULL && under == NULL)
            return unknown_key(r, key, strlen(prefix));
        if (seen_before(r, row != NULL ? row->key : under->key, len))
            return fail(r, key, "it once", "it twice");
        if ((st = next(r, key)) != ST_OK)
            return st;
        if (row != NULL) {
            st = row->kind == CK_NODES ? read_nodes(r) : read_value(r, row);
        } else if (r->event.type != YAML_MAPPING_START_EVENT) {
            st = fail_here(r, key, "a mapping");
        } else {
            key[len] = '.';
            key[len + 1] = '\0';
            st = read_section(r, key);
        }
        if (st != ST_OK)
            return st;
    }
    return st;
}

static enum status read_stream(struct reader *r)
{
    enum status st = next(r, "(top)"); /* the stream's beginning */
    if (st != ST_OK)
        return st;
    if ((st = next(r, "(top)")) != ST_OK || r->event.type == YAML_STREAM_END_EVENT)
        return st; /* an empty file changes nothing */
    if (r->event.data.document_start.version_directive != NULL ||
        r->event.data.document_start.tag_directives.start !=
            r->event.data.document_start.tag_directives.end)
        return fail(r, "(top)", "a mapping", "a directive");
    if ((st = next(r, "(top)")) != ST_OK)
        return st;
    bool empty = r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0 &&
                 r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (!empty) {
        if (r->event.type != YAML_MAPPING_START_EVENT)
            return fail_here(r, "(top)", "a mapping");
        if ((st = read_section(r, "")) != ST_OK)
            return st;
    }
    if ((st = next(r, "(top)")) != ST_OK || (st = next(r, "(top)")) != ST_OK)
        return st;
    if (r->event.type != YAML_STREAM_END_EVENT)
        return fail(r, "(top)", "one document", "another one");
    return ST_OK;
}

enum status config_read_text(struct config *c, const char *name, const char *text, size_t len,
                             struct error *err)
{
    if (len > FILE_BYTES_MAX)
        return err_set(err, ST_INVALID, "%s:1: (top): expected at most %d bytes, got %zu", name,
                       FILE_BYTES_MAX, len);
    struct reader *r = calloc(1, sizeof *r);
    if (r == NULL || yaml_parser_initialize(&r->parser) == 0) {
        free(r);
        return err_set(err, ST_NO_MEMORY, "%s: no memory to parse it", name);
    }
    r->config = c;
    r->name = name;
    r->err = err;
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)(len > 0 ? text : ""), len);
    enum status st = read_stream(r);
    if (r->has_event)
        yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
    free(r);
    return st;
}

enum status config_read_file(struct config *c, const char *path, struct error *err)
{
    struct buf text = {0};
    enum status st = file_read(path, FILE_BYTES_MAX, &text, err);
    if (st == ST_OK)
        st = config_read_text(c, path, text.data, text.len, err);
    buf_fini(&text);
    return st;
}
