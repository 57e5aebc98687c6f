/* One call, either side: the outbox, the inbox, the end.
 *
 *             begin                 send: outbox -> one batch in flight -> next, from its
 * completion (new) --------> [running]     recv: posted once, then again by rpc_call_read() | the
 * end's completion: status (client), cancelled or all sent (server)
 *                        v
 *                      [over]       nothing goes out any more; a client's receive in flight still
 * completes
 *                        |
 *                        v
 *                     [closed]      CLOSED is queued, the last event of the call
 */
#include "proto/rpc_grpc/rpc_grpc.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* gRPC rounds deadlines to its own clock. */
#define DEADLINE_SLACK_NS (2 * NS_PER_MS)

static void on_send(struct rpc_tag *tag, bool ok);
static void on_recv(struct rpc_tag *tag, bool ok);
static void on_end(struct rpc_tag *tag, bool ok);

struct rpc_call *rpc_call_create(struct rpc *r, grpc_call *core, bool server)
{
    struct rpc_call *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->rpc = r;
    c->core = core;
    c->server = server;
    c->method = -1;
    c->refs = 2; /* the user's, and the maker's until rpc_call_begin() */
    c->first_recv = true;
    c->status = ST_PENDING;
    c->details = grpc_empty_slice();
    c->deadline_ns = NS_NEVER;
    c->on_send.done = on_send;
    c->on_recv.done = on_recv;
    c->on_end.done = on_end;
    list_init(&c->watch);
    list_init(&c->link);
    pthread_mutex_init(&c->lock, NULL);
    grpc_metadata_array_init(&c->initial);
    grpc_metadata_array_init(&c->trailing);
    for (size_t i = 0; i < sizeof c->nodes / sizeof c->nodes[0]; i++)
        c->nodes[i].call = c;
    pthread_mutex_lock(&r->lock);
    list_push_back(&r->calls, &c->link);
    c->held = true;
    pthread_mutex_unlock(&r->lock);
    return c;
}

static void drop_outbox(struct rpc_call *c)
{
    struct rpc_out *keep = c->sending ? c->out_first : NULL; /* gRPC reads it still */
    struct rpc_out *o = keep != NULL ? keep->next : c->out_first;
    while (o != NULL) {
        struct rpc_out *next = o->next;
        c->out_bytes -= o->len;
        grpc_byte_buffer_destroy(o->bytes);
        free(o);
        o = next;
    }
    c->out_first = c->out_last = keep;
    if (keep != NULL)
        keep->next = NULL;
}

static void call_free(struct rpc_call *c)
{
    struct rpc *r = c->rpc;
    drop_outbox(c);
    if (c->inbox != NULL)
        grpc_byte_buffer_destroy(c->inbox);
    pthread_mutex_lock(&r->lock); /* off the list first: who walks it may touch `core` */
    list_remove(&c->link);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    grpc_metadata_array_destroy(&c->initial);
    grpc_metadata_array_destroy(&c->trailing);
    grpc_slice_unref(c->details);
    grpc_call_unref(c->core);
    gpr_free(c->peer);
    gpr_free(c->authorization);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void unref_locked(struct rpc_call *c)
{
    int left = --c->refs;
    pthread_mutex_unlock(&c->lock);
    if (left == 0)
        call_free(c);
}

void rpc_call_unref(struct rpc_call *c)
{
    pthread_mutex_lock(&c->lock);
    unref_locked(c);
}

void rpc_call_drop(struct rpc_call *c)
{
    pthread_mutex_lock(&c->rpc->lock);
    bool held = c->held;
    c->held = false;
    /* The place is free from here on, not when gRPC hands back its last batch: on a busy machine
     * that can take long, and who has released a call may count on being able to take another.
     * What gRPC still has of released calls is bounded by its threads, which hand it back as fast
     * as they accept. */
    if (held && c->server)
        --*(c->builtin != NULL ? &c->rpc->n_builtin_calls : &c->rpc->n_calls);
    pthread_mutex_unlock(&c->rpc->lock);
    if (held)
        rpc_call_unref(c);
}

static void start_batch(struct rpc_call *c, const grpc_op *ops, size_t n, struct rpc_tag *tag)
{
    c->refs++;
    RPC_TAG_GIVE(tag);
    grpc_call_error rc = grpc_call_start_batch(c->core, ops, n, tag, NULL);
    assert(rc == GRPC_CALL_OK); /* the ops in flight are tracked here, so a refusal is our bug */
    (void)rc;
}

static grpc_op send_status_op(struct rpc_call *c, grpc_metadata *trailing, grpc_slice *text)
{
    grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    op.data.send_status_from_server.status = rpc_code_of(c->finish_status);
    if (c->finish_status != ST_OK) {
        trailing->key = grpc_slice_from_static_string("baton-status");
        trailing->value = grpc_slice_from_static_string(status_name(c->finish_status));
        op.data.send_status_from_server.trailing_metadata = trailing;
        op.data.send_status_from_server.trailing_metadata_count = 1;
        op.data.send_status_from_server.status_details = text;
    }
    return op;
}

/* Starts the next send, when none is in flight: a message, the end, or both in one. */
static void pump(struct rpc_call *c)
{
    grpc_op ops[3] = {{0}};
    size_t n = 0;
    grpc_metadata trailing = {0};
    grpc_slice text = grpc_empty_slice();
    struct rpc_out *o = c->out_first;
    bool end = c->ending && !c->end_sent && (o == NULL || o->next == NULL);
    if (c->sending || c->over || c->broken || (o == NULL && !end))
        return;
    if (c->server && !c->headers_sent) {
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
        c->headers_sent = true;
    }
    if (o != NULL) {
        ops[n].op = GRPC_OP_SEND_MESSAGE;
        ops[n++].data.send_message.send_message = o->bytes;
    }
    if (end && c->server) {
        text = grpc_slice_from_copied_string(c->finish_text);
        ops[n++] = send_status_op(c, &trailing, &text);
    } else if (end) {
        ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    }
    c->end_sent = c->end_sent || end;
    c->sending = true;
    start_batch(c, ops, n, &c->on_send);
    grpc_slice_unref(text);
}

static void post_recv(struct rpc_call *c)
{
    grpc_op ops[3] = {{0}};
    size_t n = 0;
    if (c->receiving || c->inbox != NULL || c->half_closed || c->over)
        return;
    if (!c->server && c->first_recv) { /* the call's start: one batch less than on its own */
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
        ops[n].op = GRPC_OP_RECV_INITIAL_METADATA;
        ops[n++].data.recv_initial_metadata.recv_initial_metadata = &c->initial;
    }
    c->first_recv = false;
    ops[n].op = GRPC_OP_RECV_MESSAGE;
    ops[n++].data.recv_message.recv_message = &c->arriving;
    c->receiving = true;
    start_batch(c, ops, n, &c->on_recv);
}

void rpc_call_begin(struct rpc_call *c)
{
    grpc_op end = {0};
    pthread_mutex_lock(&c->lock);
    if (c->server) {
        end.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
        end.data.recv_close_on_server.cancelled = &c->cancelled;
    } else {
        end.op = GRPC_OP_RECV_STATUS_ON_CLIENT;
        end.data.recv_status_on_client.trailing_metadata = &c->trailing;
        end.data.recv_status_on_client.status = &c->code;
        end.data.recv_status_on_client.status_details = &c->details;
    }
    start_batch(c, &end, 1, &c->on_end);
    if (!c->ending) {
        if (c->server && c->builtin == NULL)
            rpc_push(c, RPC_EV_OPEN);
        post_recv(c);
    }
    pump(c);
    unref_locked(c);
}

static void on_send(struct rpc_tag *tag, bool ok)
{
    struct rpc_call *c = (struct rpc_call *)((char *)tag - offsetof(struct rpc_call, on_send));
    bool drained = false;
    pthread_mutex_lock(&c->lock);
    c->sending = false;
    struct rpc_out *o = c->out_first;
    if (o != NULL) { /* it was this one, or the batch held the end only and there is none */
        c->out_first = o->next;
        if (c->out_first == NULL)
            c->out_last = NULL;
        c->out_bytes -= o->len;
        grpc_byte_buffer_destroy(o->bytes);
        free(o);
    }
    c->broken = c->broken || !ok; /* the end is on its way */
    if (c->broken || c->over)
        drop_outbox(c);
    pump(c);
    if (c->out_bytes == 0 && !c->over && !c->broken) {
        drained = c->builtin != NULL && c->builtin->on_drained != NULL;
        if (c->builtin == NULL && c->out_full)
            rpc_push(c, RPC_EV_DRAINED);
        c->out_full = false;
    }
    pthread_mutex_unlock(&c->lock);
    if (drained)
        c->builtin->on_drained(c);
    rpc_call_unref(c);
}

/* A server's call is over; a client's when no receive is in flight, so that MESSAGE comes before
 * CLOSED. */
static bool close_if_quiet(struct rpc_call *c)
{
    if (!c->over || c->closed || (!c->server && c->receiving))
        return false;
    if (c->builtin == NULL)
        rpc_push(c, RPC_EV_CLOSED);
    c->closed = true;
    return c->builtin != NULL;
}

static void builtin_message(struct rpc_call *c)
{
    grpc_byte_buffer *bytes = c->inbox;
    c->inbox = NULL;
    grpc_slice slice = rpc_bytes(bytes);
    c->builtin->on_message(c, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
    grpc_slice_unref(slice);
    grpc_byte_buffer_destroy(bytes);
}

static void on_recv(struct rpc_tag *tag, bool ok)
{
    struct rpc_call *c = (struct rpc_call *)((char *)tag - offsetof(struct rpc_call, on_recv));
    bool message = false, half_closed = false;
    pthread_mutex_lock(&c->lock);
    c->receiving = false;
    if (c->arriving != NULL && (!ok || c->closed)) {
        grpc_byte_buffer_destroy(c->arriving);
    } else if (c->arriving != NULL) {
        c->inbox = c->arriving;
        message = c->builtin != NULL;
        if (!message)
            rpc_push(c, RPC_EV_MESSAGE);
    } else if (!c->half_closed) {
        bool told = c->server && ok && !c->over && !c->ending &&
                    grpc_call_failed_before_recv_message(c->core) == 0;
        c->half_closed = true;
        half_closed = told && c->builtin != NULL;
        if (told && c->builtin == NULL)
            rpc_push(c, RPC_EV_HALF_CLOSED);
    }
    c->arriving = NULL;
    close_if_quiet(c);
    pthread_mutex_unlock(&c->lock);
    if (message)
        builtin_message(c);
    if (half_closed && c->builtin->on_half_close != NULL)
        c->builtin->on_half_close(c);
    rpc_call_unref(c);
}

static void read_end(struct rpc_call *c)
{
    if (c->server) {
        c->status = ST_OK;
        if (c->cancelled != 0 && c->deadline_ns <= clock_now_ns() + DEADLINE_SLACK_NS)
            c->status = ST_DEADLINE;
        else if (c->cancelled != 0)
            c->status = ST_CANCELLED;
        if (c->cancelled != 0)
            snprintf(c->text, sizeof c->text, "%s",
                     c->status == ST_DEADLINE ? "the deadline has passed" : "the caller went away");
        return;
    }
    size_t len = GRPC_SLICE_LENGTH(c->details);
    if (len >= sizeof c->text)
        len = sizeof c->text - 1;
    if (len > 0)
        memcpy(c->text, GRPC_SLICE_START_PTR(c->details), len);
    c->text[len] = '\0';
    c->status = rpc_status_of(c->code, &c->trailing, c->text);
}

static void on_end(struct rpc_tag *tag, bool ok)
{
    struct rpc_call *c = (struct rpc_call *)((char *)tag - offsetof(struct rpc_call, on_end));
    pthread_mutex_lock(&c->lock);
    read_end(c);
    c->over = true;
    drop_outbox(c);
    bool builtin = close_if_quiet(c);
    pthread_mutex_unlock(&c->lock);
    if (builtin) {
        if (c->builtin->on_closed != NULL)
            c->builtin->on_closed(c);
        rpc_call_drop(c);
    }
    rpc_call_unref(c);
}

grpc_slice rpc_bytes(grpc_byte_buffer *b)
{
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, b))
        return grpc_empty_slice();
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    return slice;
}

const char *rpc_call_authorization(const struct rpc_call *c)
{
    return c->authorization;
}

void rpc_call_set_user(struct rpc_call *c, void *user)
{
    c->user = user;
}

static enum status enqueue(struct rpc_call *c, const uint8_t *data, size_t len)
{
    struct rpc_out *o = calloc(1, sizeof *o);
    if (o == NULL)
        return ST_NO_MEMORY;
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)data, len);
    o->bytes = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    o->len = len + sizeof *o; /* empty messages count too */
    c->out_bytes += o->len;
    if (c->out_last != NULL)
        c->out_last->next = o;
    else
        c->out_first = o;
    c->out_last = o;
    return ST_OK;
}

enum status rpc_call_send(struct rpc_call *c, const uint8_t *data, size_t len)
{
    enum status st;
    if (len > c->rpc->args.max_message_bytes)
        return ST_INVALID;
    pthread_mutex_lock(&c->lock);
    if (c->over || c->ending || c->broken) {
        st = ST_CANCELLED;
    } else if (c->out_bytes > 0 && c->out_bytes + len > c->rpc->args.max_outbox_bytes) {
        c->out_full = true;
        st = ST_BUSY;
    } else {
        st = enqueue(c, data, len);
        pump(c);
    }
    pthread_mutex_unlock(&c->lock);
    return st;
}

void rpc_call_read(struct rpc_call *c)
{
    pthread_mutex_lock(&c->lock);
    post_recv(c);
    pthread_mutex_unlock(&c->lock);
}

void rpc_call_half_close(struct rpc_call *c)
{
    assert(!c->server);
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pump(c);
    pthread_mutex_unlock(&c->lock);
}

void rpc_call_finish(struct rpc_call *c, enum status status, const char *text)
{
    assert(c->server && status <= ST_OK);
    pthread_mutex_lock(&c->lock);
    if (!c->ending) {
        c->ending = true;
        c->finish_status = status;
        snprintf(c->finish_text, sizeof c->finish_text, "%s", text != NULL ? text : "");
        pump(c);
    }
    pthread_mutex_unlock(&c->lock);
}

void rpc_call_cancel(struct rpc_call *c)
{
    grpc_call_cancel(c->core, NULL);
}

void rpc_call_release(struct rpc_call *c)
{
    assert(c->closed_polled);
    rpc_call_drop(c);
}
