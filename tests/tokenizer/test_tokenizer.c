/* The tokenizer's own behaviour: hostile files, trust of spans, streaming, linear time, threads. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "support/read_file.h"
#include "tokenizer/tokenizer.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/tokenizer/goldens/"
#define MODEL(rest)                                                                                \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\" \":3}," rest "}"
#define PLAIN_MODEL MODEL("\"merges\":[\"a b\"]")

static struct tokenizer *load_text(const char *text, const char *config)
{
    struct tokenizer *t = NULL;
    struct error err = {0};
    cr_assert_eq(
        tokenizer_load_text(text, strlen(text), config, config ? strlen(config) : 0, &t, &err),
        ST_OK, "%s", err.text);
    return t;
}

static struct tokenizer *load_golden(const char *name)
{
    struct buf b = read_file(GOLDENS "base_%s.json", name);
    struct tokenizer *t = load_text(b.data, NULL);
    buf_fini(&b);
    return t;
}

/* Ids as text, in a static buffer. */
static const char *encode(const struct tokenizer *t, const char *text, unsigned flags)
{
    static char out[4096];
    struct ids ids = {0};
    size_t n = 0;
    cr_assert_eq(tokenizer_encode(t, text, strlen(text), flags, &ids, NULL), ST_OK);
    out[0] = 0;
    for (size_t i = 0; i < ids.n && n < sizeof(out) - 16; i++)
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%d", i ? " " : "", ids.v[i]);
    ids_fini(&ids);
    return out;
}

Test(tokenizer, refuses_with_one_line)
{
    static const struct {
        const char *text;
        enum status status;
        const char *says;
    } cases[] = {
        {"", ST_INVALID, ""},
        {"[]", ST_INVALID, "an object"},
        {"{}", ST_INVALID, "model"},
        {"{\"model\":[]}", ST_INVALID, "model"},
        {"{\"model\":{\"type\":7}}", ST_INVALID, "model.type"},
        {"{\"model\":{\"type\":\"Magic\"}}", ST_UNSUPPORTED, "Magic"},
        {"{\"model\":{\"type\":\"BPE\"}}", ST_INVALID, "vocab"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[]}}", ST_INVALID, "vocab"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", ST_INVALID,
         "vocab"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", ST_INVALID, "-1"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2147483648},\"merges\":[]}}", ST_INVALID,
         "2147483648"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":8388608},\"merges\":[]}}", ST_INVALID,
         "8388608"},
        {"{" MODEL("\"merges\":{}") "}", ST_INVALID, "merges"},
        {"{" MODEL("\"merges\":[\"a b\",\"a c\"]") "}", ST_INVALID, "merges[1]"},
        {"{" MODEL("\"merges\":[[\"b\",\"a\"]]") "}", ST_INVALID, "\"ba\""},
        {"{" MODEL("\"merges\":[\"ab\"]") "}", ST_INVALID, "merges[0]"},
        {"{" MODEL("\"merges\":[\"a b a\"]") "}", ST_INVALID, "merges[0]"},
        {"{" MODEL("\"merges\":[[\"a\"]]") "}", ST_INVALID, "merges[0]"},
        {"{" MODEL("\"merges\":[],\"byte_fallback\":1") "}", ST_INVALID, "byte_fallback"},
        {"{" PLAIN_MODEL ",\"normalizer\":{\"type\":\"Blur\"}}", ST_UNSUPPORTED, "Blur"},
        {"{" PLAIN_MODEL ",\"normalizer\":{\"type\":\"Replace\"}}", ST_INVALID, "pattern"},
        {"{" PLAIN_MODEL ",\"normalizer\":7}", ST_INVALID, "object"},
        {"{" PLAIN_MODEL
         ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"//8=\"}}",
         ST_INVALID, "charsmap"},
        {"{" PLAIN_MODEL ",\"pre_tokenizer\":{\"type\":\"Chop\"}}", ST_UNSUPPORTED, "Chop"},
        {"{" PLAIN_MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\"}}", ST_INVALID,
         "pretokenizers"},
        {"{" PLAIN_MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
         "\"behavior\":\"Isolated\"}}",
         ST_INVALID, "pattern"},
        {"{" PLAIN_MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
         "\"behavior\":\"Smashed\"}}",
         ST_UNSUPPORTED, "Smashed"},
        {"{" PLAIN_MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"__\"}}",
         ST_INVALID, "replacement"},
        {"{" PLAIN_MODEL ",\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}}", ST_INVALID,
         "length"},
        {"{" PLAIN_MODEL ",\"decoder\":{\"type\":\"CTC\"}}", ST_UNSUPPORTED, "CTC"},
        {"{" PLAIN_MODEL ",\"post_processor\":{\"type\":\"Wrap\"}}", ST_UNSUPPORTED, "Wrap"},
        {"{" PLAIN_MODEL
         ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
         "{\"id\":\"x\"}}],\"special_tokens\":{}}}",
         ST_INVALID, "\"x\""},
        {"{" PLAIN_MODEL ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",-5],"
         "\"sep\":[\"y\",1]}}",
         ST_INVALID, "id"},
        {"{" PLAIN_MODEL ",\"added_tokens\":{}}", ST_INVALID, "added_tokens"},
        {"{" PLAIN_MODEL ",\"added_tokens\":[{\"content\":\"x\"}]}", ST_INVALID, "added_tokens[0]"},
        {"{" PLAIN_MODEL ",\"added_tokens\":[{\"id\":9000000,\"content\":\"x\"}]}", ST_INVALID,
         "9000000"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"b\"]]}}", ST_INVALID, "vocab[0]"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", ST_INVALID,
         "unk_id"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tokenizer *t = NULL;
        struct error err = {0};
        enum status st =
            tokenizer_load_text(cases[i].text, strlen(cases[i].text), NULL, 0, &t, &err);
        cr_assert_eq(st, cases[i].status, "case %zu: %s: %s", i, status_name(st), err.text);
        cr_assert_null(t);
        cr_assert_not_null(strstr(err.text, cases[i].says), "case %zu: \"%s\"", i, err.text);
        cr_assert_null(strchr(err.text, '\n'), "case %zu", i);
    }
}

Test(tokenizer, refuses_deep_and_many)
{
    struct buf deep = {0}, many = {0};
    buf_puts(&deep, "{" PLAIN_MODEL ",\"decoder\":");
    for (int i = 0; i < 100; i++)
        buf_puts(&deep, "{\"type\":\"Sequence\",\"decoders\":[");
    buf_puts(&deep, "{\"type\":\"Fuse\"}");
    for (int i = 0; i < 100; i++)
        buf_puts(&deep, "]}");
    buf_puts(&deep, "}");
    buf_puts(&many, "{" PLAIN_MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 5000; i++)
        buf_printf(&many, "%s{\"type\":\"NFC\"}", i ? "," : "");
    buf_puts(&many, "]}}");
    struct tokenizer *t = NULL;
    struct error err = {0};
    cr_assert_eq(tokenizer_load_text(deep.data, deep.len, NULL, 0, &t, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "deeper"), "%s", err.text);
    cr_assert_eq(tokenizer_load_text(many.data, many.len, NULL, 0, &t, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "components"), "%s", err.text);
    buf_fini(&deep);
    buf_fini(&many);
}

Test(tokenizer, takes_holes_and_shared_ids)
{
    struct tokenizer *t =
        load_text("{\"added_tokens\":[{\"id\":900,\"content\":\"<x>\",\"special\":true}],"
                  "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":7,"
                  "\"b\":7,\"c\":500000},\"merges\":[]}}",
                  NULL);
    cr_assert_str_eq(encode(t, "abc<x>", TOKENIZE_PARSE_SPECIAL), "7 7 500000 900");
    cr_assert_eq(tokenizer_vocab_size(t), 500001);
    cr_assert_null(tokenizer_token(t, 8));
    cr_assert_null(tokenizer_token(t, -1));
    cr_assert_null(tokenizer_token(t, 1 << 30));
    cr_assert_str_eq(tokenizer_token(t, 900), "<x>");
    cr_assert_eq(tokenizer_find(t, "c"), 500000);
    cr_assert_eq(tokenizer_find(t, "nope"), -1);
    struct buf out = {0};
    int32_t ids[] = {8, 500000, -3, 900, INT32_MAX};
    tokenizer_decode(t, ids, 5, false, &out);
    cr_assert_str_eq(out.data, "c<x>");
    cr_assert_not(tokenizer_token_bytes(t, 8, &out));
    buf_fini(&out);
    tokenizer_free(t);
}

Test(tokenizer, reads_configuration)
{
    const char *text =
        "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}]," PLAIN_MODEL
        ",\"decoder\":{\"type\":\"Fuse\"}}";
    struct tokenizer *t = load_text(
        text, "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"b\",\"add_bos_token\":true,"
              "\"added_tokens_decoder\":{\"9\":{\"content\":\"<t>\",\"special\":true}},"
              "\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},"
              "{\"name\":\"default\",\"template\":\"D\"}]}");
    cr_assert_eq(tokenizer_bos(t), 4);
    cr_assert_eq(tokenizer_eos(t), 1);
    cr_assert(tokenizer_is_special(t, 1) && tokenizer_is_special(t, 9));
    cr_assert_not(tokenizer_is_special(t, 0));
    cr_assert_not(tokenizer_is_special(t, -1));
    cr_assert_str_eq(tokenizer_chat_template(t), "D");
    cr_assert_str_eq(tokenizer_tool_template(t), "T");
    cr_assert_str_eq(encode(t, "ab<t>", TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL),
                     "0 1 9"); /* b is a token of its own now; tokenizer.json adds no BOS */
    tokenizer_free(t);
    t = load_text(text, "{\"chat_template\":\"one\"}");
    cr_assert_str_eq(tokenizer_chat_template(t), "one");
    cr_assert_null(tokenizer_tool_template(t));
    cr_assert_eq(tokenizer_bos(t), -1);
    tokenizer_free(t);
    struct error err = {0};
    cr_assert_eq(tokenizer_load("/nonexistent/folder", &t, &err), ST_NOT_FOUND, "%s", err.text);
}

/* Folders without a tokenizer.json have no post-processor: add_bos_token stands in for it. */
Test(tokenizer, add_bos_token_counts_without_tokenizer_json)
{
    char dir[] = "/tmp/baton-tokenizer-XXXXXX", path[4][64];
    static const char *const files[][2] = {
        {"vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"<s>\":3}"},
        {"merges.txt", "#version: 0.2\na b\n"},
        {"tokenizer_config.json",
         "{\"tokenizer_class\":\"GPT2Tokenizer\",\"bos_token\":\"<s>\",\"add_bos_token\":true}"},
    };
    cr_assert_not_null(mkdtemp(dir));
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%s", dir, files[i][0]);
        FILE *f = fopen(path[i], "wb");
        cr_assert_not_null(f);
        fputs(files[i][1], f);
        fclose(f);
    }
    struct tokenizer *t = NULL;
    struct error err = {0};
    cr_assert_eq(tokenizer_load(dir, &t, &err), ST_OK, "%s", err.text);
    cr_assert_str_eq(encode(t, "aba", TOKENIZE_ADD_SPECIAL), "3 2 0");
    cr_assert_str_eq(encode(t, "aba", TOKENIZE_PLAIN), "2 0");
    tokenizer_free(t);
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
    rmdir(dir);
}

/* What is cleaned away are controls, formats and private use; code points that nobody has assigned
 * stay. */
Test(tokenizer, bert_cleaning_keeps_unassigned_code_points)
{
    struct tokenizer *t =
        load_text("{\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
                  "\"handle_chinese_chars\":false,\"strip_accents\":null,\"lowercase\":false},"
                  "\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"merges\":[],"
                  "\"vocab\":{\"a\":0,\"?\":1,\"b\":2}}}",
                  NULL);
    cr_assert_str_eq(encode(t,
                            "a\uffff"
                            "b",
                            0),
                     "0 1 2");
    cr_assert_str_eq(encode(t,
                            "a\U0010fffe"
                            "b",
                            0),
                     "0 1 2");
    cr_assert_str_eq(encode(t,
                            "a\u00ad\ue000\u200b\x01"
                            "b",
                            0),
                     "0 2");
    tokenizer_free(t);
}

static const char *encode_spans(const struct tokenizer *t, const char *text,
                                const struct text_span *spans, size_t n)
{
    static char out[1024];
    struct ids ids = {0};
    size_t len = 0;
    struct spanned_text in = {text, spans, n};
    cr_assert_eq(tokenizer_encode_spans(t, &in, TOKENIZE_PLAIN, &ids, NULL), ST_OK);
    out[0] = 0;
    for (size_t i = 0; i < ids.n; i++)
        len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%d", i ? " " : "", ids.v[i]);
    ids_fini(&ids);
    return out;
}

Test(tokenizer, untrusted_text_gives_no_control_token)
{
    struct tokenizer *t = load_golden("bytes");
    int32_t end = tokenizer_find(t, "<|end|>");
    cr_assert_geq(end, 0);
    char typed[1024], want[2048];
    snprintf(typed, sizeof(typed), "%s", encode(t, "<|end|>", TOKENIZE_PLAIN));
    cr_assert_neq(strlen(typed), 1);

    /* trusted, typed, trusted */
    snprintf(want, sizeof(want), "%d %s %d", end, typed, end);
    cr_assert_str_eq(encode_spans(t, "<|end|><|end|><|end|>",
                                  (struct text_span[]){{7, true}, {7, false}, {7, true}}, 3),
                     want);
    /* a token whose parts come from both sides is text */
    cr_assert_str_eq(encode_spans(t, "<|end|>", (struct text_span[]){{3, false}, {4, true}}, 2),
                     typed);
    cr_assert_str_eq(encode_spans(t, "<|end|>", (struct text_span[]){{3, true}, {4, false}}, 2),
                     typed);
    /* of two trusted parts it is a token, an empty untrusted one between them or not */
    snprintf(want, sizeof(want), "%d %s", end, typed);
    cr_assert_str_eq(
        encode_spans(t, "<|end|><|end|>",
                     (struct text_span[]){{3, true}, {0, false}, {4, true}, {7, false}}, 4),
        want);
    /* all alike */
    cr_assert_str_eq(encode_spans(t, "<|end|>", (struct text_span[]){{7, false}}, 1), typed);
    snprintf(want, sizeof(want), "%d", end);
    cr_assert_str_eq(encode_spans(t, "<|end|>", (struct text_span[]){{7, true}}, 1), want);
    /* a broken character at the end of a span is mended within it */
    snprintf(want, sizeof(want), "%s", encode(t, "\xef\xbf\xbd", 0));
    size_t n = strlen(want);
    snprintf(want + n, sizeof(want) - n, " %d", end);
    cr_assert_str_eq(
        encode_spans(t, "\xe2\x96<|end|>", (struct text_span[]){{2, false}, {7, true}}, 2), want);
    tokenizer_free(t);
}

/* With one trust all over, spans change nothing, wherever the cuts are. */
Test(tokenizer, spans_do_not_cut_words)
{
    static const char text[] = "The node <|end|> writes\n\n tokens\xc3\xa9 <|user|> it's";
    const char *names[] = {"bytes", "sp", "unigram", "wordpiece"};
    for (size_t k = 0; k < 4; k++) {
        struct tokenizer *t = load_golden(names[k]);
        char want[1024];
        snprintf(want, sizeof(want), "%s", encode(t, "no control tokens here, it's text", 0));
        for (size_t cut = 0; cut <= 33; cut++) {
            struct text_span spans[] = {{cut, true}, {33 - cut, false}};
            cr_assert_str_eq(encode_spans(t, "no control tokens here, it's text", spans, 2), want,
                             "%s, cut at %zu", names[k], cut);
        }
        snprintf(want, sizeof(want), "%s", encode(t, text, TOKENIZE_PARSE_SPECIAL));
        for (size_t cut = 0; cut < sizeof(text); cut++) {
            struct text_span spans[] = {{cut, true}, {sizeof(text) - 1 - cut, true}};
            cr_assert_str_eq(encode_spans(t, text, spans, 2), want, "%s, cut at %zu", names[k],
                             cut);
        }
        tokenizer_free(t);
    }
}

static void random_bytes(struct rng *r, char *out, size_t n)
{
    static const char *const bits[] = {
        "a", "the ", " ",    "\n",   "\xc3\xa9", "\xe4\xbd\xa0", "\xf0\x9f\x98\x80", "\xe2\x96\x81",
        "7", "'ll",  "\xff", "\xe2", "\xf0\x9f", "\xcc\x81",     "<|end|>",          "ed"};
    size_t at = 0;
    while (at < n) {
        const char *s = bits[rng_below(r, sizeof(bits) / sizeof(bits[0]))];
        for (; *s && at < n; s++)
            out[at++] = *s;
    }
}

/* What goes in comes out, for tokenizers that lose nothing; broken input comes out as U+FFFD. */
Test(tokenizer, round_trip_of_random_text)
{
    struct rng r = rng_seed(7);
    const char *names[] = {"bytes", "sp"};
    for (size_t k = 0; k < 2; k++) {
        struct tokenizer *t = load_golden(names[k]);
        for (int i = 0; i < 3000; i++) {
            char text[128];
            size_t n = rng_below(&r, sizeof(text));
            random_bytes(&r, text, n);
            struct ids ids = {0};
            struct buf out = {0};
            cr_assert_eq(tokenizer_encode(t, text, n, 0, &ids, NULL), ST_OK);
            tokenizer_decode(t, ids.v, ids.n, false, &out);
            cr_assert(utf8_valid(out.data ? out.data : "", out.len));
            bool marked = k == 1 && memmem(text, n, "\xe2\x96\x81", 3); /* it becomes a space */
            if (utf8_valid(text, n) && !marked)
                cr_assert(out.len == n && (!n || !memcmp(out.data, text, n)),
                          "%s: \"%.*s\" -> \"%s\"", names[k], (int)n, text, out.data);
            ids_fini(&ids);
            buf_fini(&out);
        }
        tokenizer_free(t);
    }
}

/* A stream gives whole characters, always a prefix of the whole, and the whole in the end. */
Test(tokenizer, stream_is_a_prefix)
{
    struct rng r = rng_seed(11);
    const char *names[] = {"bytes", "sp", "unigram", "wordpiece", "suffix"};
    for (size_t k = 0; k < 5; k++) {
        struct tokenizer *t = load_golden(names[k]);
        struct detok *d = detok_create(t, false);
        for (int i = 0; i < 2000; i++) {
            int32_t ids[24];
            size_t n = rng_below(&r, 24);
            for (size_t j = 0; j < n; j++)
                ids[j] = (int32_t)rng_below(&r, tokenizer_vocab_size(t) + 2);
            struct buf whole = {0}, out = {0};
            tokenizer_decode(t, ids, n, false, &whole);
            detok_reset(d, NULL, 0);
            for (size_t j = 0; j < n; j++) {
                detok_push(d, ids[j], &out);
                cr_assert(utf8_valid(out.data ? out.data : "", out.len));
                cr_assert(out.len <= whole.len &&
                              (!out.len || !memcmp(out.data, whole.data, out.len)),
                          "%s: \"%s\" is no prefix of \"%s\"", names[k], out.data, whole.data);
            }
            detok_flush(d, &out);
            cr_assert(out.len == whole.len && (!out.len || !memcmp(out.data, whole.data, out.len)),
                      "%s: \"%s\", not \"%s\"", names[k], out.data, whole.data);
            buf_fini(&whole);
            buf_fini(&out);
        }
        detok_destroy(d);
        tokenizer_free(t);
    }
}

/* After a prompt the first token keeps its space; without one it loses it. */
Test(tokenizer, stream_after_a_prompt)
{
    struct tokenizer *t = load_golden("sp");
    struct ids ids = {0};
    struct buf out = {0};
    cr_assert_eq(tokenizer_encode(t, "the node", 8, 0, &ids, NULL), ST_OK);
    struct detok *d = detok_create(t, true);
    for (size_t i = 0; i < ids.n; i++)
        detok_push(d, ids.v[i], &out);
    detok_flush(d, &out);
    cr_assert_str_eq(out.data, "the node");
    int32_t prompts[][2] = {{tokenizer_find(t, "e"), 0}, {tokenizer_find(t, "<0x0A>"), 0}};
    for (int k = 0; k < 2; k++) {
        buf_clear(&out);
        detok_reset(d, prompts[k], 1);
        for (size_t i = 0; i < ids.n; i++)
            detok_push(d, ids.v[i], &out);
        detok_flush(d, &out);
        cr_assert_str_eq(out.data, " the node", "prompt %d", k);
    }
    /* a prompt of nothing but a skipped token is none */
    int32_t bos = tokenizer_find(t, "<s>");
    buf_clear(&out);
    detok_reset(d, &bos, 1);
    for (size_t i = 0; i < ids.n; i++)
        detok_push(d, ids.v[i], &out);
    detok_flush(d, &out);
    cr_assert_str_eq(out.data, "the node");
    detok_destroy(d);
    ids_fini(&ids);
    buf_fini(&out);
    tokenizer_free(t);
}

Test(tokenizer, bytes_of_single_tokens)
{
    struct tokenizer *t = load_golden("sp");
    struct buf out = {0};
    cr_assert(tokenizer_token_bytes(t, tokenizer_find(t, "<0xE2>"), &out));
    cr_assert(out.len == 1 && (unsigned char)out.data[0] == 0xe2);
    buf_clear(&out);
    cr_assert(tokenizer_token_bytes(t, tokenizer_find(t, "\xe2\x96\x81t"), &out));
    cr_assert_str_eq(out.data, " t");
    tokenizer_free(t);
    t = load_golden("bytes");
    buf_clear(&out);
    cr_assert(tokenizer_token_bytes(t, tokenizer_find(t, "\xc4\xa0t"), &out));
    cr_assert_str_eq(out.data, " t");
    buf_clear(&out);
    cr_assert(tokenizer_token_bytes(t, tokenizer_find(t, "\xc3\xb0"), &out));
    cr_assert(out.len == 1 && (unsigned char)out.data[0] == 0xf0);
    buf_clear(&out);
    cr_assert(tokenizer_token_bytes(t, tokenizer_find(t, "<|end|>"), &out));
    cr_assert_str_eq(out.data, "<|end|>");
    tokenizer_free(t);
    /* An added token is spelt as it stands only where it is special. */
    t = load_text("{" PLAIN_MODEL ",\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":["
                  "{\"id\":8,\"content\":\"\xc4\xa0x\",\"special\":false},"
                  "{\"id\":9,\"content\":\"\xc4\xa0y\",\"special\":true}]}",
                  NULL);
    buf_clear(&out);
    cr_assert(tokenizer_token_bytes(t, 8, &out));
    cr_assert_str_eq(out.data, " x");
    buf_clear(&out);
    cr_assert(tokenizer_token_bytes(t, 9, &out));
    cr_assert_str_eq(out.data, "\xc4\xa0y");
    buf_fini(&out);
    tokenizer_free(t);
}

#if defined(BATON_TSAN) /* one thread only: nothing to find, slowly */
#define QUADRATIC_BYTES (1 << 16)
#else
#define QUADRATIC_BYTES (1 << 20)
#endif

/* Texts that make careless tokenizers quadratic. */
Test(tokenizer, no_text_is_quadratic, .timeout = 120)
{
    static const char *const units[] = {"a",
                                        " ",
                                        "\n",
                                        " \n",
                                        "ab",
                                        "\xcc\x81",
                                        "\xcc\x81\xcc\xa7",
                                        "\xe4\xbd\xa0",
                                        "'",
                                        "7",
                                        "\xff",
                                        "\xe2\x96\x81",
                                        "<",
                                        "<|end|",
                                        "a\xcc\xa7\xcc\x81",
                                        "\xf0\x9f\x98\x80",
                                        "e\xcc\x81 "};
    const char *names[] = {"bytes", "sp", "unigram", "wordpiece"};
    size_t n = QUADRATIC_BYTES;
    char *text = malloc(n);
    cr_assert_not_null(text);
    for (size_t k = 0; k < 4; k++) {
        struct tokenizer *t = load_golden(names[k]);
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            size_t len = strlen(units[u]);
            for (size_t i = 0; i < n; i++)
                text[i] = units[u][i % len];
            struct ids ids = {0};
            clock_t start = clock(); /* of this process: others may be busy */
            cr_assert_eq(tokenizer_encode(t, text, n, TOKENIZE_PARSE_SPECIAL, &ids, NULL), ST_OK);
            double took_s = (double)(clock() - start) / CLOCKS_PER_SEC;
            cr_assert_lt(took_s, 10, "%s, unit %zu: %.1f s", names[k], u, took_s);
            ids_fini(&ids);
        }
        tokenizer_free(t);
    }
    free(text);
}

struct job {
    const struct tokenizer *t;
    uint64_t seed;
    bool same;
};

static void *encode_many(void *arg)
{
    struct job *job = arg;
    struct rng r = rng_seed(job->seed);
    job->same = true;
    for (int i = 0; i < 1500; i++) {
        char text[64];
        random_bytes(&r, text, sizeof(text));
        struct ids once = {0}, twice = {0};
        bool ok = tokenizer_encode(job->t, text, sizeof(text), 0, &once, NULL) == ST_OK &&
                  tokenizer_encode(job->t, text, sizeof(text), 0, &twice, NULL) == ST_OK;
        job->same = job->same && ok && once.n == twice.n &&
                    (!once.n || !memcmp(once.v, twice.v, once.n * sizeof(*once.v)));
        ids_fini(&once);
        ids_fini(&twice);
    }
    return NULL;
}

Test(tokenizer, threads_share_one)
{
    struct tokenizer *t = load_golden("bytes");
    pthread_t threads[4];
    struct job jobs[4];
    for (size_t i = 0; i < 4; i++) {
        jobs[i] = (struct job){t, i / 2, false}; /* in pairs on the same texts */
        cr_assert_eq(pthread_create(&threads[i], NULL, encode_many, &jobs[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(jobs[i].same);
    }
    tokenizer_free(t);
}
