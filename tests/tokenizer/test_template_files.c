/* Which of a model folder's files its chat templates come from. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tokenizer/tokenizer.h"

static char folder[] = "/tmp/baton-templates-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f, "%s", path);
    fputs(text, f);
    cr_assert_eq(fclose(f), 0);
}

static void expect(const char *chat, const char *tools)
{
    struct tokenizer *t = NULL;
    struct error err = {0};
    cr_assert_eq(tokenizer_load(folder, &t, &err), ST_OK, "%s", err.text);
    const char *a = tokenizer_chat_template(t), *b = tokenizer_tool_template(t);
    cr_assert_str_eq(a ? a : "(none)", chat);
    cr_assert_str_eq(b ? b : "(none)", tools);
    tokenizer_free(t);
}

static void drop(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    remove(path);
}

Test(template_files, each_in_turn)
{
    char path[512];
    cr_assert_not_null(mkdtemp(folder));
    put("tokenizer.json",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}");
    expect("(none)", "(none)");
    put("tokenizer_config.json", "{\"chat_template\":\"one\"}");
    expect("one", "(none)");
    put("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},"
                                 "{\"name\":\"rag\",\"template\":\"R\"},"
                                 "{\"name\":\"default\",\"template\":\"D\"}]}");
    expect("D", "T");
    put("chat_template.jinja", "J"); /* goes before all of the configuration's */
    expect("J", "(none)");
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    cr_assert_eq(mkdir(path, 0700), 0);
    put("additional_chat_templates/tool_use.jinja", "U");
    expect("J", "U");
    static const char *const files[] = {"additional_chat_templates/tool_use.jinja",
                                        "additional_chat_templates", "chat_template.jinja",
                                        "tokenizer_config.json", "tokenizer.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        drop(files[i]);
    rmdir(folder);
}
