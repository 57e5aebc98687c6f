/* Files that tests write and change behind the back of what reads them. Thread: any. Aborts on
 * errors. */
#ifndef TESTS_MODEL_FILE_RIG_H
#define TESTS_MODEL_FILE_RIG_H

#include "formats/opened_file.h"

void file_put(const char *path, const char *text);
/* As it is now, and not mapped. */
struct opened_file file_opened(const char *path);
/* Flips a bit of byte `at` and puts the time back. */
void file_change(const char *path, long at);

#endif
