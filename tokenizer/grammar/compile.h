/* The compilers, one per kind: each adds rules to the builder and returns the one to begin with.
 * Errors are the builder's. Only this folder's files include it. */
#ifndef TOKENIZER_GRAMMAR_COMPILE_H
#define TOKENIZER_GRAMMAR_COMPILE_H

#include "base/json.h"
#include "tokenizer/grammar/build.h"

uint32_t gbnf_compile(struct builder *b, const char *text, size_t len);
/* schema.c. `where`: JSON pointer of the schema, "" for a root, put before those in messages.
 * `root` is the document that references are resolved in. */
uint32_t schema_compile(struct builder *b, const json *root, const char *where);
uint32_t schema_compile_any_object(struct builder *b);
/* Appends the pointer of a node of the document; false: it is none of it. */
bool schema_find(const json *root, const void *node, struct buf *out);
/* until.c: any bytes up to and with the first of the markers `ends` (an array), as text or as the
 * special token of that name; other special tokens and the texts `never` are not among them. */
uint32_t build_until(struct builder *b, uint32_t from, const json *ends, const json *never);
uint32_t build_special(struct builder *b, uint32_t from, const json *name);
/* structure.c */
uint32_t structure_compile(struct builder *b, const json *root);
/* As schema_find(), for a node of a schema that says where it is `at`. */
bool structure_find(const json *root, const void *node, struct buf *out);

#endif
