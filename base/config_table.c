#include "base/config_table.h"

#include <string.h>

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define MS INT64_C(1000000)
#define SEC (1000 * MS)
#define DAY (86400 * SEC)
#define PATH_MAX_BYTES 4096

#define AT(field) offsetof(struct config, field)

/* clang-format off: a row per line, or two */
const struct config_key config_table[] = {
    {"model.path", CK_STR, AT(model.path), NULL, 1, PATH_MAX_BYTES, NULL, "DIR",
     "model folder, in Hugging Face layout", CP_ALL, true},
    {"model.name", CK_STR, AT(model.name), NULL, 1, 256, NULL, "NAME",
     "name that requests use; the folder's own when not given", CP_ALL, true},
    {"model.max_context", CK_INT, AT(model.max_context), "0", 0, 1 << 24, NULL, "TOKENS",
     "longest prompt and completion together; 0: the model's own", CP_ALL, false},

    {"router.listen", CK_ADDRESS, AT(router.listen), "127.0.0.1:8000", 0, 0, NULL, "HOST:PORT",
     "public HTTP", CP_ROUTER, false},
    {"router.grpc", CK_ADDRESS, AT(router.grpc), "127.0.0.1:8001", 0, 0, NULL, "HOST:PORT",
     "public gRPC", CP_ROUTER, false},
    {"router.queue_max", CK_INT, AT(router.queue_max), "1024", 1, 1000000, NULL, "N",
     "requests that may wait before 429 is answered", CP_ROUTER, false},
    {"router.policy", CK_WORD, AT(router.policy), "least_loaded", 0, 0, "least_loaded", NULL,
     "how nodes are chosen", CP_ROUTER, false},
    {"router.tool_parser", CK_WORD, AT(router.tool_parser), "auto", 0, 0,
     "auto|none|llama3_json|hermes|granite|phi4_mini|mistral|jamba|nemotron|"
     "cohere|deepseek_v3|deepseek_v31|deepseek_v32|kimi_k2|llama3_function|"
     "qwen3_coder|seed_oss|glm45|minimax_m2|pythonic|llama4_pythonic|lfm2|"
     "olmo3|openai",
     "NAME", "how the model writes tool calls; auto: as its chat template does", CP_ROUTER, false},
    {"router.reasoning_parser", CK_WORD, AT(router.reasoning_parser), "auto", 0, 0,
     "auto|none|think|qwen3|deepseek_r1|mistral|granite|seed_oss|cohere|"
     "openai_gptoss",
     "NAME", "how the model writes reasoning; auto: as its chat template does", CP_ROUTER, false},
    {"router.request_templates", CK_BOOL, AT(router.request_templates), "false", 0, 0, NULL, NULL,
     "whether a request may bring a chat template of its own", CP_ROUTER, false},
    {"router.nodes", CK_NODES, AT(router.nodes), NULL, 0, CONFIG_NODES_MAX, NULL,
     "ROLE=HOST:PORT,...", "the cluster's nodes", CP_ROUTER, true},
    {"router.api_keys_file", CK_STR, AT(router.api_keys_file), NULL, 1, PATH_MAX_BYTES, NULL,
     "FILE", "accepted API keys, one per line; without it anybody is served", CP_ROUTER, true},
    {"router.limits.body_bytes", CK_SIZE, AT(router.limits.body_bytes), "16777216", KIB, GIB, NULL,
     "BYTES", "longest request body", CP_ROUTER, false},
    {"router.limits.header_bytes", CK_SIZE, AT(router.limits.header_bytes), "16384", KIB, MIB, NULL,
     "BYTES", "longest request header", CP_ROUTER, false},
    {"router.limits.n", CK_INT, AT(router.limits.n), "64", 1, 1024, NULL, "N",
     "most choices of one request", CP_ROUTER, false},
    {"router.limits.stop", CK_INT, AT(router.limits.stop), "16", 0, 1024, NULL, "N",
     "most stop strings of one request", CP_ROUTER, false},
    {"router.limits.logprobs", CK_INT, AT(router.limits.logprobs), "20", 0, 1000, NULL, "N",
     "most alternatives per token", CP_ROUTER, false},
    {"router.limits.connections", CK_INT, AT(router.limits.connections), "20000", 1, 1000000, NULL,
     "N", "most HTTP connections at a time", CP_ROUTER, false},

    {"node.name", CK_NAME, AT(node.name), "node", 1, 64, NULL, "NAME",
     "name in logs, metrics and response headers", CP_NODE, false},
    {"node.listen", CK_ADDRESS, AT(node.listen), "127.0.0.1:9001", 0, 0, NULL, "HOST:PORT",
     "gRPC, for the router and other nodes", CP_NODE, false},
    {"node.http", CK_ADDRESS, AT(node.http), "127.0.0.1:9101", 0, 0, NULL, "HOST:PORT",
     "HTTP, for health and metrics", CP_NODE, false},
    {"node.threads", CK_INT, AT(node.threads), "0", 0, 1024, NULL, "N",
     "kernel threads; 0: all CPUs that the process may use", CP_NODE, false},
    {"node.pin", CK_BOOL, AT(node.pin), "false", 0, 0, NULL, NULL,
     "kernel threads stay on a core each, close together, and memory on their memory nodes; for "
     "one "
     "node process to a set of CPUs",
     CP_NODE, false},
    {"node.cpu_features", CK_WORD, AT(node.cpu_features), "auto", 0, 0,
     "auto|portable|avx2|avx512|avx512_vnni|avx512_bf16|amx|amx_emulated", NULL,
     "best instructions that kernels may use", CP_NODE, false},
    {"node.weights", CK_WORD, AT(node.weights), "auto", 0, 0, "auto|packed|int8|wide|float", NULL,
     "packed: quantized weights stay integers, rows are rounded to 8 bits, or to bf16 for bf16 "
     "weights; int8: floats become integers as well, with a scale for each row; wide: rows are "
     "rounded to bf16 at most; float: rows stay fp32; auto: packed, but small models float",
     CP_NODE, false},
    {"node.weights_cache", CK_STR, AT(node.weights_cache), "model", 1, 256, NULL, "FOLDER",
     "where converted weights are kept for the next start, gigabytes of them; model: beside the "
     "model; none: nowhere",
     CP_NODE, false},
    {"node.device", CK_WORD, AT(node.device), "cpu", 0, 0, "cpu", NULL, "what kernels run on",
     CP_NODE, false},
    {"node.role", CK_ROLE, AT(node.role), NULL, 0, 0, "prefill|decode|both", NULL,
     "part that the node plays; the program's own when not given", CP_NODE, true},

    {"ranks.tensor", CK_INT, AT(ranks.tensor), "1", 1, 64, NULL, "N", "tensor-parallel ranks",
     CP_NODE, false},
    {"ranks.expert", CK_INT, AT(ranks.expert), "1", 1, 1024, NULL, "N", "expert-parallel ranks",
     CP_NODE, false},
    {"ranks.rank", CK_INT, AT(ranks.rank), "0", 0, 65535, NULL, "N", "which of the ranks this is",
     CP_NODE, false},
    {"ranks.leader", CK_ADDRESS, AT(ranks.leader), NULL, 0, 0, NULL, "HOST:PORT",
     "gRPC of rank 0; needed where there is more than one rank", CP_NODE, true},

    {"kv.dtype", CK_WORD, AT(kv.dtype), "auto", 0, 0, "auto|bf16|fp16|fp32|fp8|int8|int4", NULL,
     "element of the KV cache; auto: that of the model's weights", CP_NODE, false},
    {"kv.block_tokens", CK_INT, AT(kv.block_tokens), "16", 1, 1024, NULL, "N",
     "tokens of a KV block", CP_NODE, false},
    {"kv.pool_bytes", CK_SIZE, AT(kv.pool_bytes), "1073741824", 4 * KIB, 65536 * GIB, NULL, "BYTES",
     "memory of the KV cache", CP_NODE, false},
    {"kv.prefix_cache", CK_BOOL, AT(kv.prefix_cache), "true", 0, 0, NULL, NULL,
     "keep the KV of finished requests for common prefixes", CP_NODE, false},
    {"kv.transport", CK_WORD, AT(kv.transport), "auto", 0, 0, "auto|shm|ucx", NULL,
     "how KV travels; auto: shm on one host, else ucx", CP_NODE, false},
    {"kv.device", CK_STR, AT(kv.device), "", 0, 256, NULL, "NAME",
     "network device of ucx; empty: any, or lo for a node that listens on loopback", CP_NODE,
     false},

    {"engine.max_batch", CK_INT, AT(engine.max_batch), "256", 1, 65536, NULL, "N",
     "sequences that run at a time", CP_NODE, false},
    {"engine.step_budget_ms", CK_INT, AT(engine.step_budget_ms), "50", 1, 60000, NULL, "MS",
     "longest step; prefill chunks are sized to it", CP_NODE, false},
    {"engine.chunk_tokens_max", CK_INT, AT(engine.chunk_tokens_max), "512", 1, 1 << 20, NULL,
     "TOKENS", "longest prefill chunk", CP_NODE, false},

    {"timeouts.request", CK_DURATION, AT(timeouts.request_ns), "600s", MS, 7 * DAY, NULL, "TIME",
     "longest life of a request", CP_ALL, false},
    {"timeouts.stall", CK_DURATION, AT(timeouts.stall_ns), "60s", MS, 7 * DAY, NULL, "TIME",
     "how long a client may read nothing", CP_ALL, false},
    {"timeouts.drain", CK_DURATION, AT(timeouts.drain_ns), "60s", MS, 7 * DAY, NULL, "TIME",
     "how long a stopping program waits for what runs", CP_ALL, false},
    {"timeouts.keepalive", CK_DURATION, AT(timeouts.keepalive_ns), "10s", 5 * SEC, DAY, NULL,
     "TIME", "silence after which a peer is asked whether it lives", CP_ALL, false},

    {"tls.ca", CK_STR, AT(tls.ca), NULL, 1, PATH_MAX_BYTES, NULL, "FILE",
     "certificate authority, PEM; ca, cert and key go together", CP_ALL, true},
    {"tls.cert", CK_STR, AT(tls.cert), NULL, 1, PATH_MAX_BYTES, NULL, "FILE",
     "own certificate, PEM", CP_ALL, true},
    {"tls.key", CK_STR, AT(tls.key), NULL, 1, PATH_MAX_BYTES, NULL, "FILE", "its key, PEM", CP_ALL,
     true},

    {"metrics.vllm_names", CK_BOOL, AT(metrics.vllm_names), "false", 0, 0, NULL, NULL,
     "also give the vllm: names that dashboards look for", CP_ALL, false},

    {"log.level", CK_WORD, AT(log.level), "info", 0, 0, "error|warn|info|debug", NULL,
     "least severity that is logged", CP_ALL, false},
    {"log.format", CK_WORD, AT(log.format), "text", 0, 0, "text|json", NULL, "shape of a log line",
     CP_ALL, false},
};
/* clang-format on */
const size_t config_table_n = sizeof config_table / sizeof config_table[0];

const struct config_key *config_key_find(const char *key, size_t len)
{
    for (size_t i = 0; i < config_table_n; i++)
        if (strlen(config_table[i].key) == len && memcmp(config_table[i].key, key, len) == 0)
            return &config_table[i];
    return NULL;
}
