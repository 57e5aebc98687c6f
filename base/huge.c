#include "base/huge.h"

#include <stdint.h>
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
