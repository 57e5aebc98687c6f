/* Text to the value of a key, for YAML scalars and for flags alike. */
#include "base/config_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit size_units[] = {
    {"", 1},          {"KiB", 1 << 10},          {"MiB", 1 << 20},
    {"GiB", 1 << 30}, {"TiB", INT64_C(1) << 40}, {NULL, 0},
};
static const struct unit duration_units[] = {
    {"us", 1000},
    {"ms", 1000000},
    {"s", INT64_C(1000000000)},
    {"m", INT64_C(60000000000)},
    {"h", INT64_C(3600000000000)},
    {NULL, 0},
};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static bool word_is(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

static bool is_null(const char *text, size_t len, enum config_text how)
{
    if (how == CT_QUOTED)
        return false;
    return word_is(text, len, "null") || word_is(text, len, "~") ||
           (how == CT_PLAIN &&
            (len == 0 || word_is(text, len, "Null") || word_is(text, len, "NULL")));
}

/* [-]digits and a unit; no sign but minus, no blanks, no overflow. */
static bool number_parse(const char *text, size_t len, const struct unit *units, int64_t *out)
{
    size_t i = len > 0 && text[0] == '-';
    size_t digits = i;
    int64_t v = 0;
    for (; i < len && text[i] >= '0' && text[i] <= '9'; i++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, text[i] - '0', &v))
            return false;
    if (i == digits || (text[digits] == '0' && i - digits > 1))
        return false;
    for (; units->name != NULL; units++) {
        if (word_is(text + i, len - i, units->name)) {
            if (__builtin_mul_overflow(v, units->factor, &v))
                return false;
            *out = digits > 0 ? -v : v;
            return true;
        }
    }
    return false;
}

static bool set_number(int64_t *target, const struct config_key *key, const char *text, size_t len,
                       const struct unit *units)
{
    int64_t v;
    if (!number_parse(text, len, units, &v) || v < key->min || v > key->max)
        return false;
    *target = v;
    return true;
}

static void want_number(const struct config_key *key, char want[CONFIG_WANT_BYTES])
{
    if (key->kind == CK_DURATION)
        snprintf(want, CONFIG_WANT_BYTES,
                 "a duration such as 250ms, 10s or 5m, from %lldms to %lldh",
                 (long long)(key->min / 1000000), (long long)(key->max / INT64_C(3600000000000)));
    else
        snprintf(want, CONFIG_WANT_BYTES, "%s from %lld to %lld",
                 key->kind == CK_SIZE ? "bytes (4096, 64KiB, 1GiB)" : "an integer",
                 (long long)key->min, (long long)key->max);
}

static bool replace(char **target, const char *text, size_t len)
{
    char *copy = NULL;
    if (text != NULL) {
        copy = malloc(len + 1);
        if (copy == NULL)
            return false;
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    free(*target);
    *target = copy;
    return true;
}

/* What YAML would call a number or a boolean is no string unless it is quoted. */
static bool is_other_type(const char *text, size_t len)
{
    if (word_is(text, len, "true") || word_is(text, len, "false"))
        return true;
    char copy[64], *end;
    if (len == 0 || len >= sizeof copy || strchr("0123456789+-.", text[0]) == NULL)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    strtod(copy, &end);
    return *end == '\0';
}

static bool printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return utf8_valid(text, len);
}

static bool set_text(char **target, const struct config_key *key, const char *text, size_t len,
                     enum config_text how)
{
    static const char name_bytes[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if ((int64_t)len < key->min || (int64_t)len > key->max || !printable(text, len))
        return false;
    if (how == CT_PLAIN && is_other_type(text, len))
        return false;
    for (size_t i = 0; key->kind == CK_NAME && i < len; i++)
        if (strchr(name_bytes, text[i]) == NULL)
            return false;
    return replace(target, text, len);
}

static bool word_in(const char *words, const char *text, size_t len)
{
    for (const char *w = words;; w++) {
        size_t n = strcspn(w, "|");
        if (n == len && memcmp(w, text, n) == 0)
            return true;
        w += n;
        if (*w == '\0')
            return false;
    }
}

static void want_words(const char *words, char want[CONFIG_WANT_BYTES])
{
    size_t n = (size_t)snprintf(want, CONFIG_WANT_BYTES, "%s", strchr(words, '|') ? "one of " : "");
    for (; *words != '\0' && n + 3 < CONFIG_WANT_BYTES; words++) {
        want[n++] = *words == '|' ? ',' : *words;
        if (*words == '|')
            want[n++] = ' ';
    }
    want[n] = '\0';
}

static bool set_address(char **target, const char *text, size_t len)
{
    char copy[300], host[256];
    int port;
    if (len >= sizeof copy || !printable(text, len))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (config_split_address(copy, host, sizeof host, &port, NULL) != ST_OK)
        return false;
    return replace(target, text, len);
}

static const char *const role_names[] = {"router", "prefill", "decode", "both"};

const char *config_role_name(enum node_role role)
{
    return role_names[role];
}

bool config_role_parse(const char *text, enum node_role *out)
{
    for (int i = ROLE_PREFILL; i <= ROLE_BOTH; i++) {
        if (strcmp(text, role_names[i]) == 0) {
            *out = (enum node_role)i;
            return true;
        }
    }
    return false;
}

void config_nodes_clear(struct config *c)
{
    for (size_t i = 0; i < c->router.n_nodes; i++)
        free(c->router.nodes[i].address);
    c->router.n_nodes = 0;
}

bool config_node_add(struct config *c, const char *role, const char *address,
                     char want[CONFIG_WANT_BYTES])
{
    struct config_node node = {0};
    if (c->router.n_nodes == CONFIG_NODES_MAX) {
        snprintf(want, CONFIG_WANT_BYTES, "at most %d nodes", CONFIG_NODES_MAX);
        return false;
    }
    if (!config_role_parse(role, &node.role)) {
        want_words("prefill|decode|both", want);
        return false;
    }
    if (!set_address(&node.address, address, strlen(address))) {
        snprintf(want, CONFIG_WANT_BYTES, "HOST:PORT");
        return false;
    }
    c->router.nodes[c->router.n_nodes++] = node;
    return true;
}

/* `prefill=HOST:PORT,decode=HOST:PORT`, as a flag gives it. */
static bool set_nodes(struct config *c, const char *text, size_t len)
{
    config_nodes_clear(c);
    while (len > 0) {
        char one[320], ignored[CONFIG_WANT_BYTES];
        const char *comma = memchr(text, ',', len);
        size_t n = comma != NULL ? (size_t)(comma - text) : len;
        if (n >= sizeof one)
            return false;
        memcpy(one, text, n);
        one[n] = '\0';
        char *equals = strchr(one, '=');
        if (equals == NULL)
            return false;
        *equals = '\0';
        if (!config_node_add(c, one, equals + 1, ignored))
            return false;
        size_t step = n + (comma != NULL);
        if (comma != NULL && step == len)
            return false; /* nothing after the comma */
        text += step;
        len -= step;
    }
    return true;
}

static bool set_role(enum node_role *target, const char *text, size_t len)
{
    char copy[16];
    if (len >= sizeof copy)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return config_role_parse(copy, target);
}

static bool set_bool(bool *target, const char *text, size_t len)
{
    bool yes = word_is(text, len, "true");
    if (!yes && !word_is(text, len, "false"))
        return false;
    *target = yes;
    return true;
}

static void describe(const struct config_key *key, char want[CONFIG_WANT_BYTES])
{
    switch (key->kind) {
    case CK_STR:
        snprintf(want, CONFIG_WANT_BYTES, "a string of %lld to %lld printable bytes",
                 (long long)key->min, (long long)key->max);
        break;
    case CK_NAME:
        snprintf(want, CONFIG_WANT_BYTES, "a name (a string of 1 to %lld letters, digits, . _ -)",
                 (long long)key->max);
        break;
    case CK_ADDRESS:
        snprintf(want, CONFIG_WANT_BYTES, "HOST:PORT");
        break;
    case CK_WORD:
    case CK_ROLE:
        want_words(key->words, want);
        break;
    case CK_INT:
    case CK_SIZE:
    case CK_DURATION:
        want_number(key, want);
        break;
    case CK_BOOL:
        snprintf(want, CONFIG_WANT_BYTES, "true or false");
        break;
    case CK_NODES:
        snprintf(want, CONFIG_WANT_BYTES,
                 "a list of ROLE=HOST:PORT, ROLE being prefill, decode or both");
        break;
    }
}

static bool set_null(const struct config_key *key, void *target, struct config *c)
{
    if (!key->optional)
        return false;
    if (key->kind == CK_NODES)
        config_nodes_clear(c);
    else if (key->kind == CK_ROLE)
        *(enum node_role *)target = ROLE_ROUTER;
    else
        replace(target, NULL, 0);
    return true;
}

bool config_value_set(struct config *c, const struct config_key *key, const char *text, size_t len,
                      enum config_text how, char want[CONFIG_WANT_BYTES])
{
    void *target = (char *)c + key->offset;
    bool textual = key->kind == CK_STR || key->kind == CK_NAME || key->kind == CK_ADDRESS ||
                   key->kind == CK_WORD || key->kind == CK_ROLE;
    bool ok = false;
    describe(key, want);
    if (is_null(text, len, how))
        return set_null(key, target, c);
    if (how == CT_QUOTED && !textual)
        return false;
    switch (key->kind) {
    case CK_STR:
    case CK_NAME:
        ok = set_text(target, key, text, len, how);
        break;
    case CK_WORD:
        ok = word_in(key->words, text, len) && replace(target, text, len);
        break;
    case CK_ADDRESS:
        ok = set_address(target, text, len);
        break;
    case CK_INT:
        ok = set_number(target, key, text, len, no_units);
        break;
    case CK_SIZE:
        ok = set_number(target, key, text, len, size_units);
        break;
    case CK_DURATION:
        ok = set_number(target, key, text, len, duration_units);
        break;
    case CK_BOOL:
        ok = set_bool(target, text, len);
        break;
    case CK_ROLE:
        ok = set_role(target, text, len);
        break;
    case CK_NODES:
        ok = set_nodes(c, text, len);
        break;
    }
    return ok;
}
