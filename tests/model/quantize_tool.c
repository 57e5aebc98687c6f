/* Makes a quantized copy of a model's folder, rounded to the nearest, for bench/divergence.py.
 *
 *     quantize_tool                    lists what can be made
 *     quantize_tool NAME FOLDER        prints the path of the copy, which the caller removes
 */
#include <stdio.h>

#include "tests/model/quantized_model.h"

int main(int argc, char **argv)
{
    char path[FOLDER_PATH];
    if (argc == 1) {
        for (size_t i = 0; quantized_model_name(i); i++)
            printf("%s\n", quantized_model_name(i));
        return 0;
    }
    if (argc != 3) {
        fprintf(stderr, "quantize_tool: expected NAME FOLDER, or nothing\n");
        return 2;
    }
    if (!quantized_model_make(argv[2], argv[1], path)) {
        fprintf(stderr, "quantize_tool: no kind \"%s\"\n", argv[1]);
        return 2;
    }
    printf("%s\n", path);
    return 0;
}
