#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/config.h"

/* The example of the manual, as it stands there. */
static const char example[] =
    "model: {path: models/tiny, name: baton-tiny, max_context: 2048}\n"
    "router: {listen: 127.0.0.1:8000, grpc: 127.0.0.1:8001, queue_max: 1024, policy: "
    "least_loaded,\n"
    "         nodes: [{role: prefill, address: 127.0.0.1:9001}, {role: decode, address: "
    "127.0.0.1:9002}],\n"
    "         api_keys_file: null, limits: {body_bytes: 16777216, header_bytes: 16384, n: 64, "
    "stop: "
    "16, logprobs: 20, connections: 20000}}\n"
    "node:   {name: p0, listen: 127.0.0.1:9001, http: 127.0.0.1:9101, threads: 1, cpu_features: "
    "auto, device: cpu}\n"
    "ranks:  {tensor: 1, expert: 1, rank: 0, leader: 127.0.0.1:9001}\n"
    "kv:     {dtype: bf16, block_tokens: 16, pool_bytes: 1073741824, prefix_cache: true, "
    "transport: "
    "auto, device: lo}\n"
    "engine: {max_batch: 256, step_budget_ms: 50, chunk_tokens_max: 512}\n"
    "timeouts: {request: 600s, stall: 60s, drain: 60s, keepalive: 10s}\n"
    "tls:    {ca: null, cert: null, key: null}\n"
    "log:    {level: info, format: text}\n";

static enum status read_text(struct config *c, const char *text, struct error *err)
{
    return config_read_text(c, "f.yaml", text, strlen(text), err);
}

Test(config, the_example_parses)
{
    struct config c;
    struct error err = {0};
    config_default(&c);
    cr_assert_eq(read_text(&c, example, &err), ST_OK, "%s", err.text);
    cr_assert_str_eq(c.model.path, "models/tiny");
    cr_assert_str_eq(c.model.name, "baton-tiny");
    cr_assert_eq(c.model.max_context, 2048);
    cr_assert_eq(c.router.n_nodes, 2);
    cr_assert_eq(c.router.nodes[0].role, ROLE_PREFILL);
    cr_assert_str_eq(c.router.nodes[1].address, "127.0.0.1:9002");
    cr_assert_null(c.router.api_keys_file);
    cr_assert_eq(c.router.limits.connections, 20000);
    cr_assert_eq(c.kv.pool_bytes, 1073741824);
    cr_assert(c.kv.prefix_cache);
    cr_assert_str_eq(c.kv.device, "lo");
    cr_assert_eq(c.timeouts.request_ns, INT64_C(600000000000));
    cr_assert_null(c.tls.ca);
    cr_assert_eq(config_check(&c, &err), ST_OK);
    config_fini(&c);
}

Test(config, a_node_is_listed_once)
{
    static const char text[] = "router: {nodes: [{role: decode, address: 127.0.0.1:9001}, "
                               "{role: decode, address: 127.0.0.1:9001}]}\n";
    struct config c;
    struct error err = {0};
    config_default(&c);
    cr_assert_eq(config_read_text(&c, "f.yaml", text, strlen(text), &err), ST_OK, "%s", err.text);
    cr_assert_eq(config_check(&c, &err), ST_INVALID);
    cr_assert_str_eq(err.text, "router.nodes: expected 127.0.0.1:9001 once, got it twice");
    config_fini(&c);
}

Test(config, defaults)
{
    struct config c;
    config_default(&c);
    cr_assert_null(c.model.path);
    cr_assert_str_eq(c.router.listen, "127.0.0.1:8000");
    cr_assert_eq(c.router.limits.body_bytes, 16777216);
    cr_assert_eq(c.node.threads, 0);
    cr_assert_eq(c.node.role, ROLE_ROUTER, "not given");
    cr_assert_str_eq(c.kv.dtype, "auto");
    cr_assert_str_eq(c.kv.device, "");
    cr_assert_eq(c.engine.chunk_tokens_max, 512);
    cr_assert_not(c.metrics.vllm_names);
    cr_assert_eq(config_check(&c, NULL), ST_OK);
    config_fini(&c);
    config_fini(&c);
}

Test(config, dump_reads_back)
{
    static char one[16384], two[16384];
    struct config c, again;
    struct error err = {0};
    config_default(&c);
    read_text(&c, example, NULL);
    config_set(&c, "model.path", "a \"b\" \\ c\xc3\xa9", "t", NULL);
    config_set(&c, "timeouts.stall", "1500us", "t", NULL);
    config_set(&c, "timeouts.drain", "1001us", "t", NULL);
    config_set(&c, "node.role", "both", "t", NULL);
    config_dump(&c, one, sizeof one);
    config_default(&again);
    cr_assert_eq(read_text(&again, one, &err), ST_OK, "%s\n%s", err.text, one);
    config_dump(&again, two, sizeof two);
    cr_assert_str_eq(one, two);
    cr_assert_str_eq(again.model.path, "a \"b\" \\ c\xc3\xa9");
    config_dump(&c, one, 10);
    cr_assert_eq(strlen(one), 9, "cut to fit");
    config_dump(&c, NULL, 0);
    config_fini(&c);
    config_fini(&again);
}

Test(config, mistakes_are_one_line)
{
    static const struct {
        const char *text, *message; /* `message` is how the error begins */
    } cases[] = {
        {"kv:\n  dtpye: bf16\n", "f.yaml:2: kv.dtpye: expected one of dtype, block_tokens, "},
        {"kv: {}\nbogus: 1\n", "f.yaml:2: bogus: expected one of model, router, node, "},
        {"router: {limits: {x: 1}}\n",
         "f.yaml:1: router.limits.x: expected one of body_bytes, header_bytes, n, stop"},
        {"kv: {dtype: int2}\n", "f.yaml:1: kv.dtype: expected one of auto, bf16, fp16, fp32, fp8, "
                                "int8, int4, got \"int2\""},
        {"kv:\n\n  block_tokens: many\n",
         "f.yaml:3: kv.block_tokens: expected an integer from 1 to 1024, got \"many\""},
        {"kv: {block_tokens: 0}",
         "f.yaml:1: kv.block_tokens: expected an integer from 1 to 1024, got \"0\""},
        {"kv: {block_tokens: 1025}", "f.yaml:1: kv.block_tokens: expected an integer"},
        {"kv: {block_tokens: 16.0}", "f.yaml:1: kv.block_tokens: expected an integer"},
        {"kv: {block_tokens: 016}", "f.yaml:1: kv.block_tokens: expected an integer"},
        {"kv: {block_tokens: +16}", "f.yaml:1: kv.block_tokens: expected an integer"},
        {"kv: {block_tokens: 99999999999999999999}",
         "f.yaml:1: kv.block_tokens: expected an integer"},
        {"kv: {block_tokens: \"16\"}",
         "f.yaml:1: kv.block_tokens: expected an integer from 1 to 1024, got "
         "the string \"16\""},
        {"kv: {block_tokens: null}",
         "f.yaml:1: kv.block_tokens: expected an integer from 1 to 1024, got"},
        {"kv: {block_tokens: }",
         "f.yaml:1: kv.block_tokens: expected an integer from 1 to 1024, got nothing"},
        {"kv: {block_tokens: [1]}",
         "f.yaml:1: kv.block_tokens: expected an integer from 1 to 1024, got a list"},
        {"kv: {block_tokens: {a: 1}}",
         "f.yaml:1: kv.block_tokens: expected an integer from 1 to 1024, "
         "got a mapping"},
        {"kv: {prefix_cache: yes}",
         "f.yaml:1: kv.prefix_cache: expected true or false, got \"yes\""},
        {"kv: {pool_bytes: 1GB}",
         "f.yaml:1: kv.pool_bytes: expected bytes (4096, 64KiB, 1GiB) from"},
        {"kv: {pool_bytes: 9999999TiB}", "f.yaml:1: kv.pool_bytes: expected bytes"},
        {"timeouts: {request: 10}",
         "f.yaml:1: timeouts.request: expected a duration such as 250ms"},
        {"timeouts: {request: 0s}",
         "f.yaml:1: timeouts.request: expected a duration such as 250ms"},
        {"timeouts: {keepalive: 1s}",
         "f.yaml:1: timeouts.keepalive: expected a duration such as 250ms, 10s "
         "or 5m, from 5000ms to 24h, got \"1s\""},
        {"model: {name: 12}",
         "f.yaml:1: model.name: expected a string of 1 to 256 printable bytes, got \"12\""},
        {"model: {name: true}", "f.yaml:1: model.name: expected a string"},
        {"model: {path: \"\"}", "f.yaml:1: model.path: expected a string"},
        {"model: {path: \"a\\nb\"}", "f.yaml:1: model.path: expected a string"},
        {"model: {path: \"a\\0b\"}", "f.yaml:1: model.path: expected a string"},
        {"node: {name: \"a b\"}", "f.yaml:1: node.name: expected a name"},
        {"node: {weights_cache: \"\"}", "f.yaml:1: node.weights_cache: expected a string"},
        {"node: {listen: nowhere}", "f.yaml:1: node.listen: expected HOST:PORT, got \"nowhere\""},
        {"node: {listen: null}", "f.yaml:1: node.listen: expected HOST:PORT, got"},
        {"node: {role: router}", "f.yaml:1: node.role: expected one of prefill, decode, both"},
        {"kv: {dtype: bf16, dtype: fp16}", "f.yaml:1: kv.dtype: expected it once, got it twice"},
        {"kv: {}\nlog: {}\nkv: {}", "f.yaml:3: kv: expected it once, got it twice"},
        {"kv: 3", "f.yaml:1: kv: expected a mapping, got \"3\""},
        {"kv:", "f.yaml:1: kv: expected a mapping, got nothing"},
        {"- a", "f.yaml:1: (top): expected a mapping, got a list"},
        {"kv.dtype: bf16", "f.yaml:1: \"kv.dtype\": expected one of model"},
        {"? [a]\n: b", "f.yaml:1: (top): expected the name of a key, got a list"},
        {"kv: &x {dtype: bf16}", "f.yaml:1: kv: expected a value without an anchor, got an anchor"},
        {"kv: *x", "f.yaml:1: "},
        {"kv: {dtype: !!str bf16}",
         "f.yaml:1: kv.dtype: expected a value without a tag, got a tag"},
        {"kv: !x {}", "f.yaml:1: kv: expected a value without a tag, got a tag"},
        {"<<: {a: b}", "f.yaml:1: \"<<\": expected one of model"},
        {"---\nkv: {}\n---\nlog: {}\n", "f.yaml:3: (top): expected one document, got another one"},
        {"%YAML 1.1\n---\nkv: {}\n", "f.yaml:1: (top): expected a mapping, got a directive"},
        {"kv: {dtype: bf16\n", "f.yaml:2: syntax: expected well-formed YAML, got: "},
        {"kv:\n\tdtype: bf16\n", "f.yaml:2: syntax: expected well-formed YAML, got: "},
        {"kv: \x01", "f.yaml:1: syntax: expected well-formed YAML, got: "},
        {"kv: \xff\xfe", "f.yaml:1: syntax: expected well-formed YAML, got: "},
        {"router: {nodes: 3}", "f.yaml:1: router.nodes: expected a list of {role: ROLE, address"},
        {"router: {nodes: [3]}", "f.yaml:1: router.nodes[0]: expected a mapping {role"},
        {"router:\n  nodes:\n    - {role: prefill, address: h:1}\n    - {role: chef, address: "
         "h:1}\n",
         "f.yaml:4: router.nodes[1].role: expected one of prefill, decode, both, got \"chef\""},
        {"router: {nodes: [{role: both, address: h}]}",
         "f.yaml:1: router.nodes[0].address: expected HOST:PORT, got \"h\""},
        {"router: {nodes: [{role: both}]}",
         "f.yaml:1: router.nodes[0]: expected both role and address, got no address"},
        {"router: {nodes: [{role: both, role: both, address: h:1}]}",
         "f.yaml:1: router.nodes[0].role: expected it once, got it twice"},
        {"router: {nodes: [{rank: 1}]}",
         "f.yaml:1: router.nodes[0]: expected one of role, address"},
        {"router: {nodes: [{role: [both]}]}",
         "f.yaml:1: router.nodes[0].role: expected one of prefill"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config c;
        struct error err = {0};
        config_default(&c);
        cr_assert_eq(read_text(&c, cases[i].text, &err), ST_INVALID, "accepted: %s", cases[i].text);
        cr_assert_eq(strncmp(err.text, cases[i].message, strlen(cases[i].message)), 0,
                     "for %s\n got %s\nwant %s", cases[i].text, err.text, cases[i].message);
        cr_assert_null(strchr(err.text, '\n'));
        config_fini(&c);
    }
}

Test(config, good_values)
{
    struct config c;
    struct error err = {0};
    config_default(&c);
    static const char *const texts[] = {
        "",
        "# nothing\n",
        "---\n",
        "--- {}\n...\n",
        "{}",
        "kv: {}",
        "model: {path: ~, name: 'true'}",
        "model: {name: \"12\"}",
        "kv: {pool_bytes: 64KiB}\ntimeouts:\n  request: 5m\n  stall: 250ms\n",
        "router: {nodes: []}",
        "router: {nodes: null}",
        "node: {role: null}",
        "node: {listen: \"[::1]:9001\", http: host.example:0}",
        "ranks: {leader: ~}",
        "model:\n  path: >-\n    a\n    b\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_assert_eq(read_text(&c, texts[i], &err), ST_OK, "%s: %s", texts[i], err.text);
    cr_assert_str_eq(c.model.name, "12");
    cr_assert_str_eq(c.model.path, "a b");
    cr_assert_eq(c.kv.pool_bytes, 65536);
    cr_assert_eq(c.timeouts.request_ns, INT64_C(300000000000));
    cr_assert_eq(c.timeouts.stall_ns, 250000000);
    config_fini(&c);
}

Test(config, a_later_list_replaces)
{
    struct config c;
    config_default(&c);
    cr_assert_eq(read_text(&c, example, NULL), ST_OK);
    cr_assert_eq(read_text(&c, "router: {nodes: [{address: 'x:5', role: both}]}", NULL), ST_OK);
    cr_assert_eq(c.router.n_nodes, 1);
    cr_assert_str_eq(c.router.nodes[0].address, "x:5");
    config_fini(&c);
}

Test(config, nodes_are_bounded)
{
    struct config c;
    struct error err = {0};
    struct buf text = {0};
    buf_puts(&text, "router:\n  nodes:\n");
    for (int i = 0; i <= CONFIG_NODES_MAX; i++)
        buf_printf(&text, "    - {role: decode, address: h:%d}\n", i);
    config_default(&c);
    cr_assert_eq(read_text(&c, text.data, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "at most 256"), "%s", err.text);
    buf_fini(&text);
    config_fini(&c);
}

Test(config, hostile_shapes_are_bounded, .timeout = 60)
{
    struct config c;
    config_default(&c);
    struct buf text = {0};
    for (int i = 0; i < 100000; i++)
        buf_puts(&text, i % 2 ? "{a: " : "[");
    cr_assert_eq(read_text(&c, text.data, NULL), ST_INVALID, "deep");
    buf_clear(&text);
    buf_puts(&text, "model: {path: \"");
    for (int i = 0; i < 1000000; i++)
        buf_putc(&text, 'x');
    buf_puts(&text, "\"}");
    cr_assert_eq(read_text(&c, text.data, NULL), ST_INVALID, "long value");
    for (int i = 0; i < 100000; i++)
        buf_putc(&text, ' ');
    struct error err;
    cr_assert_eq(read_text(&c, text.data, &err), ST_INVALID, "over 1 MiB");
    cr_assert_not_null(strstr(err.text, "at most 1048576 bytes"), "%s", err.text);
    buf_fini(&text);
    config_fini(&c);
}

Test(config, files)
{
    struct config c;
    struct error err;
    config_default(&c);
    cr_assert_eq(config_read_file(&c, "/nonexistent.yaml", &err), ST_NOT_FOUND);
    cr_assert_eq(config_read_file(&c, "/", &err), ST_INVALID);
    cr_assert_eq(config_read_file(&c, "/dev/zero", &err), ST_INVALID);
    char path[] = "/tmp/baton-config-XXXXXX";
    int fd = mkstemp(path);
    ssize_t n = write(fd, example, sizeof example - 1);
    cr_assert_eq(n, (ssize_t)sizeof example - 1);
    cr_assert_eq(config_read_file(&c, path, &err), ST_OK);
    cr_assert_str_eq(c.node.name, "p0");
    for (int i = 0; i < 1100; i++) {
        static const char padding[1024] = "#";
        n = write(fd, padding, sizeof padding);
    }
    cr_assert_eq(config_read_file(&c, path, &err), ST_INVALID, "over 1 MiB");
    close(fd);
    unlink(path);
    config_fini(&c);
}

Test(config, set_checks_as_the_file_does)
{
    struct config c;
    struct error err;
    config_default(&c);
    cr_assert_eq(config_set(&c, "kv.block_tokens", "32", "--block-tokens", &err), ST_OK);
    cr_assert_eq(c.kv.block_tokens, 32);
    cr_assert_eq(config_set(&c, "kv.block_tokens", "x", "--block-tokens", &err), ST_INVALID);
    cr_assert_str_eq(err.text, "--block-tokens: expected an integer from 1 to 1024, got \"x\"");
    cr_assert_eq(c.kv.block_tokens, 32);
    cr_assert_eq(config_set(&c, "kv.bogus", "x", "--bogus", &err), ST_INVALID);
    cr_assert_eq(config_set(&c, "router.nodes", "prefill=a:1,both=[::1]:2", "--nodes", &err),
                 ST_OK);
    cr_assert_eq(c.router.n_nodes, 2);
    cr_assert_eq(c.router.nodes[1].role, ROLE_BOTH);
    static const char *const bad[] = {"prefill", "prefill=", "prefill=a:1,", ",",
                                      "=a:1",    "x=a:1",    "both=a:1;b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(config_set(&c, "router.nodes", bad[i], "--nodes", &err), ST_INVALID, "%s",
                     bad[i]);
    cr_assert_eq(config_set(&c, "tls.ca", "a.pem", "--ca", &err), ST_OK);
    cr_assert_eq(config_set(&c, "tls.ca", "null", "--ca", &err), ST_OK);
    cr_assert_null(c.tls.ca);
    config_fini(&c);
}

Test(config, check_looks_across_keys)
{
    struct config c;
    struct error err;
    config_default(&c);
    config_set(&c, "tls.ca", "a.pem", "t", NULL);
    cr_assert_eq(config_check(&c, &err), ST_INVALID);
    config_set(&c, "tls.cert", "b.pem", "t", NULL);
    config_set(&c, "tls.key", "c.pem", "t", NULL);
    cr_assert_eq(config_check(&c, &err), ST_OK);
    config_set(&c, "ranks.tensor", "2", "t", NULL);
    cr_assert_eq(config_check(&c, &err), ST_INVALID, "no leader");
    config_set(&c, "ranks.leader", "h:1", "t", NULL);
    config_set(&c, "ranks.rank", "2", "t", NULL);
    cr_assert_eq(config_check(&c, &err), ST_INVALID, "rank 2 of 2");
    config_set(&c, "ranks.rank", "1", "t", NULL);
    cr_assert_eq(config_check(&c, &err), ST_OK);
    config_fini(&c);
}

Test(config, model_name_follows_its_folder)
{
    static const char *const cases[][2] = {{"models/tiny", "tiny"},
                                           {"models/tiny//", "tiny"},
                                           {"tiny", "tiny"},
                                           {"/", "model"},
                                           {"../a/b.c", "b.c"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config c;
        config_default(&c);
        config_resolve(&c);
        cr_assert_null(c.model.name);
        config_set(&c, "model.path", cases[i][0], "t", NULL);
        config_resolve(&c);
        cr_assert_str_eq(c.model.name, cases[i][1]);
        config_fini(&c);
    }
}

Test(config, addresses)
{
    static const struct {
        const char *text, *host;
        int port; /* -1: refused */
    } cases[] = {{"127.0.0.1:8000", "127.0.0.1", 8000},
                 {"host:0", "host", 0},
                 {"[::1]:65535", "::1", 65535},
                 {"h:65536", "", -1},
                 {"h:", "", -1},
                 {":1", "", -1},
                 {"h", "", -1},
                 {"", "", -1},
                 {"::1:5", "", -1},
                 {"[::1]", "", -1},
                 {"[::1]5", "", -1},
                 {"[]:1", "", -1},
                 {"h:1x", "", -1},
                 {"h:-1", "", -1},
                 {"h: 1", "", -1},
                 {"h:000001", "", -1},
                 {"http://h:1", "", -1},
                 {"[::1", "", -1},
                 {"a b:1", "", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char host[64];
        int port = -1;
        struct error err;
        enum status st = config_split_address(cases[i].text, host, sizeof host, &port, &err);
        cr_assert_eq(st, cases[i].port < 0 ? ST_INVALID : ST_OK, "%s", cases[i].text);
        cr_assert_eq(port, cases[i].port, "%s", cases[i].text);
        if (st == ST_OK)
            cr_assert_str_eq(host, cases[i].host);
    }
    char tiny[4];
    int port;
    cr_assert_eq(config_split_address("long.host:1", tiny, sizeof tiny, &port, NULL), ST_INVALID);
}
