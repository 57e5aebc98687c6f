#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/flags.h"
#include "base/log.h"

static char said[65536]; /* what the last call printed */
static int saved_out, saved_err, sink;

static void mute(void)
{
    char path[] = "/tmp/baton-flags-XXXXXX";
    fflush(NULL);
    sink = mkstemp(path);
    unlink(path);
    fcntl(sink, F_SETFL, O_APPEND);
    saved_out = dup(STDOUT_FILENO);
    saved_err = dup(STDERR_FILENO);
    dup2(sink, STDOUT_FILENO);
    dup2(sink, STDERR_FILENO);
}

static void unmute(void)
{
    fflush(NULL);
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_err, STDERR_FILENO);
    close(saved_out);
    close(saved_err);
    ssize_t n = pread(sink, said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = '\0';
    close(sink);
}

struct values {
    const char *text;
    int64_t count;
    double rate;
    bool yes;
    const char *positional[2];
    size_t n_positional;
};

static int parse(struct values *v, const char *const *args)
{
    struct flag table[] = {
        {"text", FLAG_STR, &v->text, "TEXT", "some text", 0, 0, false},
        {"count", FLAG_INT, &v->count, "N", "how many", 1, 100, false},
        {"rate", FLAG_REAL, &v->rate, "R", "how fast", 0, 0, false},
        {"yes", FLAG_BOOL, &v->yes, NULL, "agree", 0, 0, false},
    };
    struct flags f = {"baton test", "[FILE]", "Tests.", table, 4};
    char *argv[16] = {(char[]){"test"}};
    int argc = 1;
    for (; *args != NULL; args++)
        argv[argc++] = (char *)(uintptr_t)*args;
    mute();
    int rc = flags_parse(&f, argc, argv, v->positional, 2, &v->n_positional);
    unmute();
    return rc;
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(flags, forms)
{
    struct values v = {0};
    cr_assert_eq(
        parse(&v, ARGS("--text", "a", "one", "--count=7", "--rate", "-2.5e3", "--yes", "-")), 0,
        "%s", said);
    cr_assert_str_eq(v.text, "a");
    cr_assert_eq(v.count, 7);
    cr_assert_eq(v.rate, -2500.0);
    cr_assert(v.yes);
    cr_assert_eq(v.n_positional, 2);
    cr_assert_str_eq(v.positional[0], "one");
    cr_assert_str_eq(v.positional[1], "-");
    cr_assert_eq(parse(&v, ARGS("--yes=false", "--text=", "--", "--count")), 0);
    cr_assert_not(v.yes);
    cr_assert_str_eq(v.text, "");
    cr_assert_str_eq(v.positional[0], "--count", "after -- nothing is an option");
    cr_assert_eq(parse(&v, ARGS("--text", "--yes")), 0);
    cr_assert_str_eq(v.text, "--yes", "a value may look like an option");
}

Test(flags, mistakes_exit_with_2_and_one_line)
{
    static const char *const cases[][3] = {
        {"--bogus", NULL, "baton test: unknown option --bogus (see baton test --help)\n"},
        {"--bogus=1", NULL, "baton test: unknown option --bogus (see baton test --help)\n"},
        {"--tex", "a", "baton test: unknown option --tex (see baton test --help)\n"},
        {"-x", NULL, "baton test: unknown option -x (see baton test --help)\n"},
        {"--text", NULL, "baton test: missing value after --text (see baton test --help)\n"},
        {"--count", "0", "baton test: --count: expected an integer from 1 to 100, got \"0\"\n"},
        {"--count", "101", "baton test: --count: expected an integer from 1 to 100, got \"101\"\n"},
        {"--count", "7x", "baton test: --count: expected an integer from 1 to 100, got \"7x\"\n"},
        {"--count", "", "baton test: --count: expected an integer from 1 to 100, got \"\"\n"},
        {"--count", " 7", "baton test: --count: expected an integer from 1 to 100, got \" 7\"\n"},
        {"--count", "99999999999999999999",
         "baton test: --count: expected an integer from 1 to 100, got \"99999999999999999999\"\n"},
        {"--rate", "nan", "baton test: --rate: expected a number, got \"nan\"\n"},
        {"--rate", "inf", "baton test: --rate: expected a number, got \"inf\"\n"},
        {"--rate", "1,5", "baton test: --rate: expected a number, got \"1,5\"\n"},
        {"--yes=1", NULL, "baton test: --yes: expected true or false, got \"1\"\n"},
        {"--log-level", "loud",
         "baton test: --log-level: expected error|warn|info|debug, got \"loud\"\n"},
        {"--log-format", "xml", "baton test: --log-format: expected text|json, got \"xml\"\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct values v = {0};
        cr_assert_eq(parse(&v, ARGS(cases[i][0], cases[i][1])), 2, "case %zu", i);
        cr_assert_str_eq(said, cases[i][2]);
    }
    struct values v = {0};
    cr_assert_eq(parse(&v, ARGS("a", "b", "c")), 2);
    cr_assert_str_eq(said, "baton test: unexpected argument c (see baton test --help)\n");
}

Test(flags, help_and_version)
{
    struct values v = {0};
    cr_assert_eq(parse(&v, ARGS("--help")), 1);
    cr_assert_not_null(strstr(said, "usage: baton test [FILE]\nTests.\n"));
    cr_assert_not_null(strstr(said, "--count N "));
    cr_assert_not_null(strstr(said, "--log-level error|warn|info|debug"));
    cr_assert_eq(parse(&v, ARGS("-h")), 1);
    cr_assert_eq(parse(&v, ARGS("--version")), 1);
    cr_assert_eq(strncmp(said, "baton test ", 11), 0);
    cr_assert_eq(parse(&v, ARGS("--log-level", "debug", "--log-format=json")), 0);
    cr_assert(log_enabled(LOG_DEBUG));
}

static int server(struct config *c, const char *program, const char *const *args)
{
    char *argv[64] = {(char[]){"x"}};
    int argc = 1;
    for (; *args != NULL; args++)
        argv[argc++] = (char *)(uintptr_t)*args;
    config_default(c);
    mute();
    int rc = config_parse_args(c, program, "About.", argc, argv, NULL);
    unmute();
    return rc;
}

Test(config_flags, long_and_short_names)
{
    struct config c;
    cr_assert_eq(
        server(&c, "baton-decode",
               ARGS("--model", "models/tiny", "--listen", "h:1", "--http=h:2", "--block-tokens",
                    "8", "--kv-dtype", "fp32", "--name", "d7", "--role", "both", "--threads", "3",
                    "--device", "cpu", "--kv-device", "lo", "--prefix-cache=false", "--pool-bytes",
                    "1MiB", "--router-limits-n", "5", "--log-level", "warn")),
        0, "%s", said);
    cr_assert_str_eq(c.model.path, "models/tiny");
    cr_assert_str_eq(c.model.name, "tiny");
    cr_assert_str_eq(c.node.listen, "h:1");
    cr_assert_str_eq(c.node.http, "h:2");
    cr_assert_eq(c.kv.block_tokens, 8);
    cr_assert_str_eq(c.kv.dtype, "fp32");
    cr_assert_str_eq(c.node.name, "d7");
    cr_assert_eq(c.node.role, ROLE_BOTH);
    cr_assert_eq(c.node.threads, 3);
    cr_assert_str_eq(c.kv.device, "lo");
    cr_assert_not(c.kv.prefix_cache);
    cr_assert_eq(c.kv.pool_bytes, 1 << 20);
    cr_assert_eq(c.router.limits.n, 5, "a key of another program is known too");
    cr_assert_str_eq(c.log.level, "warn");
    cr_assert_not(log_enabled(LOG_INFO));
    config_fini(&c);
}

Test(config_flags, the_router_has_its_own_short_names)
{
    struct config c;
    cr_assert_eq(server(&c, "baton-router",
                        ARGS("--listen", "h:1", "--name", "m", "--grpc", "h:2", "--nodes",
                             "both=a:1,prefill=b:2", "--metrics-vllm-names")),
                 0, "%s", said);
    cr_assert_str_eq(c.router.listen, "h:1");
    cr_assert_str_eq(c.model.name, "m");
    cr_assert_str_eq(c.router.grpc, "h:2");
    cr_assert_eq(c.router.n_nodes, 2);
    cr_assert(c.metrics.vllm_names);
    config_fini(&c);
}

Test(config_flags, a_flag_beats_the_file)
{
    char path[] = "/tmp/baton-flags-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "kv: {dtype: fp16, block_tokens: 4}\nlog: {level: error}\n";
    ssize_t n = write(fd, text, sizeof text - 1);
    cr_assert_eq(n, (ssize_t)sizeof text - 1);
    close(fd);
    struct config c;
    cr_assert_eq(server(&c, "baton-decode", ARGS("--dtype", "fp32", "--config", path)), 0, "%s",
                 said);
    unlink(path);
    cr_assert_str_eq(c.kv.dtype, "fp32", "whatever the order");
    cr_assert_eq(c.kv.block_tokens, 4);
    cr_assert_not(log_enabled(LOG_WARN));
    config_fini(&c);
}

Test(config_flags, mistakes)
{
    struct config c;
    cr_assert_eq(server(&c, "baton-decode", ARGS("--dtype", "int2")), 2);
    cr_assert_str_eq(said,
                     "baton-decode: --dtype: expected one of auto, bf16, fp16, fp32, fp8, int8, "
                     "int4, got \"int2\"\n");
    config_fini(&c);
    cr_assert_eq(server(&c, "baton-decode", ARGS("--config", "/nonexistent.yaml")), 2);
    cr_assert_str_eq(said, "baton-decode: /nonexistent.yaml: No such file or directory\n");
    config_fini(&c);
    cr_assert_eq(server(&c, "baton-decode", ARGS("--tls-ca", "x")), 2);
    config_fini(&c);
    cr_assert_eq(server(&c, "baton-decode", ARGS("positional")), 2);
    config_fini(&c);
}

Test(config_flags, help_lists_what_concerns_the_program)
{
    struct config c;
    cr_assert_eq(server(&c, "baton-router", ARGS("--help")), 1);
    cr_assert_not_null(strstr(said, "--router-queue-max N"));
    cr_assert_not_null(strstr(said, "(default 1024; also --queue-max)"));
    cr_assert_null(strstr(said, "--kv-dtype"));
    config_fini(&c);
    cr_assert_eq(server(&c, "baton-prefill", ARGS("--help")), 1);
    cr_assert_not_null(strstr(said, "--kv-dtype auto|bf16|fp16|fp32|fp8|int8|int4"));
    cr_assert_null(strstr(said, "--router-queue-max"));
    config_fini(&c);
}
