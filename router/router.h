/* The router's process: what its files share. One loop thread owns everything here; HTTP and gRPC
 * bring events to it, the core decides, runs turn tokens into text. Workers of the desk read large
 * bodies: they see what is fixed once the router has started, and the two atomics.
 *
 *     signals, HTTP, public gRPC, nodes' gRPC -> loop.c -> http_api.c / grpc_api.c -> run.c -> core
 *                                                    core -> effects (loop.c) -> nodes
 *
 * Not for other folders.
 */
#ifndef ROUTER_ROUTER_H
#define ROUTER_ROUTER_H

#include <stdatomic.h>

#include "base/list.h"
#include "base/metrics.h"
#include "net/http_server.h"
#include "proto/rpc.h"
#include "router/api_output.h"
#include "router/api_render.h"
#include "router/core.h"
#include "router/desk.h"
#include "router/run.h"
#include "tokenizer/grammar/grammar.h"

#define ROUTER_REQUESTS_MAX 16384
#define ROUTER_STREAM_BYTES (256 << 10) /* unsent bytes of one answer */
#define ROUTER_KEY_BYTES_MAX 512
#define ROUTER_GRAMMARS_SEEN 1024

struct router_keys { /* accepted API keys */
    char **v;
    size_t n;
};

struct router {
    const struct config *config;
    struct metrics *metrics;
    struct tokenizer *tokenizer;
    struct chat_template *chat_template; /* NULL: none */
    struct template_habits habits;
    struct chat_template *tool_template; /* for chats with tools; NULL: the same */
    struct template_habits tool_habits;
    struct api_output_formats formats; /* of tool calls and reasoning */
    size_t token_bytes_max;            /* of any token: bounds how short a text's ids can be */
    struct api_rules rules;
    int32_t model_context; /* of config.json; 0: it does not say */
    int32_t *eos;
    size_t n_eos;
    struct router_keys keys;
    struct core *core;
    struct rpc *nodes_rpc, *public_rpc; /* calls to nodes; calls of clients */
    struct rpc_channel *channels[CLUSTER_NODES_MAX];
    struct http_server *http;
    struct desk *desk;
    _Atomic int32_t max_context; /* what router_max_context() says */
    int signal_fd, epoll_fd;
    char grpc_address[300], http_address[300];
    int64_t started_s;        /* Unix time */
    int64_t now_ns, drain_ns; /* drain_ns: when draining began; 0: not */
    int signals;
    bool ready, said_ready, said_complete;
    struct list runs; /* of struct run */
    struct list grpc_calls;
    int64_t grpc_watch_ns;
    int32_t answers; /* HTTP and gRPC answers under way */
    struct buf scratch;
    _Atomic uint64_t grammars_seen[ROUTER_GRAMMARS_SEEN]; /* hashes of those that were right */
    struct metric *desk_jobs, *nodes[ROLE_BOTH + 1][NODE_STATES]; /* by role; none of a router */
    struct {
        struct metric *running, *waiting, *kv_usage, *prompt_tokens, *generated, *stop, *length;
        struct metric *ttft, *itl, *e2e;
    } vllm; /* all NULL unless asked for */
};

/* router_model.c */
enum status router_load_model(struct router *r, struct error *err);
void router_unload_model(struct router *r);

/* router_start.c */
enum status router_start(struct router *r, struct error *err);
void router_stop(struct router *r);

/* loop.c */
int router_main(const struct config *config);
extern const struct core_effects router_effects; /* ctx is filled in */

/* What http_set_user() is given: the first member of whatever looks after the request. */
struct http_user {
    void (*event)(struct http_user *user, enum http_event_kind kind);
};
/* http_api.c: a request that came in */
void http_api_event(struct router *r, const struct http_event *ev);
void http_api_fail(struct http_request *q, const struct api_error *err);
/* http_generate.c: a request for text, until its answer begins (http_answer.h) */
void http_generate(struct router *r, struct http_request *q, const char *request_id,
                   enum api_kind kind);
/* http_tokens.c: /tokenize, or `back` from tokens to text */
void http_tokens(struct router *r, struct http_request *q, bool back);

/* grpc_api.c */
#define GRPC_API_METHODS 3
extern const char *const grpc_api_methods[GRPC_API_METHODS];
void grpc_api_event(struct router *r, const struct rpc_event *ev);
void grpc_api_watch(struct router *r); /* now and then */

/* keys.c. `text` is a file's text and is changed. True: the key is right, or none is asked for. */
enum status keys_parse(struct router_keys *keys, char *text, const char *name, struct error *err);
void keys_fini(struct router_keys *keys);
bool keys_check(const struct router *r, const char *authorization, const char *plain,
                struct api_error *err);

/* prompt.c: what is served */
bool prompt_check_model(const struct router *r, const char *model, struct api_error *err);
/* api_grammar.c: refuses what cannot be compiled. `copies`: how many requests will hold it. */
bool prompt_check_grammar(struct router *r, const struct msg_grammar *g, const char *param,
                          size_t copies, struct api_error *err);
/* Where the model reasons first: puts that before the request's grammar; else the answer is behind
 * reasoning from its beginning on. */
bool prompt_lead_grammar(struct router *r, struct api_request *q, enum output_place *place,
                         struct api_error *err);
/* Whether prompt_check_grammar() would take no time. */
bool prompt_knows_grammar(const struct router *r, const struct msg_grammar *g);
/* The ids of a text, refused early when it cannot fit the context. */
bool prompt_encode(const struct router *r, struct api_text_ref text, unsigned flags,
                   struct ids *out, struct api_error *err);
/* The client's own request id where it is fit to stand in a header and a log line; else a new one.
 */
void router_choose_id(const char *given, char id[MSG_REQUEST_ID_MAX]);
/* Texts over this fit no prompt. */
size_t prompt_bytes_max(const struct router *r);
bool prompt_check_chat(const struct router *r, const json *messages, struct api_error *err);
int32_t router_max_context(const struct router *r);
void router_note_context(struct router *r); /* the loop, after events of nodes */

/* metrics of the router's own */
void router_metrics_register(struct router *r);
void router_metrics_refresh(struct router *r);

#endif
