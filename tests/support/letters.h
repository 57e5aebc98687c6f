/* A vocabulary for grammars over the fake model: ids 1 to 60 are one character each, FAKE_EOS ends
 * a text, the others stand for none. */
#ifndef TESTS_SUPPORT_LETTERS_H
#define TESTS_SUPPORT_LETTERS_H

#include "tokenizer/grammar/grammar.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUV,."

struct letters {
    struct tokenizer *tokenizer;
    struct grammar_vocab *vocab;
};

void letters_init(struct letters *l);
void letters_fini(struct letters *l);

#endif
