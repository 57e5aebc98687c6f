/* What every server answers by itself: health and reflection; and what it makes of strangers on its
 * port. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/rng.h"
#include "proto/codec_builtin.h"
#include "proto/descriptors.h"
#include "rpc_pair.h"

#define CHECK "/grpc.health.v1.Health/Check"
#define WATCH "/grpc.health.v1.Health/Watch"
#define REFLECT "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

static struct rpc_call *ask_health(struct pair *p, const char *method, const char *service)
{
    struct buf b = {0};
    struct rpc_call *c = start_call(p, method, 0);
    codec_put_health_request(&b, service);
    cr_assert_eq(rpc_call_send(c, b.len > 0 ? (uint8_t *)b.data : (const uint8_t *)"", b.len),
                 ST_OK);
    rpc_call_half_close(c);
    buf_fini(&b);
    return c;
}

static enum codec_health next_health(struct pair *p)
{
    enum codec_health health = 0;
    struct rpc_event ev = expect(p->client, RPC_EV_MESSAGE);
    cr_assert_eq(codec_get_health(ev.data, ev.len, &health), ST_OK);
    rpc_call_read(ev.call);
    return health;
}

static void check_is(struct pair *p, const char *service, enum codec_health health)
{
    struct rpc_call *c = ask_health(p, CHECK, service);
    cr_assert_eq(next_health(p), health, "%s", service);
    cr_assert_eq(expect(p->client, RPC_EV_CLOSED).status, ST_OK);
    rpc_call_release(c);
}

Test(services, health_check, .timeout = 30)
{
    struct pair p = pair_default();
    check_is(&p, "", CODEC_HEALTH_NOT_SERVING);
    check_is(&p, "liveness", CODEC_HEALTH_SERVING);
    rpc_set_serving(p.server, true);
    check_is(&p, "", CODEC_HEALTH_SERVING);
    check_is(&p, "readiness", CODEC_HEALTH_SERVING);
    check_is(&p, "test.Echo", CODEC_HEALTH_SERVING);
    rpc_set_serving(p.server, false);
    check_is(&p, "test.Echo", CODEC_HEALTH_NOT_SERVING);
    struct rpc_call *c = ask_health(&p, CHECK, "test.Ech");
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_NOT_FOUND);
    rpc_call_release(c);
    c = start_call(&p, CHECK, 0);
    rpc_call_send(c, (const uint8_t *)"\x0a\xff", 2); /* cut short */
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_INVALID);
    rpc_call_release(c);
    c = start_call(&p, CHECK, 0);
    rpc_call_half_close(c); /* nothing asked */
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_INVALID);
    struct rpc_event none; /* the loop thread hears of none of it */
    cr_assert_not(rpc_poll(p.server, &none));
    pair_close(&p);
}

Test(services, health_watch, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = ask_health(&p, WATCH, "");
    cr_assert_eq(next_health(&p), CODEC_HEALTH_NOT_SERVING);
    rpc_set_serving(p.server, true);
    cr_assert_eq(next_health(&p), CODEC_HEALTH_SERVING);
    rpc_set_serving(p.server, true); /* no change, no message */
    rpc_set_serving(p.server, false);
    cr_assert_eq(next_health(&p), CODEC_HEALTH_NOT_SERVING);
    rpc_call_cancel(c);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_CANCELLED);
    rpc_call_release(c);
    rpc_set_serving(p.server, true);
    ask_health(&p, WATCH, "nothing.Known");
    cr_assert_eq(next_health(&p), CODEC_HEALTH_UNKNOWN);
    ask_health(&p, WATCH, "test.Echo"); /* left open: the server's end must cope */
    cr_assert_eq(next_health(&p), CODEC_HEALTH_SERVING);
    pair_close(&p);
}

/* ServerReflectionRequest with one string field. */
static void ask_reflection(struct rpc_call *c, int field, const char *text)
{
    uint8_t m[128];
    size_t len = strlen(text);
    m[0] = (uint8_t)(field << 3 | 2);
    m[1] = (uint8_t)len;
    memcpy(m + 2, text, len);
    cr_assert_eq(rpc_call_send(c, m, len + 2), ST_OK);
}

Test(services, reflection, .timeout = 30)
{
    struct pair p = pair_default();
    struct rpc_call *c = start_call(&p, REFLECT, 0);
    ask_reflection(c, 7, "");
    ask_reflection(c, 4, "baton.v1.Inference");
    ask_reflection(c, 3, "grpc/health/v1/health.proto");
    ask_reflection(c, 4, "no.Such");
    struct rpc_event ev = expect(p.client, RPC_EV_MESSAGE);
    cr_assert_not_null(memmem(ev.data, ev.len, "test.Echo", 9));
    cr_assert_not_null(memmem(ev.data, ev.len, "grpc.health.v1.Health", 21));
    rpc_call_read(c);
    ev = expect(p.client, RPC_EV_MESSAGE);
    cr_assert_not_null(memmem(ev.data, ev.len, "GenerateRequest", 15));
    rpc_call_read(c);
    ev = expect(p.client, RPC_EV_MESSAGE);
    cr_assert_not_null(memmem(ev.data, ev.len, "HealthCheckRequest", 18));
    rpc_call_read(c);
    ev = expect(p.client, RPC_EV_MESSAGE);
    cr_assert_not_null(memmem(ev.data, ev.len, "not found", 9));
    rpc_call_half_close(c);
    rpc_call_read(c);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_OK);
    rpc_call_release(c);
    c = start_call(&p, REFLECT, 0);
    rpc_call_send(c, (const uint8_t *)"", 0); /* asks for nothing */
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_INVALID);
    pair_close(&p);
}

Test(services, descriptors)
{
    static const char *const known[] = {
        "baton.v1.Inference",      ".baton.v1.Inference.Generate",
        "baton.v1.SamplingParams", "baton.v1.SamplingParams.LogitBiasEntry",
        "baton.v1.FinishReason",   "baton.v1.AdminRequest.Verb",
        "grpc.health.v1.Health",   "grpc.reflection.v1alpha.ServerReflection",
    };
    static const char *const unknown[] = {"",
                                          ".",
                                          "baton",
                                          "baton.v1",
                                          "baton.v1.",
                                          "baton.v1.Inf",
                                          "baton.v1.Inference.",
                                          "baton.v1.Inference.Generat"};
    struct descriptor d;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        cr_assert(descriptors_find_symbol(known[i], &d), "%s", known[i]);
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        cr_assert_not(descriptors_find_symbol(unknown[i], &d), "%s", unknown[i]);
    cr_assert(descriptors_find_file("baton/v1/inference.proto", &d));
    cr_assert_not(descriptors_find_file("baton/v1/inference.prot", &d));
}

Test(services, reflection_can_be_off, .timeout = 30)
{
    struct rpc_args args = pair_args();
    struct pair p;
    args.reflection = false;
    pair_open(&p, &args, &args);
    start_call(&p, REFLECT, 0);
    cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_UNSUPPORTED);
    pair_close(&p);
}

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Noise, half requests, HTTP/1, and connections that say nothing: the server lives on and serves
 * others meanwhile. */
Test(services, strangers_on_the_port, .timeout = 60)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct pair p = pair_default();
    struct rng rng = rng_seed(1);
    int open[64];
    for (int i = 0; i < 64; i++) {
        uint8_t noise[512];
        open[i] = dial(p.port);
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)rng_next(&rng);
        if (i % 4 == 1)
            cr_assert_geq(send(open[i], "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 0);
        if (i % 4 >= 2)
            cr_assert_geq(send(open[i], preface, sizeof preface - 1, MSG_NOSIGNAL), 0);
        if (i % 4 == 2 || i % 8 == 4)
            send(open[i], noise, sizeof noise, MSG_NOSIGNAL);
    }
    for (int i = 0; i < 20; i++) {
        struct rpc_call *c = start_call(&p, METHOD_ECHO, 5 * NS_PER_S);
        struct rpc_call *s = expect(p.server, RPC_EV_OPEN).call;
        rpc_call_finish(s, ST_OK, NULL);
        cr_assert_eq(expect(p.client, RPC_EV_CLOSED).status, ST_OK);
        cr_assert_eq(expect(p.server, RPC_EV_CLOSED).status, ST_OK);
        rpc_call_release(c);
        rpc_call_release(s);
    }
    for (int i = 0; i < 64; i++)
        close(open[i]);
    pair_close(&p);
}
