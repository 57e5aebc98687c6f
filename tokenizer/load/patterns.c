#include "tokenizer/load/patterns.h"

#include <stdio.h>
#include <string.h>

#include "tokenizer/split_patterns.h"

#define UPPERS_NO_HAN "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define LOWERS_NO_HAN "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define DEEPSEEK_WORDS                                                                             \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}"    \
    "\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK_OLD "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"
#define CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"

const char *const pattern_gpt2[PATTERNS_MAX] = {SPLIT_GPT2};
const char *const pattern_llama3[PATTERNS_MAX] = {SPLIT_LLAMA3};
const char *const pattern_qwen2[PATTERNS_MAX] = {SPLIT_QWEN2};
const char *const pattern_cl100k[PATTERNS_MAX] = {SPLIT_CL100K};
const char *const pattern_o200k[PATTERNS_MAX] = {SPLIT_O200K};
const char *const pattern_kimi[PATTERNS_MAX] = {"[\\p{Han}]+|" SPLIT_PART_CASED(
    UPPERS_NO_HAN, LOWERS_NO_HAN,
    SPLIT_PART_CONTRACTIONS "?") "|\\p{N}{1,3}" SPLIT_PART_OTHER SPLIT_PART_TAIL};

static const char *const pattern_qwen35[PATTERNS_MAX] = {SPLIT_QWEN35};
static const char *const pattern_tekken[PATTERNS_MAX] = {SPLIT_TEKKEN};
static const char *const pattern_digit_gpt2[PATTERNS_MAX] = {"\\p{N}", SPLIT_GPT2};
static const char *const pattern_falcon[PATTERNS_MAX] = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", SPLIT_GPT2,
                                                         "[0-9][0-9][0-9]"};
static const char *const pattern_default[PATTERNS_MAX] = {"[\\p{P}\\$\\+<=>\\^~\\|]+", SPLIT_GPT2,
                                                          "\\p{N}+", "[0-9][0-9][0-9]"};
static const char *const pattern_deepseek3[PATTERNS_MAX] = {"\\p{N}{1,3}", CJK, DEEPSEEK_WORDS};
static const char *const pattern_deepseek_coder[PATTERNS_MAX] = {"[\\r\\n]", "\\s?\\p{L}+",
                                                                 "\\s?\\p{P}+", CJK_OLD, "\\p{N}"};
/* Its list of letters, written out in the published tokenizer, is the cased scripts' letters. */
static const char *const pattern_deepseek_llm[PATTERNS_MAX] = {
    "[\\r\\n]",
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-"
    "\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-"
    "\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15"
    "\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-"
    "\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b"
    "\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787"
    "\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-"
    "\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-"
    "\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
    CJK_OLD,
    "\\p{N}+"};
static const char *const pattern_bloom[PATTERNS_MAX] = {
    " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"};
static const char *const pattern_viking[PATTERNS_MAX] = {
    " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+", "\\p{N}"};
static const char *const pattern_bailing[PATTERNS_MAX] = {
    "'(?i:[sdmt]|ll|ve|re)|" SPLIT_PART_PREFIX "+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
    "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"};
static const char *const pattern_seed[PATTERNS_MAX] = {
    SPLIT_PART_CONTRACTIONS
    "|" SPLIT_PART_PREFIX "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)"
    "|\\s+"};
static const char *const pattern_superbpe[PATTERNS_MAX] = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"};
static const char *const pattern_lines[PATTERNS_MAX] = {"[^\\n]+|[\\n]+"};

/* The first is for files that name none. */
static const struct pre_type types[] = {
    {",default,", pattern_default},
    {",llama3,llama-v3,llama-bpe,falcon3,falcon-h1,pixtral,midm-2.0,lfm2,jina-v5-nano,",
     pattern_llama3, true, true},
    {",dbrx,smaug-bpe,glm4,chatglm-bpe,", pattern_llama3},
    {",qwen2,", pattern_qwen2, false, false, true},
    {",deepseek-r1-qwen,megrez,hunyuan,stablelm2,solar-open,grok-2,kormo,f2llmv2,", pattern_qwen2},
    {",qwen35,", pattern_qwen35, false, false, true},
    {",gpt-4o,llama4,kanana2,minimax-m2,talkie,", pattern_o200k},
    {",tekken,", pattern_tekken, true, true},
    {",gpt-2,phi-2,jina-es,jina-de,gigachat,jina-v2-es,jina-v2-de,a.x-4.0,mellum,modern-bert,mpt,"
     "olmo,jais,trillion,granite-docling,exaone4,jina-v1-en,jina-v2-code,roberta-bpe,",
     pattern_gpt2},
    {",starcoder,refact,command-r,smollm,codeshell,exaone,minerva-7b,mellum2,", pattern_digit_gpt2},
    {",falcon,", pattern_falcon},
    {",deepseek-v3,hunyuan-dense,joyai-llm,hy_v4,", pattern_deepseek3},
    {",deepseek-coder,", pattern_deepseek_coder},
    {",deepseek-llm,", pattern_deepseek_llm},
    {",bloom,poro-chat,gpt3-finnish,", pattern_bloom},
    {",viking,", pattern_viking},
    {",bailingmoe,bailingmoe2,llada-moe,", pattern_bailing},
    {",seed-coder,", pattern_seed},
    {",superbpe,", pattern_superbpe},
    {",kimi-k2,", pattern_kimi},
    {",gemma4,sarvam-moe,", pattern_lines, false, true, false, true},
};

const struct pre_type *pre_type_find(const char *name)
{
    char key[80];
    if (!*name)
        name = "default";
    if (strchr(name, ',') || snprintf(key, sizeof(key), ",%s,", name) >= (int)sizeof(key))
        return NULL;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strstr(types[i].names, key))
            return &types[i];
    return NULL;
}
