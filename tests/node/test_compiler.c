/* The thread that compiles grammars: what it is given comes back, and what is left is freed. */
#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>

#include "node/compiler.h"
#include "support/letters.h"

static struct letters letters;
static struct grammars *grammars;
static struct compiler *compiler;

static void open_all(void)
{
    letters_init(&letters);
    grammars = grammars_create(letters.vocab);
    cr_assert_eq(compiler_start(&compiler, NULL), ST_OK);
}

static void close_all(void)
{
    compiler_stop(compiler);
    grammars_destroy(grammars);
    letters_fini(&letters);
}

static void give(const char *pattern)
{
    const struct msg_grammar what = {MSG_GRAMMAR_REGEX, pattern, (uint32_t)strlen(pattern)};
    compiler_give(compiler, grammars_draft(grammars, &what));
}

static struct grammar_draft *wait_for_one(void)
{
    struct grammar_draft *draft;
    while ((draft = compiler_next(compiler)) == NULL)
        poll(&(struct pollfd){.fd = compiler_fd(compiler), .events = POLLIN}, 1, -1);
    return draft;
}

Test(compiler, what_is_given_comes_back)
{
    static const char *const patterns[] = {"[a-f]{3}", "(ab)*c", "a(", "[0-9]+"};
    open_all();
    cr_assert_null(compiler_next(compiler));
    for (int i = 0; i < 40; i++) {
        give(patterns[i % 4]);
        struct grammar_draft *draft = wait_for_one();
        bool right = grammar_draft_error(draft)->status == ST_OK;
        cr_assert_eq(right, i % 4 != 2);
        if (right)
            grammars_give(grammars, grammars_enter(grammars, draft));
        else
            grammar_draft_free(draft);
        cr_assert_null(compiler_next(compiler));
    }
    close_all();
}

Test(compiler, the_end_frees_what_nobody_took)
{
    for (int i = 0; i < 20; i++) {
        open_all();
        give("([a-z]{1,40}[0-9]){5}");
        if (i % 2) /* it has come back */
            poll(&(struct pollfd){.fd = compiler_fd(compiler), .events = POLLIN}, 1, -1);
        close_all();
    }
}
