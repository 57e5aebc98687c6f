#include "base/process.h"
#include "node/node.h"
#include "prefill-node/prefill.h"

static const char about[] = "A prefill node: turns prompts into KV cache and hands it to decode "
                            "nodes, layer by layer.";

int main(int argc, char **argv)
{
    struct config config;
    process_keep_stdio();
    config_default(&config);
    int rc = config_parse_args(&config, "baton-prefill", about, argc, argv, NULL);
    if (rc == 0)
        rc = node_main(&config, &prefill_role_ops, false);
    else if (rc == 1) /* --help, --version */
        rc = 0;
    config_fini(&config);
    return rc;
}
