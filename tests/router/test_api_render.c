/* The shapes of answers: against our own expectations and against recorded answers of the API that
 * they follow. */
#include "api_rig.h"
#include "router/api_render.h"

#include <unistd.h>

#define RECORDED BATON_SOURCE_DIR "/../shared/data/protocols/recorded_api/"

static struct api_answer head(const struct tokenizer *t, enum api_kind kind, bool stream)
{
    struct api_answer a = {
        .kind = kind, .tokenizer = t, .created_s = 5, .model = "m", .stream = stream};
    strcpy(a.id, kind == API_CHAT ? "chatcmpl-1" : "cmpl-1");
    a.include_usage = stream;
    return a;
}

static json *read_back(const struct buf *b, bool event)
{
    json *v = NULL;
    struct error err = {0};
    const char *s = b->data;
    size_t n = b->len;
    if (event) {
        cr_assert(n > 8 && memcmp(s, "data: ", 6) == 0 && memcmp(s + n - 2, "\n\n", 2) == 0);
        cr_assert_null(memchr(s, '\n', n - 2));
        s += 6;
        n -= 8;
    }
    cr_assert_eq(json_read(s, n, &v, &err), ST_OK, "%s: %s", err.text, b->data);
    return v;
}

/* Every member that `theirs` has and that is no extra of that service is in `ours` with a like
 * kind. */
static void check_shape(const json *ours, const json *theirs, const char *path)
{
    static const char *const extras[] = {"service_tier",
                                         "obfuscation",
                                         "annotations",
                                         "audio_tokens",
                                         "accepted_prediction_tokens",
                                         "rejected_prediction_tokens",
                                         "refusal"};
    if (json_kind_of(theirs) == JSON_ARR) {
        if (json_count(theirs) && json_count(ours))
            check_shape(json_at(ours, 0), json_at(theirs, 0), path);
        cr_assert_eq(json_kind_of(ours), JSON_ARR, "%s", path);
        return;
    }
    if (json_kind_of(theirs) != JSON_OBJ)
        return;
    for (void *it = json_first(theirs); it; it = json_next(theirs, it)) {
        const char *key = json_iter_key(it);
        bool extra = false;
        for (size_t i = 0; i < sizeof extras / sizeof *extras; i++)
            extra |= strcmp(key, extras[i]) == 0;
        const json *mine = json_get(ours, key), *its = json_iter_value(it);
        if (extra)
            continue;
        char where[256];
        snprintf(where, sizeof where, "%s.%s", path, key);
        cr_assert(json_kind_of(mine) != JSON_ABSENT, "%s is missing", where);
        if (json_kind_of(mine) != JSON_NULL_ && json_kind_of(its) != JSON_NULL_)
            cr_assert_eq(json_kind_of(mine), json_kind_of(its), "%s: %s instead of %s", where,
                         json_kind_name(json_kind_of(mine)), json_kind_name(json_kind_of(its)));
        check_shape(mine, its, where);
    }
}

static const struct msg_usage usage = {
    .prompt_tokens = 3, .cached_tokens = 2, .completion_tokens = 4};

Test(api_render, whole_answers_as_recorded)
{
    static const struct {
        const char *file;
        enum api_kind kind;
    } cases[] = {{"openai_chat_openai-text.json", API_CHAT},
                 {"openai_completion_openai-completion-text.json", API_COMPLETION}};
    if (access(RECORDED, R_OK) != 0)
        cr_skip_test("%s is not there", RECORDED);
    struct tokenizer *t = rig_tokenizer();
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        json *theirs = NULL;
        struct error err = {0};
        snprintf(path, sizeof path, "%s%s", RECORDED, cases[i].file);
        cr_assert_eq(json_read_file(path, 1 << 20, &theirs, &err), ST_OK, "%s", err.text);
        struct api_answer a = head(t, cases[i].kind, false);
        struct api_choice_out c = {.text = {"hi", 2}, .finish = "stop", .stop_id = -1};
        struct buf b = {0};
        api_render_answer(&b, &a, &c, 1, &usage);
        json *ours = read_back(&b, false);
        check_shape(ours, theirs, cases[i].file);
        cr_assert_str_eq(json_as_str(json_get(ours, "object"), ""),
                         json_as_str(json_get(theirs, "object"), "-"));
        json_free(ours);
        json_free(theirs);
        buf_fini(&b);
    }
    tokenizer_free(t);
}

Test(api_render, chunks_as_recorded)
{
    static const struct {
        const char *file;
        enum api_kind kind;
    } cases[] = {{"openai_chat_openai-text.chunks.txt", API_CHAT},
                 {"openai_completion_openai-completion-text.chunks.txt", API_COMPLETION}};
    if (access(RECORDED, R_OK) != 0)
        cr_skip_test("%s is not there", RECORDED);
    struct tokenizer *t = rig_tokenizer();
    for (size_t i = 0; i < 2; i++) {
        char path[512], *line = NULL;
        size_t cap = 0, lines = 0;
        snprintf(path, sizeof path, "%s%s", RECORDED, cases[i].file);
        FILE *f = fopen(path, "re");
        cr_assert_not_null(f);
        struct api_answer a = head(t, cases[i].kind, true);
        for (ssize_t n; (n = getline(&line, &cap, f)) > 2; lines++) {
            json *theirs = NULL;
            if (json_read(line, (size_t)n, &theirs, NULL) != ST_OK)
                continue; /* [DONE] */
            const json *choice = json_at(json_get(theirs, "choices"), 0);
            const char *finish = json_as_str(json_get(choice, "finish_reason"), NULL);
            const json *text = json_get(json_get(choice, "delta"), "content");
            struct api_choice_out c = {.finish = finish, .stop_id = -1};
            c.role = json_get(json_get(choice, "delta"), "role") != NULL;
            if (!c.role && (text || json_get(choice, "text")))
                c.text = (struct api_text_ref){"hi", 2};
            struct buf b = {0};
            api_render_chunk(&b, &a, choice ? &c : NULL, choice ? NULL : &usage);
            json *ours = read_back(&b, true);
            check_shape(ours, theirs, cases[i].file);
            cr_assert_str_eq(json_as_str(json_get(ours, "object"), ""),
                             json_as_str(json_get(theirs, "object"), "-"));
            cr_assert_eq(json_count(json_get(ours, "choices")),
                         json_count(json_get(theirs, "choices")));
            json_free(ours);
            json_free(theirs);
            buf_fini(&b);
        }
        cr_assert(lines > 2, "%s", path);
        free(line);
        fclose(f);
    }
    tokenizer_free(t);
}

Test(api_render, exact_texts)
{
    struct tokenizer *t = rig_tokenizer();
    struct buf b = {0};
    struct api_answer a = head(t, API_CHAT, true);
    struct api_choice_out c = {.index = 1, .role = true, .stop_id = -1};
    api_render_chunk(&b, &a, &c, NULL);
    cr_assert_str_eq(b.data,
                     "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                     "\"created\":5,\"model\":\"m\",\"system_fingerprint\":null,\"choices\":[{"
                     "\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                     "\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}],"
                     "\"usage\":null}\n\n");
    buf_clear(&b);
    c = (struct api_choice_out){.finish = "length", .stop_id = -1};
    a.include_usage = false;
    api_render_chunk(&b, &a, &c, NULL);
    cr_assert(strstr(b.data, "\"delta\":{},") != NULL, "%s", b.data);
    cr_assert_null(strstr(b.data, "usage"));
    buf_clear(&b);
    a.include_usage = true;
    api_render_chunk(&b, &a, NULL, &usage);
    cr_assert(strstr(b.data,
                     "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,"
                     "\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":2}"),
              "%s", b.data);
    buf_clear(&b);
    a = head(t, API_COMPLETION, false);
    c = (struct api_choice_out){
        .text = {"a\"\n", 3}, .finish = "stop", .stop_text = "\x01", .stop_id = -1};
    api_render_answer(&b, &a, &c, 1, &usage);
    cr_assert(strstr(b.data, "\"text\":\"a\\\"\\n\",\"logprobs\":null,\"finish_reason\":\"stop\","
                             "\"stop_reason\":\"\\u0001\"}"),
              "%s", b.data);
    buf_fini(&b);
    tokenizer_free(t);
}

static void push(struct api_tokens *tokens, int32_t id, float logprob, uint32_t n_top)
{
    const struct msg_logprob top[] = {{'x', -0.5f}, {'"', -1.0f}, {0xe2, -2.0f}};
    const struct msg_token m = {.id = id, .logprob = logprob, .top = top, .n_top = n_top};
    cr_assert(api_tokens_push(tokens, &m));
}

Test(api_render, offsets_count_characters_that_tokens_share_once)
{
    static const int32_t ids[] = {0xe2, 0x80, 0x94, 'y', 'z'}, at[] = {10, 11, 11, 11, 12};
    struct tokenizer *t = rig_tokenizer();
    struct api_tokens tokens = {0};
    struct buf b = {0};
    for (int i = 0; i < 5; i++)
        push(&tokens, ids[i], -1, 0);
    struct api_choice_out c = {.text = {"\xe2\x80\x94yz", 5},
                               .tokens = &tokens,
                               .text_offset = 10,
                               .finish = "stop",
                               .stop_id = -1};
    struct api_answer a = head(t, API_COMPLETION, false);
    a.logprobs = true;
    api_render_answer(&b, &a, &c, 1, &usage);
    json *v = read_back(&b, false);
    const json *l = json_get(json_at(json_get(v, "choices"), 0), "logprobs");
    for (size_t i = 0; i < 5; i++)
        cr_assert_eq(json_as_int(json_at(json_get(l, "text_offset"), i), 0), at[i], "%zu", i);
    json_free(v);
    api_tokens_fini(&tokens);
    buf_fini(&b);
    tokenizer_free(t);
}

Test(api_render, logprobs)
{
    struct tokenizer *t = rig_tokenizer();
    struct api_tokens tokens = {0};
    struct buf b = {0};
    push(&tokens, 'x', -0.5f, 3);
    push(&tokens, 0xe2, -__builtin_inff(), 0);
    push(&tokens, 'y', 0, 1);
    struct api_choice_out c = {
        .text = {"xy", 2}, .tokens = &tokens, .text_offset = 10, .finish = "stop", .stop_id = 7};
    struct api_answer a = head(t, API_COMPLETION, false);
    a.logprobs = true;
    api_render_answer(&b, &a, &c, 1, &usage);
    json *v = read_back(&b, false);
    const json *choice = json_at(json_get(v, "choices"), 0), *l = json_get(choice, "logprobs");
    cr_assert_eq(json_as_int(json_get(choice, "stop_reason"), 0), 7);
    cr_assert_eq(json_count(json_get(l, "tokens")), (size_t)3);
    cr_assert_str_eq(json_as_str(json_at(json_get(l, "tokens"), 1), ""), "\xef\xbf\xbd");
    cr_assert_eq(json_as_number(json_at(json_get(l, "token_logprobs"), 1), 0), -9999.0);
    cr_assert_eq(json_as_int(json_at(json_get(l, "text_offset"), 2), 0), 12);
    const json *top = json_at(json_get(l, "top_logprobs"), 0);
    cr_assert_eq(json_count(top), (size_t)3);
    cr_assert_eq(json_as_number(json_get(top, "\""), 0), -1.0);
    cr_assert_eq(json_count(json_at(json_get(l, "top_logprobs"), 2)), (size_t)2);
    json_free(v);
    buf_clear(&b);
    a = head(t, API_CHAT, false);
    a.logprobs = true;
    api_render_answer(&b, &a, &c, 1, &usage);
    v = read_back(&b, false);
    l = json_get(json_get(json_at(json_get(v, "choices"), 0), "logprobs"), "content");
    cr_assert_eq(json_count(l), (size_t)3);
    const json *second = json_at(l, 1);
    cr_assert_eq(json_as_int(json_at(json_get(second, "bytes"), 0), 0), 0xe2);
    cr_assert_eq(json_count(json_get(json_at(l, 0), "top_logprobs")), (size_t)3);
    cr_assert_eq(json_count(json_get(second, "top_logprobs")), (size_t)0);
    json_free(v);
    api_tokens_fini(&tokens);
    buf_fini(&b);
    tokenizer_free(t);
}
