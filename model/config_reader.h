/* Typed, bounded access to the members of a config file. Private to this folder.
 *
 * The first mistake is kept in `status` and its line in `err` ("FILE: KEY: expected WHAT, got
 * WHAT"); later reads return their fallback and change nothing, so a caller checks once at the end.
 * Owner and thread: the caller's stack.
 */
#ifndef MODEL_CONFIG_READER_H
#define MODEL_CONFIG_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

struct size_defaults;

struct config_reader {
    const json *root;
    const char *file; /* named in messages */
    struct error *err;
    enum status status;
    const struct size_defaults *defaults; /* of the architecture at hand; never NULL */
};

/* As a fallback: the key must be there. Outside of every range that is asked for. */
#define CONFIG_REQUIRED (-1e300)

enum status config_fail(struct config_reader *r, enum status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A missing or null key gives the fallback. */
int64_t config_int(struct config_reader *r, const json *obj, const char *key, int64_t min,
                   int64_t max, double fallback);
double config_real(struct config_reader *r, const json *obj, const char *key, double min,
                   double max, double fallback);
bool config_bool(struct config_reader *r, const json *obj, const char *key, bool fallback);
/* Copies, cut to fit, anything but printable ASCII replaced: what comes out goes into messages. */
void config_str(struct config_reader *r, const json *obj, const char *key, char *out, size_t cap,
                const char *fallback);
void config_copy_str(const json *v, char *out, size_t cap);
/* NULL when missing or null; anything else that is no object is a mistake. */
const json *config_object(struct config_reader *r, const json *obj, const char *key);

#endif
