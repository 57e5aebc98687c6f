/* Runs a fuzz target without libFuzzer: every file of the given folders (or files), and for each a
 * fixed number of damaged copies made by a seeded generator, so that two runs do the same. A copy
 * that kills the process is named on stderr; `--only FILE K` runs copy K alone.
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPIES 60
#define SEED_BYTES_MAX (16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char running[600];
static size_t n_runs;

static void died(int sig)
{
    ssize_t n = write(STDERR_FILENO, running, strlen(running));
    (void)n;
    signal(sig, SIG_DFL);
    raise(sig);
}

static uint64_t draw(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Flips bits, repeats or removes pieces, plants extreme bytes, cuts the end off. */
static size_t damage(uint8_t *data, size_t size, size_t cap, uint64_t *state)
{
    for (uint64_t k = 1 + draw(state) % 4; k > 0 && size > 0; k--) {
        size_t at = draw(state) % size, run = 1 + draw(state) % 16;
        if (run > size - at)
            run = size - at;
        switch (draw(state) % 6) {
        case 0:
            data[at] ^= (uint8_t)(1 << draw(state) % 8);
            break;
        case 1:
            memset(data + at, draw(state) % 2 ? 0xff : 0, run);
            break;
        case 2:
            data[at] = (uint8_t)draw(state);
            break;
        case 3:
            size = at;
            break;
        case 4:
            memmove(data + at, data + at + run, size - at - run);
            size -= run;
            break;
        default:
            if (run <= cap - size) {
                memmove(data + at + run, data + at, size - at);
                size += run;
            }
            break;
        }
    }
    return size;
}

/* The target gets an allocation of the exact size, so that a read past the end is noticed. */
static void run_one(const char *path, const uint8_t *data, size_t size, int copy)
{
    snprintf(running, sizeof running, "died at: %s copy %d (%zu bytes)\n", path, copy, size);
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL)
        exit(2);
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    n_runs++;
}

static bool run_file(const char *path, int only)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return false;
    }
    uint8_t *seed = malloc(SEED_BYTES_MAX), *copy = malloc(SEED_BYTES_MAX);
    if (seed == NULL || copy == NULL)
        exit(2);
    size_t size = fread(seed, 1, SEED_BYTES_MAX, f);
    fclose(f);
    /* Large seeds are slow to parse: fewer copies. */
    int copies = size > (1 << 20) ? 2 : size > (1 << 16) ? 10 : COPIES;
    if (only <= 0)
        run_one(path, seed, size, 0);
    for (int k = 1; k <= copies; k++) {
        if (only >= 0 && only != k)
            continue;
        uint64_t state = (uint64_t)k * 1000003 + size;
        memcpy(copy, seed, size);
        run_one(path, copy, damage(copy, size, SEED_BYTES_MAX, &state), k);
    }
    free(seed);
    free(copy);
    return true;
}

static bool run_path(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return run_file(path, -1);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(dir)) != NULL;) {
        char file[512];
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        ok = run_file(file, -1);
    }
    closedir(dir);
    return ok;
}

int main(int argc, char **argv)
{
    signal(SIGSEGV, died);
    signal(SIGABRT, died);
    signal(SIGFPE, died);
    if (argc == 4 && strcmp(argv[1], "--only") == 0)
        return run_file(argv[2], atoi(argv[3])) ? 0 : 1;
    run_one("(empty)", (const uint8_t *)"", 0, 0);
    for (int i = 1; i < argc; i++)
        if (!run_path(argv[i]))
            return 1;
    if (n_runs == 1) {
        fprintf(stderr, "no seeds\n");
        return 1;
    }
    printf("%zu inputs\n", n_runs);
    return 0;
}
