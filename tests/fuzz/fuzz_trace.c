/* link: baton_cli */
/* Traces of the load generator: JSON lines and CSV. */
#include <stdint.h>

#include "cli/bench/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench_source s = {.speed = 1, .burstiness = 1};
    struct bench_item item;
    struct error err = {0};
    if (bench_trace_parse("trace", (const char *)data, size, &s.trace, &err) != ST_OK)
        return 0;
    s.closed = !s.trace.timed;
    for (size_t i = 0; i <= s.trace.n && bench_source_next(&s, &item); i++)
        if (item.input_tokens < 1 || item.output_tokens < 1 || item.at_ns < 0 ||
            (item.n_hashes > 0 && !item.hashes))
            __builtin_trap();
    bench_source_fini(&s);
    return 0;
}
