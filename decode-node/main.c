#include "base/process.h"
#include "decode-node/decode.h"
#include "node/node.h"

static const char about[] = "A decode node: takes KV cache from prefill nodes and streams tokens. "
                            "With --role both it prefills by itself.";

int main(int argc, char **argv)
{
    struct config config;
    process_keep_stdio();
    config_default(&config);
    int rc = config_parse_args(&config, "baton-decode", about, argc, argv, NULL);
    if (rc == 0)
        rc = node_main(&config, &decode_role_ops, config.node.role == ROLE_BOTH);
    else if (rc == 1) /* --help, --version */
        rc = 0;
    config_fini(&config);
    return rc;
}
