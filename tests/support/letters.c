#include "support/letters.h"

#include <assert.h>

#include "base/buf.h"
#include "support/fake_model.h"

void letters_init(struct letters *l)
{
    const struct fake_model m = fake_model_default();
    struct buf text = {0};
    buf_puts(&text, "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"<eos>\":0");
    for (int i = 0; LETTERS[i]; i++)
        buf_printf(&text, ",\"%c\":%d", LETTERS[i], i + 1);
    buf_puts(&text, "}},\"added_tokens\":[{\"id\":0,\"content\":\"<eos>\",\"special\":true}]}");
    enum status st = tokenizer_load_text(text.data, text.len, NULL, 0, &l->tokenizer, NULL);
    assert(st == ST_OK);
    buf_fini(&text);
    const struct grammar_vocab_args args = {
        .tokenizer = l->tokenizer, .size = m.vocab, .ends = &m.eos, .n_ends = 1};
    st = grammar_vocab_create(&args, &l->vocab, NULL);
    assert(st == ST_OK);
}

void letters_fini(struct letters *l)
{
    grammar_vocab_free(l->vocab);
    tokenizer_free(l->tokenizer);
}
