/* Logging: one line per event, logfmt (`ts=... level=info event=node_joined node=p0`) or JSON, to
 * stderr.
 *
 * A line is formatted on the caller's stack and written with one write(2): lines never interleave
 * and nothing is allocated. Thread: any. Never log prompt or completion text. `fields` is
 * printf-formatted logfmt ("id=%s n=%d"); values that may hold spaces or quotes go through
 * log_quote().
 *
 *     log_info("node_joined", "node=%s role=%s", name, role);
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* Once at start, before other threads. `program` is put on each line; the string must outlive the
 * process. */
void log_init(const char *program, enum log_level level, enum log_format format);
bool log_level_parse(const char *name, enum log_level *out);
bool log_enabled(enum log_level level);
/* What log_init() was given, as words: for a program that starts others. */
const char *log_level_name(void);
const char *log_format_name(void);
void log_event(enum log_level level, const char *event, const char *fields, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies `text` into `out` as a quoted logfmt value, escaped and cut to fit; returns out. */
const char *log_quote(char *out, size_t cap, const char *text);

#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_event(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_event(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (log_enabled(LOG_DEBUG))                                                                \
            log_event(LOG_DEBUG, __VA_ARGS__);                                                     \
    } while (0)

#endif
