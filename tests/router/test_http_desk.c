/* What the HTTP API gives to the desk, and what becomes of it there. The workers can be kept busy,
 * so that every moment of a request on the desk can be looked at. */
#include <pthread.h>

#include "http_rig.h"

#define PADDING 40000 /* makes a body too large for the loop */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void wait_at_gate(struct desk_job *job)
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
}

static void nothing_done(struct desk_job *job, enum status status)
{
}

static void not_dropped(struct desk_job *job)
{
}

static struct desk_job keep[] = {{wait_at_gate, nothing_done, not_dropped, .bytes = 1},
                                 {wait_at_gate, nothing_done, not_dropped, .bytes = 1}};

/* Until pthread_mutex_unlock(&gate). `bytes`: what the first of the two holds. */
static void keep_workers_busy(size_t bytes)
{
    pthread_mutex_lock(&gate);
    keep[0].bytes = bytes;
    for (size_t i = 0; i < 2; i++)
        cr_assert_eq(desk_submit(r.desk, &keep[i], clock_now_ns()), ST_OK);
}

static int send_large(const char *path, const char *fields)
{
    struct buf b = {0};
    buf_printf(&b, "{%*s%s}", PADDING, "", fields);
    int fd = send_request(path, "", b.data);
    buf_fini(&b);
    return fd;
}

static void finish_call(size_t i)
{
    accept_call(i);
    say(start_call(i), 0, 0, 'a');
    end_choice(start_call(i), 0, MSG_FINISH_LENGTH);
}

Test(http_desk, large_requests_wait_and_small_ones_pass)
{
    set_up(10);
    keep_workers_busy(1);
    int large = send_large("/v1/completions", "\"prompt\":\"large\",\"max_tokens\":1");
    UNTIL(r.answers == 1);
    turns(5);
    cr_assert_eq(n_calls, 0, "it is not read yet");
    int metrics = send_request("/metrics", "", "");
    expect(metrics, "\nbaton_desk_jobs 3\n");
    int small = send_request("/v1/completions", "", "{\"prompt\":\"small\",\"max_tokens\":1}");
    finish_call(0);
    expect(small, "\"usage\"");
    cr_assert_str_eq(start_call(0)->prompt, "small");
    pthread_mutex_unlock(&gate);
    finish_call(1);
    expect(large, "\"usage\"");
    cr_assert(strstr(text, "200 OK"), "%s", text);
    cr_assert_str_eq(start_call(1)->prompt, "large");
    close(metrics);
    close(small);
    close(large);
    tear_down();
}

Test(http_desk, grammars_are_compiled_there_once)
{
    static const char body[] = "{\"prompt\":\"p\",\"max_tokens\":1,\"regex\":\"[ab]+\"}";
    set_up(10);
    keep_workers_busy(1);
    int first = send_request("/v1/completions", "", body);
    UNTIL(r.answers == 1);
    turns(5);
    cr_assert_eq(n_calls, 0, "it is not compiled yet");
    pthread_mutex_unlock(&gate);
    finish_call(0);
    expect(first, "\"usage\"");
    UNTIL(desk_is_idle(r.desk));
    keep_workers_busy(1);
    int second = send_request("/v1/completions", "", body);
    finish_call(1);
    expect(second, "\"usage\"");
    pthread_mutex_unlock(&gate);
    int wrong = send_request("/v1/completions", "", "{\"prompt\":\"p\",\"regex\":\"[ab\"}");
    expect(wrong, "\"param\":\"regex\"");
    cr_assert(strstr(text, "400 "), "%s", text);
    close(first);
    close(second);
    close(wrong);
    tear_down();
}

Test(http_desk, tokens_and_mistakes_of_large_bodies)
{
    static const struct {
        const char *path, *fields, *want;
    } cases[] = {
        {"/tokenize", "\"prompt\":\"hi\",\"add_special_tokens\":false", "\"tokens\":[104,105]"},
        {"/tokenize", "\"prompt\":1", "\"param\":\"prompt\""},
        {"/detokenize", "\"tokens\":[104,105]", "\"prompt\":\"hi\""},
        {"/detokenize", "\"tokens\":[260]", "not below the vocabulary's 260"},
        {"/v1/completions", "\"prompt\":\"p\",\"n\":0", "\"param\":\"n\""},
        {"/v1/completions", "\"prompt\":\"p\",\"model\":\"other\"", "404 Not Found"},
        {"/v1/chat/completions", "\"messages\":[}", "invalid_json"}};
    set_up(10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = send_large(cases[i].path, cases[i].fields);
        expect(fd, cases[i].want);
        close(fd);
    }
    tear_down();
}

Test(http_desk, a_full_desk_says_so)
{
    static const char *const paths[] = {"/v1/completions", "/tokenize"};
    set_up(10);
    keep_workers_busy((4 << 20) - 1); /* with the other, all that the rig's desk takes */
    for (size_t i = 0; i < 2; i++) {
        int fd = send_large(paths[i], "\"prompt\":\"p\"");
        expect(fd, "rate_limit_exceeded");
        cr_assert(strstr(text, "429 ") && strstr(text, "Retry-After: 1\r\n"), "%s", text);
        close(fd);
    }
    cr_assert_eq(r.answers, 0);
    pthread_mutex_unlock(&gate);
    tear_down();
}

Test(http_desk, clients_that_leave)
{
    static const char *const paths[] = {"/v1/completions", "/v1/chat/completions", "/tokenize",
                                        "/detokenize"};
    set_up(10);
    keep_workers_busy(1);
    for (size_t i = 0; i < 4; i++) {
        int fd = send_large(paths[i], "\"prompt\":\"p\"");
        UNTIL(r.answers == 1);
        close(fd);
        UNTIL(r.answers == 0);
    }
    pthread_mutex_unlock(&gate);
    UNTIL(desk_is_idle(r.desk));
    /* And at any moment of the work. */
    for (int i = 0; i < 200; i++) {
        int fd = send_large(paths[i % 4], "\"prompt\":\"p\",\"max_tokens\":1,"
                                          "\"messages\":[{\"role\":\"user\",\"content\":\"p\"}],"
                                          "\"tokens\":[1]");
        turns(i % 7);
        close(fd);
    }
    UNTIL(r.answers == 0 && desk_is_idle(r.desk) && list_empty(&r.runs));
    tear_down();
}

/* The loop and both workers read at the same time, with one tokenizer, template and memory of
 * grammars. */
Test(http_desk, everybody_reads_at_once)
{
    static const char chat[] =
        "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":200";
    enum { N = 30 };
    int fds[N];
    char small[200], hard[200];
    set_up(10);
    snprintf(small, sizeof small, "{%s}", chat);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            snprintf(hard, sizeof hard, "{%s,\"regex\":\"[ab]{%d}\"}", chat, 1 + i / 9);
            fds[i] = i % 3 == 0   ? send_large("/v1/chat/completions", chat)
                     : i % 3 == 1 ? send_request("/v1/chat/completions", "", hard)
                                  : send_request("/v1/chat/completions", "", small);
            turn();
        }
        for (int i = 0; i < N; i++) {
            expect(fds[i], "your prompt contains 2 input tokens");
            close(fds[i]);
        }
    }
    tear_down();
}

Test(http_desk, patience_and_the_end)
{
    set_up(10);
    keep_workers_busy(1);
    int late = send_large("/v1/completions", "\"prompt\":\"p\"");
    UNTIL(r.answers == 1);
    desk_poll(r.desk, clock_now_ns() + WAIT_NS);
    expect(late, "could not be read in time");
    cr_assert(strstr(text, "504 "), "%s", text);
    int last = send_large("/tokenize", "\"prompt\":\"p\"");
    UNTIL(r.answers == 1);
    desk_end_all(r.desk, ST_LINK);
    expect(last, "shutting down");
    cr_assert(strstr(text, "503 ") && strstr(text, "Retry-After: "), "%s", text);
    pthread_mutex_unlock(&gate);
    close(late);
    close(last);
    tear_down();
}
