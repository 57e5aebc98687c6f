/* The configuration of every program: one struct, read from YAML and then overridden by flags of
 * the same names. libyaml is confined to config_yaml.c. A mistake is one line: `FILE:LINE: KEY:
 * expected WHAT, got GOT`; unknown keys and duplicates are mistakes. Defaults are in
 * config_default(). Durations accept `250ms`, `10s`, `5m`, sizes plain bytes or `64KiB`, `1GiB`.
 * Strings are owned by the config and freed by config_fini().
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum node_role { ROLE_ROUTER, ROLE_PREFILL, ROLE_DECODE, ROLE_BOTH };

#define CONFIG_NODES_MAX 256

struct config_node {
    enum node_role role;
    char *address; /* HOST:PORT of its gRPC */
};

struct config {
    struct {
        char *path, *name;   /* name defaults to the folder's last component */
        int64_t max_context; /* tokens; 0: the model's own */
    } model;
    struct {
        char *listen, *grpc;
        int64_t queue_max;
        char *policy;                         /* least_loaded */
        char *tool_parser, *reasoning_parser; /* auto | none | a format's name */
        bool request_templates;
        struct config_node nodes[CONFIG_NODES_MAX];
        size_t n_nodes;
        char *api_keys_file; /* NULL: none */
        struct {
            int64_t body_bytes, header_bytes, n, stop, logprobs, connections;
        } limits;
    } router;
    struct {
        char *name, *listen, *http;
        int64_t threads;     /* 0: all CPUs that the process may use */
        bool pin;            /* kernel threads to cores */
        char *cpu_features;  /* a body of kernels/ops.h, or auto */
        char *weights;       /* auto | packed | int8 | wide | float */
        char *weights_cache; /* model | none | a folder */
        char *device;        /* cpu */
        enum node_role role; /* not given: ROLE_ROUTER, which stands for the program's own */
    } node;
    struct {
        int64_t tensor, expert, rank;
        char *leader;
    } ranks;
    struct {
        char *dtype; /* auto (the model's) | bf16 | fp16 | fp32 | fp8 | int8 | int4 */
        int64_t block_tokens, pool_bytes;
        bool prefix_cache;
        char *transport; /* auto | shm | ucx */
        char *device;    /* network device for UCX; "" any */
    } kv;
    struct {
        int64_t max_batch;
        int64_t step_budget_ms, chunk_tokens_max;
    } engine;
    struct {
        int64_t request_ns, stall_ns, drain_ns, keepalive_ns;
    } timeouts;
    struct {
        char *ca, *cert, *key; /* PEM files; all or none */
    } tls;
    struct {
        bool vllm_names;
    } metrics;
    struct {
        char *level, *format;
    } log;
};

void config_default(struct config *c);
void config_fini(struct config *c);
/* Reads `path` over what is there. ST_NOT_FOUND, ST_INVALID. */
enum status config_read_file(struct config *c, const char *path, struct error *err);
/* After a failure *c is a mixture that is good for config_fini() only. */
enum status config_read_text(struct config *c, const char *name, const char *text, size_t len,
                             struct error *err);
/* Sets one value by its dotted key ("kv.block_tokens") from text, with the same checks as the file.
 * `where` names the source in the message ("--block-tokens"). */
enum status config_set(struct config *c, const char *key, const char *value, const char *where,
                       struct error *err);
/* Checks what needs more than one key (TLS all-or-none ...). */
enum status config_check(const struct config *c, struct error *err);
/* Parses the flags of a server program: reads --config FILE first, then sets every other flag,
 * checks and resolves, and starts the log. Every key is a flag by its whole name with dashes
 * (--kv-block-tokens) and, where no other key ends alike, by its last part (--block-tokens, --http,
 * --nodes ROLE=HOST:PORT,...). Of those that do end alike --listen is router.listen for a router,
 * else node.listen; --name is model.name for a router, else node.name; --device is node.device.
 * --model is model.path. Returns as flags_parse(); a mistake was said on stderr. */
int config_parse_args(struct config *c, const char *program, const char *about, int argc,
                      char **argv, struct error *err);
/* Fills in what follows from other keys: model.name from model.path. */
void config_resolve(struct config *c);
/* The text of the effective configuration, as YAML: for logs and tests. */
void config_dump(const struct config *c, char *out, size_t cap);
/* Splits "host:port" ("[v6]:port"); port 0..65535. */
enum status config_split_address(const char *address, char *host, size_t host_cap, int *port,
                                 struct error *err);

#endif
