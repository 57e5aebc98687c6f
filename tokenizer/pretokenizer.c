#include "tokenizer/pretokenizer.h"

#include <string.h>

#include "tokenizer/bytelevel.h"
#include "tokenizer/unicode.h"

#define WHITESPACE_PATTERN "\\w+|[^\\w\\s]+"

static enum status parse_behavior(const json *v, const char *fallback, enum pre_behavior *out,
                                  struct error *err)
{
    static const char *const names[] = {
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_CONTIGUOUS] = "Contiguous",
        [SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_MERGED_NEXT] = "MergedWithNext",
    };
    struct text_ref name;
    enum status st = parse_str(v, "behavior", fallback, &name, err);
    if (st)
        return st;
    for (int i = 0; i <= SPLIT_MERGED_NEXT; i++) {
        if (!strcmp(names[i], name.s)) {
            *out = (enum pre_behavior)i;
            return ST_OK;
        }
    }
    return err_set(err, ST_UNSUPPORTED, "split behavior \"%.40s\"", name.s);
}

static enum status parse_byte_level(const json *v, struct pre_step *step, struct error *err)
{
    bool use_regex;
    enum status st = parse_bool(v, "add_prefix_space", true, &step->prefix_space, err);
    if (!st)
        st = parse_bool(v, "use_regex", true, &use_regex, err);
    if (st || !use_regex)
        return st;
    step->scan = scanner_find(BYTELEVEL_PATTERN, strlen(BYTELEVEL_PATTERN));
    return regex_compile(BYTELEVEL_PATTERN, strlen(BYTELEVEL_PATTERN), &step->regex, err);
}

static enum status parse_split(const json *v, struct pre_step *step, struct error *err)
{
    enum status st = parse_pattern(v, "pattern", &step->regex, err);
    if (!st)
        st = parse_behavior(v, NULL, &step->behavior, err);
    if (!st)
        st = parse_bool(v, "invert", false, &step->invert, err);
    const json *pattern = json_get(json_get(v, "pattern"), "Regex");
    if (!st && pattern)
        step->scan = scanner_find(json_as_str(pattern, ""), json_str_len(pattern));
    return st;
}

static enum status parse_scheme(const json *v, struct pre_step *step, struct error *err)
{
    struct text_ref scheme;
    bool prefix;
    enum status st = parse_str(v, "prepend_scheme", "always", &scheme, err);
    if (!st)
        st = parse_bool(v, "add_prefix_space", true, &prefix, err);
    if (st)
        return st;
    const char *s = scheme.s;
    if (!strcmp(s, "always"))
        step->scheme = PREPEND_ALWAYS;
    else if (!strcmp(s, "first"))
        step->scheme = PREPEND_FIRST;
    else if (!strcmp(s, "never"))
        step->scheme = PREPEND_NEVER;
    else
        return err_set(err, ST_INVALID, "prepend_scheme: unknown value \"%.40s\"", s);
    if (!prefix)
        step->scheme = PREPEND_NEVER;
    return ST_OK;
}

static enum status parse_metaspace(const json *v, struct pre_step *step, struct error *err)
{
    struct text_ref c;
    enum status st = parse_char(v, "replacement", "\xe2\x96\x81", &c, err);
    if (st)
        return st;
    memcpy(step->replacement, c.s, c.len);
    text_next(step->replacement, &step->one);
    step->behavior = SPLIT_MERGED_NEXT;
    step->class = CLASS_ONE;
    st = parse_scheme(v, step, err);
    return st ? st : parse_bool(v, "split", true, &step->split, err);
}

static enum status parse_digits(const json *v, struct pre_step *step, struct error *err)
{
    bool individual;
    enum status st = parse_bool(v, "individual_digits", false, &individual, err);
    step->class = CLASS_DIGIT;
    step->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    return st;
}

static enum status parse_whitespace(struct pre_step *step, struct error *err)
{
    step->invert = true;
    step->behavior = SPLIT_REMOVED;
    return regex_compile(WHITESPACE_PATTERN, strlen(WHITESPACE_PATTERN), &step->regex, err);
}

static enum status parse_delimiter(const json *v, struct pre_step *step, struct error *err)
{
    struct text_ref c;
    enum status st = parse_char(v, "delimiter", NULL, &c, err);
    if (st)
        return st;
    char text[8] = "";
    memcpy(text, c.s, c.len);
    text_next(text, &step->one);
    step->class = CLASS_ONE;
    step->behavior = SPLIT_REMOVED;
    return ST_OK;
}

static enum status parse_bert(struct pretokenizer *p)
{
    p->steps[p->n - 1] =
        (struct pre_step){.kind = PRE_CHARS, .class = CLASS_SPACE, .behavior = SPLIT_REMOVED};
    p->steps[p->n++] =
        (struct pre_step){.kind = PRE_CHARS, .class = CLASS_PUNCT, .behavior = SPLIT_ISOLATED};
    return ST_OK;
}

static enum status parse_step(void *arg, const char *type, const json *v, struct error *err)
{
    struct pretokenizer *p = arg;
    struct pre_step *step = &p->steps[p->n++];
    *step = (struct pre_step){.kind = PRE_CHARS};
    if (!strcmp(type, "ByteLevel")) {
        step->kind = PRE_BYTE_LEVEL;
        step->behavior = SPLIT_ISOLATED;
        return parse_byte_level(v, step, err);
    }
    if (!strcmp(type, "Split")) {
        step->kind = PRE_SPLIT;
        return parse_split(v, step, err);
    }
    if (!strcmp(type, "Whitespace")) {
        step->kind = PRE_SPLIT;
        return parse_whitespace(step, err);
    }
    if (!strcmp(type, "Metaspace")) {
        step->kind = PRE_METASPACE;
        return parse_metaspace(v, step, err);
    }
    if (!strcmp(type, "Digits"))
        return parse_digits(v, step, err);
    if (!strcmp(type, "WhitespaceSplit")) {
        step->class = CLASS_SPACE;
        return ST_OK;
    }
    if (!strcmp(type, "Punctuation")) {
        step->class = CLASS_PUNCT;
        return parse_behavior(v, "Isolated", &step->behavior, err);
    }
    if (!strcmp(type, "BertPreTokenizer"))
        return parse_bert(p);
    if (!strcmp(type, "CharDelimiterSplit"))
        return parse_delimiter(v, step, err);
    if (!strcmp(type, "FixedLength")) {
        step->kind = PRE_FIXED_LENGTH;
        enum status st = parse_count(v, "length", 5, &step->length, err);
        if (!st && !step->length)
            st = err_set(err, ST_INVALID, "length: 0 characters");
        return st;
    }
    p->n--;
    return err_set(err, ST_UNSUPPORTED, "pre-tokenizer of unknown type \"%.60s\"", type);
}

enum status pretokenizer_parse(const json *v, struct pretokenizer *out, struct error *err)
{
    enum status st = parse_components(v, "pretokenizers", parse_step, out, err);
    size_t byte_levels = 0;
    for (size_t i = 0; i < out->n; i++)
        byte_levels += out->steps[i].kind == PRE_BYTE_LEVEL;
    out->bytes_out = byte_levels == 1 && out->steps[out->n - 1].kind == PRE_BYTE_LEVEL;
    return st;
}

void pretokenizer_fini(struct pretokenizer *p)
{
    for (size_t i = 0; i < p->n; i++)
        regex_free(p->steps[i].regex);
    p->n = 0;
}

void pretokenizer_run_fini(struct pretokenizer_run *run)
{
    for (size_t i = 0; run->p && i < run->p->n; i++) {
        regex_run_fini(&run->step[i].regex);
        buf_fini(&run->step[i].text);
        buf_fini(&run->step[i].word);
    }
}

static enum status push(struct pretokenizer_run *run, size_t i, struct text_view t);

/* Turns a sequence of ranges, each a match or the text between matches, into pieces for the next
 * step. */
struct splitter {
    struct pretokenizer_run *run;
    size_t step;
    struct text_view text;
    enum pre_behavior behavior;
    bool invert;
    bool pending, was_match; /* a range that may yet grow; the last range was a match */
    size_t begin, end;
};

static enum status splitter_emit(struct splitter *s, size_t begin, size_t end)
{
    if (begin == end)
        return ST_OK;
    struct text_view piece = {s->text.s + begin, end - begin, s->text.first && begin == 0};
    const struct pre_step *step = &s->run->p->steps[s->step];
    if (step->kind != PRE_BYTE_LEVEL || s->run->p->bytes_out)
        return push(s->run, s->step + 1, piece);
    struct buf *word = &s->run->step[s->step].word;
    buf_clear(word);
    bytelevel_map(piece.s, piece.len, word);
    if (word->failed)
        return err_set(s->run->err, ST_NO_MEMORY, "pre-tokenizer: no memory");
    piece.s = word->data;
    piece.len = word->len;
    return push(s->run, s->step + 1, piece);
}

static enum status splitter_flush(struct splitter *s)
{
    if (!s->pending)
        return ST_OK;
    s->pending = false;
    return splitter_emit(s, s->begin, s->end);
}

static enum status splitter_add(struct splitter *s, size_t begin, size_t end, bool match)
{
    match = match != s->invert;
    bool was = s->was_match, grow = false;
    s->was_match = match;
    switch (s->behavior) {
    case SPLIT_REMOVED:
        return match ? ST_OK : splitter_emit(s, begin, end);
    case SPLIT_ISOLATED:
        return splitter_emit(s, begin, end);
    case SPLIT_CONTIGUOUS:
        grow = s->pending && match == was;
        break;
    case SPLIT_MERGED_PREVIOUS:
        grow = s->pending && match && !was;
        break;
    case SPLIT_MERGED_NEXT:
        grow = s->pending && !match && was;
        break;
    }
    if (grow) {
        s->end = end;
        return ST_OK;
    }
    enum status st = splitter_flush(s);
    s->pending = true;
    s->begin = begin;
    s->end = end;
    return st;
}

static enum status split_regex(struct splitter *s, const struct pre_step *step)
{
    struct pretokenizer_run *run = s->run;
    struct regex_walk w = {.regex = step->regex,
                           .run = &run->step[s->step].regex,
                           .text = s->text.s,
                           .len = s->text.len};
    size_t done = 0;
    enum status st = ST_OK;
    for (;;) {
        enum status found = regex_next(&w, run->err);
        if (found == ST_NOT_FOUND)
            break;
        if (found)
            return found;
        if (w.begin != done)
            st = splitter_add(s, done, w.begin, false);
        if (!st)
            st = splitter_add(s, w.begin, w.end, true);
        if (st)
            return st;
        done = w.end;
    }
    if (done != s->text.len)
        st = splitter_add(s, done, s->text.len, false);
    return st ? st : splitter_flush(s);
}

static enum status split_scan(struct splitter *s, scanner_fn *scan)
{
    enum status st = ST_OK;
    for (size_t at = 0; at < s->text.len && !st;) {
        size_t end = scan(s->text.s, s->text.len, at);
        st = splitter_emit(s, at, end);
        at = end;
    }
    return st;
}

static bool in_class(const struct pre_step *step, uint32_t cp)
{
    switch (step->class) {
    case CLASS_DIGIT:
        return uc_is_numeric(cp);
    case CLASS_SPACE:
        return uc_is_space(cp);
    case CLASS_PUNCT:
        return uc_is_punct(cp);
    case CLASS_ONE:
        break;
    }
    return cp == step->one;
}

static enum status split_chars(struct splitter *s, const struct pre_step *step)
{
    size_t done = 0;
    enum status st = ST_OK;
    for (size_t at = 0; at < s->text.len && !st;) {
        uint32_t cp;
        size_t end = at + text_next(s->text.s + at, &cp);
        if (in_class(step, cp)) {
            if (at != done)
                st = splitter_add(s, done, at, false);
            if (!st)
                st = splitter_add(s, at, end, true);
            done = end;
        }
        at = end;
    }
    if (!st && done != s->text.len)
        st = splitter_add(s, done, s->text.len, false);
    return st ? st : splitter_flush(s);
}

static enum status run_metaspace(struct splitter *s, const struct pre_step *step)
{
    struct buf *text = &s->run->step[s->step].text;
    size_t rlen = strlen(step->replacement), done = 0;
    struct text_view t = s->text;
    buf_clear(text);
    text->max = UINT32_MAX - 1;
    bool has = t.len >= rlen && !memcmp(t.s, step->replacement, rlen);
    if (!has && t.s[0] != ' ' &&
        (step->scheme == PREPEND_ALWAYS || (step->scheme == PREPEND_FIRST && t.first)))
        buf_append(text, step->replacement, rlen);
    const char *space;
    while ((space = memchr(t.s + done, ' ', t.len - done))) {
        buf_append(text, t.s + done, (size_t)(space - t.s) - done);
        buf_append(text, step->replacement, rlen);
        done = (size_t)(space - t.s) + 1;
    }
    buf_append(text, t.s + done, t.len - done);
    if (text->failed)
        return err_set(s->run->err, ST_NO_MEMORY, "pre-tokenizer: no memory");
    s->text = (struct text_view){text->data, text->len, t.first};
    return step->split ? split_chars(s, step) : push(s->run, s->step + 1, s->text);
}

static enum status run_byte_level(struct splitter *s, const struct pre_step *step)
{
    if (step->prefix_space && s->text.s[0] != ' ') {
        struct buf *text = &s->run->step[s->step].text;
        buf_clear(text);
        text->max = UINT32_MAX - 1;
        buf_putc(text, ' ');
        buf_append(text, s->text.s, s->text.len);
        if (text->failed)
            return err_set(s->run->err, ST_NO_MEMORY, "pre-tokenizer: no memory");
        s->text.s = text->data;
        s->text.len = text->len;
    }
    if (step->scan)
        return split_scan(s, step->scan);
    return step->regex ? split_regex(s, step) : splitter_emit(s, 0, s->text.len);
}

static enum status run_fixed(struct splitter *s, const struct pre_step *step)
{
    enum status st = ST_OK;
    for (size_t at = 0; at < s->text.len && !st;) {
        size_t end = at;
        for (size_t n = 0; n < step->length && end < s->text.len; n++)
            end += text_char_len((unsigned char)s->text.s[end]);
        st = splitter_emit(s, at, end);
        at = end;
    }
    return st;
}

/* Recursion is as deep as there are steps. */
static enum status push(struct pretokenizer_run *run, size_t i, struct text_view t)
{
    if (i == run->p->n)
        return run->sink(run->arg, t.s, t.len);
    const struct pre_step *step = &run->p->steps[i];
    struct splitter s = {
        .run = run, .step = i, .text = t, .behavior = step->behavior, .invert = step->invert};
    switch (step->kind) {
    case PRE_BYTE_LEVEL:
        return run_byte_level(&s, step);
    case PRE_SPLIT:
        if (step->scan && step->behavior == SPLIT_ISOLATED)
            return split_scan(&s, step->scan);
        return split_regex(&s, step);
    case PRE_CHARS:
        return split_chars(&s, step);
    case PRE_METASPACE:
        return run_metaspace(&s, step);
    case PRE_FIXED_LENGTH:
        break;
    }
    return run_fixed(&s, step);
}

enum status pretokenizer_push(struct pretokenizer_run *run, struct text_view text)
{
    return text.len ? push(run, 0, text) : ST_OK;
}
