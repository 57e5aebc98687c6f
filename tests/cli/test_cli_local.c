/* The commands that need no cluster, as a person or a script runs them. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"

#define BATON BATON_BINARY_DIR "/bin/baton "
#define TINY BATON_SOURCE_DIR "/models/tiny "

/* Runs a shell line, returns its exit status; stdout, and stderr after it, are in *out. */
static int run(struct buf *out, const char *line)
{
    char command[8192], chunk[4096];
    size_t n;
    snprintf(command, sizeof command, "exec 2>&1; %s", line);
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    buf_clear(out);
    buf_puts(out, "");
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(out, chunk, n);
    int status = pclose(f);
    cr_assert(WIFEXITED(status), "%s: killed by a signal", line);
    return WEXITSTATUS(status);
}

static void expect(const char *line, int status, const char *text)
{
    struct buf out = {0};
    int got = run(&out, line);
    cr_assert_eq(got, status, "%s: %d: %s", line, got, out.data);
    cr_assert_str_eq(out.data, text, "%s", line);
    buf_fini(&out);
}

static void expect_error(const char *line, int status, const char *part)
{
    struct buf out = {0};
    int got = run(&out, line);
    cr_assert_eq(got, status, "%s: %d: %s", line, got, out.data);
    cr_assert_not_null(strstr(out.data, part), "%s: \"%s\" is not in \"%s\"", line, part, out.data);
    char *end = strchr(out.data, '\n');
    cr_assert(end && end[1] == '\0', "%s: more than one line: %s", line, out.data);
    buf_fini(&out);
}

Test(cli, tokenize_there_and_back)
{
    expect("printf 'Once upon a time\\n\\nthe end' | " BATON "tokenize " TINY "| " BATON
           "tokenize " TINY "--decode",
           0, "Once upon a time\n\nthe end\n");
    expect("printf 'two\\nlines' | " BATON "tokenize " TINY "--whole --special | " BATON
           "tokenize " TINY "--whole --decode",
           0, "two\nlines");
    expect("printf '\\n' | " BATON "tokenize " TINY, 0, "\n");
    expect("printf '' | " BATON "tokenize " TINY, 0, "");
    expect_error("echo 1 x 2 | " BATON "tokenize " TINY "--decode", 1, "expected token ids");
    expect_error(BATON "tokenize", 2, "expected MODEL");
    expect_error(BATON "tokenize /nonexistent </dev/null", 1, "/nonexistent");
}

Test(cli, render_with_a_template_file)
{
    char path[] = "/tmp/baton-template-XXXXXX", line[1024];
    int fd = mkstemp(path);
    const char *text =
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
        "{% if fail %}{{ raise_exception('no ' + fail) }}{% endif %}"
        "{{ strftime_now('%Y') }}{{ eos_token }}";
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    const char *all = "--bos '<b>' --eos '<e>' --now 2025-01-15";
    snprintf(line, sizeof line,
             "echo '{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}' | " BATON
             "render --template %s %s",
             path, all);
    expect(line, 0, "<b>[user:hi]2025<e>");
    snprintf(line, sizeof line,
             "echo '{\"messages\":[],\"fail\":\"way\"}' | " BATON "render --template %s %s", path,
             all);
    expect_error(line, 1, "no way");
    snprintf(line, sizeof line, "echo '[]' | " BATON "render --template %s", path);
    expect_error(line, 1, "expected an object");
    snprintf(line, sizeof line, "echo '{' | " BATON "render --template %s", path);
    expect_error(line, 1, "stdin");
    snprintf(line, sizeof line, "echo '{}' | " BATON "render --template %s --now noon", path);
    expect_error(line, 1, "--now");
    unlink(path);
    expect_error("echo '{}' | " BATON "render", 2, "expected MODEL or --template");
    expect_error("echo '{}' | " BATON "render --template /nonexistent", 1, "/nonexistent");
}

Test(cli, generate_is_the_same_every_time)
{
    const char *ways[] = {"--threads 1", "--threads 2", "--block-tokens 3 --chunk-tokens-max 2",
                          "--prefix-cache=false --block-tokens 64"};
    struct buf first = {0}, out = {0};
    char line[1024];
    for (int sampled = 0; sampled < 2; sampled++)
        for (int i = 0; i < 4; i++) {
            snprintf(line, sizeof line,
                     BATON "generate " TINY "--prompt 'Once upon a time' --max-tokens 24 %s %s "
                           "2>/dev/null",
                     sampled ? "--seed 5 --temperature 0.8 --top-p 0.9" : "--greedy", ways[i]);
            cr_assert_eq(run(i == 0 ? &first : &out, line), 0, "%s", out.data);
            cr_assert_gt(first.len, 20);
            if (i > 0)
                cr_assert_str_eq(out.data, first.data, "%s", line);
        }
    buf_fini(&first);
    buf_fini(&out);
}

static json *generate_json(const char *options)
{
    struct buf out = {0};
    char line[1024];
    json *root = NULL;
    struct error err = {0};
    snprintf(line, sizeof line, BATON "generate " TINY "--json %s", options);
    cr_assert_eq(run(&out, line), 0, "%s: %s", line, out.data);
    cr_assert_eq(json_read(out.data, out.len, &root, &err), ST_OK, "%s: %s", err.text, out.data);
    buf_fini(&out);
    return root;
}

Test(cli, generate_json)
{
    json *text = generate_json("--prompt 'Once upon a time' --greedy --max-tokens 12 --logprobs 3");
    char options[1024] = "--greedy --max-tokens 12 --ids ";
    const json *ids = json_get(text, "prompt_ids"), *top = json_get(text, "top_logprobs");
    for (size_t i = 0; i < json_count(ids); i++)
        snprintf(options + strlen(options), sizeof options - strlen(options), "%s%d", i ? "," : "",
                 (int)json_as_int(json_at(ids, i), -1));
    json *same = generate_json(options);
    ids = json_get(text, "ids");
    cr_assert_eq(json_count(ids), 12);
    cr_assert_eq(json_count(json_get(text, "logprobs")), 12);
    cr_assert_eq(json_count(top), 12);
    cr_assert_eq(json_count(json_get(same, "ids")), 12);
    for (size_t i = 0; i < 12; i++) {
        int64_t id = json_as_int(json_at(ids, i), -1);
        cr_assert_eq(json_as_int(json_at(json_get(same, "ids"), i), -2), id);
        cr_assert_eq(json_count(json_at(top, i)), 3);
        cr_assert_eq(json_as_int(json_get(json_at(json_at(top, i), 0), "id"), -2), id);
    }
    cr_assert_str_eq(json_as_str(json_get(text, "text"), "?"),
                     json_as_str(json_get(same, "text"), "!"));
    cr_assert_str_eq(json_as_str(json_get(text, "finish_reason"), "?"), "length");
    json_free(text);
    json_free(same);
}

/* The seed that was drawn is shown, and given back it repeats the run. */
Test(cli, a_drawn_seed_repeats_the_run)
{
    char options[256];
    for (int i = 0; i < 4; i++) {
        json *drawn = generate_json("--prompt Once --temperature 1.5 --max-tokens 6");
        const json *seed = json_get(drawn, "seed");
        cr_assert_eq(json_kind_of(seed), JSON_INT, "round %d: --seed would not take it", i);
        snprintf(options, sizeof options,
                 "--prompt Once --temperature 1.5 --max-tokens 6 --seed %lld",
                 (long long)json_as_int(seed, -1));
        json *again = generate_json(options);
        cr_assert_str_eq(json_as_str(json_get(again, "text"), "?"),
                         json_as_str(json_get(drawn, "text"), "!"), "%s", options);
        json_free(drawn);
        json_free(again);
    }
}

Test(cli, generate_says_what_is_wrong)
{
    expect_error(BATON "generate /nonexistent --prompt x", 1, "/nonexistent");
    expect_error(BATON "generate " TINY, 2, "--prompt");
    expect_error(BATON "generate " TINY "--prompt x --ids 1", 2, "--prompt");
    expect_error(BATON "generate " TINY "--ids 1,-2", 1, "expected token ids");
    expect_error(BATON "generate " TINY "--ids ''", 1, "empty");
    expect_error(BATON "generate " TINY "--ids 1,99999999", 1, "vocabulary");
    expect_error(BATON "generate " TINY "--ids 1 --temperature nan", 2, "--temperature");
    expect_error(BATON "generate " TINY "--ids 1 --kv-dtype int3", 1, "--kv-dtype");
    expect_error(BATON "generate " TINY "--ids 1 --cpu-features mmx", 1, "mmx");
    expect_error(BATON "generate " TINY "--ids $(seq -s, 3000 | sed 's/[0-9][0-9]*/1/g')", 1,
                 "context");
    expect_error(BATON "unknown", 2, "unknown command");
}

Test(cli, help_and_version)
{
    struct buf out = {0};
    const char *lines[] = {BATON "--help",          BATON "--version",
                           BATON "generate --help", BATON "tokenize --help",
                           BATON "render --help",   BATON "render --version"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        cr_assert_eq(run(&out, lines[i]), 0, "%s", lines[i]);
        cr_assert_not_null(strstr(out.data, "baton"), "%s", lines[i]);
    }
    cr_assert_eq(run(&out, BATON), 2);
    buf_fini(&out);
}
