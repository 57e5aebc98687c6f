/* link: baton_router */
/* Input: a byte for the format, one for the reasoning, one of flags, then what the model says.
 * Whatever that is, the parser neither fails nor loses its balance (calls are numbered in order,
 * begun before they get arguments, ended before the next one begins), and the same comes out
 * however it is cut into pieces. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "router/output/output_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const formats[] = {
    "llama3_json", "hermes",   "granite",      "phi4_mini", "mistral",
    "jamba",       "cohere",   "deepseek_v3",  "kimi_k2",   "qwen3_coder",
    "glm45",       "pythonic", "lfm2",         "harmony",   "minimax_m2",
    "seed_oss",    "olmo3",    "deepseek_v32", "nemotron",  "llama3_function"};
static const char *const reasonings[] = {"think",    "deepseek_r1", "mistral", "granite",
                                         "seed_oss", "cohere",      "harmony"};

struct seen {
    struct buf log;
    int calls;
    bool within;
    char last;
};

static void on_event(void *owner, const struct output_event *ev)
{
    struct seen *s = owner;
    char kind = "crBAE"[ev->kind];
    assert(s->within == (kind == 'A' || kind == 'E'));
    assert(kind == 'c' || kind == 'r' || ev->index == s->calls);
    assert(kind == 'E' || ev->len > 0);
    s->within = kind == 'B' || kind == 'A';
    s->calls += kind == 'E';
    if (kind != s->last)
        buf_putc(&s->log, kind);
    s->last = kind;
    buf_append(&s->log, ev->text, ev->len);
}

static enum output_type type_of(void *owner, const char *tool, const char *parameter)
{
    (void)owner;
    (void)tool;
    return (enum output_type)((unsigned char)parameter[0] % 3);
}

static const struct output_ops ops = {.event = on_event, .type = type_of};

static struct buf parse(struct output_args args, const char *text, size_t n, uint64_t most)
{
    struct seen s = {0};
    args.ops = &ops;
    args.owner = &s;
    struct output_parser *p = output_parser_create(&args);
    assert(p);
    for (size_t i = 0, len; i < n; i += len) {
        len = most ? 1 + rng_hash(most, i, 0, 0) % most : n;
        len = len < n - i ? len : n - i;
        assert(output_parser_push(p, (struct output_piece){text + i, len, false}));
    }
    assert(output_parser_finish(p, n % 2));
    assert(!s.within);
    output_parser_destroy(p);
    return s.log;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct output_args args = {
        .tools = output_format_find(formats[data[0] % (sizeof formats / sizeof *formats)]),
        .reasoning =
            output_reasoning_find(reasonings[data[1] % (sizeof reasonings / sizeof *reasonings)]),
        .inside_reasoning = data[2] & 1,
        .whole = data[2] & 2,
        .forced = (data[2] & 12) == 12,
        .forced_name = (data[2] & 12) == 8 ? "f" : NULL,
        .led = data[2] & 16,
        .keep_blanks = data[2] & 32,
        .skip_special = true};
    const char *text = (const char *)data + 3;
    struct buf a = parse(args, text, size - 3, 0), b = parse(args, text, size - 3, 1),
               c = parse(args, text, size - 3, 9);
    assert(a.len == b.len && a.len == c.len);
    assert(a.len == 0 ||
           (memcmp(a.data, b.data, a.len) == 0 && memcmp(a.data, c.data, a.len) == 0));
    buf_fini(&a);
    buf_fini(&b);
    buf_fini(&c);
    return 0;
}
