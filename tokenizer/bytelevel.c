#include "tokenizer/bytelevel.h"

#include "tokenizer/unicode.h"

/* Bytes that are printable Latin-1 stand for themselves; the 68 others are numbered from U+0100 in
 * order: 00..20 -> 256.., 7F..A0 -> 289.., AD -> 323. */
uint32_t bytelevel_char(unsigned char byte)
{
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 0x121u + (byte - 0x7fu);
    if (byte == 0xad)
        return 0x143;
    return byte;
}

int bytelevel_byte(uint32_t cp)
{
    if (cp < 0x100)
        return cp <= 0x20 || (cp >= 0x7f && cp <= 0xa0) || cp == 0xad ? -1 : (int)cp;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

void bytelevel_map(const char *s, size_t len, struct buf *out)
{
    if (!buf_reserve(out, 2 * len + 1))
        return;
    for (size_t i = 0; i < len; i++) {
        uint32_t cp = bytelevel_char((unsigned char)s[i]);
        if (cp < 0x80)
            buf_putc(out, (char)cp);
        else
            text_put(out, cp);
    }
}

bool bytelevel_unmap(const char *s, size_t len, struct buf *out)
{
    size_t start = out->len;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += text_next(s + i, &cp);
        int byte = bytelevel_byte(cp);
        if (byte < 0) {
            out->len = start;
            return false;
        }
        buf_putc(out, (char)byte);
    }
    return true;
}
