#include "kernels/cpu/cpu.h"

#include <stdatomic.h>
#include <unistd.h>

bool cpu_has_portable(void)
{
    return true;
}

bool cpu_never(void)
{
    return false;
}

#define KIB ((size_t)1 << 10)

static size_t cache_said(int level)
{
    long bytes = 0;
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
    bytes = sysconf(level == 1 ? _SC_LEVEL1_DCACHE_SIZE : _SC_LEVEL2_CACHE_SIZE);
#endif
    return bytes > 0 ? (size_t)bytes : 0;
}

size_t cpu_cache_bytes(int level)
{
    static const size_t least[2] = {32 * KIB, 512 * KIB}, most[2] = {128 * KIB, 4096 * KIB};
    static _Atomic size_t known[2];
    const int i = level - 1;
    size_t bytes = atomic_load_explicit(&known[i], memory_order_relaxed);
    if (bytes > 0)
        return bytes;
    bytes = cache_said(level);
    bytes = bytes < least[i] ? least[i] : bytes > most[i] ? most[i] : bytes;
    atomic_store_explicit(&known[i], bytes, memory_order_relaxed);
    return bytes;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>

/* Registers whose state the OS saves and restores: without that an instruction that the CPU knows
 * still faults. */
#define XCR0_AVX 0x06u    /* SSE and upper halves of YMM */
#define XCR0_AVX512 0xe6u /* and mask registers and ZMM */

#define LEAF1_ECX_FMA (1u << 12)
#define LEAF1_ECX_OSXSAVE (1u << 27)
#define LEAF1_ECX_AVX (1u << 28)
#define LEAF1_ECX_F16C (1u << 29)
#define LEAF7_EBX_AVX2 (1u << 5)
#define LEAF7_EBX_AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) /* F DQ BW VL */

static bool has_bits(uint32_t value, uint32_t bits)
{
    return (value & bits) == bits;
}

static bool has_features(uint32_t ecx1, uint32_t ebx7, uint32_t xcr0)
{
    uint32_t a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_bits(c, ecx1 | LEAF1_ECX_OSXSAVE))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!has_bits(low, xcr0))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && has_bits(b, ebx7);
}

static bool probe_avx2(void)
{
    return has_features(LEAF1_ECX_FMA | LEAF1_ECX_AVX | LEAF1_ECX_F16C, LEAF7_EBX_AVX2, XCR0_AVX);
}

static bool probe_avx512(void)
{
    return probe_avx2() && has_features(LEAF1_ECX_FMA, LEAF7_EBX_AVX512, XCR0_AVX512);
}

#define LEAF7_ECX_VBMI (1u << 1)
#define LEAF7_ECX_VNNI (1u << 11)
#define LEAF7_EDX_AMX (1u << 22 | 1u << 24 | 1u << 25) /* bf16, tile, int8 */
#define LEAF7_1_EAX_BF16 (1u << 5)
#define VENDOR_AMD_EBX 0x68747541u /* "Auth" of AuthenticAMD */
#define XCR0_AMX (3u << 17)
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_TILES 18

static bool probe_vnni(void)
{
    uint32_t a, b, c, d;
    return probe_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && has_bits(c, LEAF7_ECX_VNNI);
}

/* With VBMI, which all CPUs have that have bf16 and serve this well, those with tiles too. */
static bool probe_bf16(void)
{
    uint32_t a, b, c, d;
    return probe_vnni() && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           has_bits(a, LEAF7_1_EAX_BF16) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           has_bits(c, LEAF7_ECX_VBMI);
}

/* The kernel keeps the tiles of a process only after it was asked to. */
static bool probe_amx(void)
{
    uint32_t a, b, c, d;
    return has_features(0, 0, XCR0_AMX) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           has_bits(d, LEAF7_EDX_AMX) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILES) == 0;
}

static bool probe_amd(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == VENDOR_AMD_EBX;
}

/* Intel's cores take twice as long for a product of bf16 pairs as for two of floats. */
static bool probe_fast_bf16(void)
{
    return probe_bf16() && probe_amd();
}

/* cpuid is slow, and in a virtual machine a trap: each answer is remembered. */
enum answer { UNKNOWN, NO, YES };

static bool remember(_Atomic int *answer, bool (*probe)(void))
{
    int known = atomic_load_explicit(answer, memory_order_relaxed);
    if (known == UNKNOWN) {
        known = probe() ? YES : NO;
        atomic_store_explicit(answer, known, memory_order_relaxed);
    }
    return known == YES;
}

bool cpu_has_avx2(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_avx2);
}

bool cpu_has_avx512(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_avx512);
}

bool cpu_has_bf16(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_bf16);
}

bool cpu_has_fast_bf16(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_fast_bf16);
}

bool cpu_is_amd(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_amd);
}

bool cpu_has_vnni(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_vnni);
}

bool cpu_amx_permit(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_amx);
}

#if defined(BATON_AMX)
static bool probe_amx_body(void)
{
    return cpu_amx_permit() && probe_bf16() && cpu_tiles_agree(&cpu_ops_amx, &cpu_ops_vnni);
}

bool cpu_has_amx(void)
{
    static _Atomic int answer;
    return remember(&answer, probe_amx_body);
}
#endif
#else
bool cpu_is_amd(void)
{
    return false;
}
#endif
