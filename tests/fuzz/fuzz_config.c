/* link: baton_base */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted must come back from its own dump as the same configuration; what is not has one
 * line. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char one[1 << 19], two[1 << 19];
    struct error err;
    struct config c, again;
    config_default(&c);
    if (config_read_text(&c, "fuzz", (const char *)data, size, &err) == ST_OK) {
        config_check(&c, &err);
        config_dump(&c, one, sizeof one);
        config_default(&again);
        enum status st = config_read_text(&again, "dump", one, strlen(one), &err);
        assert(st == ST_OK);
        config_dump(&again, two, sizeof two);
        assert(strcmp(one, two) == 0);
        config_fini(&again);
    } else {
        assert(strchr(err.text, '\n') == NULL && strncmp(err.text, "fuzz:", 5) == 0);
    }
    config_fini(&c);
    return 0;
}
