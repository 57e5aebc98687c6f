/* TLS one way and both ways, with certificates made on the spot by the openssl program. */
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "rpc_pair.h"
#include "support/read_file.h"

static char dir[64];

static char *slurp(const char *name)
{
    struct buf b = read_file("%s/%s", dir, name);
    return buf_take(&b, NULL);
}

/* ca, an identity that it signed, and another ca with an identity of its own. */
static bool make_certificates(void)
{
    static const char script[] =
        "cd %s && for ca in a b; do "
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-$ca.key -out ca-$ca.pem -days 2 "
        "-subj /CN=ca-$ca && "
        "openssl req -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.csr -subj /CN=node && "
        "printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext && "
        "openssl x509 -req -in $ca.csr -CA ca-$ca.pem -CAkey ca-$ca.key -CAcreateserial "
        "-out $ca.pem -days 2 -extfile ext || exit 1; done";
    char command[1024];
    if (system("command -v openssl >/dev/null 2>&1") != 0)
        return false;
    snprintf(dir, sizeof dir, "/tmp/baton-tls-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    int n = snprintf(command, sizeof command, "{ ");
    n += snprintf(command + n, sizeof command - (size_t)n, script, dir);
    snprintf(command + n, sizeof command - (size_t)n, "; } >/dev/null 2>&1");
    cr_assert_eq(system(command), 0, "openssl could not make the certificates");
    return true;
}

static void remove_certificates(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

/* The status of one echo between a server and a client with these credentials. */
static enum status echo(struct rpc_tls server, struct rpc_tls client)
{
    struct rpc_args sargs = pair_args(), cargs = pair_args();
    struct pair p;
    struct rpc_event ev;
    sargs.tls = server;
    cargs.tls = client;
    pair_open(&p, &sargs, &cargs);
    struct rpc_call *c = start_call(&p, METHOD_ECHO, 5 * NS_PER_S);
    rpc_call_send(c, (const uint8_t *)"secret", 6);
    for (;;) {
        if (next_event(p.server, &ev, 5 * NS_PER_MS) && ev.kind == RPC_EV_MESSAGE)
            rpc_call_finish(ev.call, ST_OK, NULL);
        if (next_event(p.client, &ev, 5 * NS_PER_MS) && ev.kind == RPC_EV_CLOSED)
            break;
    }
    enum status st = ev.status;
    pair_close(&p);
    return st;
}

Test(rpc_tls, one_way_and_both_ways, .timeout = 120)
{
    if (!make_certificates())
        cr_skip_test("no openssl program: TLS is not tested");
    char *ca_a = slurp("ca-a.pem"), *ca_b = slurp("ca-b.pem");
    char *a = slurp("a.pem"), *a_key = slurp("a.key"), *b = slurp("b.pem"), *b_key = slurp("b.key");
    struct rpc_tls plain = {0};
    struct rpc_tls server = {NULL, a, a_key};     /* anybody may come */
    struct rpc_tls mutual = {ca_a, a, a_key};     /* who is of ours */
    struct rpc_tls trusting = {ca_a, NULL, NULL}; /* a client without a certificate */
    struct rpc_tls stranger = {ca_a, b, b_key};   /* a client with somebody else's */
    struct rpc_tls mistaken = {ca_b, NULL, NULL}; /* trusts somebody else */
    cr_assert_eq(echo(server, trusting), ST_OK);
    cr_assert_eq(echo(mutual, mutual), ST_OK);
    cr_assert_eq(echo(mutual, trusting), ST_LINK, "a client without a certificate came in");
    cr_assert_eq(echo(mutual, stranger), ST_LINK, "a client of another ca came in");
    cr_assert_eq(echo(mutual, plain), ST_LINK, "plaintext came in");
    cr_assert_eq(echo(server, mistaken), ST_LINK, "an unknown server was trusted");
    cr_assert_eq(echo(plain, trusting), ST_LINK, "TLS to a plaintext server");
    free(ca_a), free(ca_b), free(a), free(a_key), free(b), free(b_key);
    remove_certificates();
}

Test(rpc_tls, unusable_material_is_an_error, .timeout = 30)
{
    static const char cert[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    static const char key[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    const struct rpc_tls wrong[] = {{"nonsense", NULL, NULL},
                                    {NULL, cert, NULL},
                                    {NULL, NULL, key},
                                    {NULL, key, cert},
                                    {"", cert, key}};
    struct rpc_args args = pair_args();
    struct error err;
    struct rpc *r;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        args.tls = wrong[i];
        cr_assert_eq(rpc_create(&args, &r, &err), ST_INVALID, "case %zu", i);
        cr_assert_not_null(strstr(err.text, "tls"), "%s", err.text);
    }
    args.tls = (struct rpc_tls){NULL, cert, key}; /* PEM, but no certificate in it */
    if (rpc_create(&args, &r, &err) == ST_OK) {
        cr_assert_neq(rpc_listen(r, "127.0.0.1:0", NULL, &err), ST_OK);
        cr_assert_not_null(strstr(err.text, "certificate"), "%s", err.text);
        rpc_destroy(r, 0);
    }
}
