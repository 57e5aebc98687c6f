/* Command lines: one table says each option's name, kind, target and help; --help, --version,
 * --log-level and
 * --log-format are everybody's. Accepts `--name value`, `--name=value`; a bool takes no value (or
 * `=true|false`). An unknown option or a bad value is one line on stderr and exit status 2 for the
 * caller to return.
 */
#ifndef BASE_FLAGS_H
#define BASE_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum flag_kind { FLAG_STR, FLAG_INT, FLAG_REAL, FLAG_BOOL };

struct flag {
    const char *name; /* without dashes */
    enum flag_kind kind;
    void *target;      /* const char **, int64_t *, double *, bool * */
    const char *value; /* what --help shows for the value: "HOST:PORT" */
    const char *help;  /* one line */
    double min, max;   /* FLAG_INT and FLAG_REAL: checked when min < max */
    bool seen;         /* set when the command line had it */
};

struct flags {
    const char *program; /* "baton generate" */
    const char *usage;   /* "MODEL [options]" */
    const char *about;   /* a sentence or two */
    struct flag *table;
    size_t n;
};

/* Parses argv[1..]. Positional arguments are collected in order into positional[0..max). Returns 0
 * to go on, 1 when the program is to exit with 0 (--help, --version shown), 2 on a usage error.
 * Initialises the log. */
int flags_parse(struct flags *f, int argc, char **argv, const char **positional,
                size_t max_positional, size_t *n_positional);
void flags_help(const struct flags *f);

#endif
