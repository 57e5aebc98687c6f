/* The one table of configuration keys, private to base/config*.c. YAML, flags, config_dump() and
 * --help all go by it: a new key is a field in struct config and a row in config_table.c.
 *
 * A row's value lies `offset` bytes into struct config; its kind says of which C type it is and how
 * text becomes a value. Everything here is constant data or pure; owner of strings is the config.
 * Thread: any.
 */
#ifndef BASE_CONFIG_TABLE_H
#define BASE_CONFIG_TABLE_H

#include "base/config.h"

enum config_kind {
    CK_STR,      /* char *: printable text */
    CK_NAME,     /* char *: letters, digits, . _ - ; stands in labels and log lines */
    CK_WORD,     /* char *: one of `words` */
    CK_ADDRESS,  /* char *: HOST:PORT */
    CK_INT,      /* int64_t */
    CK_SIZE,     /* int64_t bytes: 4096, 64KiB, 1GiB */
    CK_DURATION, /* int64_t ns: 250ms, 10s, 5m, 1h; min and max in ns */
    CK_BOOL,     /* bool */
    CK_ROLE,     /* enum node_role: prefill, decode or both */
    CK_NODES     /* router.nodes */
};

enum config_programs { CP_ROUTER = 1, CP_NODE = 2, CP_ALL = 3 };

struct config_key {
    const char *key; /* "kv.block_tokens" */
    enum config_kind kind;
    size_t offset;
    const char *fallback; /* the default, as text; NULL: none (only where `optional`) */
    int64_t min, max;
    const char *words; /* CK_WORD: "bf16|fp16|fp32" */
    const char *value; /* what --help shows for the value */
    const char *help;  /* one line */
    unsigned programs; /* whose --help lists it */
    bool optional;     /* null is a value */
};

extern const struct config_key config_table[];
extern const size_t config_table_n;

/* How a scalar was written, where that is known (YAML). Flags give CT_ANY. */
enum config_text { CT_ANY, CT_PLAIN, CT_QUOTED };

#define CONFIG_WANT_BYTES 400

const struct config_key *config_key_find(const char *key, size_t len);
/* Sets the value of `key`. False when `text` is not one: `want` then says what is. */
bool config_value_set(struct config *c, const struct config_key *key, const char *text, size_t len,
                      enum config_text how, char want[CONFIG_WANT_BYTES]);
/* Appends a node to router.nodes; false when `role` or `address` is wrong or the list is full. */
bool config_node_add(struct config *c, const char *role, const char *address,
                     char want[CONFIG_WANT_BYTES]);
void config_nodes_clear(struct config *c);
bool config_role_parse(const char *text, enum node_role *out);
const char *config_role_name(enum node_role role);

#endif
