/* A byte tokenizer for the tests of the public API: id = byte, 256 <|bos|>, 257 <|end|>, 258
 * <|user|>, 259 <|assistant|>; a token is a byte, so characters and stop strings are split in every
 * possible way. No text gives the pieces behind them, two and three letters of a, b and c: a model
 * may say them, so that several stop strings end within one token. */
#ifndef TESTS_ROUTER_API_RIG_H
#define TESTS_ROUTER_API_RIG_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "router/api.h"
#include "tokenizer/bytelevel.h"

#define RIG_VOCAB 260
#define RIG_EOS 257

static const char *const rig_specials[] = {"<|bos|>", "<|end|>", "<|user|>", "<|assistant|>"};

static inline void rig_put_vocab(struct jw *w)
{
    for (int i = 0; i < 256; i++) {
        char key[5] = {0};
        utf8_encode(bytelevel_char((unsigned char)i), key);
        jw_key(w, key);
        jw_int(w, i);
    }
    for (int i = 0; i < 4; i++) {
        jw_key(w, rig_specials[i]);
        jw_int(w, 256 + i);
    }
    for (int i = 0; i < 9 + 27; i++) {
        int k = i < 9 ? i : i - 9;
        char key[4] = {(char)('a' + k % 3), (char)('a' + k / 3 % 3),
                       i < 9 ? 0 : (char)('a' + k / 9)};
        jw_key(w, key);
        jw_int(w, RIG_VOCAB + i);
    }
}

/* The token of the next one to three letters. */
static inline int32_t rig_piece(const char *s, size_t len)
{
    int32_t at = 0;
    for (size_t i = len; i > 0; i--)
        at = 3 * at + (s[i - 1] - 'a');
    return len == 1 ? s[0] : RIG_VOCAB + at + (len == 3 ? 9 : 0);
}

static inline struct tokenizer *rig_tokenizer(void)
{
    struct buf b = {0};
    buf_puts(&b, "{\"version\":\"1.0\",\"added_tokens\":[");
    for (int i = 0; i < 4; i++)
        buf_printf(&b,
                   "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                   "\"rstrip\":false,\"normalized\":false,\"special\":true}",
                   i ? "," : "", 256 + i, rig_specials[i]);
    buf_puts(&b, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                 "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false},"
                 "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
                 "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
                 "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":");
    struct jw w = jw_begin(&b);
    jw_obj(&w);
    rig_put_vocab(&w);
    jw_end_obj(&w);
    buf_puts(&b, "}}");
    struct tokenizer *t = NULL;
    struct error err = {0};
    static const char config[] = "{\"bos_token\":\"<|bos|>\",\"eos_token\":\"<|end|>\"}";
    cr_assert_eq(tokenizer_load_text(b.data, b.len, config, sizeof config - 1, &t, &err), ST_OK,
                 "%s", err.text);
    buf_fini(&b);
    return t;
}

static inline struct api_rules rig_rules(void)
{
    return (struct api_rules){.n_max = 8,
                              .stop_max = 4,
                              .logprobs_max = 5,
                              .vocab = RIG_VOCAB,
                              .defaults = {.temperature = 0.75f,
                                           .top_p = 0.5f,
                                           .min_p = 0.25f,
                                           .top_k = 40,
                                           .repetition_penalty = 1.5f,
                                           .logprobs = -1}};
}

#endif
