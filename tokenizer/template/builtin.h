/* What templates can call: filters, tests, methods of strings, dicts and lists, and global
 * functions. Private to template*.c. Tables are static and constant; lookups by name happen when a
 * template is parsed. */
#ifndef TOKENIZER_TEMPLATE_BUILTIN_H
#define TOKENIZER_TEMPLATE_BUILTIN_H

#include "tokenizer/template/run.h"

typedef struct tval tmpl_fn(struct trun *r, const struct tval *self, struct targs *a);

struct tfilter {
    const char *name;
    tmpl_fn *fn;
};
struct ttest {
    const char *name;
    bool (*fn)(struct trun *r, const struct tval *v, struct targs *a);
};
/* One row per name, whichever types have it; a NULL is "this type has no such method". */
struct tmethod {
    const char *name;
    tmpl_fn *str, *dict, *seq, *loop;
    bool mutates; /* dict and seq: changes its object, which Hugging Face's sandbox refuses */
};
struct tbuiltin {
    const char *name;
    tmpl_fn *fn;
};
struct tbound {
    struct tval self;
    const char *name;
    tmpl_fn *fn;
};

const struct tfilter *tmpl_find_filter(const char *name, size_t len);
const struct ttest *tmpl_find_test(const char *name, size_t len);
const struct tmethod *tmpl_find_method(const char *name, size_t len);
const struct tbuiltin *tmpl_find_global(const char *name, size_t len);

/* Binds arguments to names: "old new;count" has two required ones and an optional one. Absent ones
 * are TV_MISSING. */
void tmpl_args(struct trun *r, struct targs *a, const char *names, struct tval *out);
bool tmpl_arg_bool(const struct tval *v, bool fallback);
int64_t tmpl_arg_int(struct trun *r, const struct tval *v, int64_t fallback);

/* The filters' files; each table ends with a NULL name. */
extern const struct tfilter tmpl_text_filters[], tmpl_list_filters[], tmpl_json_filters[];
extern const struct tmethod tmpl_methods[];

/* Sorts v by keys (stable, with `<` as Python has it); both arrays are rearranged.
 * filters_list.c */
void tmpl_sort(struct trun *r, struct tval *v, struct tval *keys, size_t n, bool reverse);

/* format.c: "%s" % x and "{}".format(x) */
struct tval tmpl_percent(struct trun *r, const struct tval *fmt, const struct tval *arg);
tmpl_fn tmpl_method_format, tmpl_method_format_map;

/* methods_object.c */
tmpl_fn tmpl_dict_get, tmpl_dict_items, tmpl_dict_keys, tmpl_dict_values, tmpl_dict_copy,
    tmpl_dict_pop, tmpl_dict_update, tmpl_dict_setdefault, tmpl_dict_clear, tmpl_list_append,
    tmpl_list_extend, tmpl_list_insert, tmpl_list_pop, tmpl_list_index, tmpl_list_count,
    tmpl_list_copy, tmpl_list_clear, tmpl_list_reverse, tmpl_list_remove, tmpl_loop_cycle,
    tmpl_loop_changed;

/* text.c: pieces that methods and filters share */
enum tcase {
    CASE_UPPER,
    CASE_LOWER,
    CASE_TITLE,
    CASE_CAPITAL,
    CASE_SWAP,
    CASE_FOLD,
    CASE_FILTER_TITLE
};
struct tval tmpl_case(struct trun *r, const struct tval *s, enum tcase how);
struct tval tmpl_strip(struct trun *r, const struct tval *s, const struct tval *chars, bool left,
                       bool right);
struct tval tmpl_replace(struct trun *r, const struct tval *s, const struct tval *from,
                         const struct tval *to, int64_t count);
struct tval tmpl_split(struct trun *r, const struct tval *s, const struct tval *sep, int64_t max,
                       bool from_right);
struct tval tmpl_splitlines(struct trun *r, const struct tval *s, bool keep);
struct tval tmpl_escape_html(struct trun *r, const struct tval *s);
void tmpl_pad(struct trun *r, struct tbuf *b, const struct tval *fill, size_t count);
struct tval tmpl_want_str(struct trun *r, const struct tval *v, const char *what);
struct tval tmpl_join(struct trun *r, const struct tval *items, size_t n, const struct tval *sep);
struct tval tmpl_slice(struct trun *r, const struct tval *o, const struct tval bounds[3]);

#endif
