#include "router/output/output_parser.h"

#include <stdlib.h>
#include <string.h>

#include "router/output/output_internal.h"

static const char *const harmony_markers[] = {"<|channel|>", "<|start|>", "<|end|>", "<|return|>"};
/* What forced calls are read as: the text is JSON and nothing else. */
static const struct output_format forced_format = {.name = "forced", .family = OUTPUT_JSON};

/* ---- the front of the text ---- */

size_t output_left(const struct output_parser *p)
{
    return p->in.text.len - p->at;
}

unsigned char output_peek(const struct output_parser *p)
{
    return (unsigned char)p->in.text.data[p->at];
}

static void append(struct flagged *to, const char *s, const char *special, size_t n)
{
    buf_append(&to->text, s, n);
    buf_append(&to->special, special, n);
}

void output_take(struct output_parser *p, size_t n)
{
    if (p->keep_raw)
        append(&p->raw, p->in.text.data + p->at, p->in.special.data + p->at, n);
    p->at += n;
}

enum match output_match(const struct output_parser *p, const char *marker)
{
    size_t n = strlen(marker), left = output_left(p), k = n < left ? n : left;
    if (k && memcmp(p->in.text.data + p->at, marker, k) != 0)
        return MATCH_NO;
    if (left >= n)
        return MATCH_YES;
    return p->over ? MATCH_NO : MATCH_PART;
}

enum match output_match_any(const struct output_parser *p, const char *const markers[], size_t max,
                            size_t *n)
{
    /* The first that matches or still may: of two that begin alike the longer comes first. */
    for (size_t i = 0; i < max && markers[i]; i++) {
        enum match m = output_match(p, markers[i]);
        if (m == MATCH_YES)
            *n = strlen(markers[i]);
        if (m != MATCH_NO)
            return m;
    }
    return MATCH_NO;
}

bool output_is_blank(unsigned char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool output_skip_blanks(struct output_parser *p)
{
    size_t n = 0;
    while (n < output_left(p) && output_is_blank((unsigned char)p->in.text.data[p->at + n]))
        n++;
    if (n)
        output_take(p, n);
    if (p->keep_raw && p->raw.text.len > (p->args.whole ? WHOLE_BYTES_MAX : HELD_BYTES_MAX)) {
        output_call_fail(p);
        return false;
    }
    return output_left(p) > 0;
}

void output_force(struct output_parser *p)
{
    p->f = &forced_format;
    p->inside = false;
    p->keep_raw = p->opened = true;
    p->state = S_CALLS;
}

void output_go(struct output_parser *p, enum output_state state)
{
    p->state = state;
}

/* ---- content and reasoning ---- */

static void say(struct output_parser *p, const struct output_event *ev)
{
    if (p->args.ops->event)
        p->args.ops->event(p->args.owner, ev);
}

static void flush_text(struct output_parser *p)
{
    if (p->out.len)
        say(p, &(struct output_event){.kind = p->out_kind,
                                      .index = -1,
                                      .text = p->out.data,
                                      .len = p->out.len,
                                      .id = ""});
    buf_clear(&p->out);
}

static void put_blanks(struct output_parser *p)
{
    if (p->blanks.len)
        buf_append(&p->out, p->blanks.data, p->blanks.len);
    buf_clear(&p->blanks);
}

/* Blanks wait where a marker may follow, before which they are none of the text. */
static void put(struct output_parser *p, enum output_event_kind kind, const char *s,
                const char *special, size_t n)
{
    bool hold = kind == OUTPUT_REASONING || p->f;
    if (kind != p->out_kind) {
        put_blanks(p);
        flush_text(p);
        p->out_kind = kind;
    }
    for (size_t i = 0; i < n; i++) {
        if (special[i] && p->args.skip_special)
            continue;
        if (!output_is_blank((unsigned char)s[i])) {
            p->trim = false;
            put_blanks(p);
            buf_putc(&p->out, s[i]);
        } else if (!p->trim) {
            buf_putc(hold ? &p->blanks : &p->out, s[i]);
            if (p->blanks.len > BLANKS_MAX)
                put_blanks(p);
        }
    }
}

void output_text(struct output_parser *p, enum output_event_kind kind, size_t n)
{
    if (n)
        put(p, kind, p->in.text.data + p->at, p->in.special.data + p->at, n);
    p->at += n;
}

/* ---- calls: what is said of them, and when ---- */

void output_keep(struct output_parser *p)
{
    if (!p->keep_raw) {
        buf_clear(&p->raw.text);
        buf_clear(&p->raw.special);
    }
    p->keep_raw = true;
}

void output_call_start(struct output_parser *p)
{
    output_keep(p);
    p->active = true;
    p->begun = p->named = p->has_arguments = p->any_parameter = p->opened = false;
    p->first_key = true;
    p->level = 0;
    buf_clear(&p->name);
    buf_clear(&p->id);
    buf_clear(&p->call);
    buf_clear(&p->token);
}

void output_call_begin(struct output_parser *p)
{
    buf_clear(&p->blanks);
    flush_text(p);
    p->begun = true;
    p->keep_raw = false;
    buf_clear(&p->raw.text);
    buf_clear(&p->raw.special);
    say(p, &(struct output_event){.kind = OUTPUT_CALL_BEGIN,
                                  .index = p->index,
                                  .text = p->name.data,
                                  .len = p->name.len,
                                  .id = p->id.data && p->id.len ? p->id.data : ""});
}

/* Everything here goes by what was read, never by how it was cut. */
static void begin_if_due(struct output_parser *p)
{
    if (p->begun || !p->named || !p->has_arguments)
        return;
    if (!p->args.whole || p->raw.text.len > WHOLE_BYTES_MAX)
        output_call_begin(p);
}

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] <= ' ' || s[i] == 0x7f || strchr("\"<>{}", s[i]))
            return false;
    }
    return true;
}

bool output_call_name(struct output_parser *p, const char *s, size_t n)
{
    bool any = p->f == &forced_format; /* of a tool, whatever that is called */
    while (!any && n && output_is_blank((unsigned char)*s)) {
        s++;
        n--;
    }
    while (!any && n && output_is_blank((unsigned char)s[n - 1]))
        n--;
    if (n == 0 || n > OUTPUT_NAME_BYTES_MAX || !(any || is_name(s, n)))
        return false;
    buf_clear(&p->name);
    buf_append(&p->name, s, n);
    if (p->name.failed)
        return false;
    if (p->strict && p->args.ops->known && !p->args.ops->known(p->args.owner, p->name.data))
        return false;
    p->named = true;
    begin_if_due(p);
    return true;
}

void output_call_arguments(struct output_parser *p, const char *s, size_t n)
{
    buf_append(&p->call, s, n);
    p->has_arguments = true;
    begin_if_due(p);
}

void output_call_flush(struct output_parser *p)
{
    if (!p->begun || !p->call.len)
        return;
    say(p, &(struct output_event){.kind = OUTPUT_CALL_ARGUMENTS,
                                  .index = p->index,
                                  .text = p->call.data,
                                  .len = p->call.len,
                                  .id = ""});
    buf_clear(&p->call);
}

void output_call_mark(struct output_parser *p)
{
    if (!p->begun)
        return;
    buf_clear(&p->raw.text);
    buf_clear(&p->raw.special);
    p->keep_raw = true;
}

void output_call_unmark(struct output_parser *p)
{
    if (p->begun)
        p->keep_raw = false;
}

static void close_call(struct output_parser *p)
{
    if (!p->begun)
        output_call_begin(p);
    output_call_flush(p);
    say(p, &(struct output_event){
               .kind = OUTPUT_CALL_END, .index = p->index, .text = "", .len = 0, .id = ""});
    p->index++;
    p->active = p->begun = p->keep_raw = false;
    p->trim = true;
}

void output_call_end(struct output_parser *p)
{
    if (!p->has_arguments)
        output_call_arguments(p, "{}", 2);
    close_call(p);
}

/* No call, or none any more: what was read of it is content. */
void output_call_fail(struct output_parser *p)
{
    bool harmony = p->f && p->f->family == OUTPUT_HARMONY;
    bool kept = p->keep_raw;
    if (p->begun)
        close_call(p);
    p->trim = false;
    p->active = p->keep_raw = p->strict = p->in_array = false;
    if (kept && p->raw.text.len)
        put(p, OUTPUT_CONTENT, p->raw.text.data, p->raw.special.data, p->raw.text.len);
    buf_clear(&p->raw.text);
    buf_clear(&p->raw.special);
    p->channel = OUTPUT_CONTENT;
    output_go(p, harmony ? S_HARMONY_BODY : S_CONTENT);
}

/* ---- states without a family ---- */

/* Takes the marker that opens a section, or leaves one that opens a call. */
static bool open_section(struct output_parser *p, size_t n)
{
    output_keep(p);
    p->opened = true;
    p->strict = p->in_array = p->active = false;
    output_take(p, n);
    output_go(p, S_CALLS);
    return true;
}

/* A call without a marker: as an object anywhere in the text, as a list only at its beginning. */
static bool begins_bare(const struct output_parser *p, char c)
{
    return p->f && p->f->bare && output_left(p) && output_peek(p) == (unsigned char)c &&
           (p->f->family == OUTPUT_JSON) == (c == '{');
}

static bool is_forced(const struct output_parser *p)
{
    return p->args.forced || p->args.forced_name;
}

/* Blanks at the very beginning stay where they are until it is known what follows them. */
static bool start_step(struct output_parser *p)
{
    const struct output_reasoning *r = p->args.reasoning;
    size_t blanks = 0, n = 0, begin = p->at;
    while (blanks < output_left(p) && blanks < BLANKS_MAX &&
           output_is_blank((unsigned char)p->in.text.data[p->at + blanks]))
        blanks++;
    if (blanks == output_left(p) && !p->over)
        return false;
    p->at += blanks;
    enum match m = r ? output_match_any(p, r->open, OUTPUT_MARKERS_MAX, &n) : MATCH_NO;
    if (m == MATCH_PART) {
        p->at = begin;
        return false;
    }
    if (m == MATCH_YES || p->inside) {
        p->at += n;
        p->inside = false;
        p->trim = true;
        output_go(p, S_REASONING);
        return true;
    }
    p->at = begin;
    if (is_forced(p)) {
        output_force(p);
        return true;
    }
    p->trim |= p->args.led && !p->args.keep_blanks;
    output_text(p, OUTPUT_CONTENT, blanks);
    output_go(p, S_CONTENT);
    if (begins_bare(p, '[')) {
        open_section(p, 0);
        p->strict = true;
    }
    return true;
}

/* A special token that opens calls also ends reasoning that was not closed; the same text, which a
 * model may well think about, does not. */
static enum match special_open(const struct output_parser *p, size_t *n)
{
    if (!p->f || !p->in.special.data[p->at])
        return MATCH_NO;
    return output_match_any(p, p->f->open, OUTPUT_MARKERS_MAX, n);
}

static bool reasoning_step(struct output_parser *p)
{
    const struct output_reasoning *r = p->args.reasoning;
    bool moved = false;
    while (output_left(p)) {
        size_t n = 0;
        enum match m = output_match_any(p, r->close, OUTPUT_MARKERS_MAX, &n);
        if (m == MATCH_PART)
            return moved;
        if (m == MATCH_YES) {
            output_take(p, n);
            buf_clear(&p->blanks);
            p->trim = !p->args.keep_blanks;
            output_go(p, S_START);
            return true;
        }
        m = special_open(p, &n);
        if (m == MATCH_PART)
            return moved;
        if (m == MATCH_YES)
            return open_section(p, n);
        output_text(p, OUTPUT_REASONING, 1);
        moved = true;
    }
    return moved;
}

static bool content_step(struct output_parser *p)
{
    size_t run = 0, left = output_left(p), n = 0;
    if (!left)
        return false;
    const unsigned char *s = (const unsigned char *)p->in.text.data + p->at;
    while (run < left && !p->first[s[run]])
        run++;
    if (run) {
        output_text(p, OUTPUT_CONTENT, run);
        return true;
    }
    const struct output_reasoning *r = p->args.reasoning;
    enum match dropped = r ? output_match_any(p, r->dropped, OUTPUT_MARKERS_MAX, &n) : MATCH_NO;
    if (dropped == MATCH_YES) {
        output_take(p, n);
        return true;
    }
    enum match m = p->f ? output_match_any(p, p->f->open, OUTPUT_MARKERS_MAX, &n) : MATCH_NO;
    if (m == MATCH_YES)
        return open_section(p, n);
    enum match call = p->f && p->f->call_open ? output_match(p, p->f->call_open) : MATCH_NO;
    if (call == MATCH_YES)
        return open_section(p, 0);
    if (m == MATCH_PART || call == MATCH_PART || dropped == MATCH_PART)
        return false;
    if (begins_bare(p, '{')) {
        open_section(p, 0);
        p->strict = true;
    } else {
        output_text(p, OUTPUT_CONTENT, 1);
    }
    return true;
}

static bool step(struct output_parser *p)
{
    switch (p->state) {
    case S_START:
        return start_step(p);
    case S_REASONING:
        return reasoning_step(p);
    case S_CONTENT:
        return content_step(p);
    case S_CALLS:
        return output_calls_step(p);
    case S_HEADER:
    case S_ARGUMENTS:
    case S_TRAILER:
        return output_named_step(p);
    default:
        break;
    }
    if (p->state >= S_HARMONY_BETWEEN)
        return output_harmony_step(p);
    if (p->state >= S_PY_NAME)
        return output_pythonic_step(p);
    return p->state >= S_XML_NAME ? output_xml_step(p) : output_json_step(p);
}

/* ---- the whole ---- */

static void set_first(struct output_parser *p, const char *const *markers, size_t max)
{
    for (size_t i = 0; i < max && markers[i]; i++)
        p->first[(unsigned char)markers[i][0]] = true;
}

static void set_start(struct output_parser *p)
{
    const struct output_args *a = &p->args;
    bool harmony =
        (a->reasoning && a->reasoning->harmony) || (a->tools && a->tools->family == OUTPUT_HARMONY);
    p->calls = a->tools != NULL;
    if (a->reasoning)
        set_first(p, a->reasoning->dropped, OUTPUT_MARKERS_MAX);
    p->f = a->tools;
    p->inside = a->reasoning && a->inside_reasoning;
    p->state = S_START;
    bool led = a->led && a->reasoning;
    if (is_forced(p) && !led) {
        output_force(p);
    } else if (harmony) {
        p->f = output_format_find("harmony");
        p->state = S_HARMONY_HEAD;
        p->keep_raw = true;
        set_first(p, harmony_markers, 4);
    } else if (is_forced(p)) {
        p->f = NULL; /* until then */
    } else if (p->f) {
        set_first(p, p->f->open, OUTPUT_MARKERS_MAX);
        set_first(p, &p->f->call_open, 1);
        p->first['{'] |= p->f->bare && p->f->family == OUTPUT_JSON;
    }
}

struct output_parser *output_parser_create(const struct output_args *args)
{
    struct output_parser *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->args = *args;
    set_start(p);
    return p;
}

void output_parser_destroy(struct output_parser *p)
{
    if (!p)
        return;
    struct buf *all[] = {&p->in.text, &p->in.special, &p->raw.text, &p->raw.special,
                         &p->out,     &p->blanks,     &p->name,     &p->id,
                         &p->call,    &p->token,      &p->key};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        buf_fini(all[i]);
    free(p);
}

static bool failed(const struct output_parser *p)
{
    return p->in.text.failed || p->in.special.failed || p->raw.text.failed ||
           p->raw.special.failed || p->out.failed || p->blanks.failed || p->name.failed ||
           p->id.failed || p->call.failed || p->token.failed || p->key.failed;
}

static void run(struct output_parser *p)
{
    /* As long as something is taken or the state changes, whatever a step says of itself. */
    enum output_state before;
    size_t at;
    do {
        before = p->state;
        at = p->at;
        step(p);
    } while (!failed(p) && (p->at != at || p->state != before));
    if (p->at) {
        buf_consume(&p->in.text, p->at);
        buf_consume(&p->in.special, p->at);
    }
    p->at = 0;
}

bool output_parser_push(struct output_parser *p, struct output_piece piece)
{
    if (!piece.len)
        return !failed(p);
    buf_append(&p->in.text, piece.text, piece.len);
    if (buf_reserve(&p->in.special, piece.len)) {
        memset(p->in.special.data + p->in.special.len, piece.special, piece.len);
        p->in.special.len += piece.len;
    }
    run(p);
    flush_text(p);
    output_call_flush(p);
    return !failed(p);
}

bool output_parser_finish(struct output_parser *p, bool cut)
{
    p->over = true;
    p->cut = cut;
    /* Within a call, or behind a marker that none followed. Where nothing but a call, a marker or a
     * header may be, its first bytes are no answer either. */
    if (cut && p->state == S_START && is_forced(p)) {
        buf_clear(&p->in.text);
        buf_clear(&p->in.special);
    }
    run(p);
    if (p->active && cut && (p->begun || p->named))
        close_call(p);
    else if (cut && (p->f == &forced_format || p->state == S_HARMONY_HEAD))
        p->active = p->keep_raw = false;
    else if (p->active || p->keep_raw)
        output_call_fail(p);
    put_blanks(p);
    flush_text(p);
    return !failed(p);
}

bool output_parser_reasons(const struct output_parser *p)
{
    return p->state == S_REASONING || p->inside ||
           (p->state == S_HARMONY_BODY && p->channel == OUTPUT_REASONING);
}
