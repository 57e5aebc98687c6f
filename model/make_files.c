#include "model/make_files.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

static const char *const specials[] = {"<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"};

static void key_str(struct jw *w, const char *key, const char *value)
{
    jw_key(w, key);
    jw_str(w, value);
}

static void key_int(struct jw *w, const char *key, int64_t value)
{
    jw_key(w, key);
    jw_int(w, value);
}

static void key_bool(struct jw *w, const char *key, bool value)
{
    jw_key(w, key);
    jw_bool(w, value);
}

static void key_null(struct jw *w, const char *key)
{
    jw_key(w, key);
    jw_null(w);
}

static void write_eos(struct jw *w)
{
    jw_key(w, "eos_token_id");
    jw_arr(w);
    jw_int(w, MAKE_EOS);
    jw_int(w, MAKE_IM_END);
    jw_end_arr(w);
}

void make_generation_config_json(const struct model_config *c, struct buf *out)
{
    struct jw w = jw_begin(out);
    jw_obj(&w);
    key_int(&w, "bos_token_id", MAKE_BOS);
    write_eos(&w);
    jw_end_obj(&w);
    buf_putc(out, '\n');
}

/* GPT-2's printable stand-in for a byte: itself where it is a visible Latin-1 character, else 256
 * and up. */
static size_t byte_symbol(int byte, char out[5])
{
    uint32_t next = 256, symbol = 0;
    for (int b = 0; b <= byte; b++) {
        bool visible =
            (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        symbol = visible ? (uint32_t)b : next;
        next += !visible;
    }
    return utf8_encode(symbol, out);
}

static void write_vocab(struct jw *w, int32_t vocab)
{
    jw_key(w, "vocab");
    jw_obj(w);
    for (int b = 0; b < MAKE_BYTE_TOKENS; b++) {
        char symbol[5] = {0};
        byte_symbol(b, symbol);
        key_int(w, symbol, b);
    }
    for (int32_t id = MAKE_TOKENS; id < vocab; id++) {
        char word[32];
        snprintf(word, sizeof word, "\xc4\xa0w%d", id); /* U+0120 stands for the space */
        key_int(w, word, id);
    }
    jw_end_obj(w);
}

static void write_added_tokens(struct jw *w)
{
    jw_key(w, "added_tokens");
    jw_arr(w);
    for (int i = 0; i < MAKE_TOKENS - MAKE_BYTE_TOKENS; i++) {
        jw_obj(w);
        key_int(w, "id", MAKE_BYTE_TOKENS + i);
        key_str(w, "content", specials[i]);
        key_bool(w, "single_word", false);
        key_bool(w, "lstrip", false);
        key_bool(w, "rstrip", false);
        key_bool(w, "normalized", false);
        key_bool(w, "special", true);
        jw_end_obj(w);
    }
    jw_end_arr(w);
}

static void write_byte_level(struct jw *w, const char *key)
{
    jw_key(w, key);
    jw_obj(w);
    key_str(w, "type", "ByteLevel");
    key_bool(w, "add_prefix_space", false);
    key_bool(w, "trim_offsets", true);
    key_bool(w, "use_regex", true);
    jw_end_obj(w);
}

/* One token for every byte and no merges: any text encodes, filler words only decode. */
void make_tokenizer_json(const struct model_config *c, struct buf *out)
{
    struct jw w = jw_begin(out);
    jw_obj(&w);
    key_str(&w, "version", "1.0");
    key_null(&w, "truncation");
    key_null(&w, "padding");
    write_added_tokens(&w);
    key_null(&w, "normalizer");
    write_byte_level(&w, "pre_tokenizer");
    jw_key(&w, "post_processor");
    jw_raw(
        &w,
        "{\"type\":\"TemplateProcessing\","
        "\"single\":[{\"SpecialToken\":{\"id\":\"<|bos|>\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
        "\"pair\":[{\"SpecialToken\":{\"id\":\"<|bos|>\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
        "\"special_tokens\":{\"<|bos|>\":{\"id\":\"<|bos|>\",\"ids\":[256],"
        "\"tokens\":[\"<|bos|>\"]}}}");
    write_byte_level(&w, "decoder");
    jw_key(&w, "model");
    jw_obj(&w);
    key_str(&w, "type", "BPE");
    key_null(&w, "dropout");
    key_null(&w, "unk_token");
    key_null(&w, "continuing_subword_prefix");
    key_null(&w, "end_of_word_suffix");
    key_bool(&w, "fuse_unk", false);
    key_bool(&w, "byte_fallback", false);
    key_bool(&w, "ignore_merges", false);
    write_vocab(&w, c->vocab);
    jw_key(&w, "merges");
    jw_arr(&w);
    jw_end_arr(&w);
    jw_end_obj(&w);
    jw_end_obj(&w);
    buf_putc(out, '\n');
}

void make_tokenizer_config_json(const struct model_config *c, struct buf *out)
{
    struct jw w = jw_begin(out);
    jw_obj(&w);
    key_str(&w, "bos_token", specials[0]);
    key_str(&w, "eos_token", specials[1]);
    key_bool(&w, "add_bos_token", true);
    key_bool(&w, "clean_up_tokenization_spaces", false);
    key_int(&w, "model_max_length", c->max_context);
    key_str(&w, "tokenizer_class", "PreTrainedTokenizerFast");
    key_str(
        &w, "chat_template",
        "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
    jw_end_obj(&w);
    buf_putc(out, '\n');
}
