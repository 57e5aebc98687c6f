#include "base/process.h"
#include "router/router.h"

static const char about[] =
    "The router: an OpenAI-compatible HTTP API and gRPC in front of prefill and decode nodes.";

int main(int argc, char **argv)
{
    struct config config;
    process_keep_stdio();
    config_default(&config);
    int rc = config_parse_args(&config, "baton-router", about, argc, argv, NULL);
    if (rc == 0)
        rc = router_main(&config);
    else if (rc == 1) /* --help, --version */
        rc = 0;
    config_fini(&config);
    return rc;
}
