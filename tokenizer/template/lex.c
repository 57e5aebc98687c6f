/* Source text to tokens. White space control is settled here: `-` strips to the tag, `+` keeps, and
 * otherwise trim_blocks (the newline after a block tag) and lstrip_blocks (blanks before one on its
 * line) apply. */
#include "tokenizer/template/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"

struct lexer {
    struct trun *r;
    const char *s;
    size_t len, pos;
    uint32_t line;
    bool line_starting; /* the last tag ended with a newline, or nothing came yet */
    struct ttoken *tokens;
    size_t n, cap;
    char closers[TMPL_DEPTH_MAX];
    int open;
};

size_t tmpl_space_at(const char *s, size_t len)
{
    if (len == 0)
        return 0;
    unsigned char c = (unsigned char)*s;
    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
    uint32_t cp;
    size_t n = utf8_decode(s, len, &cp);
    if (n == 0)
        return 0;
    bool space = cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
                 cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
    return space ? n : 0;
}

size_t tmpl_trim_left(const char *s, size_t len)
{
    size_t i = 0, n;
    while ((n = tmpl_space_at(s + i, len - i)) > 0)
        i += n;
    return i;
}

size_t tmpl_trim_right(const char *s, size_t len)
{
    while (len > 0) {
        size_t start = len - 1;
        while (start > 0 && len - start < 4 && ((unsigned char)s[start] & 0xC0) == 0x80)
            start--;
        if (tmpl_space_at(s + start, len - start) != len - start)
            break;
        len = start;
    }
    return len;
}

static struct trun *at_line(struct lexer *x)
{
    x->r->line = x->line;
    return x->r;
}

static _Noreturn void lex_fail(struct lexer *x, const char *what)
{
    tmpl_raise(at_line(x), "%s", what);
}

static struct ttoken *emit(struct lexer *x, enum ttoken_type type, const char *s, size_t len)
{
    if (x->n == x->cap) {
        size_t cap = x->cap == 0 ? 256 : x->cap * 2;
        x->tokens = tmpl_grow(x->r, x->tokens, x->cap * sizeof *x->tokens, cap * sizeof *x->tokens);
        x->cap = cap;
    }
    struct ttoken *t = &x->tokens[x->n++];
    *t = (struct ttoken){.type = (uint8_t)type, .line = x->line, .s = s, .len = len};
    return t;
}

static void advance(struct lexer *x, size_t to)
{
    for (; x->pos < to; x->pos++)
        x->line += x->s[x->pos] == '\n';
}

static bool looking_at(const struct lexer *x, size_t at, const char *text)
{
    size_t n = strlen(text);
    return x->len - at >= n && memcmp(x->s + at, text, n) == 0;
}

static size_t skip_space(const struct lexer *x, size_t at)
{
    return at + tmpl_trim_left(x->s + at, x->len - at);
}

/* Emits the text up to a tag whose sign and kind decide what is cut off its end. */
static void emit_data(struct lexer *x, size_t end, char sign, bool variable)
{
    const char *s = x->s + x->pos;
    size_t len = end - x->pos;
    if (sign == '-') {
        len = tmpl_trim_right(s, len);
    } else if (sign != '+' && !variable) {
        size_t bol = len;
        while (bol > 0 && s[bol - 1] != '\n')
            bol--;
        if ((bol > 0 || x->line_starting) && tmpl_trim_left(s + bol, len - bol) == len - bol)
            len = bol;
    }
    if (len > 0)
        emit(x, T_DATA, s, len);
    advance(x, end);
}

/* Position after a tag's end at `at` ("%}" or "#}" with its sign before it), or 0 when there is
 * none. */
static size_t tag_end(const struct lexer *x, size_t at, const char *end, bool trim)
{
    char sign = at < x->len ? x->s[at] : 0;
    bool minus = sign == '-', plus = sign == '+';
    if (!looking_at(x, at + (minus || plus), end))
        return 0;
    at += (size_t)(minus || plus) + 2;
    if (minus)
        return skip_space(x, at);
    return at + (!plus && trim && at < x->len && x->s[at] == '\n');
}

static void close_tag(struct lexer *x, size_t end)
{
    x->line_starting = end > 0 && x->s[end - 1] == '\n';
    advance(x, end);
}

static void lex_comment(struct lexer *x)
{
    for (size_t at = x->pos; at < x->len; at++) {
        size_t end = tag_end(x, at, "#}", true);
        if (end > 0) {
            close_tag(x, end);
            return;
        }
    }
    lex_fail(x, "Missing end of comment tag");
}

/* Is there `{%`, a sign, and this word at `at`? Sets the sign, returns the position after the word,
 * or 0. */
static size_t tag_word(const struct lexer *x, size_t at, const char *word, char *sign)
{
    if (!looking_at(x, at, "{%"))
        return 0;
    at += 2;
    *sign = at < x->len && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
    at = skip_space(x, at + (*sign != 0));
    return looking_at(x, at, word) ? skip_space(x, at + strlen(word)) : 0;
}

/* A raw block, when one begins at `at`. */
static bool lex_raw(struct lexer *x, size_t at)
{
    char sign;
    size_t end = tag_word(x, at, "raw", &sign);
    if (end == 0 || !(looking_at(x, end, "%}") || looking_at(x, end, "-%}")))
        return false;
    emit_data(x, at, sign, false);
    close_tag(x, tag_end(x, end, "%}", false));
    for (at = x->pos; at < x->len; at++) {
        end = x->s[at] == '{' ? tag_word(x, at, "endraw", &sign) : 0;
        if (end == 0 || (end = tag_end(x, end, "%}", true)) == 0)
            continue;
        emit_data(x, at, sign, false);
        close_tag(x, end);
        return true;
    }
    lex_fail(x, "Missing end of raw directive");
}

static size_t digits_at(const struct lexer *x, size_t at, int base)
{
    size_t start = at;
    for (; at < x->len; at++) {
        char c = x->s[at];
        bool digit = base == 16 ? isxdigit((unsigned char)c) : c >= '0' && c < '0' + base;
        if (!digit &&
            !(c == '_' && at > start && at + 1 < x->len && isxdigit((unsigned char)x->s[at + 1])))
            break;
    }
    return at;
}

static void lex_number(struct lexer *x)
{
    size_t at = x->pos, end;
    int base = 10;
    bool real = false;
    char prefix = at + 1 < x->len && x->s[at] == '0' ? (char)tolower(x->s[at + 1]) : 0;
    if (prefix == 'x' || prefix == 'o' || prefix == 'b')
        base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : 2;
    if (base != 10)
        at += 2;
    end = digits_at(x, at, base);
    if (base == 10 && (x->pos == 0 || x->s[x->pos - 1] != '.')) {
        if (end + 1 < x->len && x->s[end] == '.' && isdigit((unsigned char)x->s[end + 1])) {
            real = true;
            end = digits_at(x, end + 1, 10);
        }
        size_t e = end;
        if (e < x->len && (x->s[e] == 'e' || x->s[e] == 'E')) {
            e += 1 + (e + 1 < x->len && (x->s[e + 1] == '+' || x->s[e + 1] == '-'));
            if (e < x->len && isdigit((unsigned char)x->s[e])) {
                real = true;
                end = digits_at(x, e, 10);
            }
        }
    }
    char text[64];
    size_t n = 0;
    for (size_t i = at; i < end && n < sizeof text - 1; i++)
        if (x->s[i] != '_')
            text[n++] = x->s[i];
    text[n] = 0;
    if (n == 0 || n == sizeof text - 1)
        lex_fail(x, "a number that cannot be read");
    struct ttoken *t = emit(x, real ? T_REAL : T_INT, x->s + x->pos, end - x->pos);
    errno = 0;
    if (real)
        t->f = strtod(text, NULL);
    else
        t->i = strtoll(text, NULL, base);
    if (!real && errno != 0)
        lex_fail(x, "an integer larger than 64 bits");
    advance(x, end);
}

static size_t name_char(const char *s, size_t len, bool first)
{
    unsigned char c = (unsigned char)*s;
    if (c < 0x80)
        return c == '_' || isalpha(c) || (!first && isdigit(c));
    uint32_t cp;
    size_t n = utf8_decode(s, len, &cp);
    if (n == 0)
        return 0;
    utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)cp);
    bool letter = cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_LO;
    return letter || (!first && cat <= UTF8PROC_CATEGORY_NL && cat != UTF8PROC_CATEGORY_CN) ? n : 0;
}

static uint32_t hex_escape(struct lexer *x, const char *s, size_t len, size_t digits)
{
    uint32_t cp = 0;
    if (len < digits)
        lex_fail(x, "truncated escape in a string");
    for (size_t i = 0; i < digits; i++) {
        if (!isxdigit((unsigned char)s[i]))
            lex_fail(x, "truncated escape in a string");
        cp = cp * 16 +
             (uint32_t)(isdigit((unsigned char)s[i]) ? s[i] - '0' : tolower(s[i]) - 'a' + 10);
    }
    if (cp > 0x10FFFF)
        lex_fail(x, "illegal Unicode character in a string");
    return cp >= 0xD800 && cp <= 0xDFFF ? 0xFFFD : cp;
}

/* One escape after a backslash at s[0..len): appends to out, returns bytes eaten. Unknown ones stay
 * as they are. */
static size_t unescape_one(struct lexer *x, const char *s, size_t len, char **out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = strchr(from, *s);
    uint32_t cp = 0;
    size_t eaten = 1;
    if (*s == '\n')
        return 1;
    if (simple != NULL && *s != 0) {
        *(*out)++ = to[simple - from];
        return 1;
    }
    if (*s >= '0' && *s <= '7') {
        for (eaten = 0; eaten < 3 && eaten < len && s[eaten] >= '0' && s[eaten] <= '7'; eaten++)
            cp = cp * 8 + (uint32_t)(s[eaten] - '0');
    } else if (*s == 'x' || *s == 'u' || *s == 'U') {
        size_t digits = *s == 'x' ? 2 : *s == 'u' ? 4 : 8;
        cp = hex_escape(x, s + 1, len - 1, digits);
        eaten = digits + 1;
    } else if (*s == 'N') {
        lex_fail(x, "\\N{...} in a string is not supported");
    } else {
        *(*out)++ = '\\';
        *(*out)++ = *s;
        return 1;
    }
    *out += utf8_encode(cp, *out);
    return eaten;
}

static void lex_string(struct lexer *x)
{
    char quote = x->s[x->pos];
    size_t end = x->pos + 1;
    while (end < x->len && x->s[end] != quote)
        end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->len)
        lex_fail(x, "a string without an end");
    const char *s = x->s + x->pos + 1;
    size_t len = end - x->pos - 1;
    if (memchr(s, '\\', len) == NULL) {
        emit(x, T_STR, s, len);
    } else {
        char *text = tmpl_alloc(x->r, len + 4), *out = text;
        for (size_t i = 0; i < len;) {
            if (s[i] == '\\' && i + 1 < len)
                i += 1 + unescape_one(x, s + i + 1, len - i - 1, &out);
            else
                *out++ = s[i++];
        }
        emit(x, T_STR, text, (size_t)(out - text));
    }
    advance(x, end + 1);
}

static void balance(struct lexer *x, char c)
{
    const char *pair = strchr("(){}[]", c);
    size_t at = (size_t)(pair - "(){}[]");
    if (at % 2 == 0) {
        if (x->open == TMPL_DEPTH_MAX)
            lex_fail(x, "brackets are nested too deeply");
        x->closers[x->open++] = "(){}[]"[at + 1];
    } else if (x->open == 0 || x->closers[--x->open] != c) {
        tmpl_raise(at_line(x), "unexpected '%c'", c);
    }
}

static void lex_operator(struct lexer *x)
{
    static const struct {
        const char *text;
        uint8_t type;
    } ops[] = {{"//", T_FLOORDIV}, {"**", T_POW},     {"==", T_EQ},    {"!=", T_NE},
               {">=", T_GE},       {"<=", T_LE},      {"+", T_ADD},    {"-", T_SUB},
               {"/", T_DIV},       {"*", T_MUL},      {"%", T_MOD},    {"~", T_TILDE},
               {"[", T_LBRACKET},  {"]", T_RBRACKET}, {"(", T_LPAREN}, {")", T_RPAREN},
               {"{", T_LBRACE},    {"}", T_RBRACE},   {">", T_GT},     {"<", T_LT},
               {"=", T_ASSIGN},    {".", T_DOT},      {":", T_COLON},  {"|", T_PIPE},
               {",", T_COMMA},     {";", T_SEMICOLON}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (!looking_at(x, x->pos, ops[i].text))
            continue;
        if (strchr("(){}[]", ops[i].text[0]) != NULL)
            balance(x, ops[i].text[0]);
        size_t n = strlen(ops[i].text);
        emit(x, ops[i].type, x->s + x->pos, n);
        advance(x, x->pos + n);
        return;
    }
    tmpl_raise(at_line(x), "unexpected character '%c'",
               isprint((unsigned char)x->s[x->pos]) ? x->s[x->pos] : '?');
}

/* The inside of {{ }} or {% %}, up to and with its end. */
static void lex_tag(struct lexer *x, bool variable)
{
    x->open = 0;
    for (;;) {
        advance(x, skip_space(x, x->pos));
        if (x->pos >= x->len)
            lex_fail(x, "unexpected end of template inside a tag");
        const char *s = x->s + x->pos;
        size_t end = 0, n;
        if (x->open == 0 && !(variable && *s == '+'))
            end = tag_end(x, x->pos, variable ? "}}" : "%}", !variable);
        if (end > 0) {
            emit(x, variable ? T_VAR_END : T_BLOCK_END, s, 2);
            close_tag(x, end);
            return;
        }
        if (isdigit((unsigned char)*s)) {
            lex_number(x);
        } else if ((n = name_char(s, x->len - x->pos, true)) > 0) {
            size_t at = x->pos;
            for (; n > 0; n = at < x->len ? name_char(x->s + at, x->len - at, false) : 0)
                at += n;
            emit(x, T_NAME, s, at - x->pos);
            advance(x, at);
        } else if (*s == '\'' || *s == '"') {
            lex_string(x);
        } else {
            lex_operator(x);
        }
    }
}

/* One newline form, and none at the very end: as Jinja reads a file. */
static const char *normalize(struct trun *r, const char *text, size_t *len)
{
    char *out = tmpl_alloc(r, *len + 1);
    size_t n = 0;
    for (size_t i = 0; i < *len; i++) {
        if (text[i] == '\r') {
            out[n++] = '\n';
            i += i + 1 < *len && text[i + 1] == '\n';
        } else {
            out[n++] = text[i];
        }
    }
    if (n > 0 && out[n - 1] == '\n')
        n--;
    out[n] = 0;
    *len = n;
    return out;
}

struct ttoken *tmpl_lex(struct trun *r, const char *text, size_t len, size_t *n)
{
    struct lexer x = {.r = r, .line = 1, .line_starting = true};
    x.s = normalize(r, text, &len);
    x.len = len;
    while (x.pos < x.len) {
        size_t at = x.pos;
        const char *brace;
        for (;; at++) {
            brace = memchr(x.s + at, '{', x.len - at);
            if (brace == NULL || (size_t)(brace - x.s) + 1 >= x.len) {
                brace = NULL;
                break;
            }
            at = (size_t)(brace - x.s);
            if (brace[1] == '{' || brace[1] == '%' || brace[1] == '#')
                break;
        }
        if (brace == NULL) {
            emit(&x, T_DATA, x.s + x.pos, x.len - x.pos);
            advance(&x, x.len);
            break;
        }
        if (lex_raw(&x, at))
            continue;
        char sign = at + 2 < x.len ? x.s[at + 2] : 0;
        bool variable = brace[1] == '{';
        emit_data(&x, at, sign, variable);
        advance(&x, at + 2 + (sign == '-' || sign == '+'));
        if (brace[1] == '#') {
            lex_comment(&x);
        } else {
            emit(&x, variable ? T_VAR_BEGIN : T_BLOCK_BEGIN, brace, 0);
            lex_tag(&x, variable);
        }
    }
    emit(&x, T_EOF, "end of template", 15);
    *n = x.n;
    return x.tokens;
}
