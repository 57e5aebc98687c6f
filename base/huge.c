#include "base/huge.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)2 << 20)

static size_t whole(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

void *huge_alloc(size_t bytes)
{
    const size_t all = whole(bytes);
    char *memory;
    if (bytes == 0 || all < bytes || all + PAGE < all)
        return NULL;
    memory = mmap(NULL, all + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* What lies before and behind the aligned part goes back. */
    size_t before = (PAGE - (uintptr_t)memory % PAGE) % PAGE;
    if (before > 0)
        munmap(memory, before);
    if (before < PAGE)
        munmap(memory + before + all, PAGE - before);
    madvise(memory + before, all, MADV_HUGEPAGE);
    return memory + before;
}

void *huge_map_file(int fd, size_t bytes)
{
    const size_t all = whole(bytes);
    if (bytes == 0 || all < bytes || all + PAGE < all)
        return NULL;
    /* Only where addresses are a multiple of a large page, as offsets in the file are, can one be
     * mapped: not every file system sees to that. */
    char *room =
        mmap(NULL, all + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    const size_t before = (PAGE - (uintptr_t)room % PAGE) % PAGE;
    /* Given back first, and only asked for: a mapping by force that fails may have left a hole, in
     * which others' memory may be by then. Who is quicker costs us the large pages. */
    munmap(room, all + PAGE);
    char *memory = mmap(room + before, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* Not MADV_COLLAPSE: what is not in large pages yet it copies, at half a GB/s, and most file
     * systems have none. */
    huge_ask(memory, bytes);
    return memory;
}

size_t huge_mapped(const void *memory)
{
    const uintptr_t at = (uintptr_t)memory;
    char line[512], key[32];
    unsigned long begin, end, kib;
    size_t bytes = 0;
    bool within = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
            if (within)
                break;
            within = at >= begin && at < end;
        } else if (within && sscanf(line, "%31[^:]: %lu", key, &kib) == 2 &&
                   (strcmp(key, "AnonHugePages") == 0 || strcmp(key, "ShmemPmdMapped") == 0 ||
                    strcmp(key, "FilePmdMapped") == 0)) {
            bytes += (size_t)kib << 10;
        }
    }
    if (f)
        fclose(f);
    return bytes;
}

void huge_ask(void *memory, size_t bytes)
{
    /* A kernel that has none for such memory says so, and gives small ones. */
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
}

void huge_free(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, whole(bytes));
}
