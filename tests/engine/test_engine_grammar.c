/* Grammars in the engine: what is said fits, ends where the grammar ends, and is the same after a
 * resumption, with whatever company and with an engine that has to forget. */
#include "harness.h"

#include <stdio.h>

#include "engine/grammars.h"
#include "support/letters.h"

struct setting {
    struct letters letters;
    struct rig rig;
};

static void open_setting(struct setting *s)
{
    letters_init(&s->letters);
    rig_open(&s->rig, (struct rig_options){.vocab = s->letters.vocab});
}

static void close_setting(struct setting *s)
{
    rig_close(&s->rig);
    letters_fini(&s->letters);
}

static struct ask *ask_for(uint64_t seed, int32_t n, enum msg_grammar_kind kind, const char *text)
{
    struct ask *a = ask_new(seed, 9, n);
    a->spec.max_tokens = 200;
    a->spec.grammar = (struct msg_grammar){kind, text, (uint32_t)strlen(text), 0};
    return a;
}

/* Behind any text up to the first "z". */
static struct ask *ask_behind(uint64_t seed, int32_t n)
{
    static const char text[] = "{\"until\":[\"z\"]}(?:[a-m]{3},[0-9]{2,4}\\.){4}";
    struct ask *a = ask_for(seed, n, MSG_GRAMMAR_REGEX, text);
    a->spec.grammar.lead = (uint32_t)(strchr(text, '(') - text);
    a->spec.max_tokens = 500;
    return a;
}

static struct buf text_of(const struct setting *s, const struct ask *a, int32_t choice)
{
    struct buf text = {0};
    for (int32_t i = 0; i < a->n_said[choice]; i++)
        if (!tokenizer_is_special(s->letters.tokenizer, a->said[choice][i]))
            tokenizer_token_bytes(s->letters.tokenizer, a->said[choice][i], &text);
    return text;
}

static void expect_fits(const struct setting *s, const struct ask *a, int32_t choice)
{
    struct grammar *g = NULL;
    struct grammar_run *run = NULL;
    struct buf text = text_of(s, a, choice);
    const struct msg_grammar *what = &a->spec.grammar;
    const struct grammar_source source = {(enum grammar_kind)what->kind, what->text, what->len,
                                          what->lead};
    cr_assert_eq(grammar_compile_source(NULL, &source, &g, NULL), ST_OK);
    cr_assert_eq(grammar_run_create(g, NULL, &run, NULL), ST_OK);
    struct grammar_state at = grammar_begin(run);
    cr_expect(grammar_accept_bytes(run, &at, text.data, text.len, NULL) == ST_OK &&
                  grammar_is_complete(run, &at),
              "%s: %.*s", what->text, (int)text.len, text.data);
    cr_expect(a->ended[choice] && a->finish[choice].reason == MSG_FINISH_STOP);
    grammar_run_free(run);
    grammar_free(g);
    buf_fini(&text);
}

Test(engine_grammar, what_is_said_fits_and_ends)
{
    static const struct {
        enum msg_grammar_kind kind;
        const char *text;
    } grammars[] = {{MSG_GRAMMAR_REGEX, "[a-f]{30}[0-9]{3}"},
                    {MSG_GRAMMAR_REGEX, "(abc|def){4,9}\\."},
                    {MSG_GRAMMAR_CHOICE, "[\"yes\",\"no\",\"yesterday\"]"},
                    {MSG_GRAMMAR_GBNF, "root ::= \"A\" x{3,5} \"B\"\nx ::= [0-9]{2} \",\""}};
    struct setting s;
    struct ask *asks[8];
    open_setting(&s);
    for (size_t i = 0; i < 8; i++) {
        asks[i] = ask_for(i, 3, grammars[i % 4].kind, grammars[i % 4].text);
        asks[i]->spec.temperature = i < 4 ? 0 : 1.5F;
        ask_start(&s.rig, asks[i]);
    }
    rig_run(&s.rig);
    for (size_t i = 0; i < 8; i++) {
        for (int32_t c = 0; c < 3; c++)
            expect_fits(&s, asks[i], c);
        ask_release(&s.rig, asks[i]);
        free(asks[i]);
    }
    close_setting(&s);
}

/* Nothing can follow: it ends by itself, with no token that stopped it. */
Test(engine_grammar, the_end_needs_no_token)
{
    struct setting s;
    open_setting(&s);
    struct ask *a = ask_for(1, 1, MSG_GRAMMAR_REGEX, "[a-z]{5}");
    a->spec.min_tokens = 50;
    a->spec.ignore_eos = true;
    ask_start(&s.rig, a);
    rig_run(&s.rig);
    cr_expect_eq(a->n_said[0], 5);
    cr_expect_eq(a->finish[0].reason, MSG_FINISH_STOP);
    cr_expect_eq(a->finish[0].stop_id, -1);
    ask_release(&s.rig, a);
    free(a);
    close_setting(&s);
}

static void expect_resumed(struct ask *(*make)(void))
{
    struct setting s;
    open_setting(&s);
    struct ask *whole = make();
    ask_start(&s.rig, whole);
    rig_run(&s.rig);
    expect_fits(&s, whole, 0);
    int32_t n = whole->n_said[0];
    for (int32_t cut = 1; cut <= n; cut += 5) {
        struct ask *a = make();
        struct msg_ids emitted = {whole->said[0], (uint32_t)cut};
        struct engine_request req = ask_request(a);
        req.emitted = &emitted;
        a->n_said[0] = cut; /* positions go on */
        cr_assert_eq(ask_reserve_as(&s.rig, a, &req), ST_OK);
        engine_fill_here(s.rig.engine, a->group);
        rig_run(&s.rig);
        cr_assert_eq(a->n_said[0], n, "cut %d", cut);
        for (int32_t i = cut; i < n; i++)
            cr_assert_eq(a->said[0][i], whole->said[0][i], "cut %d, token %d", cut, i);
        cr_expect(a->ended[0] && a->finish[0].reason == MSG_FINISH_STOP);
        ask_release(&s.rig, a);
        free(a);
    }
    ask_release(&s.rig, whole);
    free(whole);
    close_setting(&s);
}

static struct ask *make_plain(void)
{
    return ask_for(5, 1, MSG_GRAMMAR_REGEX, "(?:[a-m]{3},[0-9]{2,4}\\.){6}");
}

static struct ask *make_behind(void)
{
    return ask_behind(5, 1);
}

Test(engine_grammar, resumed_requests_go_on_where_they_were)
{
    expect_resumed(make_plain);
    expect_resumed(make_behind);
}

/* The text in front ends nowhere but at its marker, of every choice at its own place. */
Test(engine_grammar, behind_free_text)
{
    struct setting s;
    open_setting(&s);
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct ask *a = ask_behind(seed, 3);
        a->spec.temperature = 1;
        ask_start(&s.rig, a);
        rig_run(&s.rig);
        for (int32_t c = 0; c < 3; c++)
            if (a->finish[c].reason == MSG_FINISH_STOP)
                expect_fits(&s, a, c);
            else
                cr_expect_eq(a->n_said[c], 500);
        ask_release(&s.rig, a);
        free(a);
    }
    close_setting(&s);
}

Test(engine_grammar, what_does_not_fit_fails_its_own_request)
{
    struct setting s;
    open_setting(&s);
    struct ask *a = ask_for(1, 1, MSG_GRAMMAR_REGEX, "a+b"), *other = ask_new(2, 5, 1);
    int32_t wrong[] = {1, 1, 3};
    struct msg_ids emitted = {wrong, 3};
    struct engine_request req = ask_request(a);
    req.emitted = &emitted;
    cr_assert_eq(ask_reserve_as(&s.rig, a, &req), ST_OK);
    engine_fill_here(s.rig.engine, a->group);
    ask_start(&s.rig, other);
    rig_run(&s.rig);
    cr_expect(a->failed && a->status == ST_INVALID);
    ask_expect(&s.rig, other, "beside it");
    ask_release(&s.rig, a);
    ask_release(&s.rig, other);
    free(a);
    free(other);
    close_setting(&s);
}

/* Characters that no token has: nothing leads to them. */
Test(engine_grammar, what_nobody_can_spell_is_left_out)
{
    struct setting s;
    open_setting(&s);
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct ask *a = ask_for(seed, 1, MSG_GRAMMAR_REGEX, "a(b!|c|d(e-|f))");
        ask_start(&s.rig, a);
        rig_run(&s.rig);
        expect_fits(&s, a, 0);
        ask_release(&s.rig, a);
        free(a);
    }
    struct ask *a = ask_for(1, 1, MSG_GRAMMAR_REGEX, "ab!");
    cr_expect_eq(ask_reserve(&s.rig, a), ST_INVALID);
    free(a);
    close_setting(&s);
}

Test(engine_grammar, wrong_ones_are_refused)
{
    static const struct {
        enum msg_grammar_kind kind;
        const char *text;
    } wrong[] = {{MSG_GRAMMAR_REGEX, "a("},
                 {MSG_GRAMMAR_GBNF, "root ::= root"},
                 {MSG_GRAMMAR_JSON_SCHEMA, "{\"contains\":{}}"},
                 {MSG_GRAMMAR_CHOICE, "[]"}};
    struct setting s;
    open_setting(&s);
    for (size_t i = 0; i < 4; i++) {
        struct ask *a = ask_for(1, 1, wrong[i].kind, wrong[i].text);
        cr_expect_eq(ask_reserve(&s.rig, a), ST_INVALID, "%s", wrong[i].text);
        free(a);
    }
    struct rig without;
    rig_open(&without, (struct rig_options){0});
    struct ask *a = ask_for(1, 1, MSG_GRAMMAR_REGEX, "a");
    cr_expect_eq(ask_reserve(&without, a), ST_INVALID);
    free(a);
    rig_close(&without);
    close_setting(&s);
}

/* More grammars than are kept: the oldest that nobody uses are dropped, and made again. */
Test(engine_grammar, many_grammars)
{
    struct setting s;
    char pattern[64];
    open_setting(&s);
    for (int i = 0; i < 3 * GRAMMARS_MAX; i++) {
        snprintf(pattern, sizeof pattern, "[a-z]{%d}[0-9]", i % (2 * GRAMMARS_MAX) + 1);
        struct ask *a = ask_for((uint64_t)i, 1, MSG_GRAMMAR_REGEX, pattern);
        ask_start(&s.rig, a);
        rig_run(&s.rig);
        expect_fits(&s, a, 0);
        ask_release(&s.rig, a);
        free(a);
    }
    close_setting(&s);
}

/* What another thread does: the engine has it when it is entered, and not a second time. */
Test(engine_grammar, compiled_elsewhere)
{
    struct setting s;
    open_setting(&s);
    struct grammars *held = engine_grammars(s.rig.engine);
    struct ask *a = ask_for(3, 1, MSG_GRAMMAR_REGEX, "[a-f]{9}[0-9]");
    struct engine_request req = ask_request(a);
    cr_assert(engine_lacks_grammar(s.rig.engine, &req));
    struct grammar_draft *drafts[2];
    for (int i = 0; i < 2; i++) {
        drafts[i] = grammars_draft(held, &req.sampling.grammar);
        grammar_draft_compile(drafts[i]);
        cr_expect(grammar_draft_is(drafts[i], &req.sampling.grammar));
        cr_expect_eq(grammar_draft_error(drafts[i])->status, ST_OK);
    }
    cr_expect(engine_lacks_grammar(s.rig.engine, &req));
    struct grammar_use *first = grammars_enter(held, drafts[0]);
    cr_expect_eq(grammars_enter(held, drafts[1]), first);
    cr_expect_not(engine_lacks_grammar(s.rig.engine, &req));
    ask_start(&s.rig, a);
    grammars_give(held, first);
    grammars_give(held, first);
    rig_run(&s.rig);
    expect_fits(&s, a, 0);
    ask_release(&s.rig, a);
    cr_expect_not(engine_lacks_grammar(s.rig.engine, &req), "kept for the next");
    req.prefill_only = true;
    req.sampling.grammar = (struct msg_grammar){MSG_GRAMMAR_REGEX, "new", 3, 0};
    cr_expect_not(engine_lacks_grammar(s.rig.engine, &req), "no token is wanted");
    req.want_first = true;
    cr_expect(engine_lacks_grammar(s.rig.engine, &req));
    free(a);
    close_setting(&s);
}

Test(engine_grammar, wrong_when_compiled_elsewhere)
{
    struct setting s;
    open_setting(&s);
    const struct msg_grammar wrong = {MSG_GRAMMAR_REGEX, "a(", 2, 0};
    struct grammar_draft *d = grammars_draft(engine_grammars(s.rig.engine), &wrong);
    grammar_draft_compile(d);
    cr_expect_eq(grammar_draft_error(d)->status, ST_INVALID);
    cr_expect(strncmp(grammar_draft_error(d)->text, "grammar: ", 9) == 0);
    grammar_draft_free(d);
    grammar_draft_free(grammars_draft(engine_grammars(s.rig.engine), &wrong)); /* never compiled */
    close_setting(&s);
}
