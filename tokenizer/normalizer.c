#include "tokenizer/normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/bytelevel.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/sp_normalizer.h"
#include "tokenizer/unicode.h"

static enum status take_text(struct norm_step *step, struct text_ref text, struct error *err)
{
    step->text = malloc(text.len + 1);
    if (!step->text)
        return err_set(err, ST_NO_MEMORY, "no memory");
    memcpy(step->text, text.s, text.len);
    step->text[text.len] = 0;
    step->text_len = text.len;
    return ST_OK;
}

static enum status parse_replace(const json *v, struct norm_step *step, struct error *err)
{
    struct text_ref content;
    enum status st = parse_pattern(v, "pattern", &step->pattern, err);
    if (!st)
        st = parse_str(v, "content", NULL, &content, err);
    return st ? st : take_text(step, content, err);
}

static enum status parse_bert(const json *v, struct norm_step *step, struct error *err)
{
    enum status st = parse_bool(v, "clean_text", true, &step->clean, err);
    if (!st)
        st = parse_bool(v, "handle_chinese_chars", true, &step->chinese, err);
    if (!st)
        st = parse_bool(v, "lowercase", true, &step->lower, err);
    return st ? st : parse_bool(v, "strip_accents", step->lower, &step->accents, err);
}

static enum status parse_precompiled(const json *v, struct norm_step *step, struct error *err)
{
    struct text_ref map;
    enum status st = parse_str(v, "precompiled_charsmap", "", &map, err);
    return st ? st : charsmap_parse(map.s, map.len, &step->map, err);
}

static enum status parse_step(void *arg, const char *type, const json *v, struct error *err)
{
    static const struct {
        const char *type;
        enum norm_kind kind;
        int form;
    } plain[] = {
        {"NFC", NORM_FORM, UC_NFC},
        {"NFD", NORM_FORM, UC_NFD},
        {"NFKC", NORM_FORM, UC_NFKC},
        {"NFKD", NORM_FORM, UC_NFKD},
        {"Lowercase", NORM_LOWERCASE},
        {"Strip", NORM_STRIP},
        {"StripAccents", NORM_STRIP_ACCENTS},
        {"Replace", NORM_REPLACE},
        {"Prepend", NORM_PREPEND},
        {"ByteLevel", NORM_BYTE_LEVEL},
        {"BertNormalizer", NORM_BERT},
        {"Precompiled", NORM_PRECOMPILED},
        {"Nmt", NORM_NMT},
        {"SentencePiece", NORM_SENTENCEPIECE},
    };
    struct normalizer *n = arg;
    size_t i = 0, count = sizeof(plain) / sizeof(plain[0]);
    while (i < count && strcmp(plain[i].type, type))
        i++;
    if (i == count)
        return err_set(err, ST_UNSUPPORTED, "normalizer of unknown type \"%.60s\"", type);
    struct norm_step *step = &n->steps[n->n++];
    *step = (struct norm_step){.kind = plain[i].kind, .form = plain[i].form};
    struct text_ref prepend;
    enum status st = ST_OK;
    switch (step->kind) {
    case NORM_STRIP:
        st = parse_bool(v, "strip_left", true, &step->left, err);
        return st ? st : parse_bool(v, "strip_right", true, &step->right, err);
    case NORM_REPLACE:
        return parse_replace(v, step, err);
    case NORM_PREPEND:
        st = parse_str(v, "prepend", NULL, &prepend, err);
        return st ? st : take_text(step, prepend, err);
    case NORM_BERT:
        return parse_bert(v, step, err);
    case NORM_PRECOMPILED:
        return parse_precompiled(v, step, err);
    case NORM_SENTENCEPIECE:
        return sp_normalizer_parse(v, &step->sp, err);
    default:
        return ST_OK;
    }
}

enum status normalizer_parse(const json *v, struct normalizer *out, struct error *err)
{
    return parse_components(v, "normalizers", parse_step, out, err);
}

void normalizer_fini(struct normalizer *n)
{
    for (size_t i = 0; i < n->n; i++) {
        regex_free(n->steps[i].pattern);
        charsmap_free(n->steps[i].map);
        sp_normalizer_free(n->steps[i].sp);
        free(n->steps[i].text);
    }
    n->n = 0;
}

void normalizer_run_fini(struct normalizer_run *run)
{
    buf_fini(&run->a);
    buf_fini(&run->b);
    for (size_t i = 0; i < COMPONENTS_MAX; i++)
        regex_run_fini(&run->regex[i]);
}

static void apply_strip(const struct norm_step *step, struct text_ref *t)
{
    while (step->left && t->len) {
        uint32_t cp;
        size_t n = text_next(t->s, &cp);
        if (!uc_is_space(cp))
            break;
        t->s += n;
        t->len -= n;
    }
    while (step->right && t->len) {
        uint32_t cp;
        size_t at = text_prev(t->s, t->len);
        text_next(t->s + at, &cp);
        if (!uc_is_space(cp))
            break;
        t->len = at;
    }
}

static enum status apply_replace(const struct norm_step *step, struct regex_run *run,
                                 struct text_ref in, struct buf *out, struct error *err)
{
    struct regex_walk w = {.regex = step->pattern, .run = run, .text = in.s, .len = in.len};
    size_t done = 0;
    enum status st;
    while ((st = regex_next(&w, err)) == ST_OK) {
        buf_append(out, in.s + done, w.begin - done);
        buf_append(out, step->text, step->text_len);
        done = w.end;
    }
    buf_append(out, in.s + done, in.len - done);
    return st == ST_NOT_FOUND ? ST_OK : st;
}

/* U+0020 for what becomes a space, 0 for what goes away, else the character itself. */
static uint32_t nmt_map(uint32_t c)
{
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
        c == 0x9f)
        return 0;
    if (c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
        c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd)
        return ' ';
    return c;
}

enum filter { FILTER_NMT, FILTER_MARKS, FILTER_NONSPACING, FILTER_CLEAN, FILTER_CHINESE };

static void apply_filter(enum filter filter, struct text_ref in, struct buf *out)
{
    for (size_t i = 0; i < in.len;) {
        uint32_t cp, to;
        size_t n = text_next(in.s + i, &cp);
        bool keep = true, pad = false;
        switch (filter) {
        case FILTER_NMT:
            to = nmt_map(cp);
            if (to == ' ' && cp != ' ') {
                buf_putc(out, ' ');
                keep = false;
            } else {
                keep = to || !cp;
            }
            break;
        case FILTER_MARKS:
            keep = !uc_is_mark(cp);
            break;
        case FILTER_NONSPACING:
            keep = !uc_is_mark_nonspacing(cp);
            break;
        case FILTER_CLEAN:
            keep = cp != 0 && cp != 0xfffd && !uc_is_control(cp);
            if (keep && uc_is_space(cp)) {
                buf_putc(out, ' ');
                keep = false;
            }
            break;
        case FILTER_CHINESE:
            pad = uc_is_cjk(cp);
            break;
        }
        if (pad)
            buf_putc(out, ' ');
        if (keep)
            buf_append(out, in.s + i, n);
        if (pad)
            buf_putc(out, ' ');
        i += n;
    }
}

static struct text_ref ref_of(const struct buf *b)
{
    return (struct text_ref){b->data ? b->data : "", b->len};
}

static bool apply_bert(const struct norm_step *step, struct text_ref in, struct buf *out)
{
    struct buf a = {.max = out->max}, b = {.max = out->max};
    bool ok = true;
    struct text_ref t = in;
    if (step->clean) {
        apply_filter(FILTER_CLEAN, t, &a);
        t = ref_of(&a);
    }
    if (step->chinese) {
        apply_filter(FILTER_CHINESE, t, &b);
        t = ref_of(&b);
    }
    if (step->accents) {
        struct buf nfd = {.max = out->max};
        ok = uc_normalize(UC_NFD, t.s, t.len, &nfd);
        buf_clear(&a);
        apply_filter(FILTER_NONSPACING, ref_of(&nfd), &a);
        buf_fini(&nfd);
        t = ref_of(&a);
    }
    if (step->lower)
        uc_lowercase(t.s, t.len, out);
    else
        buf_append(out, t.s, t.len);
    ok = ok && !a.failed && !b.failed;
    buf_fini(&a);
    buf_fini(&b);
    return ok;
}

static enum status apply_step(const struct norm_step *step, struct regex_run *run,
                              struct text_ref in, struct buf *out, struct error *err)
{
    bool ok = true;
    switch (step->kind) {
    case NORM_FORM:
        ok = uc_normalize((enum uc_form)step->form, in.s, in.len, out);
        break;
    case NORM_LOWERCASE:
        uc_lowercase(in.s, in.len, out);
        break;
    case NORM_STRIP:
        break;
    case NORM_STRIP_ACCENTS:
        apply_filter(FILTER_MARKS, in, out);
        break;
    case NORM_NMT:
        apply_filter(FILTER_NMT, in, out);
        break;
    case NORM_REPLACE:
        return apply_replace(step, run, in, out, err);
    case NORM_PREPEND:
        buf_append(out, step->text, step->text_len);
        buf_append(out, in.s, in.len);
        break;
    case NORM_BYTE_LEVEL:
        bytelevel_map(in.s, in.len, out);
        break;
    case NORM_BERT:
        ok = apply_bert(step, in, out);
        break;
    case NORM_PRECOMPILED:
        charsmap_apply(step->map, in.s, in.len, out);
        break;
    case NORM_SENTENCEPIECE: /* by the caller, who knows where in the text this is */
        break;
    }
    return ok ? ST_OK : err_set(err, ST_NO_MEMORY, "normalizer: no memory");
}

/* Steps that leave this text as it is, found without copying. */
static bool is_identity(const struct norm_step *step, struct text_ref t)
{
    return (step->kind == NORM_FORM && step->form == UC_NFC && uc_is_nfc_quick(t.s, t.len)) ||
           (step->kind == NORM_PRECOMPILED && !step->map);
}

enum status normalizer_apply(const struct normalizer *n, struct normalizer_run *run,
                             struct text_ref *text, struct error *err)
{
    run->a.max = run->b.max = UINT32_MAX - 1;
    for (size_t i = 0; i < n->n && text->len; i++) {
        const struct norm_step *step = &n->steps[i];
        if (step->kind == NORM_STRIP) {
            apply_strip(step, text);
            continue;
        }
        if (is_identity(step, *text))
            continue;
        buf_clear(&run->b);
        enum status st = ST_OK;
        if (step->kind == NORM_SENTENCEPIECE)
            sp_normalizer_apply(step->sp, *text, !run->later, &run->b);
        else
            st = apply_step(step, &run->regex[i], *text, &run->b, err);
        if (st)
            return st;
        if (run->b.failed)
            return err_set(err, ST_NO_MEMORY, "normalizer: no memory");
        struct buf swap = run->a;
        run->a = run->b;
        run->b = swap;
        *text = ref_of(&run->a);
    }
    return ST_OK;
}
