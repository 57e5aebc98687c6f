/* A chat of ten messages takes a template less than 100 microseconds: the processor's time, the
 * best of many, so that a busy machine does not fail it. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "support/read_file.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

#ifdef BATON_SANITIZED
#define LIMIT_US 5000.0
#else
#define LIMIT_US 100.0
#endif
#define FOLDER BATON_SOURCE_DIR "/../shared/data/chat_templates"

static json *ten_messages(void)
{
    static const char words[] =
        "It is a longer text of about two hundred characters, so that it is "
        "like a chat of the usual kind, and it ends with a question: what do "
        "you think of the weather in Paris?";
    struct buf b = {0};
    json *v = NULL;
    buf_puts(&b, "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}");
    for (int i = 0; i < 9; i++)
        buf_printf(&b, ",{\"role\":\"%s\",\"content\":\"%d. %s\"}", i % 2 ? "assistant" : "user", i,
                   words);
    buf_puts(&b, "],\"tools\":null,\"documents\":null,\"add_generation_prompt\":true}");
    cr_assert_eq(json_read(b.data, b.len, &v, NULL), ST_OK);
    buf_fini(&b);
    return v;
}

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* -1: it refuses a system message, which is its right. */
static double best_us(const char *text, size_t len, const json *variables)
{
    struct chat_template *t = NULL;
    struct error err = {0};
    double best = 1e12;
    cr_assert_eq(template_parse(text, len, &t, &err), ST_OK, "%s", err.text);
    for (int i = 0; i < 50; i++) {
        struct template_args args = {
            .variables = variables, .bos_token = "<s>", .eos_token = "</s>"};
        struct template_result r = {0};
        double begin = cpu_us();
        enum status st = template_render(t, &args, &r, &err);
        double took = cpu_us() - begin;
        template_result_fini(&r);
        best = st != ST_OK ? -1 : took < best ? took : best;
    }
    template_free(t);
    return best;
}

Test(template_speed, embedded_model)
{
    struct tokenizer *t = NULL;
    struct error err = {0};
    json *v = ten_messages();
    cr_assert_eq(tokenizer_load(BATON_SOURCE_DIR "/models/tiny", &t, &err), ST_OK, "%s", err.text);
    const char *text = tokenizer_chat_template(t);
    double us = best_us(text, strlen(text), v);
    cr_assert(us >= 0 && us < LIMIT_US, "%.1f us", us);
    tokenizer_free(t);
    json_free(v);
}

Test(template_speed, published_templates)
{
    DIR *folder = opendir(FOLDER);
    if (!folder)
        cr_skip_test("no chat templates at %s", FOLDER);
    json *v = ten_messages();
    for (struct dirent *e; (e = readdir(folder));) {
        if (!strstr(e->d_name, ".jinja"))
            continue;
        struct buf text = read_file(FOLDER "/%s", e->d_name);
        double us = best_us(text.data, text.len, v);
        cr_assert(us < LIMIT_US, "%s: %.1f us", e->d_name, us);
        buf_fini(&text);
    }
    closedir(folder);
    json_free(v);
}
