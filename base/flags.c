#include "base/flags.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "baton_version.h"
#include "base/log.h"
#include "base/revision.h"

/* What every program has. */
static const struct flag common[] = {
    {.name = "log-level",
     .value = "error|warn|info|debug",
     .help = "least severity that is logged"},
    {.name = "log-format", .value = "text|json", .help = "shape of a log line"},
    {.name = "help", .help = "show this"},
    {.name = "version", .help = "show the version"},
};
#define N_COMMON (sizeof common / sizeof common[0])

static int usage_error(const struct flags *f, const char *text, const char *name, size_t len)
{
    fprintf(stderr, "%s: %s%.*s (see %s --help)\n", f->program, text, (int)len, name, f->program);
    return 2;
}

static int bad_value(const struct flags *f, const struct flag *x, const char *want, const char *got)
{
    fprintf(stderr, "%s: --%s: expected %s, got \"%s\"\n", f->program, x->name, want, got);
    return 2;
}

static int set_int(const struct flags *f, struct flag *x, const char *text)
{
    char *end, want[96];
    errno = 0;
    long long v = strtoll(text, &end, 10);
    bool bounded = x->min < x->max;
    if (bounded)
        snprintf(want, sizeof want, "an integer from %.0f to %.0f", x->min, x->max);
    bool ok = (*text == '-' || (*text >= '0' && *text <= '9')) && *end == '\0' && errno == 0;
    if (!ok || (bounded && ((double)v < x->min || (double)v > x->max)))
        return bad_value(f, x, bounded ? want : "an integer", text);
    *(int64_t *)x->target = v;
    return 0;
}

static int set_real(const struct flags *f, struct flag *x, const char *text)
{
    char *end, want[96];
    double v = strtod(text, &end);
    bool bounded = x->min < x->max;
    if (bounded)
        snprintf(want, sizeof want, "a number from %g to %g", x->min, x->max);
    if (end == text || *end != '\0' || strchr(" \t\n", *text) != NULL || !isfinite(v) ||
        (bounded && (v < x->min || v > x->max)))
        return bad_value(f, x, bounded ? want : "a number", text);
    *(double *)x->target = v;
    return 0;
}

static int set_value(const struct flags *f, struct flag *x, const char *text)
{
    x->seen = true;
    switch (x->kind) {
    case FLAG_STR:
        *(const char **)x->target = text;
        return 0;
    case FLAG_INT:
        return set_int(f, x, text);
    case FLAG_REAL:
        return set_real(f, x, text);
    case FLAG_BOOL:
        break;
    }
    bool yes = strcmp(text, "true") == 0;
    if (!yes && strcmp(text, "false") != 0)
        return bad_value(f, x, "true or false", text);
    *(bool *)x->target = yes;
    return 0;
}

static struct flag *find(struct flag *table, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

static void help_line(const struct flag *x)
{
    char left[96];
    if (x->help == NULL)
        return;
    snprintf(left, sizeof left, "--%s%s%s", x->name, x->value != NULL ? " " : "",
             x->value != NULL ? x->value : "");
    if (strlen(left) > 30)
        printf("  %s\n  %-30s  %s\n", left, "", x->help);
    else
        printf("  %-30s  %s\n", left, x->help);
}

void flags_help(const struct flags *f)
{
    printf("usage: %s %s\n", f->program, f->usage != NULL ? f->usage : "[options]");
    if (f->about != NULL)
        printf("%s\n", f->about);
    printf("\n");
    for (size_t i = 0; i < f->n; i++)
        help_line(&f->table[i]);
    for (size_t i = 0; i < N_COMMON; i++)
        if (find(f->table, f->n, common[i].name, strlen(common[i].name)) == NULL)
            help_line(&common[i]);
}

/* The options of `common`, as the parser fills them in. */
struct everybody {
    struct flag table[N_COMMON];
    const char *level, *format;
    bool help, version;
};

static void everybody_init(struct everybody *e)
{
    memcpy(e->table, common, sizeof common);
    e->level = "info";
    e->format = "text";
    e->help = e->version = false;
    e->table[0].target = &e->level;
    e->table[1].target = &e->format;
    e->table[2].target = &e->help;
    e->table[3].target = &e->version;
    e->table[2].kind = e->table[3].kind = FLAG_BOOL;
}

/* Takes the option at argv[*i] and its value. */
static int take_option(struct flags *f, struct everybody *e, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    size_t len = strcspn(name, "=");
    struct flag *x = find(f->table, f->n, name, len);
    if (x == NULL)
        x = find(e->table, N_COMMON, name, len);
    if (x == NULL)
        return usage_error(f, "unknown option --", name, len);
    if (name[len] == '=')
        return set_value(f, x, name + len + 1);
    if (x->kind == FLAG_BOOL)
        return set_value(f, x, "true");
    if (*i + 1 >= argc)
        return usage_error(f, "missing value after --", name, len);
    return set_value(f, x, argv[++*i]);
}

static int start_log(const struct flags *f, const struct everybody *e)
{
    enum log_level level;
    if (!log_level_parse(e->level, &level))
        return bad_value(f, &e->table[0], e->table[0].value, e->level);
    bool json = strcmp(e->format, "json") == 0;
    if (!json && strcmp(e->format, "text") != 0)
        return bad_value(f, &e->table[1], e->table[1].value, e->format);
    log_init(f->program, level, json ? LOG_JSON : LOG_TEXT);
    return 0;
}

int flags_parse(struct flags *f, int argc, char **argv, const char **positional,
                size_t max_positional, size_t *n_positional)
{
    struct everybody e;
    everybody_init(&e);
    size_t n = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (options && strcmp(arg, "--") == 0) {
            options = false;
        } else if (options && strcmp(arg, "-h") == 0) {
            e.help = true;
        } else if (options && strncmp(arg, "--", 2) == 0) {
            int rc = take_option(f, &e, argc, argv, &i);
            if (rc != 0)
                return rc;
        } else if (options && arg[0] == '-' && arg[1] != '\0') {
            return usage_error(f, "unknown option ", arg, strlen(arg));
        } else if (n == max_positional) {
            return usage_error(f, "unexpected argument ", arg, strlen(arg));
        } else {
            positional[n++] = arg;
        }
    }
    if (n_positional != NULL)
        *n_positional = n;
    if (e.help) {
        flags_help(f);
        return 1;
    }
    if (e.version) {
        printf("%s %s (%s)\n", f->program, BATON_VERSION, baton_revision);
        return 1;
    }
    return start_log(f, &e);
}
