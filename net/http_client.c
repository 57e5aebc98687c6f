/* The HTTP client over libcurl's multi interface. One event is delivered per poll; what a transfer
 * received meanwhile is kept in its buffer, and curl is asked for more only when all has been
 * delivered, so a slow caller slows the senders. */
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "net/http_client.h"

struct http_transfer {
    struct http_client *client;
    struct list all, link; /* link: in client->ready */
    CURL *easy;
    struct curl_slist *headers;
    void *user;
    struct buf body, taken; /* received; given out with the last event */
    int64_t headers_ns, body_ns, end_ns;
    int status;
    bool has_headers, said_headers, ended, cancelled;
    CURLcode code;
    char text[CURL_ERROR_SIZE];
};

struct http_client {
    CURLM *multi;
    struct list all, ready;
    struct http_transfer *over; /* its END was given out: freed at the next poll */
};

static void become_ready(struct http_transfer *t)
{
    if (list_empty(&t->link))
        list_push_back(&t->client->ready, &t->link);
}

static void transfer_free(struct http_transfer *t)
{
    list_remove(&t->all);
    list_remove(&t->link);
    if (t->easy) {
        if (!t->ended)
            curl_multi_remove_handle(t->client->multi, t->easy);
        curl_easy_cleanup(t->easy);
    }
    curl_slist_free_all(t->headers);
    buf_fini(&t->body);
    buf_fini(&t->taken);
    free(t);
}

/* ---- what curl calls ---- */

static size_t on_header(char *data, size_t size, size_t n, void *cls)
{
    struct http_transfer *t = cls;
    size_t len = size * n;
    /* The blank line ends a header block; interim (1xx) blocks are not the answer, trailers come
     * after it. */
    if (!t->has_headers && len <= 2 && (len == 0 || data[0] == '\r' || data[0] == '\n')) {
        long status = 0;
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status >= 200) {
            t->status = (int)status;
            t->has_headers = true;
            t->headers_ns = clock_now_ns();
            become_ready(t);
        }
    }
    return len;
}

static size_t on_body(char *data, size_t size, size_t n, void *cls)
{
    struct http_transfer *t = cls;
    if (!t->body.len)
        t->body_ns = clock_now_ns();
    buf_append(&t->body, data, size * n);
    become_ready(t);
    return t->body.failed ? 0 : size * n;
}

/* ---- life ---- */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_init_result;

static void curl_init(void)
{
    curl_init_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

enum status http_client_create(struct http_client **out, struct error *err)
{
    pthread_once(&curl_once, curl_init);
    struct http_client *c = calloc(1, sizeof *c);
    if (!c || curl_init_result != CURLE_OK || !(c->multi = curl_multi_init())) {
        free(c);
        return err_set(err, ST_NO_MEMORY, "the HTTP client could not be made");
    }
    list_init(&c->all);
    list_init(&c->ready);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, 4096L);
    *out = c;
    return ST_OK;
}

void http_client_destroy(struct http_client *c)
{
    if (!c)
        return;
    list_for_each_safe(it, tmp, &c->all) transfer_free(list_entry(it, struct http_transfer, all));
    curl_multi_cleanup(c->multi);
    free(c);
}

static bool add_header(struct http_transfer *t, const char *line)
{
    struct curl_slist *l = curl_slist_append(t->headers, line);
    if (l)
        t->headers = l;
    return l != NULL;
}

static bool set_options(struct http_transfer *t, const struct http_client_request *req)
{
    CURL *e = t->easy;
    bool ok = add_header(t, "Expect:") && add_header(t, "Content-Type: application/json");
    if (req->bearer) {
        struct buf line = {.max = 65536};
        buf_printf(&line, "Authorization: Bearer %s", req->bearer);
        ok = ok && !line.failed && add_header(t, line.data);
        buf_fini(&line);
    }
    ok = ok && curl_easy_setopt(e, CURLOPT_URL, req->url) == CURLE_OK;
    if (req->body) {
        ok = ok &&
             curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body_bytes) ==
                 CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, req->body) == CURLE_OK;
    }
    if (req->method && strcmp(req->method, req->body ? "POST" : "GET") != 0)
        ok = ok && curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method) == CURLE_OK;
    if (req->timeout_ns > 0) {
        int64_t ms = (req->timeout_ns + NS_PER_MS - 1) / NS_PER_MS;
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)ms);
    }
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->text);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_PRIVATE, t);
    return ok;
}

enum status http_client_start(struct http_client *c, const struct http_client_request *req,
                              struct http_transfer **out, struct error *err)
{
    struct http_transfer *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(err, ST_NO_MEMORY, "no memory for a request");
    t->client = c;
    t->user = req->user;
    list_init(&t->link);
    list_init(&t->all);
    t->easy = curl_easy_init();
    if (!t->easy || !set_options(t, req) || curl_multi_add_handle(c->multi, t->easy) != CURLM_OK) {
        t->ended = true;
        transfer_free(t);
        return err_set(err, ST_INVALID, "not a request that can be made: %s", req->url);
    }
    list_push_back(&c->all, &t->all);
    if (out)
        *out = t;
    return ST_OK;
}

static void end(struct http_transfer *t, CURLcode code)
{
    curl_multi_remove_handle(t->client->multi, t->easy);
    t->ended = true;
    t->code = code;
    t->end_ns = clock_now_ns();
    become_ready(t);
}

void http_client_cancel(struct http_client *c, struct http_transfer *t)
{
    t->cancelled = true;
    buf_clear(&t->body);
    if (!t->ended)
        end(t, CURLE_ABORTED_BY_CALLBACK);
}

const char *http_client_header(struct http_transfer *t, const char *name)
{
    struct curl_header *h;
    return curl_easy_header(t->easy, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK ? h->value : NULL;
}

/* ---- events ---- */

static void give_end(struct http_transfer *t, struct http_client_event *ev)
{
    ev->kind = HTTP_CLIENT_END;
    ev->at_ns = t->end_ns;
    ev->text = "";
    if (t->cancelled) {
        ev->result = ST_CANCELLED;
        ev->text = "cancelled";
    } else if (t->code != CURLE_OK) {
        ev->result = t->code == CURLE_OPERATION_TIMEDOUT ? ST_DEADLINE : ST_LINK;
        ev->text = t->text[0] ? t->text : curl_easy_strerror(t->code);
    }
    t->client->over = t;
}

static bool take(struct http_client *c, struct http_client_event *ev)
{
    struct list *first = list_first(&c->ready);
    if (!first)
        return false;
    struct http_transfer *t = list_entry(first, struct http_transfer, link);
    *ev = (struct http_client_event){
        .transfer = t, .user = t->user, .status = t->status, .result = ST_OK};
    if (t->has_headers && !t->said_headers && !t->cancelled) {
        t->said_headers = true;
        ev->kind = HTTP_CLIENT_HEADERS;
        ev->at_ns = t->headers_ns;
    } else if (t->body.len) {
        struct buf swap = t->taken;
        t->taken = t->body;
        t->body = swap;
        buf_clear(&t->body);
        ev->kind = HTTP_CLIENT_DATA;
        ev->at_ns = t->body_ns;
        ev->data = t->taken.data;
        ev->len = t->taken.len;
    } else {
        give_end(t, ev);
    }
    /* What is left in the list has something more to say. */
    if (c->over == t || (!t->body.len && !t->ended))
        list_remove(&t->link);
    return true;
}

static void finish_messages(struct http_client *c)
{
    int left;
    CURLMsg *m;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct http_transfer *t = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        end(t, code);
    }
}

bool http_client_poll(struct http_client *c, int timeout_ms, struct http_client_event *ev)
{
    if (c->over) {
        transfer_free(c->over);
        c->over = NULL;
    }
    int64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    for (;;) {
        if (take(c, ev))
            return true;
        int running;
        curl_multi_perform(c->multi, &running);
        finish_messages(c);
        if (!list_empty(&c->ready))
            continue;
        int64_t left_ns = until_ns - clock_now_ns();
        if (left_ns <= 0)
            return false;
        curl_multi_poll(c->multi, NULL, 0, (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS), NULL);
    }
}
