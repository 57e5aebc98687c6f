#include <criterion/criterion.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"

/* What `body` writes to stderr. */
static char captured[1 << 20];

static size_t capture(void (*body)(void))
{
    char path[] = "/tmp/baton-log-XXXXXX";
    int file = mkstemp(path), saved = dup(STDERR_FILENO);
    unlink(path);
    int flags = fcntl(file, F_GETFL);
    fcntl(file, F_SETFL, flags | O_APPEND);
    dup2(file, STDERR_FILENO);
    body();
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t n = pread(file, captured, sizeof captured - 1, 0);
    close(file);
    cr_assert_geq(n, 0);
    captured[n] = '\0';
    return (size_t)n;
}

static void three_levels(void)
{
    log_error("broken", "why=%s", "x");
    log_info("node_joined", "node=%s n=%d", "p0", 3);
    log_debug("hidden", "a=1");
}

Test(log, text_lines)
{
    log_init("baton-test", LOG_INFO, LOG_TEXT);
    cr_assert(log_enabled(LOG_WARN));
    cr_assert_not(log_enabled(LOG_DEBUG));
    capture(three_levels);
    cr_assert_not_null(strstr(captured, " level=error program=baton-test event=broken why=x\n"));
    cr_assert_not_null(
        strstr(captured, " level=info program=baton-test event=node_joined node=p0 n=3\n"));
    cr_assert_null(strstr(captured, "hidden"));
    cr_assert_eq(strncmp(captured, "ts=20", 5), 0);
    cr_assert_eq(captured[26], 'Z', "%.40s", captured);
}

static void hostile(void)
{
    char quoted[64];
    log_info("a", "bare=%s after=1", "x\nts=forged\x1b[2J");
    log_info("b", "q=%s n=-1.5 z=007 t=true e=1e5 flag",
             log_quote(quoted, sizeof quoted, "say \"hi\"\n\\ \x01 \xff caf\xc3\xa9"));
}

Test(log, values_cannot_break_a_line)
{
    log_init("baton test", LOG_INFO, LOG_TEXT);
    capture(hostile);
    int lines = 0;
    for (const char *s = captured; (s = strchr(s, '\n')) != NULL; s++)
        lines++;
    cr_assert_eq(lines, 2, "%s", captured);
    cr_assert_not_null(strstr(captured, "program=\"baton test\""));
    cr_assert_not_null(strstr(captured, "bare=x?ts=forged?[2J after=1"));
    cr_assert_null(strchr(captured, '\x1b'));
}

Test(log, json_lines_are_json)
{
    log_init("baton test", LOG_INFO, LOG_JSON);
    size_t len = capture(hostile);
    char *second = strchr(captured, '\n') + 1;
    json *one, *two;
    struct error err = {0};
    cr_assert_eq(json_read(captured, (size_t)(second - captured), &one, &err), ST_OK, "%s",
                 err.text);
    cr_assert_eq(json_read(second, len - (size_t)(second - captured), &two, &err), ST_OK, "%s: %s",
                 err.text, second);
    cr_assert_str_eq(json_as_str(json_get(one, "event"), ""), "a");
    cr_assert_str_eq(json_as_str(json_get(one, "program"), ""), "baton test");
    cr_assert_str_eq(json_as_str(json_get(two, "q"), ""),
                     "say \"hi\"\n\\ \x01 \xef\xbf\xbd caf\xc3\xa9");
    cr_assert_eq(json_as_number(json_get(two, "n"), 0), -1.5);
    cr_assert_str_eq(json_as_str(json_get(two, "z"), ""), "007", "no JSON number");
    cr_assert_str_eq(json_as_str(json_get(two, "e"), ""), "1e5");
    cr_assert(json_as_bool(json_get(two, "t"), false));
    cr_assert(json_as_bool(json_get(two, "flag"), false));
    json_free(one);
    json_free(two);
}

static void enormous(void)
{
    static char big[6000], quoted[9000];
    memset(big, '"', sizeof big - 1);
    log_quote(quoted, sizeof quoted, big);
    log_info("big", "first=1 value=%s last=1", quoted);
    log_info("big", "value=%s", big);
    memset(big, '\xff', sizeof big - 1);
    log_info("big", "value=%s", big);
    memset(big, '=', sizeof big - 1);
    log_info("big", "%s", big);
    memset(big, ' ', sizeof big - 1);
    log_info("big", "%s", big);
    memset(big, '\x01', sizeof big - 1);
    log_info("big", "%s", big);
    for (size_t i = 0; i + 4 < sizeof big; i += 4)
        memcpy(big + i, "k=v ", 4);
    log_info("big", "%s", big);
}

Test(log, long_lines_are_cut_and_stay_whole)
{
    log_init("baton-test", LOG_INFO, LOG_JSON);
    capture(enormous);
    int lines = 0;
    for (char *s = captured, *end; (end = strchr(s, '\n')) != NULL; s = end + 1, lines++) {
        cr_assert_leq(end - s, 4096);
        cr_assert(s[0] == '{' && end[-1] == '}', "line %d", lines);
        json *v = NULL;
        struct error err = {0};
        enum status st = json_read(s, (size_t)(end - s), &v, &err);
        /* Repeated keys are the caller's doing. */
        cr_assert(st == ST_OK || strstr(err.text, "duplicate") != NULL, "line %d: %s", lines,
                  err.text);
        json_free(v);
    }
    cr_assert_eq(lines, 7);
}

Test(log, quote_fits)
{
    char out[8];
    cr_assert_str_eq(log_quote(out, sizeof out, "abcdefgh"), "\"abcde\"");
    cr_assert_str_eq(log_quote(out, sizeof out, "abcd\n"), "\"abcd\"", "no half escape");
    cr_assert_str_eq(log_quote(out, sizeof out, "abcd\xc3\xa9"), "\"abcd\"", "no half character");
    cr_assert_str_eq(log_quote(out, 2, "a"), "");
    cr_assert_str_eq(log_quote(out, 3, "a"), "\"\"");
}

Test(log, levels_by_name)
{
    enum log_level level;
    cr_assert(log_level_parse("warn", &level));
    cr_assert_eq(level, LOG_WARN);
    cr_assert_not(log_level_parse("WARN", &level));
    cr_assert_not(log_level_parse("", &level));
}

static void *chatter(void *arg)
{
    for (int i = 0; i < 300; i++)
        log_info("chat", "who=%d n=%d pad=%0100d", *(int *)arg, i, i);
    return NULL;
}

static void crowd(void)
{
    pthread_t t[4];
    int who[4] = {0, 1, 2, 3};
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, chatter, &who[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
}

Test(log, lines_do_not_interleave, .timeout = 30)
{
    log_init("baton-test", LOG_INFO, LOG_TEXT);
    capture(crowd);
    int lines = 0;
    for (char *s = captured, *end; (end = strchr(s, '\n')) != NULL; s = end + 1, lines++)
        cr_assert_eq(strncmp(s, "ts=20", 5), 0, "%.60s", s);
    cr_assert_eq(lines, 1200);
}
