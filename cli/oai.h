/* The client's side of an OpenAI-compatible server: addresses, small questions, and what the events
 * of a stream say. For `chat`, `complete` and `bench serve`.
 *
 * A server's bytes are not trusted: events are read as strict JSON, bodies are bounded, and texts
 * that are shown to a person lose their control characters. Thread: one.
 *
 *     oai_stream_feed(&s, ev.data, ev.len);
 *     while (oai_stream_next(&s, &e) == OAI_EVENT) { if (e.has_token) ...; }
 */
#ifndef CLI_OAI_H
#define CLI_OAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "net/http_client.h"

#define OAI_BODY_MAX ((size_t)16 << 20)

struct oai_server {
    char url[1024]; /* with neither a slash nor /v1 at its end */
    char model[256];
    const char *key; /* API key, NULL: none */
};

/* Takes "http://host:port", with or without "/v1". ST_INVALID. */
enum status oai_server_init(struct oai_server *s, const char *url, const char *key,
                            struct error *err);
/* Sets the model: `name`, else the first of GET /v1/models. */
enum status oai_server_find_model(struct oai_server *s, const char *name, struct error *err);
/* One request, waited for. `body` NULL: GET. Any HTTP status but 200 is an error, with the text of
 * the answer. */
enum status oai_call(const struct oai_server *s, const char *path, const struct buf *body,
                     json **out, struct error *err);
/* Starts a request whose answer streams: `req` with its url a path of the server, method and key
 * left out; a POST where it has a body. */
enum status oai_start(struct http_client *c, const struct oai_server *s,
                      const struct http_client_request *req, struct http_transfer **out,
                      struct error *err);

struct oai_stream {
    struct sse_parser sse;
    json *tree; /* of the event given last */
    bool done;  /* [DONE] was seen */
};

/* One event. Pointers live until the next call. */
struct oai_event {
    bool has_choice, has_token;
    const char *text; /* of the first choice; "" when there is none */
    size_t text_len;
    const char *finish; /* finish_reason, NULL: not finished */
    bool has_usage;
    int64_t prompt_tokens, completion_tokens, cached_tokens;
    const char *error, *error_code; /* a server that fails says so in the stream */
};

enum oai_result { OAI_NONE, OAI_EVENT, OAI_DONE, OAI_BAD };

enum status oai_stream_feed(struct oai_stream *s, const char *data, size_t len);
enum oai_result oai_stream_next(struct oai_stream *s, struct oai_event *out);
void oai_stream_fini(struct oai_stream *s);

/* What an answer that is no success says: its error.message, else its beginning, in one line.
 * `code` may be NULL; it gets error.code. */
void oai_error_text(int status, const struct buf *body, char *out, size_t cap, char code[64]);
/* Copies text for a terminal: control characters but newline and tab are left out. */
void oai_print(const char *text, size_t len);

#endif
