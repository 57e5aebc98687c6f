/* A copy of a golden's folder whose matrices are integers of 8 bits with a scale to each row, as
 * compressed-tensors has them: what packs weights in every architecture, for tests. Biases and
 * norms stay as they are. Owner: int8_folder_make() gives a folder under /tmp, which
 * int8_folder_remove() removes. Thread: any. Aborts on errors. */
#ifndef TESTS_MODEL_INT8_FOLDER_H
#define TESTS_MODEL_INT8_FOLDER_H

#define INT8_FOLDER_PATH 40

void int8_folder_make(const char *golden, char path[INT8_FOLDER_PATH]);
void int8_folder_remove(const char *path);

#endif
