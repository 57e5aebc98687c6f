#include <criterion/criterion.h>

#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

typedef uint32_t crc_fn(uint32_t, const void *, size_t);

static void known_vectors(crc_fn *fn, const char *body)
{
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++) {
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    /* RFC 3720, B.4: an iSCSI read command PDU */
    static const unsigned char command[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,    0, 0, 0, 0,
        0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
        0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,    0, 0, 0, 0};
    cr_assert_eq(fn(0, zeros, 32), 0x8a9136aa, "%s", body);
    cr_assert_eq(fn(0, ones, 32), 0x62a8ab43, "%s", body);
    cr_assert_eq(fn(0, up, 32), 0x46dd794e, "%s", body);
    cr_assert_eq(fn(0, down, 32), 0x113fdb5c, "%s", body);
    cr_assert_eq(fn(0, command, 48), 0xd9963a56, "%s", body);
    cr_assert_eq(fn(0, "123456789", 9), 0xe3069283, "%s", body);
    cr_assert_eq(fn(0, "", 0), 0, "%s", body);
    cr_assert_eq(fn(77, NULL, 0), 77, "%s", body);
}

Test(crc32c, known_vectors)
{
    known_vectors(hash_crc32c, "best body");
    known_vectors(hash_crc32c_portable, "portable body");
}

static unsigned char data[100000];

Test(crc32c, bodies_agree_at_every_length_and_alignment)
{
    struct rng r = rng_seed(1);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)rng_next(&r);
    for (size_t len = 0; len < 1700; len++)
        cr_assert_eq(hash_crc32c(5, data + len % 9, len),
                     hash_crc32c_portable(5, data + len % 9, len), "%zu bytes", len);
    for (int i = 0; i < 300; i++) {
        size_t at = rng_below(&r, 64), len = rng_below(&r, sizeof data - 64);
        cr_assert_eq(hash_crc32c(0, data + at, len), hash_crc32c_portable(0, data + at, len),
                     "%zu bytes at %zu", len, at);
    }
}

Test(crc32c, continues)
{
    struct rng r = rng_seed(2);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)rng_next(&r);
    uint32_t whole = hash_crc32c(0, data, sizeof data);
    for (int i = 0; i < 100; i++) {
        size_t cut = rng_below(&r, sizeof data + 1);
        cr_assert_eq(hash_crc32c(hash_crc32c(0, data, cut), data + cut, sizeof data - cut), whole);
    }
}

Test(hash_bytes, every_bit_counts)
{
    struct rng r = rng_seed(3);
    for (size_t len = 1; len < 80; len++) {
        unsigned char key[80];
        for (size_t i = 0; i < len; i++)
            key[i] = (unsigned char)rng_next(&r);
        uint64_t before = hash_bytes(0, key, len);
        int changed = 0;
        for (size_t bit = 0; bit < 8 * len; bit++) {
            key[bit / 8] ^= (unsigned char)(1 << bit % 8);
            uint64_t after = hash_bytes(0, key, len);
            key[bit / 8] ^= (unsigned char)(1 << bit % 8);
            cr_assert_neq(after, before, "bit %zu of %zu bytes", bit, len);
            changed += __builtin_popcountll(before ^ after);
        }
        double mean = changed / (8.0 * (double)len);
        cr_assert(mean > 24 && mean < 40, "%zu bytes: %.1f bits change on average", len, mean);
    }
}

Test(hash_bytes, lengths_and_seeds_differ)
{
    unsigned char zeros[100] = {0};
    uint64_t seen[100];
    for (size_t len = 0; len < 100; len++) {
        seen[len] = hash_bytes(0, zeros, len);
        for (size_t i = 0; i < len; i++)
            cr_assert_neq(seen[i], seen[len], "zeros of %zu and %zu bytes", i, len);
        cr_assert_neq(hash_bytes(1, zeros, len), seen[len]);
    }
}

/* Fingerprints are compared between hosts: the value must not change between versions. */
Test(hash_bytes, is_stable)
{
    cr_assert_eq(hash_bytes(0, "baton", 5), UINT64_C(0xed5dbb7fb8efe963));
}
