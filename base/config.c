#include "base/config.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/config_table.h"
#include "base/log.h"

void config_default(struct config *c)
{
    char want[CONFIG_WANT_BYTES];
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < config_table_n; i++) {
        const struct config_key *key = &config_table[i];
        if (key->fallback == NULL)
            continue;
        bool ok = config_value_set(c, key, key->fallback, strlen(key->fallback), CT_ANY, want);
        assert(ok);
    }
}

static bool holds_text(const struct config_key *key)
{
    return key->kind == CK_STR || key->kind == CK_NAME || key->kind == CK_WORD ||
           key->kind == CK_ADDRESS;
}

void config_fini(struct config *c)
{
    for (size_t i = 0; i < config_table_n; i++)
        if (holds_text(&config_table[i]))
            free(*(char **)((char *)c + config_table[i].offset));
    config_nodes_clear(c);
    memset(c, 0, sizeof *c);
}

enum status config_set(struct config *c, const char *key, const char *value, const char *where,
                       struct error *err)
{
    char want[CONFIG_WANT_BYTES], got[96];
    const struct config_key *row = config_key_find(key, strlen(key));
    if (row == NULL)
        return err_set(err, ST_INVALID, "%s: expected a key of the configuration, got %s", where,
                       log_quote(got, sizeof got, key));
    if (!config_value_set(c, row, value, strlen(value), CT_ANY, want))
        return err_set(err, ST_INVALID, "%s: expected %s, got %s", where, want,
                       log_quote(got, sizeof got, value));
    return ST_OK;
}

void config_resolve(struct config *c)
{
    if (c->model.name != NULL || c->model.path == NULL)
        return;
    const char *end = c->model.path + strlen(c->model.path);
    while (end > c->model.path + 1 && end[-1] == '/')
        end--;
    const char *begin = end;
    while (begin > c->model.path && begin[-1] != '/')
        begin--;
    if (end - begin > 5 && strncmp(end - 5, ".gguf", 5) == 0)
        end -= 5;
    /* The root folder has no name. */
    c->model.name = begin < end ? strndup(begin, (size_t)(end - begin)) : strdup("model");
    assert(c->model.name != NULL);
}

enum status config_check(const struct config *c, struct error *err)
{
    int given = (c->tls.ca != NULL) + (c->tls.cert != NULL) + (c->tls.key != NULL);
    if (given != 0 && given != 3)
        return err_set(err, ST_INVALID,
                       "tls: expected all of ca, cert and key or none, got %d of 3", given);
    int64_t ranks = c->ranks.tensor * c->ranks.expert;
    if (c->ranks.rank >= ranks)
        return err_set(err, ST_INVALID,
                       "ranks.rank: expected less than tensor x expert = %lld, got %lld",
                       (long long)ranks, (long long)c->ranks.rank);
    if (ranks > 1 && c->ranks.leader == NULL)
        return err_set(err, ST_INVALID, "ranks.leader: expected HOST:PORT of rank 0, got nothing");
    for (size_t i = 0; i < c->router.n_nodes; i++) {
        for (size_t k = 0; k < i; k++) {
            if (strcmp(c->router.nodes[i].address, c->router.nodes[k].address) == 0)
                return err_set(err, ST_INVALID, "router.nodes: expected %s once, got it twice",
                               c->router.nodes[i].address);
        }
    }
    return ST_OK;
}

static void dump_text(struct buf *out, const char *text)
{
    char quoted[8200];
    buf_puts(out, text != NULL ? log_quote(quoted, sizeof quoted, text) : "null");
}

static void dump_duration(struct buf *out, int64_t ns)
{
    if (ns % 1000000000 == 0)
        buf_printf(out, "%llds", (long long)(ns / 1000000000));
    else if (ns % 1000000 == 0)
        buf_printf(out, "%lldms", (long long)(ns / 1000000));
    else
        buf_printf(out, "%lldus", (long long)(ns / 1000));
}

static void dump_value(struct buf *out, const struct config *c, const struct config_key *key)
{
    const void *at = (const char *)c + key->offset;
    switch (key->kind) {
    case CK_STR:
    case CK_NAME:
    case CK_WORD:
    case CK_ADDRESS:
        dump_text(out, *(char *const *)at);
        break;
    case CK_INT:
    case CK_SIZE:
        buf_printf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case CK_DURATION:
        dump_duration(out, *(const int64_t *)at);
        break;
    case CK_BOOL:
        buf_puts(out, *(const bool *)at ? "true" : "false");
        break;
    case CK_ROLE: {
        enum node_role role = *(const enum node_role *)at;
        buf_puts(out, role == ROLE_ROUTER ? "null" : config_role_name(role));
        break;
    }
    case CK_NODES:
        buf_putc(out, '[');
        for (size_t i = 0; i < c->router.n_nodes; i++) {
            const struct config_node *node = &c->router.nodes[i];
            buf_printf(out, "%s{role: %s, address: ", i > 0 ? ", " : "",
                       config_role_name(node->role));
            dump_text(out, node->address);
            buf_putc(out, '}');
        }
        buf_putc(out, ']');
        break;
    }
}

void config_dump(const struct config *c, char *out, size_t cap)
{
    struct buf text = {0};
    const char *before = "";
    for (size_t i = 0; i < config_table_n; i++) {
        const char *key = config_table[i].key, *part = key;
        int depth = 0;
        /* A heading for each section that the key before was not in. */
        for (const char *dot; (dot = strchr(part, '.')) != NULL; part = dot + 1, depth++)
            if (strncmp(before, key, (size_t)(dot - key) + 1) != 0)
                buf_printf(&text, "%*s%.*s:\n", 2 * depth, "", (int)(dot - part), part);
        buf_printf(&text, "%*s%s: ", 2 * depth, "", part);
        dump_value(&text, c, &config_table[i]);
        buf_putc(&text, '\n');
        before = key;
    }
    if (cap > 0)
        snprintf(out, cap, "%s", text.failed ? "" : text.data);
    buf_fini(&text);
}

static enum status bad_address(const char *address, struct error *err)
{
    char got[128];
    return err_set(err, ST_INVALID, "expected HOST:PORT, got %s",
                   log_quote(got, sizeof got, address));
}

enum status config_split_address(const char *address, char *host, size_t host_cap, int *port,
                                 struct error *err)
{
    const char *begin = address, *end, *colon;
    if (address[0] == '[') {
        begin = address + 1;
        end = strchr(begin, ']');
        if (end == NULL || end[1] != ':')
            return bad_address(address, err);
        colon = end + 1;
    } else {
        colon = strrchr(address, ':');
        if (colon == NULL || strchr(address, ':') != colon)
            return bad_address(address, err); /* a bare IPv6 address would be ambiguous */
        end = colon;
    }
    size_t len = (size_t)(end - begin), digits = strspn(colon + 1, "0123456789");
    if (len == 0 || len >= host_cap || strpbrk(address, " \t/") != NULL || digits == 0 ||
        digits > 5 || colon[1 + digits] != '\0')
        return bad_address(address, err);
    int value = atoi(colon + 1);
    if (value > 65535)
        return bad_address(address, err);
    memcpy(host, begin, len);
    host[len] = '\0';
    *port = value;
    return ST_OK;
}
