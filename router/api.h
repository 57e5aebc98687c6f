/* What the public HTTP and gRPC faces share: a request as asked for, text out of tokens, and the
 * JSON of answers. No I/O here, no sockets, no core: pure functions over memory, so that all of it
 * is tested and fuzzed alone.
 *
 * api_parse() checks strictly every field that it knows and ignores the others. A failure fills
 * struct api_error, which says HTTP status, code, parameter and text; api_render_error() turns it
 * into the body that every error has.
 *
 * Owner: a struct api_request owns the JSON tree that its strings point into; api_request_fini().
 */
#ifndef ROUTER_API_H
#define ROUTER_API_H

#include "base/buf.h"
#include "base/json.h"
#include "proto/messages.h"
#include "router/output/output_format.h"
#include "router/template_habits.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

#define API_PROMPTS_MAX 1024
#define API_STOP_BYTES_MAX 1024
#define API_NAME_BYTES_MAX 256
#define API_SCORES_MAX (4 << 20) /* log probabilities of prompts in one answer */
#define API_MESSAGES_MAX 16384

enum api_kind { API_COMPLETION, API_CHAT };
enum api_tool_choice { API_TOOLS_AUTO, API_TOOLS_NONE, API_TOOLS_REQUIRED, API_TOOLS_NAMED };

struct api_error {
    int status;       /* HTTP; 0: none */
    const char *code; /* a constant */
    char param[64];   /* "": null */
    char message[600];
};
/* Fills *err and returns false. */
bool api_fail(struct api_error *err, int status, const char *code, const char *param,
              const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same from what the core or a lower floor says. */
void api_fail_status(struct api_error *err, enum status status, const char *text);
void api_render_error(struct buf *out, const struct api_error *err);
/* Seconds for Retry-After; 0: retrying is useless. */
int api_retry_after_s(const struct api_error *err);

/* What a request is checked against, and the model's own defaults (generation_config.json). */
struct api_rules {
    int32_t n_max, stop_max, logprobs_max, vocab;
    struct msg_sampling defaults; /* max_tokens: 0, none */
    bool chat_templates;          /* a request may bring its own */
};

struct api_prompt {
    const char *text; /* NULL: ids */
    size_t len;
    struct msg_ids ids;
};

struct api_text_ref {
    const char *text;
    size_t len;
};

struct api_request {
    enum api_kind kind;
    json *body;
    int32_t *ids;      /* of prompts given as ids */
    const char *model; /* NULL: not given */
    struct api_prompt *prompts;
    size_t n_prompts;
    const json *messages, *tools, *template_kwargs, *documents;
    bool add_special, add_generation_prompt, continue_final;
    enum api_tool_choice tool_choice;
    const json *allowed;   /* tools of tool_choice, where it lists some; NULL: all */
    const char *tool_name; /* API_TOOLS_NAMED */
    bool parallel_calls;
    bool include_reasoning, separate_reasoning;
    const char *reasoning_effort; /* NULL: not given */
    const json *enable_thinking;  /* a boolean; NULL: not given */
    const char *chat_template;    /* the request's own; NULL: the model's */
    int32_t n;
    struct msg_sampling sampling; /* max_tokens -1: not given; bias and stop_ids are owned */
    const char *grammar_param;    /* which field asked for sampling.grammar */
    struct buf grammar_text;      /* of it, where it is not in the body */
    bool grammar_keeps_blanks;    /* behind reasoning: the answer may begin with some */
    int32_t prompt_logprobs;      /* -1: none */
    bool has_seed;
    struct api_text_ref *stops;
    size_t n_stops;
    bool include_stop, skip_special;
    bool stream, include_usage, usage_always, echo;
    const char *cache_salt; /* "": shared */
};
/* Alternatives wanted of each token of the prompts; -1: no scores of prompts are. */
static inline int32_t api_score_top(const struct api_request *r)
{
    int32_t echoed = r->echo ? r->sampling.logprobs : -1;
    return echoed > r->prompt_logprobs ? echoed : r->prompt_logprobs;
}

bool api_parse(struct api_request *r, enum api_kind kind, const struct api_rules *rules,
               struct api_text_ref body, struct api_error *err);
void api_request_fini(struct api_request *r);
/* Reads a body that is to be an object; bounded in depth and memory. */
bool api_read_body(struct api_text_ref body, json **out, struct api_error *err);

/* The ids of a chat: messages through the template. */
struct api_chat {
    const struct tokenizer *tokenizer;
    const struct chat_template *template_; /* NULL: the model has none */
    struct template_habits habits;
    const struct chat_template *tool_template; /* for chats with tools; NULL: the same */
    struct template_habits tool_habits;
    const struct output_reasoning *reasoning; /* NULL: not looked for */
    enum output_place *place;                 /* NULL, or: where in it the prompt ends */
};
bool api_chat_ids(const struct api_chat *c, const struct api_request *r, struct ids *out,
                  struct api_error *err);
/* Fills in messages, tools and the like of `body` with checks: for chats and for /tokenize. */
bool api_parse_chat(struct api_request *r, const json *body, const struct api_rules *rules,
                    struct api_error *err);
/* The "function" of the tool of that name, in a list of tools; NULL: there is none. */
const json *api_tool_find(const json *tools, const char *name);
/* Whether tool_choice lets this tool be called. */
bool api_tool_allowed(const struct api_request *r, const json *tool);

/* ---- api_text.c: tokens of one choice to text ---- */

struct api_text_args {
    const struct tokenizer *tokenizer;
    const struct api_text_ref *stops; /* outlive the object */
    size_t n_stops;
    bool include_stop, skip_special;
    bool tell_special;  /* special tokens come out whatever skip_special says, and are told apart */
    int32_t min_tokens; /* stop strings do not count before */
};
struct api_text;
struct api_text *api_text_create(const struct api_text_args *args, struct msg_ids prompt);
void api_text_destroy(struct api_text *t);
/* Appends what has become certain to *out: never half a character, nor what may yet turn out to be
 * a stop string. Returns the index of the stop string that ended the text; -1: none. Nothing may be
 * pushed after the end. */
int api_text_push(struct api_text *t, int32_t id, struct buf *out);
/* Of what was appended last, the bytes at its end that are a special token's (tell_special). */
size_t api_text_special_bytes(const struct api_text *t);
/* The end for another reason: what was held back comes out. */
int api_text_finish(struct api_text *t, struct buf *out);

#endif
