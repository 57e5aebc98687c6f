/* Credentials: plaintext, TLS, or TLS both ways, from PEM texts. */
#include <string.h>

#include "proto/rpc_grpc/rpc_grpc.h"

static bool is_pem(const char *text, const char *what)
{
    const char *begin = text != NULL ? strstr(text, "-----BEGIN ") : NULL;
    return begin != NULL && strstr(begin, what) != NULL;
}

static enum status check(const struct rpc_tls *tls, struct error *err)
{
    if (tls->ca != NULL && !is_pem(tls->ca, "CERTIFICATE"))
        return err_set(err, ST_INVALID, "tls.ca: not a certificate in PEM form");
    if ((tls->cert != NULL) != (tls->key != NULL))
        return err_set(err, ST_INVALID, "tls: cert and key must be given together");
    if (tls->cert != NULL && !is_pem(tls->cert, "CERTIFICATE"))
        return err_set(err, ST_INVALID, "tls.cert: not a certificate in PEM form");
    if (tls->key != NULL && !is_pem(tls->key, "PRIVATE KEY"))
        return err_set(err, ST_INVALID, "tls.key: not a private key in PEM form");
    return ST_OK;
}

enum status rpc_tls_create(struct rpc *r, struct error *err)
{
    const struct rpc_tls *tls = &r->args.tls;
    grpc_ssl_pem_key_cert_pair pair = {.private_key = tls->key, .cert_chain = tls->cert};
    enum status st = check(tls, err);
    if (st != ST_OK)
        return st;
    if (tls->cert != NULL)
        r->server_creds = grpc_ssl_server_credentials_create_ex(
            tls->ca, &pair, 1,
            tls->ca != NULL ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                            : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            NULL);
    else
        r->server_creds = grpc_insecure_server_credentials_create();
    if (tls->ca != NULL)
        r->channel_creds =
            grpc_ssl_credentials_create_ex(tls->ca, tls->cert != NULL ? &pair : NULL, NULL, NULL);
    else
        r->channel_creds = grpc_insecure_credentials_create();
    if (r->server_creds == NULL || r->channel_creds == NULL)
        return err_set(err, ST_INVALID, "tls: certificate, key or ca cannot be used");
    return ST_OK;
}
