/* link: baton_base */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted survives a dump and a second reading unchanged. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json *v, *again;
    struct error err;
    struct json_limits limits = {.memory_bytes = 256 << 20};
    if (json_read_limited((const char *)data, size, limits, &v, &err) != ST_OK)
        return 0;
    struct buf one = {0}, two = {0};
    json_dump(v, &one);
    enum status st = json_read(one.data, one.len, &again, &err);
    assert(st == ST_OK);
    json_dump(again, &two);
    assert(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);
    buf_fini(&one);
    buf_fini(&two);
    json_free(v);
    json_free(again);
    return 0;
}
