/* `baton make-model`: a random-weight checkpoint of a well-known shape. */
#include <stdio.h>
#include <unistd.h>

#include "base/flags.h"
#include "cli/commands.h"
#include "model/make.h"

static int list_shapes(void)
{
    struct model_config c;
    const char *name;
    printf("%-18s %10s %10s %7s %7s %6s %6s %8s %8s\n", "shape", "parameters", "active", "layers",
           "hidden", "heads", "KV", "vocab", "context");
    for (size_t i = 0; (name = model_make_shape(i, &c)); i++)
        printf("%-18s %10.3g %10.3g %7d %7d %6d %6d %8d %8d\n", name,
               (double)model_config_parameters(&c), (double)model_config_active_parameters(&c),
               c.layers, c.hidden, c.heads, c.kv_heads, c.vocab, c.max_context);
    return 0;
}

static void on_progress(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)ctx;
    fprintf(stderr, "\r%5.1f %% of %.2f GB ", 100 * (double)done_bytes / (double)total_bytes,
            (double)total_bytes / 1e9);
}

int cmd_make_model(int argc, char **argv)
{
    const char *shape = NULL, *dtype = "bf16", *out = NULL;
    int64_t seed = 0;
    bool list = false;
    struct flag table[] = {
        {"shape", FLAG_STR, &shape, "NAME", "which; --list shows them"},
        {"dtype", FLAG_STR, &dtype, "D", "bf16, fp16 or fp32 (bf16)"},
        {"out", FLAG_STR, &out, "DIR", "the folder to make"},
        {"seed", FLAG_INT, &seed, "S", "of the weights (0)", 0, 9e15},
        {"list", FLAG_BOOL, &list, NULL, "list the shapes"},
    };
    struct flags f = {.program = "baton make-model",
                      .usage = "--shape NAME --out DIR [options]",
                      .about = "Writes a Hugging Face checkpoint with random weights, for "
                               "performance work.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    struct model_make_args args = {0};
    struct error err = {0};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (list)
        return list_shapes();
    if (!shape || !out) {
        fprintf(stderr, "baton make-model: expected --shape NAME and --out DIR (see baton "
                        "make-model --help)\n");
        return 2;
    }
    if (!dtype_parse(dtype, &args.dtype)) {
        fprintf(stderr, "baton make-model: --dtype: expected bf16, fp16 or fp32, got \"%s\"\n",
                dtype);
        return 2;
    }
    bool show = isatty(STDERR_FILENO) == 1;
    args.shape = shape;
    args.out = out;
    args.seed = (uint64_t)seed;
    args.progress = show ? on_progress : NULL;
    enum status st = model_make(&args, &err);
    if (show)
        fprintf(stderr, "\r%40s\r", "");
    if (st != ST_OK) {
        fprintf(stderr, "baton make-model: %s\n", err.text);
        return 1;
    }
    printf("%s: %s, %s, random weights of seed %lld\n", out, shape, dtype_name(args.dtype),
           (long long)seed);
    return 0;
}
