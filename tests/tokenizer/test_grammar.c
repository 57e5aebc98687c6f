/* What grammars accept and refuse, where errors are said to be, and that bounds hold. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/utf8.h"
#include "tokenizer/grammar/grammar.h"

#define DATA BATON_SOURCE_DIR "/../shared/data/"

static struct grammar *compile(enum grammar_kind kind, const char *text)
{
    struct grammar *g = NULL;
    struct error err = {0};
    enum status st = grammar_compile(kind, text, strlen(text), &g, &err);
    cr_assert_eq(st, ST_OK, "%.200s: %s", text, err.text);
    return g;
}

static bool accepts_len(const struct grammar *g, const char *text, size_t len)
{
    struct grammar_run *run = NULL;
    cr_assert_eq(grammar_run_create(g, NULL, &run, NULL), ST_OK);
    struct grammar_state at = grammar_begin(run);
    bool yes =
        grammar_accept_bytes(run, &at, text, len, NULL) == ST_OK && grammar_is_complete(run, &at);
    grammar_run_free(run);
    return yes;
}

struct sample {
    enum grammar_kind kind;
    const char *grammar;
    const char *accept[8], *reject[10];
};

static const struct sample samples[] = {
    {GRAMMAR_REGEX, "(a|bc)+d?", {"a", "bca", "abcd"}, {"", "b", "ad d", "xa", "add"}},
    {GRAMMAR_REGEX, "^[^\\W\\d]{2,3}$", {"ab", "_ab"}, {"a", "abcd", "a1", "\xc3\xa9\xc3\xa9"}},
    {GRAMMAR_REGEX,
     "\\u00e9\\x41[\\]\\-a-c].",
     {"\xc3\xa9"
      "A]\xe2\x82\xac",
      "\xc3\xa9"
      "A-x"},
     {"\xc3\xa9"
      "A]\n",
      "\xc3\xa9"
      "Ad1",
      "\xc3\xa9"
      "A]\xe2\x82"}},
    {GRAMMAR_REGEX,
     "\\ud83d\\ude00[\\ud800\\u0041\\uD83D\\uDE00]",
     {"\xf0\x9f\x98\x80"
      "A",
      "\xf0\x9f\x98\x80\xf0\x9f\x98\x80"},
     {"\xf0\x9f\x98\x80", "A"}},
    {GRAMMAR_REGEX, "(?:\\d{1,3}\\.){3}\\d{1,3}", {"1.22.333.4"}, {"1.2.3", "1.2.3.4444"}},
    {GRAMMAR_REGEX, "(?P<x>a{0}b{2,}?|c{,2})", {"bb", "bbbb", "", "c", "cc"}, {"b", "ccc", "ab"}},
    {GRAMMAR_REGEX, "[\\s\\S]*x", {"x", "\n\xf0\x9f\x98\x80x"}, {"", "x\xff", "\xc0\x80x"}},
    {GRAMMAR_REGEX, "\\p{Lu}\\p{Ll}+", {"Ab", "\xc3\x84\xc3\xa4"}, {"ab", "AB"}},
    {GRAMMAR_CHOICE, "[\"yes\",\"no\",\"not\"]", {"yes", "no", "not"}, {"", "ye", "nott"}},
    {GRAMMAR_GBNF,
     "root ::= (\n \"a\" | # one\n b)+ ws\nb ::= [^a\\n\\x62-c]{2} | \"\\u00e9\"\nws ::= | \" \"",
     {"a", "xx", "axya", "\xc3\xa9 "},
     {"", "b", "x", "xb", "xbx", " "}},
    {GRAMMAR_GBNF,
     "root ::= e\ne ::= t\n  | t \"+\" e\nt ::= \"x\" | \"(\" e \")\"",
     {"x", "x+x", "((x)+x)+x"},
     {"", "x+", "(x", "x)"}},
    {GRAMMAR_GBNF,
     "root ::= \"ab\"{3,1000} .",
     {"abababc", "abababab\xe2\x82\xac"},
     {"ababc", "ab"}},
    {GRAMMAR_GBNF,
     "root ::= s\ns ::= \"x\" s \"a\" | \"x\" s \"b\" | \"c\"",
     {"c", "xca", "xxcab", "xxxcbab"},
     {"xc", "xxca", "cab"}},
    {GRAMMAR_GBNF,
     "root ::= \"a\" root | \"b\" root \"c\" | tail\ntail ::= \"t\"*",
     {"", "aa", "abc", "abtc", "aatt"},
     {"ab", "c", "tta"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":true},\"minProperties\":2}",
     {"{\"a\":1,\"b\":1}", "{\"a\":1,\"b\":1,\"b\":1}"},
     {"{\"b\":1,\"b\":1}", "{\"a\":1}"}},
    {GRAMMAR_JSON_OBJECT,
     "",
     {"{}", "{\"a\": [1, -2.5e+3, null, true, {}, \"\\u00e9\\ud83d\\ude00\\n\"]}",
      "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}"},
     {"", "[]", "{\"a\":01}", "{\"a\":1,}", "{a:1}", "{\"a\":\"\\ud83d\"}", "{\"a\":\"\x01\"}",
      "{\"a\":1}x", "{  }"}},
    {GRAMMAR_JSON_SCHEMA, "true", {"1", "\"a\"", "[{}]"}, {"", "tru"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"enum\":[\"x\",2]}}"
     ","
     "\"required\":[\"b\"],\"additionalProperties\":false}",
     {"{\"a\":1,\"b\":\"x\"}", "{\"b\": 2}"},
     {"{}", "{\"a\":1}", "{\"b\":\"y\"}", "{\"b\":2,\"a\":1}", "{\"b\":2,\"c\":1}",
      "{\"a\":1.5,\"b\":2}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"properties\":{\"ab\":{\"type\":\"null\"}},\"patternProperties\":{\"^x\":{\"type\":"
     "\"string\"}},"
     "\"additionalProperties\":{\"type\":\"boolean\"},\"type\":\"object\",\"maxProperties\":2}",
     {"{}", "{\"ab\":null}", "{\"abc\":true,\"x\":\"1\"}", "{\"a\":true}"},
     {"{\"ab\":true}", "{\"x\":true}", "{\"a\":\"1\"}", "{\"a\":true,\"b\":true,\"c\":true}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"n\":{"
     "\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"n\"],"
     "\"additionalProperties\":false}},\"$ref\":\"#/$defs/n\"}",
     {"{\"v\":1,\"n\":null}", "{\"v\":1,\"n\":{\"v\":2,\"n\":{\"v\":3,\"n\":null}}}"},
     {"{\"v\":1}", "{\"v\":1,\"n\":1}", "{\"v\":1,\"n\":{\"v\":2}}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"}],\"items\":{\"type\":\"integer\"},"
     "\"minItems\":2,\"maxItems\":4}",
     {"[\"a\",1]", "[\"a\", 1, 2, 3]"},
     {"[]", "[\"a\"]", "[1,2]", "[\"a\",1,2,3,4]", "[\"a\",\"b\"]"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"integer\",\"minimum\":-17,\"exclusiveMaximum\":205}",
     {"0", "-17", "204", "99", "-9"},
     {"-18", "205", "1.5", "-0", "00", "1000"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"number\",\"minimum\":0.05,\"maximum\":1.5}",
     {"0.05", "0.051", "1", "1.5", "1.499", "1.50"},
     {"0.04", "0", "1.51", "2", "-1", "1e0"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"number\",\"multipleOf\":0.25,\"maximum\":-1}",
     {"-1", "-1.25", "-1.5", "-100.750"},
     {"0", "-1.1", "-0.75", "1.25"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"integer\",\"multipleOf\":7}",
     {"0", "7", "-49", "700"},
     {"1", "71", "-6"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"a+\\\"?$\",\"minLength\":3,\"maxLength\":4}",
     {"\"xxa\"", "\"aa\\\"\"", "\"\xe2\x82\xac\\n\\na\""},
     {"\"a\"", "\"xxab\"", "\"xxxxa\"", "\"\"aa\""}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"\\u00e9\\ud83d\\ude00\"", "\"abc\"", "\"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\""},
     {"\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\""}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-29\"", "\"1999-12-31\""},
     {"\"2023-02-29\"", "\"2023-13-01\"", "\"x\""}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"},\"v\":{\"type\":"
     "\"null\"}},\"required\":[\"k\",\"v\"]},{\"type\":\"object\",\"properties\":{\"k\":{\"const\":"
     "\"b\"}},\"required\":[\"k\"]}]}",
     {"{\"k\":\"a\",\"v\":null}", "{\"k\":\"b\",\"v\":1}"},
     {"{\"k\":\"a\"}", "{\"k\":\"c\"}", "{\"k\":\"a\",\"v\":1}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":3}}},{\"properties\":{\"a\":{\"type\":"
     "\"integer\",\"maximum\":5}},\"required\":[\"a\"],\"type\":\"object\"}]}",
     {"{\"a\":3}", "{\"a\":5,\"z\":\"\"}"},
     {"{\"a\":2}", "{\"a\":6}", "{}", "3"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[a-c]+$\"}}",
     {"{\"ab\":1}", "{}"},
     {"{\"d\":1}", "{\"\":1}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":[\"string\",\"integer\",\"null\"],\"not\":{\"enum\":[\"a\",\"bc\",5,null]}}",
     {"\"b\"", "\"\"", "\"abc\"", "4", "-5"},
     {"\"a\"", "\"bc\"", "5", "null", "true"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"string\",\"not\":{\"anyOf\":[{\"pattern\":\"^x\"},{\"minLength\":4}]}}",
     {"\"\"", "\"axx\""},
     {"\"x\"", "\"abcd\""}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"k\":{\"enum\":[\"a\",\"b\"]},\"v\":{\"type\":"
     "\"integer\"}},"
     "\"required\":[\"k\"],\"additionalProperties\":false,\"if\":{\"properties\":{\"k\":{\"const\":"
     "\"a\"}}},\"then\":{\"required\":[\"v\"]},\"else\":{\"properties\":{\"v\":false}}}",
     {"{\"k\":\"a\",\"v\":1}", "{\"k\":\"b\"}"},
     {"{\"k\":\"a\"}", "{\"k\":\"b\",\"v\":1}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"dependentRequired\":{\"a\":[\"b\"]}"
     ","
     "\"dependentSchemas\":{\"b\":{\"properties\":{\"b\":{\"type\":\"null\"}}}},"
     "\"additionalProperties\":false}",
     {"{}", "{\"b\":null}", "{\"a\":1,\"b\":null}"},
     {"{\"a\":1}", "{\"b\":1}"}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"oneOf\":[{\"type\":\"integer\",\"minimum\":3},{\"type\":\"integer\",\"maximum\":7}]}",
     {"2", "8", "-1"},
     {"3", "5", "7", "\"a\""}},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}}}],"
     "\"properties\":{"
     "\"b\":{\"type\":\"integer\"}},\"unevaluatedProperties\":false}",
     {"{}", "{\"b\":1,\"a\":2}"},
     {"{\"c\":1}", "{\"a\":null}"}},
    {GRAMMAR_STRUCTURE,
     "{\"seq\":[{\"literal\":\"<f>\"},{\"schema\":{\"type\":\"integer\"}},{\"any\":[{\"literal\":"
     "\"</"
     "f>\"},{\"regex\":\"[ab]+\"}]},{\"repeat\":{\"text_without\":\"end\"},\"min\":0,\"max\":1},"
     "{\"special\":\"[X]\"}]}",
     {"<f>12</f>\xff[X]\xff", "<f>-3ab en nd\xff[X]\xff"},
     {"<f>12</f>", "<f>1ab end\xff[X]\xff", "<f></f>\xff[X]\xff"}},
};

Test(grammar, accepts_and_rejects)
{
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct sample *s = &samples[i];
        struct grammar *g = compile(s->kind, s->grammar);
        for (size_t k = 0; k < 8 && s->accept[k]; k++)
            cr_expect(accepts_len(g, s->accept[k], strlen(s->accept[k])), "%s: %s", s->grammar,
                      s->accept[k]);
        for (size_t k = 0; k < 10 && s->reject[k]; k++)
            cr_expect(!accepts_len(g, s->reject[k], strlen(s->reject[k])), "%s: not %s", s->grammar,
                      s->reject[k]);
        grammar_free(g);
    }
}

static const struct {
    enum grammar_kind kind;
    enum status status;
    const char *text, *says;
} errors[] = {
    {GRAMMAR_REGEX, ST_INVALID, "ab(c", "offset 4: ')' is missing"},
    {GRAMMAR_REGEX, ST_INVALID, "a)", "offset 1"},
    {GRAMMAR_REGEX, ST_INVALID, "[z-a]", "the wrong way round"},
    {GRAMMAR_REGEX, ST_INVALID, "a{3,2}", "the wrong way round"},
    {GRAMMAR_REGEX, ST_INVALID, "*a", "offset 0: there is nothing to repeat"},
    {GRAMMAR_REGEX, ST_UNSUPPORTED, "(a)\\1", "backreferences"},
    {GRAMMAR_REGEX, ST_UNSUPPORTED, "a(?=b)", "lookaround"},
    {GRAMMAR_REGEX, ST_UNSUPPORTED, "\\bx", "word boundaries"},
    {GRAMMAR_REGEX, ST_INVALID, "a$b", "nothing can match"},
    {GRAMMAR_REGEX, ST_INVALID, "\\ud800\\u0041", "nothing can match"},
    {GRAMMAR_REGEX, ST_INVALID, "\\ud800\\ud800", "nothing can match"},
    {GRAMMAR_GBNF, ST_INVALID, "root ::= \"a\"\nx ::= [\n",
     "line 3 column 1: the grammar ends too early"},
    {GRAMMAR_GBNF, ST_INVALID, "root ::= y", "line 1 column 10: the rule is not defined"},
    {GRAMMAR_GBNF, ST_INVALID, "a ::= \"x\"", "no rule \"root\""},
    {GRAMMAR_GBNF, ST_INVALID, "root ::= root \"a\" | \"b\"", "left recursion: rule root"},
    {GRAMMAR_GBNF, ST_INVALID, "root ::= e root | \"b\"\ne ::= \"\"", "left recursion"},
    {GRAMMAR_GBNF, ST_INVALID, "root ::= \"a\" root", "nothing can match"},
    {GRAMMAR_GBNF, ST_INVALID, "root ::= \"\\q\"", "line 1 column 11: unknown escape"},
    {GRAMMAR_GBNF, ST_UNSUPPORTED, "root ::= <[3]>", "references to tokens"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"type\":\"objekt\"}", "#: type \"objekt\""},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"type\":", "not JSON"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "[]", "#: a schema must be an object or a boolean"},
    {GRAMMAR_JSON_SCHEMA, ST_UNSUPPORTED,
     "{\"properties\":{\"a/b\":{\"items\":{\"not\":{\"multipleOf\":2}}}}}",
     "#/properties/a~1b/items: keyword \"not\" is not supported with \"multipleOf\""},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"$ref\":\"#/$defs/x\"}", "leads nowhere"},
    {GRAMMAR_JSON_SCHEMA, ST_UNSUPPORTED, "{\"$ref\":\"http://a/b\"}", "out of this document"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"allOf\":[{\"pattern\":\"a(\"}]}",
     "#/allOf/0: pattern: offset 2"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"minLength\":-1}", "#: minLength must be"},
    {GRAMMAR_JSON_SCHEMA, ST_UNSUPPORTED, "{\"oneOf\":[{\"multipleOf\":2},{\"multipleOf\":3}]}",
     "branches 0 and 1 are not evidently exclusive"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
     "nothing can match"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID,
     "{\"properties\":{\"a\":{\"items\":{\"type\":\"string\",\"minLength\":3,\"maxLength\":2},"
     "\"minItems\":1,\"type\":\"array\"}},\"required\":[\"a\"],\"type\":\"object\"}",
     "#/properties/a/items: nothing can match"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID,
     "{\"$defs\":{\"x\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/x\"}}},"
     "\"$ref\":\"#/$defs/x\"}",
     "#/$defs/x/items: nothing can match"},
    {GRAMMAR_JSON_SCHEMA, ST_INVALID, "{\"allOf\":[{\"type\":\"null\"},{\"type\":\"string\"}]}",
     "#: nothing can match"},
    {GRAMMAR_JSON_SCHEMA, ST_UNSUPPORTED,
     "{\"items\":{\"type\":\"object\",\"properties\":{\"a\":{}},\"minProperties\":3}}",
     "#/items: minProperties is not supported over one more than"},
    {GRAMMAR_STRUCTURE, ST_INVALID,
     "{\"any\":[{\"at\":\"/0/f\",\"schema\":{\"items\":{\"type\":\"x\"}}}]}",
     "#/0/f/items: type \"x\""},
    {GRAMMAR_STRUCTURE, ST_INVALID,
     "{\"seq\":[{\"literal\":\"a\"},{\"any\":[{\"at\":\"/0/f\",\"schema\":{\"type\":\"array\","
     "\"minItems\":1,\"items\":{\"type\":\"null\",\"enum\":[]}}}]}]}",
     "#/0/f/items: nothing can match"},
    {GRAMMAR_CHOICE, ST_INVALID, "[]", "not empty"},
    {GRAMMAR_CHOICE, ST_INVALID, "[\"a\",1]", "#/1"},
    {GRAMMAR_STRUCTURE, ST_INVALID, "{\"seq\":[{\"x\":1}]}", "#/seq/0: not a node"},
    {GRAMMAR_STRUCTURE, ST_INVALID, "{\"any\":[{\"schema\":{\"items\":3}}]}",
     "#/any/0/schema: items"},
    {GRAMMAR_NONE, ST_INVALID, "", "no such kind"},
};

Test(grammar, errors_name_the_place)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct grammar *g = NULL;
        struct error err = {0};
        enum status st =
            grammar_compile(errors[i].kind, errors[i].text, strlen(errors[i].text), &g, &err);
        cr_expect_eq(st, errors[i].status, "%s: %d %s", errors[i].text, st, err.text);
        cr_expect(strstr(err.text, errors[i].says), "%s: %s", errors[i].text, err.text);
    }
}

/* Each of many kinds has properties of its own: the conditions do not multiply. */
Test(grammar, conditions_on_one_property)
{
    struct buf schema = {0};
    buf_puts(&schema, "{\"type\":\"object\",\"required\":[\"kind\"],\"properties\":{\"kind\":{"
                      "\"type\":\"string\"}},\"allOf\":[");
    for (int i = 0; i < 40; i++)
        buf_printf(&schema,
                   "%s{\"if\":{\"properties\":{\"kind\":{\"const\":\"k%d\"}}},\"then\":{"
                   "\"properties\":{\"p%d\":{\"type\":\"integer\"}},\"required\":[\"p%d\"]}}",
                   i ? "," : "", i, i, i);
    buf_puts(&schema, "]}");
    struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, schema.data);
    static const struct {
        const char *text;
        bool right;
    } values[] = {{"{\"kind\":\"k7\",\"p7\":1}", true},
                  {"{\"kind\":\"k39\",\"p39\":1}", true},
                  {"{\"kind\":\"other\"}", true},
                  {"{\"kind\":\"k7\"}", false},
                  {"{\"kind\":\"k7\",\"p8\":1}", false}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        cr_expect_eq(accepts_len(g, values[i].text, strlen(values[i].text)), values[i].right, "%s",
                     values[i].text);
    grammar_free(g);
    buf_fini(&schema);
}

/* Texts that would explode without bounds: each is compiled or refused, soon. */
Test(grammar, is_bounded, .timeout = 120)
{
    static const char *const patterns[] = {"((((a{100}){100}){100}){100}){100}",
                                           "(a|b)*a(a|b){20000}",
                                           "(.{0,500}){0,500}",
                                           "(((((((((((((((a*)*)*)*)*)*)*)*)*)*)*)*)*)*)*",
                                           "(x+x+)+y",
                                           "[^\\x00-\\x{10ffff}]"};
    struct grammar *g;
    struct error err;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        g = NULL;
        grammar_compile(GRAMMAR_REGEX, patterns[i], strlen(patterns[i]), &g, &err);
        grammar_free(g);
    }
    struct buf deep = {0};
    for (int i = 0; i < 100000; i++)
        buf_putc(&deep, '(');
    cr_expect_eq(grammar_compile(GRAMMAR_REGEX, deep.data, deep.len, &g, &err), ST_UNSUPPORTED);
    buf_clear(&deep);
    buf_puts(&deep, "root ::= ");
    for (int i = 0; i < 100000; i++)
        buf_putc(&deep, '(');
    cr_expect_eq(grammar_compile(GRAMMAR_GBNF, deep.data, deep.len, &g, &err), ST_UNSUPPORTED);
    buf_clear(&deep);
    for (int i = 0; i < 30; i++)
        buf_printf(&deep, "%s{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}",
                   i ? "," : "{\"allOf\":[", i, i);
    buf_puts(&deep, "]}");
    cr_expect_eq(grammar_compile(GRAMMAR_JSON_SCHEMA, deep.data, deep.len, &g, &err),
                 ST_UNSUPPORTED);
    buf_fini(&deep);
    static const char loop[] = "{\"$ref\":\"#\"}",
                      tree[] = "{\"enum\":[1],\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
                               "a\"},{\"$ref\":\"#/$defs/a\"}]}},"
                               "\"$ref\":\"#/$defs/a\"}";
    g = NULL;
    grammar_compile(GRAMMAR_JSON_SCHEMA, loop, sizeof loop - 1, &g, &err);
    grammar_free(g);
    g = NULL;
    grammar_compile(GRAMMAR_JSON_SCHEMA, tree, sizeof tree - 1, &g, &err);
    grammar_free(g);
}

static void add_class(struct buf *b, unsigned first, unsigned step)
{
    char utf8[4];
    buf_putc(b, '[');
    for (unsigned cp = first; cp < 0xd000; cp += step)
        buf_append(b, utf8, utf8_encode(cp, utf8));
    buf_putc(b, ']');
}

static void compile_any(enum grammar_kind kind, struct buf *text)
{
    struct grammar *g = NULL;
    struct error err;
    grammar_compile(kind, text->data, text->len, &g, &err);
    grammar_free(g);
    buf_clear(text);
}

/* What is read again for each copy is long, or stands for much: seconds and gigabytes once. */
Test(grammar, copies_are_bounded, .timeout = 20)
{
    static const char properties[] = "(\\p{L}x){1000}";
    struct buf text = {0};
    buf_puts(&text, properties);
    compile_any(GRAMMAR_REGEX, &text);
    for (int i = 0; i < 40000; i++)
        buf_puts(&text, i ? "\\p{L}" : "[");
    buf_putc(&text, ']');
    compile_any(GRAMMAR_REGEX, &text);
    buf_putc(&text, '(');
    add_class(&text, 0x3400, 2);
    buf_puts(&text, "|x){20000}");
    compile_any(GRAMMAR_REGEX, &text);
    buf_puts(&text, "(?:(?<");
    for (int i = 0; i < 250000; i++)
        buf_putc(&text, 'a');
    buf_puts(&text, ">x)){20000}");
    compile_any(GRAMMAR_REGEX, &text);
    buf_puts(&text, "root ::= [");
    for (int i = 0; i < 250000; i++)
        buf_putc(&text, (char)('a' + i % 26));
    buf_puts(&text, "]{250}");
    compile_any(GRAMMAR_GBNF, &text);
    buf_fini(&text);
}

/* Each pattern is within its bound. */
Test(grammar, patterns_are_bounded_together, .timeout = 20)
{
    struct buf text = {0};
    buf_puts(&text, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 1000; i++) {
        buf_printf(&text, "%s\"p%d\":{\"type\":\"string\",\"pattern\":\"^(a", i ? "," : "", i);
        for (int k = 0; k < 60; k++)
            buf_puts(&text, "|a");
        buf_puts(&text, ")(){1000}$\"}");
    }
    buf_puts(&text, "}}");
    compile_any(GRAMMAR_JSON_SCHEMA, &text);
    buf_puts(&text, "{\"type\":\"string\",\"allOf\":[{\"pattern\":\"^(?:");
    add_class(&text, 0x3400, 4);
    buf_puts(&text, "|z){24}$\"},{\"pattern\":\"^(?:");
    add_class(&text, 0x3402, 4);
    buf_puts(&text, "|z){24}$\"}]}");
    compile_any(GRAMMAR_JSON_SCHEMA, &text);
    buf_puts(&text, "{\"type\":\"string\",\"not\":{\"pattern\":\"^(?:");
    add_class(&text, 0x3400, 2);
    buf_puts(&text, "|z){14}$\"}}");
    compile_any(GRAMMAR_JSON_SCHEMA, &text);
    buf_fini(&text);
}

/* What is not done soon takes more of this process's time; others may be busy. */
#if defined(BATON_TSAN)
#define SOON_S 40
#else
#define SOON_S 8
#endif
#define CHECK_SOON(began) cr_assert_lt((clock() - (began)) / CLOCKS_PER_SEC, SOON_S)

Test(grammar, listed_values_meet_patterns_soon, .timeout = 120)
{
    struct buf text = {0};
    clock_t began = clock();
    buf_puts(&text, "{\"const\":\"");
    for (int i = 0; i < 200000; i++)
        buf_putc(&text, 'a');
    buf_puts(&text, "\",\"pattern\":\"^(a|b|c|d|e){3000}\"}");
    struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, text.data);
    CHECK_SOON(began);
    grammar_free(g);
    buf_fini(&text);
}

Test(grammar, references_are_found_soon, .timeout = 120)
{
    struct buf text = {0};
    clock_t began = clock();
    buf_puts(&text, "{\"$defs\":{");
    for (int i = 0; i < 12000; i++)
        buf_printf(&text, "%s\"a%d\":{}", i ? "," : "", i);
    buf_puts(&text, "},\"enum\":[0");
    for (int i = 1; i < 12000; i++)
        buf_printf(&text, ",%d", i);
    size_t len = text.len;
    buf_puts(&text, "],\"allOf\":[{\"$ref\":\"#/$defs/a1\"}]}");
    struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, text.data), *none = NULL;
    grammar_free(g);
    text.len = len;
    buf_puts(&text, "],\"allOf\":[{\"$ref\":\"#x\"}],\"properties\":{\"a\":{\"$anchor\":\"x\"}}}");
    struct error err = {0};
    cr_expect_eq(grammar_compile(GRAMMAR_JSON_SCHEMA, text.data, text.len, &none, &err),
                 ST_UNSUPPORTED);
    cr_expect(strstr(err.text, "references"), "%s", err.text);
    CHECK_SOON(began);
    buf_fini(&text);
}

/* ---- data of others ---- */

static json *shared_json(const char *name)
{
    char path[512];
    json *v = NULL;
    struct error err = {0};
    snprintf(path, sizeof path, DATA "%s", name);
    if (access(path, R_OK))
        cr_skip_test("%s is absent", path);
    cr_assert_eq(json_read_file(path, 64 << 20, &v, &err), ST_OK, "%s", err.text);
    return v;
}

Test(grammar, published_cases_of_gbnf)
{
    json *cases = shared_json("grammars/grammar_accept_reject.json");
    for (size_t i = 0; i < json_count(cases); i++) {
        const json *c = json_at(cases, i);
        struct grammar *g = compile(GRAMMAR_GBNF, json_as_str(json_get(c, "grammar"), ""));
        for (int reject = 0; reject < 2; reject++) {
            const json *texts = json_get(c, reject ? "reject" : "accept");
            for (size_t k = 0; k < json_count(texts); k++) {
                const json *t = json_at(texts, k);
                cr_expect_eq(accepts_len(g, json_as_str(t, ""), json_str_len(t)), !reject, "%s: %s",
                             json_as_str(json_get(c, "desc"), ""), json_as_str(t, ""));
            }
        }
        grammar_free(g);
    }
    json_free(cases);
}

/* Every schema of the suite is compiled or refused with its place; no invalid value is accepted. */
static void check_suite_file(const char *name)
{
    char file[256];
    snprintf(file, sizeof file, "json/JSON-Schema-Test-Suite/tests/draft2020-12/%s.json", name);
    json *cases = shared_json(file);
    for (size_t i = 0; i < json_count(cases); i++) {
        struct buf schema = {0};
        struct grammar *g = NULL;
        struct error err = {0};
        const json *tests = json_get(json_at(cases, i), "tests");
        json_dump(json_get(json_at(cases, i), "schema"), &schema);
        if (grammar_compile(GRAMMAR_JSON_SCHEMA, schema.data, schema.len, &g, &err) != ST_OK)
            cr_expect(err.text[0]);
        for (size_t k = 0; g && k < json_count(tests); k++) {
            const json *t = json_at(tests, k);
            struct buf text = {0};
            json_dump(json_get(t, "data"), &text);
            cr_expect(json_as_bool(json_get(t, "valid"), false) ||
                          !accepts_len(g, text.data, text.len),
                      "%s: %s accepts %s", name, schema.data, text.data);
            buf_fini(&text);
        }
        grammar_free(g);
        buf_fini(&schema);
    }
    json_free(cases);
}

Test(grammar, published_cases_of_json_schema, .timeout = 300)
{
    static const char *const names[] = {"additionalProperties",
                                        "allOf",
                                        "anchor",
                                        "anyOf",
                                        "boolean_schema",
                                        "const",
                                        "contains",
                                        "default",
                                        "defs",
                                        "dependentRequired",
                                        "enum",
                                        "exclusiveMaximum",
                                        "exclusiveMinimum",
                                        "format",
                                        "if-then-else",
                                        "infinite-loop-detection",
                                        "items",
                                        "maxItems",
                                        "maxLength",
                                        "maxProperties",
                                        "maximum",
                                        "minItems",
                                        "minLength",
                                        "minProperties",
                                        "minimum",
                                        "multipleOf",
                                        "not",
                                        "oneOf",
                                        "pattern",
                                        "patternProperties",
                                        "prefixItems",
                                        "properties",
                                        "propertyNames",
                                        "ref",
                                        "refRemote",
                                        "required",
                                        "type",
                                        "unevaluatedItems",
                                        "unevaluatedProperties",
                                        "uniqueItems",
                                        "vocabulary",
                                        "optional/ecmascript-regex"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_suite_file(names[i]);
}
