/* API keys: who may use the public APIs. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "router/router.h"

/* The time it takes does not tell how much of a key was right. */
static bool same_key(const char *key, const char *given, size_t len)
{
    size_t n = strlen(key);
    unsigned char differs = n != len;
    for (size_t i = 0; i < len; i++)
        differs |= (unsigned char)(given[i] ^ key[n ? i % n : 0]);
    return n && !differs;
}

bool keys_check(const struct router *r, const char *authorization, const char *plain,
                struct api_error *err)
{
    if (!r->config->router.api_keys_file)
        return true;
    const char *given = plain;
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        given = authorization + 7;
    if (!given)
        return api_fail(err, 401, "invalid_api_key", NULL,
                        "You did not provide an API key: send it as 'Authorization: Bearer KEY'.");
    while (*given == ' ')
        given++;
    size_t len = strlen(given);
    bool right = false;
    for (size_t i = 0; i < r->keys.n && len <= ROUTER_KEY_BYTES_MAX; i++)
        right |= same_key(r->keys.v[i], given, len);
    return right || api_fail(err, 401, "invalid_api_key", NULL, "Incorrect API key provided.");
}

enum status keys_parse(struct router_keys *keys, char *text, const char *name, struct error *err)
{
    char *save = NULL;
    size_t lines = 1;
    for (const char *s = text; *s; s++)
        lines += *s == '\n';
    keys->v = calloc(lines, sizeof *keys->v);
    if (!keys->v)
        return err_set(err, ST_NO_MEMORY, "%s: out of memory", name);
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        size_t n = strcspn(l, " \t\r");
        l[n] = '\0';
        if (n == 0 || l[0] == '#')
            continue;
        if (n > ROUTER_KEY_BYTES_MAX)
            return err_set(err, ST_INVALID, "%s: a key is longer than %d bytes", name,
                           ROUTER_KEY_BYTES_MAX);
        keys->v[keys->n] = strdup(l);
        if (!keys->v[keys->n])
            return err_set(err, ST_NO_MEMORY, "%s: out of memory", name);
        keys->n++;
    }
    return keys->n ? ST_OK : err_set(err, ST_INVALID, "%s: holds no key", name);
}

void keys_fini(struct router_keys *keys)
{
    for (size_t i = 0; i < keys->n; i++)
        free(keys->v[i]);
    free(keys->v);
    *keys = (struct router_keys){0};
}
