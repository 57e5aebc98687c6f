/* link: baton_formats */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted must be readable to its last byte. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint *c;
    struct error err;
    if (checkpoint_open_bytes("fuzz", data, size, &c, &err))
        return 0;
    volatile uint8_t sum = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct tensor *t = checkpoint_at(c, i);
        for (uint64_t k = 0; k < t->bytes; k++)
            sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
        bytes += t->bytes;
        if (checkpoint_find(c, t->name) != t)
            abort();
    }
    if (bytes != checkpoint_data_bytes(c) || bytes > size)
        abort();
    checkpoint_close(c);
    return 0;
}
