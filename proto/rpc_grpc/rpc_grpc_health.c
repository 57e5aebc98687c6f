/* grpc.health.v1.Health: answered on the queue threads, so also while the loop thread is in a long
 * step. Known names:
 * "" and "readiness" (rpc_set_serving), "liveness" (always serving), and each service that the
 * server offers. */
#include <string.h>

#include "proto/codec_builtin.h"
#include "proto/rpc_grpc/rpc_grpc.h"

bool rpc_serves(const struct rpc *r, const char *service, size_t len)
{
    for (size_t i = 0; i < r->args.n_methods; i++) {
        const char *name = r->methods[i] + 1; /* "/package.Service/Method" */
        if (len > 0 && strncmp(name, service, len) == 0 && name[len] == '/')
            return true;
    }
    return false;
}

static enum codec_health health_of(const struct rpc *r, const char *service)
{
    if (strcmp(service, "liveness") == 0)
        return CODEC_HEALTH_SERVING;
    if (service[0] != '\0' && strcmp(service, "readiness") != 0 &&
        !rpc_serves(r, service, strlen(service)))
        return CODEC_HEALTH_UNKNOWN;
    return r->serving ? CODEC_HEALTH_SERVING : CODEC_HEALTH_NOT_SERVING;
}

static void send_health(struct rpc_call *c, enum codec_health health)
{
    struct buf out = {0};
    codec_put_health(&out, health);
    if (out.failed || rpc_call_send(c, (const uint8_t *)out.data, out.len) != ST_OK)
        rpc_call_cancel(c); /* a watcher that does not read must not hold an old answer */
    buf_fini(&out);
}

static void on_check(struct rpc_call *c, const uint8_t *data, size_t len)
{
    struct codec_arena a = {0};
    const char *service;
    if (codec_get_health_request(data, len, &a, &service) != ST_OK) {
        rpc_call_finish(c, ST_INVALID, "not a HealthCheckRequest");
    } else {
        pthread_mutex_lock(&c->rpc->health_lock);
        enum codec_health health = health_of(c->rpc, service);
        pthread_mutex_unlock(&c->rpc->health_lock);
        if (health == CODEC_HEALTH_UNKNOWN) {
            rpc_call_finish(c, ST_NOT_FOUND, "unknown service");
        } else {
            send_health(c, health);
            rpc_call_finish(c, ST_OK, NULL);
        }
    }
    codec_arena_fini(&a);
}

static void on_watch(struct rpc_call *c, const uint8_t *data, size_t len)
{
    struct codec_arena a = {0};
    const char *service;
    if (codec_get_health_request(data, len, &a, &service) != ST_OK) {
        rpc_call_finish(c, ST_INVALID, "not a HealthCheckRequest");
    } else {
        pthread_mutex_lock(&c->rpc->health_lock);
        enum codec_health health = health_of(c->rpc, service);
        if (health != CODEC_HEALTH_UNKNOWN && strcmp(service, "liveness") != 0 && !c->unwatched)
            list_push_back(&c->rpc->watchers, &c->watch);
        send_health(c, health);
        pthread_mutex_unlock(&c->rpc->health_lock);
    }
    codec_arena_fini(&a);
}

static void on_watch_closed(struct rpc_call *c)
{
    pthread_mutex_lock(&c->rpc->health_lock);
    list_remove(&c->watch);
    c->unwatched = true; /* a message handled late must not put it back */
    pthread_mutex_unlock(&c->rpc->health_lock);
}

static void on_no_message(struct rpc_call *c)
{
    rpc_call_finish(c, ST_INVALID, "a request was expected");
}

void rpc_set_serving(struct rpc *r, bool serving)
{
    pthread_mutex_lock(&r->health_lock);
    if (r->serving != serving) {
        r->serving = serving;
        list_for_each(it, &r->watchers)
            send_health(list_entry(it, struct rpc_call, watch),
                        serving ? CODEC_HEALTH_SERVING : CODEC_HEALTH_NOT_SERVING);
    }
    pthread_mutex_unlock(&r->health_lock);
}

const struct rpc_builtin rpc_health_services[] = {
    {"/grpc.health.v1.Health/Check", on_check, on_no_message, NULL, NULL},
    {"/grpc.health.v1.Health/Watch", on_watch, on_no_message, NULL, on_watch_closed},
    {0},
};
