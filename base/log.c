#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/utf8.h"

#define LINE_BYTES 4096
#define FIELDS_BYTES 3072

static struct {
    const char *program;
    atomic_int level, format;
} logger = {.program = "baton", .level = LOG_INFO, .format = LOG_TEXT};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* Appends to a fixed line; what does not fit is dropped. */
struct line {
    char *text;
    size_t len, cap;
};

static void put(struct line *l, const char *text, size_t len)
{
    if (len > l->cap - l->len)
        len = l->cap - l->len;
    memcpy(l->text + l->len, text, len);
    l->len += len;
}

static void puts_line(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

void log_init(const char *program, enum log_level level, enum log_format format)
{
    logger.program = program;
    atomic_store(&logger.level, (int)level);
    atomic_store(&logger.format, (int)format);
}

bool log_level_parse(const char *name, enum log_level *out)
{
    for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

const char *log_level_name(void)
{
    return level_names[atomic_load(&logger.level)];
}

const char *log_format_name(void)
{
    return atomic_load(&logger.format) == LOG_JSON ? "json" : "text";
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&logger.level, memory_order_relaxed);
}

/* One character of `text` as it stands inside double quotes, in JSON and logfmt alike; returns the
 * bytes taken. */
static size_t escape_one(const char *text, size_t len, char out[8], size_t *n)
{
    unsigned char c = (unsigned char)text[0];
    uint32_t cp;
    size_t took = utf8_decode(text, len, &cp);
    if (c == '"' || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        *n = 2;
    } else if (c == '\n' || c == '\r' || c == '\t') {
        out[0] = '\\';
        out[1] = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        *n = 2;
    } else if (c < 0x20 || c == 0x7f) {
        *n = (size_t)snprintf(out, 8, "\\u%04x", c);
    } else if (took == 0) {
        memcpy(out, "\xef\xbf\xbd", 3);
        *n = 3;
        took = 1;
    } else {
        memcpy(out, text, took);
        *n = took;
    }
    return took;
}

const char *log_quote(char *out, size_t cap, const char *text)
{
    if (cap < 3) {
        if (cap > 0)
            out[0] = '\0';
        return out;
    }
    size_t len = strlen(text), at = 0;
    out[at++] = '"';
    while (len > 0) {
        char one[8];
        size_t n, took = escape_one(text, len, one, &n);
        if (at + n + 2 > cap)
            break;
        memcpy(out + at, one, n);
        at += n;
        text += took;
        len -= took;
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}

static bool is_json_number(const char *s, size_t len)
{
    size_t i = 0;
    if (i < len && s[i] == '-')
        i++;
    size_t digits = i;
    while (i < len && s[i] >= '0' && s[i] <= '9')
        i++;
    if (i == digits || (s[digits] == '0' && i - digits > 1))
        return false;
    if (i < len && s[i] == '.') {
        size_t fraction = ++i;
        while (i < len && s[i] >= '0' && s[i] <= '9')
            i++;
        if (i == fraction)
            return false;
    }
    return i == len;
}

/* Bytes at s of one escape that JSON and log_quote() share; 0 when there is none. */
static size_t escape_len(const char *s, size_t len)
{
    if (len >= 2 && s[0] == '\\' && s[1] != '\0' && strchr("\"\\/bfnrt", s[1]) != NULL)
        return 2;
    if (len >= 6 && s[0] == '\\' && s[1] == 'u' && strspn(s + 2, "0123456789abcdefABCDEF") >= 4)
        return 6;
    return 0;
}

/* A JSON string of a value; when it stood quoted, the escapes that log_quote() made are kept. The
 * closing quote always fits: the inside is held one byte short of the end. */
static void put_json_string(struct line *l, const char *s, size_t len, bool was_quoted)
{
    if (l->cap - l->len < 2)
        return;
    puts_line(l, "\"");
    l->cap--;
    for (size_t i = 0; i < len;) {
        size_t n = was_quoted ? escape_len(s + i, len - i) : 0;
        if (n > l->cap - l->len)
            break;
        if (n > 0) {
            put(l, s + i, n);
        } else {
            char one[8];
            size_t made;
            n = escape_one(s + i, len - i, one, &made);
            if (made > l->cap - l->len)
                break;
            put(l, one, made);
        }
        i += n;
    }
    l->cap++;
    puts_line(l, "\"");
}

/* `key=value key="quoted value"` to `,"key":value,"key":"quoted value"`; stops where the line is
 * full. */
static void put_json_fields(struct line *l, const char *s)
{
    while (*(s += strspn(s, " ")) != '\0') {
        size_t key = strcspn(s, "= ");
        bool skip = s[key] == '=';
        const char *value = skip ? s + key + 1 : "true"; /* a word alone is a flag */
        bool quoted = skip && *value == '"';
        size_t len = quoted ? 1 : strcspn(value, " ");
        while (quoted && value[len] != '\0' && value[len] != '"')
            len += value[len] == '\\' && value[len + 1] != '\0' ? 2 : 1;
        bool bare = is_json_number(value, len) || (len == 4 && strncmp(value, "true", 4) == 0) ||
                    (len == 5 && strncmp(value, "false", 5) == 0);
        if (l->cap - l->len < 6 * key + 8 + (bare ? len : 2))
            return;
        puts_line(l, ",");
        put_json_string(l, s, key, false);
        puts_line(l, ":");
        if (bare)
            put(l, value, len);
        else
            put_json_string(l, value + quoted, len - quoted, quoted);
        s = skip ? value + len + (quoted && value[len] == '"') : s + key;
    }
}

/* Values come from outside at times: no byte of theirs may begin another line or move a terminal's
 * cursor. */
static void put_text_fields(struct line *l, const char *s)
{
    if (*s != '\0')
        puts_line(l, " ");
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        put(l, c < 0x20 || c == 0x7f ? "?" : s, 1);
    }
}

static void put_stamp(struct line *l)
{
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    char stamp[96];
    snprintf(stamp, sizeof stamp, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900,
             tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000);
    puts_line(l, stamp);
}

void log_event(enum log_level level, const char *event, const char *fields, ...)
{
    if (!log_enabled(level))
        return;
    int saved_errno = errno;
    char text[LINE_BYTES], values[FIELDS_BYTES], quoted[128];
    va_list args;
    va_start(args, fields);
    if (vsnprintf(values, sizeof values, fields, args) < 0)
        values[0] = '\0';
    va_end(args);

    struct line l = {.text = text, .cap = sizeof text - 2}; /* room for "}\n" */
    bool json = atomic_load_explicit(&logger.format, memory_order_relaxed) == LOG_JSON;
    bool spaced = json || strpbrk(logger.program, " \"=") != NULL;
    const char *program =
        spaced ? log_quote(quoted, sizeof quoted, logger.program) : logger.program;
    puts_line(&l, json ? "{\"ts\":\"" : "ts=");
    put_stamp(&l);
    puts_line(&l, json ? "\",\"level\":\"" : " level=");
    puts_line(&l, level_names[level]);
    puts_line(&l, json ? "\",\"program\":" : " program=");
    puts_line(&l, program);
    puts_line(&l, json ? ",\"event\":\"" : " event=");
    puts_line(&l, event);
    if (json) {
        puts_line(&l, "\"");
        put_json_fields(&l, values);
    } else {
        put_text_fields(&l, values);
    }
    l.cap += 2;
    puts_line(&l, json ? "}\n" : "\n");
    ssize_t n = write(STDERR_FILENO, l.text, l.len);
    (void)n; /* nowhere to complain */
    errno = saved_errno;
}
