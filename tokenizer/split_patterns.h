/* The split patterns that most models use, character by character as published: the tokenizers that
 * are made of other files name them, and a scanner knows them by their text. SPLIT_PART_*: pieces
 * that several are put together from. */
#ifndef TOKENIZER_SPLIT_PATTERNS_H
#define TOKENIZER_SPLIT_PATTERNS_H

#define SPLIT_PART_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPLIT_PART_TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPLIT_PART_OTHER "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPLIT_PART_PREFIX "[^\\r\\n\\p{L}\\p{N}]?"
#define SPLIT_PART_UPPERS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SPLIT_PART_LOWERS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
/* Words whose capitals come first: two alternatives. */
#define SPLIT_PART_CASED(upper, lower, ending)                                                     \
    SPLIT_PART_PREFIX upper "*" lower "+" ending "|" SPLIT_PART_PREFIX upper "+" lower "*" ending

#define SPLIT_GPT2                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SPLIT_LLAMA3                                                                               \
    SPLIT_PART_CONTRACTIONS "|" SPLIT_PART_PREFIX                                                  \
                            "\\p{L}+|\\p{N}{1,3}" SPLIT_PART_OTHER SPLIT_PART_TAIL
#define SPLIT_QWEN2                                                                                \
    SPLIT_PART_CONTRACTIONS "|" SPLIT_PART_PREFIX "\\p{L}+|\\p{N}" SPLIT_PART_OTHER SPLIT_PART_TAIL
#define SPLIT_QWEN35                                                                               \
    SPLIT_PART_CONTRACTIONS                                                                        \
    "|" SPLIT_PART_PREFIX                                                                          \
    "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPLIT_PART_TAIL
#define SPLIT_CL100K                                                                               \
    "'(?i:[sdmt]|ll|ve|re)|" SPLIT_PART_PREFIX                                                     \
    "+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define SPLIT_O200K                                                                                \
    SPLIT_PART_CASED(SPLIT_PART_UPPERS, SPLIT_PART_LOWERS, SPLIT_PART_CONTRACTIONS "?")            \
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPLIT_PART_TAIL
#define SPLIT_TEKKEN                                                                               \
    SPLIT_PART_CASED(SPLIT_PART_UPPERS, SPLIT_PART_LOWERS, "")                                     \
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPLIT_PART_TAIL

#endif
