#include <criterion/criterion.h>

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"

static json *parse(const char *text)
{
    json *root = NULL;
    struct error err;
    enum status st = json_read(text, strlen(text), &root, &err);
    cr_assert_eq(st, ST_OK, "%s: %s", text, st == ST_OK ? "" : err.text);
    return root;
}

Test(json, kinds_and_values)
{
    json *r = parse("{\"n\":null,\"b\":true,\"i\":-42,\"r\":2.5,\"s\":\"h\\u00e9\\u0000x\","
                    "\"a\":[1,2,3],\"o\":{\"z\":1,\"a\":2}}");
    cr_assert_eq(json_kind_of(r), JSON_OBJ);
    cr_assert_eq(json_count(r), 7);
    cr_assert_eq(json_kind_of(json_get(r, "n")), JSON_NULL_);
    cr_assert_eq(json_kind_of(json_get(r, "none")), JSON_ABSENT);
    cr_assert(json_as_bool(json_get(r, "b"), false));
    cr_assert_eq(json_as_int(json_get(r, "i"), 0), -42);
    cr_assert_eq(json_as_int(json_get(r, "r"), 7), 7, "a real is no integer");
    cr_assert_eq(json_as_number(json_get(r, "i"), 0), -42.0);
    cr_assert_eq(json_as_number(json_get(r, "r"), 0), 2.5);
    cr_assert_eq(json_as_number(json_get(r, "s"), 9), 9.0);
    cr_assert_eq(json_str_len(json_get(r, "s")), 5);
    cr_assert_eq(memcmp(json_as_str(json_get(r, "s"), ""), "h\xc3\xa9\0x", 6), 0);
    cr_assert_str_eq(json_as_str(json_get(r, "i"), "not"), "not");
    cr_assert_eq(json_as_int(json_at(json_get(r, "a"), 2), 0), 3);
    cr_assert_null(json_at(json_get(r, "a"), 3));
    cr_assert_null(json_get(json_get(r, "a"), "x"));
    json_free(r);
}

Test(json, null_pointers_read_as_absent)
{
    cr_assert_eq(json_kind_of(NULL), JSON_ABSENT);
    cr_assert_null(json_get(NULL, "x"));
    cr_assert_null(json_at(NULL, 0));
    cr_assert_null(json_first(NULL));
    cr_assert_eq(json_count(NULL), 0);
    cr_assert_eq(json_str_len(NULL), 0);
    cr_assert_eq(json_as_int(NULL, 3), 3);
    cr_assert_eq(json_as_number(NULL, 3), 3.0);
    cr_assert_str_eq(json_as_str(NULL, "f"), "f");
    cr_assert(json_as_bool(NULL, true));
    json_free(NULL);
}

Test(json, members_come_in_document_order)
{
    json *r = parse("{\"z\":0,\"m\":1,\"a\":2,\"q\":3}");
    static const char *const want[] = {"z", "m", "a", "q"};
    int i = 0;
    for (void *it = json_first(r); it != NULL; it = json_next(r, it), i++) {
        cr_assert_str_eq(json_iter_key(it), want[i]);
        cr_assert_eq(json_as_int(json_iter_value(it), -1), i);
    }
    cr_assert_eq(i, 4);
    cr_assert_null(json_first(json_get(r, "z")));
    struct buf out = {0};
    json_dump(r, &out);
    cr_assert_str_eq(out.data, "{\"z\":0,\"m\":1,\"a\":2,\"q\":3}");
    buf_fini(&out);
    json_free(r);
}

Test(json, malformed_is_refused_with_its_place)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "[1 2]",
                                      "{\"a\" 1}",
                                      "{a:1}",
                                      "'a'",
                                      "01",
                                      "1.",
                                      ".5",
                                      "+1",
                                      "1e",
                                      "NaN",
                                      "Infinity",
                                      "-",
                                      "tru",
                                      "nul",
                                      "[1]x",
                                      "[1][2]",
                                      "\"\x01\"",
                                      "\"\\x\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00\\ud800\"",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"abc",
                                      "{\"a\":1,\"a\":2}",
                                      "// x\n1",
                                      "/* */1",
                                      "[1e999]",
                                      "\xef\xbb\xbf[]",
                                      "\"\\u00g0\"",
                                      "{\"a\\u0000\":1}",
                                      "[-]",
                                      "[--1]",
                                      "[1-1]",
                                      "[\"a\" \"b\"]",
                                      "{\"k\":}",
                                      "{1:2}",
                                      "[,1]",
                                      "\\",
                                      "[\"\\"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json *r = NULL;
        struct error err;
        enum status st = json_read(bad[i], strlen(bad[i]), &r, &err);
        cr_assert_eq(st, ST_INVALID, "accepted: %s", bad[i]);
        cr_assert_null(r);
        cr_assert_eq(strncmp(err.text, "line ", 5), 0, "%s", err.text);
    }
    struct error err;
    json *r;
    const char *text = "{\n  \"a\": 1,\n  \"b\": x\n}";
    json_read(text, strlen(text), &r, &err);
    cr_assert_eq(strncmp(err.text, "line 3 column ", 14), 0, "%s", err.text);
}

Test(json, a_nul_is_no_end_of_text)
{
    json *r;
    cr_assert_eq(json_read("[1]\0[2]", 7, &r, NULL), ST_INVALID);
    cr_assert_eq(json_read(NULL, 0, &r, NULL), ST_INVALID);
}

static enum status nested(int depth, int limit, json **r)
{
    struct buf text = {0};
    for (int i = 0; i < depth; i++)
        buf_puts(&text, i % 2 ? "{\"a\":" : "[");
    buf_puts(&text, "1");
    for (int i = depth; i-- > 0;)
        buf_putc(&text, i % 2 ? '}' : ']');
    enum status st =
        json_read_limited(text.data, text.len, (struct json_limits){.depth = limit}, r, NULL);
    buf_fini(&text);
    return st;
}

Test(json, depth_is_bounded)
{
    json *r;
    cr_assert_eq(nested(512, 0, &r), ST_OK);
    struct buf out = {0};
    json_dump(r, &out);
    cr_assert_gt(out.len, 2000);
    buf_fini(&out);
    json_free(r);
    cr_assert_eq(nested(513, 0, &r), ST_INVALID);
    cr_assert_eq(nested(5, 5, &r), ST_OK);
    json_free(r);
    cr_assert_eq(nested(6, 5, &r), ST_INVALID);
    cr_assert_eq(nested(1000000, 0, &r), ST_INVALID);
}

Test(json, memory_is_bounded)
{
    struct buf text = {0};
    buf_putc(&text, '[');
    for (int i = 0; i < 100000; i++)
        buf_puts(&text, "{},");
    buf_puts(&text, "1]");
    json *r;
    struct error err;
    struct json_limits limits = {.memory_bytes = 8 << 20};
    cr_assert_eq(json_read_limited(text.data, text.len, limits, &r, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "too many values"), "%s", err.text);
    limits.memory_bytes = 64 << 20;
    cr_assert_eq(json_read_limited(text.data, text.len, limits, &r, &err), ST_OK);
    json_free(r);
    limits.memory_bytes = 1000;
    cr_assert_eq(json_read_limited(text.data, text.len, limits, &r, &err), ST_INVALID);
    buf_fini(&text);
}

Test(json, integers_past_int64_are_reals)
{
    json *r = parse("[1000000000000000019884624838656, 9223372036854775807, -9223372036854775808,"
                    "9223372036854775808, -9223372036854775809, \"99999999999999999999\", 1e30]");
    cr_assert_eq(json_kind_of(json_at(r, 0)), JSON_REAL);
    cr_assert_float_eq(json_as_number(json_at(r, 0), 0) / 1e30, 1.0, 1e-12);
    cr_assert_eq(json_as_int(json_at(r, 1), 0), INT64_MAX);
    cr_assert_eq(json_as_int(json_at(r, 2), 0), INT64_MIN);
    cr_assert_eq(json_kind_of(json_at(r, 3)), JSON_REAL);
    cr_assert_eq(json_kind_of(json_at(r, 4)), JSON_REAL);
    cr_assert_str_eq(json_as_str(json_at(r, 5), ""), "99999999999999999999",
                     "a string is left alone");
    cr_assert_eq(json_as_number(json_at(r, 6), 0), 1e30);
    json_free(r);
}

Test(json, a_large_vocabulary_parses_in_reasonable_time, .timeout = 120)
{
    enum { N = 300000 };
    struct buf text = {0};
    buf_puts(&text, "{\"vocab\":{");
    for (int i = 0; i < N; i++)
        buf_printf(&text, "%s\"\\u0120token%d\":%d", i ? "," : "", i, i);
    buf_puts(&text, "},\"merges\":[");
    for (int i = 0; i < N; i++)
        buf_printf(&text, "%s[\"a%d\",\"b\"]", i ? "," : "", i);
    buf_puts(&text, "]}");
    int64_t before = clock_now_ns();
    json *r;
    cr_assert_eq(json_read(text.data, text.len, &r, NULL), ST_OK);
    double seconds = (double)(clock_now_ns() - before) * 1e-9;
    cr_log_info("%.1f MB in %.2f s", (double)text.len * 1e-6, seconds);
    cr_assert_lt(seconds, 30.0);
    cr_assert_eq(json_count(json_get(r, "vocab")), N);
    cr_assert_eq(json_as_int(json_get(json_get(r, "vocab"), "\xc4\xa0token299999"), 0), 299999);
    json_free(r);
    buf_fini(&text);
}

Test(json, writer_keeps_commas_right)
{
    struct buf out = {0};
    struct jw w = jw_begin(&out);
    jw_obj(&w);
    jw_key(&w, "a");
    jw_arr(&w);
    jw_int(&w, -1);
    jw_uint(&w, UINT64_MAX);
    jw_arr(&w);
    jw_end_arr(&w);
    jw_obj(&w);
    jw_end_obj(&w);
    jw_bool(&w, true);
    jw_null(&w);
    jw_end_arr(&w);
    jw_key(&w, "b");
    jw_str(&w, "x");
    jw_key(&w, "c");
    jw_raw(&w, "[1]");
    json *v = parse("{\"k\":[1.5,\"s\"]}");
    jw_key(&w, "d");
    jw_json(&w, v);
    jw_key(&w, "e");
    jw_json(&w, NULL);
    jw_end_obj(&w);
    cr_assert_str_eq(out.data,
                     "{\"a\":[-1,18446744073709551615,[],{},true,null],\"b\":\"x\",\"c\":[1],"
                     "\"d\":{\"k\":[1.5,\"s\"]},\"e\":null}");
    json_free(v);
    buf_fini(&out);
}

Test(json, writer_escapes)
{
    struct buf out = {0};
    struct jw w = jw_begin(&out);
    static const char text[] = "q\" b\\ \n\r\t \x01 \x7f \xc3\xa9 \xf0\x9f\x98\x80 \xff\xc3 \0z";
    jw_strn(&w, text, sizeof text - 1);
    cr_assert_str_eq(out.data, "\"q\\\" b\\\\ \\n\\r\\t \\u0001 \x7f \xc3\xa9 \xf0\x9f\x98\x80 "
                               "\xef\xbf\xbd\xef\xbf\xbd \\u0000z\"");
    json *r;
    cr_assert_eq(json_read(out.data, out.len, &r, NULL), ST_OK);
    json_free(r);
    buf_fini(&out);
}

Test(json, reals_read_back)
{
    static const double cases[] = {0.0,  -0.0, 1.0,  0.1,    1.0 / 3,   1e300, 5e-324, -123456789.0,
                                   1e21, 1e15, 1e16, 2.5e-7, 0.1 + 0.2, 1e22,  3e100};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = {0};
        struct jw w = jw_begin(&out);
        jw_real(&w, cases[i]);
        json *r = parse(out.data);
        cr_assert_eq(json_kind_of(r), JSON_REAL, "%s", out.data);
        cr_assert_eq(json_as_number(r, NAN), cases[i], "%s", out.data);
        json_free(r);
        buf_fini(&out);
    }
    struct buf out = {0};
    struct jw w = jw_begin(&out);
    jw_arr(&w);
    jw_real(&w, NAN);
    jw_real(&w, INFINITY);
    jw_real(&w, -INFINITY);
    jw_real(&w, 0.1);
    jw_real(&w, 3);
    jw_end_arr(&w);
    cr_assert_str_eq(out.data, "[null,null,null,0.1,3.0]");
    buf_fini(&out);
}

Test(json, files)
{
    json *r = NULL;
    struct error err;
    cr_assert_eq(json_read_file("/nonexistent/x.json", 100, &r, &err), ST_NOT_FOUND);
    cr_assert_eq(json_read_file("/", 100, &r, &err), ST_INVALID, "a folder");
    cr_assert_eq(json_read_file("/dev/zero", 100, &r, &err), ST_INVALID, "a device");
    char path[] = "/tmp/baton-json-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, "{\"a\":[1,2]}", 11), 11);
    cr_assert_eq(json_read_file(path, 10, &r, &err), ST_INVALID, "too long");
    cr_assert_eq(json_read_file(path, 11, &r, &err), ST_OK);
    cr_assert_eq(json_count(json_get(r, "a")), 2);
    json_free(r);
    cr_assert_eq(ftruncate(fd, 5), 0);
    cr_assert_eq(json_read_file(path, 100, &r, &err), ST_INVALID);
    cr_assert_eq(strncmp(err.text, path, strlen(path)), 0, "%s", err.text);
    cr_assert_eq(ftruncate(fd, 0), 0);
    cr_assert_eq(json_read_file(path, 0, &r, &err), ST_INVALID, "empty");
    close(fd);
    unlink(path);
}

/* Text that is nearly JSON: whatever is accepted must survive a dump and a second reading
 * unchanged. */
Test(json, damaged_text_never_harms, .timeout = 60)
{
    static const char seed[] =
        "{\"a\":[1,-2.5e3,\"x\\u00e9\\n\",true,null,{\"b\":{}}],\"c\":12345678901234567890123}";
    struct rng r = rng_seed(11);
    int accepted = 0;
    for (int i = 0; i < 30000; i++) {
        char text[sizeof seed];
        memcpy(text, seed, sizeof seed);
        size_t len = sizeof seed - 1;
        for (uint64_t k = 1 + rng_below(&r, 3); k > 0; k--)
            text[rng_below(&r, len)] = rng_below(&r, 4)
                                           ? "{}[]\",:0123456789eE+-.\\u tfn"[rng_below(&r, 28)]
                                           : (char)rng_next(&r);
        if (rng_below(&r, 5) == 0)
            len = rng_below(&r, len);
        json *v, *again;
        if (json_read(text, len, &v, NULL) != ST_OK)
            continue;
        accepted++;
        struct buf one = {0}, two = {0};
        json_dump(v, &one);
        cr_assert_eq(json_read(one.data, one.len, &again, NULL), ST_OK, "%s", one.data);
        json_dump(again, &two);
        cr_assert_str_eq(one.data, two.data);
        buf_fini(&one);
        buf_fini(&two);
        json_free(v);
        json_free(again);
    }
    cr_assert_gt(accepted, 1000);
}
