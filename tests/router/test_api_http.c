/* The HTTP API over real sockets, with the real core and a decode node that the test plays: what it
 * is asked for, what it says, when it is paused and when it is told to stop. */
#include "http_rig.h"

/* ---- the tests ---- */

Test(api_http, whole_answer_with_choices_in_order)
{
    set_up(10);
    int fd = send_request("/v1/completions", "X-Request-Id: abc-1\r\n",
                          "{\"prompt\":[\"p0\",\"p1\"],\"n\":2,\"max_tokens\":3}");
    accept_call(0);
    accept_call(1);
    for (int p = 1; p >= 0; p--) {
        struct node_call *c = start_call((size_t)p);
        cr_assert_eq(c->prompt[1], '0' + p);
        for (int k = 1; k >= 0; k--) {
            say(c, k, 0, 'a' + 2 * p + k);
            say(c, k, 1, RIG_EOS);
            end_choice(c, k, MSG_FINISH_STOP);
        }
    }
    expect(fd, "\"usage\"");
    cr_assert(strstr(text, "200 OK") && strstr(text, "x-request-id: abc-1\r\n"), "%s", text);
    cr_assert(strstr(text, "x-baton-decode: d0\r\n"), "%s", text);
    for (int i = 0; i < 4; i++) {
        char want[80];
        snprintf(want, sizeof want,
                 "{\"index\":%d,\"text\":\"%c\",\"logprobs\":null,\"finish_reason\":\"stop\"", i,
                 'a' + i);
        cr_assert(strstr(text, want), "no %s in %s", want, text);
    }
    cr_assert(strstr(text, "\"prompt_tokens\":4,\"completion_tokens\":8,\"total_tokens\":12"), "%s",
              text);
    close(fd);
    tear_down();
}

Test(api_http, stream_in_order_with_usage)
{
    set_up(10);
    int fd = send_request("/v1/chat/completions", "",
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"n\":2,"
                          "\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    accept_call(0);
    struct node_call *c = start_call(0);
    cr_assert_eq(c->max_tokens, 98);
    say(c, 0, 0, 0xc3); /* half a character: nothing to show */
    turns(3);
    say(c, 0, 1, 0xa9);
    say(c, 1, 0, 'x');
    end_choice(c, 1, MSG_FINISH_LENGTH);
    end_choice(c, 0, MSG_FINISH_STOP);
    expect(fd, "[DONE]");
    static const char *const order[] = {
        "text/event-stream",
        "\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}",
        "\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}",
        "\"index\":0,\"delta\":{\"content\":\"\xc3\xa9\"}",
        "\"index\":1,\"delta\":{\"content\":\"x\"}",
        "\"index\":1,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"",
        "\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"",
        "\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3",
        "data: [DONE]"};
    const char *at = text;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        at = strstr(at, order[i]);
        cr_assert(at != NULL, "%s is not where it should be: %s", order[i], text);
    }
    close(fd);
    tear_down();
}

Test(api_http, usage_in_every_event_where_it_is_asked_for)
{
    set_up(10);
    int fd = send_request("/v1/completions", "",
                          "{\"prompt\":[\"hi\",\"you\"],\"max_tokens\":9,\"stream\":true,"
                          "\"stream_options\":{\"include_usage\":true,"
                          "\"continuous_usage_stats\":true}}");
    for (size_t i = 0; i < 2; i++)
        accept_call(i);
    say(start_call(0), 0, 0, 'a');
    say(start_call(1), 0, 0, 'b');
    say(start_call(1), 0, 1, 'c');
    end_choice(start_call(0), 0, MSG_FINISH_LENGTH);
    end_choice(start_call(1), 0, MSG_FINISH_LENGTH);
    expect(fd, "[DONE]");
    const char *at = text;
    for (int said = 1; said <= 3; said++) {
        char want[100];
        sprintf(want, "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":%d", said);
        at = strstr(at, want);
        cr_assert_not_null(at, "%s is not where it should be: %s", want, text);
    }
    cr_assert(!strstr(text, "\"usage\":null"), "%s", text);
    close(fd);
    tear_down();
}

Test(api_http, texts_that_fit_no_prompt_are_not_tokenized)
{
    static const char *const paths[] = {"/tokenize", "/tokenize", "/v1/chat/completions"};
    static const char *const bodies[] = {
        "{\"prompt\":\"%s\"}", "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}]}"};
    static char many[300001];
    memset(many, 'a', 300000);
    set_up(10);
    for (size_t i = 0; i < 3; i++) {
        struct buf b = {0};
        const char *at = strstr(bodies[i], "%s");
        buf_append(&b, bodies[i], (size_t)(at - bodies[i]));
        buf_puts(&b, many);
        buf_puts(&b, at + 2);
        int fd = send_request(paths[i], "", b.data);
        expect(fd, i == 0 ? "longer than any prompt" : "context_length_exceeded");
        buf_fini(&b);
        close(fd);
    }
    tear_down();
}

Test(api_http, stop_string_ends_the_choice_on_the_node)
{
    set_up(10);
    int fd = send_request("/v1/completions", "",
                          "{\"prompt\":\"p\",\"stop\":\"ab\",\"stream\":true,\"n\":2}");
    accept_call(0);
    struct node_call *c = start_call(0);
    say(c, 0, 0, 'x');
    say(c, 0, 1, 'a');
    say(c, 0, 2, 'b');
    say(c, 0, 3, 'z'); /* was under way */
    UNTIL(c->n_stopped == 1);
    cr_assert_eq(c->stopped[0], 0);
    say(c, 1, 0, 'a');
    end_choice(c, 1, MSG_FINISH_LENGTH);
    expect(fd, "[DONE]");
    cr_assert(strstr(text, "\"finish_reason\":\"stop\",\"stop_reason\":\"ab\""), "%s", text);
    cr_assert(strstr(text, "\"index\":1,\"text\":\"a\""), "%s", text);
    cr_assert(!strstr(text, "z\"") && !strstr(text, "\"index\":0,\"text\":\"a"), "%s", text);
    close(fd);
    tear_down();
}

Test(api_http, disconnects_cancel_on_the_node)
{
    set_up(10);
    for (size_t i = 0; i < 3; i++) {
        int fd = send_request("/v1/completions", "",
                              i == 1 ? "{\"prompt\":\"p\"}" : "{\"prompt\":\"p\",\"stream\":true}");
        accept_call(i);
        if (i != 0) /* before and after the first token */
            say(start_call(i), 0, 0, 'x');
        turns(5);
        int64_t before_ns = clock_now_ns();
        close(fd);
        UNTIL(start_call(i)->cancelled);
        cr_assert(clock_now_ns() - before_ns < 5 * NS_PER_S);
    }
    tear_down();
}

Test(api_http, credit_follows_what_was_sent)
{
    set_up(10);
    int slow = send_request("/v1/completions", "",
                            "{\"prompt\":\"p\",\"stream\":true,\"max_tokens\":90,\"logprobs\":5}");
    accept_call(0);
    struct node_call *c = start_call(0);
    cr_assert_eq(c->credits, 8);
    /* Reading: credit flows. */
    for (int i = 0; i < 40; i++) {
        UNTIL(c->credits > 0);
        say(c, 0, i, 'x');
        turn();
    }
    end_choice(c, 0, MSG_FINISH_LENGTH);
    expect(slow, "[DONE]");
    close(slow);
    /* Credit comes back for what has gone out and for no more, however late the client reads. */
    int late =
        send_request("/v1/completions", "", "{\"prompt\":\"q\",\"stream\":true,\"max_tokens\":90}");
    accept_call(1);
    c = start_call(1);
    for (int i = 0; i < 8; i++) {
        say(c, 0, i, 'y');
        cr_assert(c->credits <= 8, "%lld", (long long)c->credits);
    }
    UNTIL(c->credits > 0);
    turns(20);
    cr_assert(c->credits <= 8, "%lld", (long long)c->credits);
    end_choice(c, 0, MSG_FINISH_LENGTH);
    expect(late, "[DONE]");
    close(late);
    tear_down();
}

Test(api_http, failures_before_and_after_the_first_token)
{
    set_up(10);
    int fd = send_request("/v1/completions", "", "{\"prompt\":\"p\",\"stream\":true}");
    UNTIL(start_call(0) && start_call(0)->n > 0);
    tell(start_call(0), &(struct msg_decode_event){
                            .kind = MSG_D_REJECTED, .rejected = ST_INVALID, .reason = "not so"});
    expect(fd, "not so");
    cr_assert(strstr(text, "400 ") && strstr(text, "{\"error\":{"), "%s", text);
    close(fd);
    fd = send_request("/v1/completions", "", "{\"prompt\":\"p\",\"stream\":true}");
    accept_call(1);
    say(start_call(1), 0, 0, 'x');
    turns(3);
    close_call(start_call(1), ST_DEADLINE);
    expect(fd, "data: [DONE]");
    cr_assert(strstr(text, "\"text\":\"x\"") && strstr(text, "data: {\"error\":{"), "%s", text);
    close(fd);
    tear_down();
}

struct answer_case {
    const char *path, *headers, *body, *want[3];
};

Test(api_http, answered_at_once)
{
    static const struct answer_case cases[] = {
        {"/v1/models", "", "", {"200 ", "\"id\":\"m\"", "\"max_model_len\":100"}},
        {"/v1/models/m", "", "", {"200 ", "\"object\":\"model\"", ""}},
        {"/v1/models/x", "", "", {"404 ", "model_not_found", "The model `x` does not exist."}},
        {"/v1/completions", "", "", {"405 ", "method_not_allowed", "Allow: POST"}},
        {"/nothing", "", "", {"404 ", "not_found", "\"param\":null"}},
        {"/health/live", "", "", {"200 ", "ok", ""}},
        {"/health/ready", "", "", {"200 ", "ok", ""}},
        {"/version", "", "", {"200 ", "\"version\"", ""}},
        {"/metrics", "", "", {"200 ", "text/plain; version=0.0.4", ""}},
        {"/v1/completions",
         "",
         "{",
         {"400 ", "invalid_json", "\"type\":\"invalid_request_error\""}},
        {"/v1/completions",
         "",
         "{\"prompt\":\"a\",\"model\":\"x\"}",
         {"404 ", "model_not_found", ""}},
        {"/v1/completions",
         "",
         "{\"prompt\":\"abcdefghij\",\"max_tokens\":91}",
         {"400 ", "context_length_exceeded",
          "This model's maximum context length is 100 tokens. However, you requested 91 output "
          "tokens and your prompt contains 10 input tokens, for a total of 101 tokens."}},
        {"/v1/completions", "", "{\"prompt\":\"\"}", {"400 ", "at least one token", ""}},
        {"/tokenize", "", "{\"prompt\":\"ab<|end|>\"}", {"200 ", "\"count\":3", "[97,98,257]"}},
        {"/tokenize",
         "",
         "{\"content\":\"a\",\"with_pieces\":true}",
         {"200 ", "{\"id\":97,\"piece\":\"a\"}", ""}},
        {"/tokenize",
         "",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}",
         {"200 ", "[98]", ""}},
        {"/tokenize", "", "{}", {"400 ", "messages", ""}},
        {"/detokenize",
         "",
         "{\"tokens\":[97,98]}",
         {"200 ", "\"prompt\":\"ab\"", "\"content\":\"ab\""}},
        {"/detokenize", "", "{\"tokens\":[300]}", {"400 ", "tokens", ""}},
        {"/detokenize", "", "{\"tokens\":[\"a\"]}", {"400 ", "invalid_type", ""}},
    };
    set_up(10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct answer_case *c = &cases[i];
        int fd = send_request(c->path, c->headers, c->body);
        expect(fd, c->want[1]);
        for (int k = 0; k < 3; k++)
            cr_assert(strstr(text, c->want[k]), "%s %s: no %s in %s", c->path, c->body, c->want[k],
                      text);
        close(fd);
    }
    tear_down();
}

Test(api_http, keys)
{
    static const struct {
        const char *header;
        bool right;
    } cases[] = {{"", false},
                 {"Authorization: Bearer wrong\r\n", false},
                 {"Authorization: Bearer secre\r\n", false},
                 {"Authorization: Bearer secrett\r\n", false},
                 {"Authorization: Bearer secretsecret\r\n", false},
                 {"Authorization: Basic secret\r\n", false},
                 {"Authorization: Bearer\r\n", false},
                 {"Authorization: Bearer secret\r\n", true},
                 {"authorization: bearer  second\r\n", true},
                 {"X-Api-Key: secret\r\n", true}};
    char file[] = "# a comment\n secret-not\nsecret \r\n\nsecond\n", none[] = "\n# none\n";
    struct error err = {0};
    set_up(10);
    config.router.api_keys_file = strdup("keys");
    cr_assert_eq(keys_parse(&r.keys, none, "none", &err), ST_INVALID);
    keys_fini(&r.keys);
    cr_assert_eq(keys_parse(&r.keys, file, "file", &err), ST_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = send_request("/v1/models", cases[i].header, "");
        expect(fd, cases[i].right ? "\"list\"" : "\"code\":\"invalid_api_key\"");
        cr_assert(strstr(text, cases[i].right ? "200 " : "401 "), "case %zu: %s", i, text);
        close(fd);
    }
    int fd = send_request("/health", "", "");
    expect(fd, "ok");
    close(fd);
    tear_down();
}

Test(api_http, full_and_draining)
{
    set_up(1);
    int fds[4]; /* the node takes two, one waits */
    for (int i = 0; i < 3; i++) {
        fds[i] = send_request("/v1/completions", "", "{\"prompt\":\"p\",\"stream\":true}");
        UNTIL(r.answers == i + 1);
    }
    fds[3] = send_request("/v1/completions", "", "{\"prompt\":\"p\"}");
    expect(fds[3], "rate_limit_exceeded");
    cr_assert(strstr(text, "429 ") && strstr(text, "Retry-After: 1\r\n"), "%s", text);
    close(fds[3]);
    r.drain_ns = clock_now_ns();
    core_drain(r.core);
    fds[3] = send_request("/v1/completions", "", "{\"prompt\":\"p\"}");
    expect(fds[3], "shutting down");
    cr_assert(strstr(text, "503 ") && strstr(text, "Retry-After: 2\r\n"), "%s", text);
    close(fds[3]);
    fds[3] = send_request("/health/ready", "", "");
    expect(fds[3], "503 ");
    close(fds[3]);
    accept_call(0); /* what runs is finished */
    say(start_call(0), 0, 0, 'x');
    end_choice(start_call(0), 0, MSG_FINISH_LENGTH);
    expect(fds[0], "[DONE]");
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    tear_down();
}
