/* The structure for answers that must call a tool: it compiles, and what it lets through is what
 * the output parser reads back as calls. */
#include "api_rig.h"
#include "router/api_tool_grammar.h"
#include "router/output_rig.h"
#include "tokenizer/grammar/grammar.h"

#define ASK                                                                                        \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{\"type\":\"function\","     \
    "\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"$ref\":\"#/$defs/"      \
    "i\"}},"                                                                                       \
    "\"required\":[\"a\"],\"additionalProperties\":false,\"$defs\":{\"i\":{\"type\":\"integer\"}}" \
    "}}},"                                                                                         \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\\\"\"}}]"

struct rig_grammar {
    struct grammar *g;
    struct grammar_run *run;
};

static struct rig_grammar compile(const char *choice)
{
    struct api_request r;
    struct api_error err = {0};
    struct error why = {0};
    struct rig_grammar out = {0};
    struct buf text = {0};
    json *body = NULL;
    char request[2048];
    snprintf(request, sizeof request, "%s,%s}", ASK, choice);
    r = (struct api_request){.kind = API_CHAT};
    const struct api_rules rules = rig_rules();
    cr_assert_eq(json_read(request, strlen(request), &body, NULL), ST_OK);
    cr_assert(api_parse_chat(&r, body, &rules, &err), "%s", err.message);
    api_tool_grammar(&r, &text);
    cr_assert_eq(grammar_compile(GRAMMAR_STRUCTURE, text.data, text.len, &out.g, &why), ST_OK,
                 "%s: %s", why.text, text.data);
    cr_assert_eq(grammar_run_create(out.g, NULL, &out.run, &why), ST_OK, "%s", why.text);
    json_free(body);
    buf_fini(&text);
    return out;
}

static bool takes(struct rig_grammar g, const char *said)
{
    struct error why = {0};
    struct grammar_state at = grammar_begin(g.run);
    return grammar_accept_bytes(g.run, &at, said, strlen(said), &why) == ST_OK &&
           grammar_is_complete(g.run, &at);
}

static void reads_as(struct output_args args, const char *said, const char *want)
{
    struct buf got = rig_run(args, said, 3, 1, false);
    cr_assert_str_eq(got.data, want);
    buf_fini(&got);
}

static void release(struct rig_grammar g)
{
    grammar_run_free(g.run);
    grammar_free(g.g);
}

Test(api_tool_grammar, named)
{
    struct rig_grammar g =
        compile("\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}");
    cr_assert(takes(g, "{\"a\": 1}"));
    cr_assert(!takes(g, "{\"a\": \"1\"}"));
    cr_assert(!takes(g, "{}"));
    cr_assert(!takes(g, "1"));
    reads_as((struct output_args){.forced_name = "f"}, "{\"a\": 1}", "|B0:f|A:{\"a\": 1}|E");
    release(g);
}

Test(api_tool_grammar, required)
{
    struct rig_grammar g = compile("\"tool_choice\":\"required\"");
    static const char one[] = "[{\"name\": \"f\", \"parameters\": {\"a\": 1}}]",
                      two[] = "[{\"name\": \"f\", \"parameters\": {\"a\": 1}}, "
                              "{\"name\": \"g\\\"\", \"parameters\": {}}]";
    cr_assert(takes(g, one));
    cr_assert(takes(g, two));
    cr_assert(!takes(g, "[]"));
    cr_assert(!takes(g, "[{\"name\": \"h\", \"parameters\": {}}]"));
    cr_assert(!takes(g, "[{\"name\": \"f\", \"parameters\": {}}]"));
    reads_as((struct output_args){.forced = true}, one, "|B0:f|A:{\"a\": 1}|E");
    release(g);
    g = compile("\"tool_choice\":\"required\",\"parallel_tool_calls\":false");
    cr_assert(takes(g, one));
    cr_assert(!takes(g, two));
    release(g);
    g = compile(
        "\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"required\","
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\\\"\"}}]}}");
    cr_assert(!takes(g, one));
    cr_assert(takes(g, "[{\"name\": \"g\\\"\", \"parameters\": {\"x\": [1]}}]"));
    release(g);
}
