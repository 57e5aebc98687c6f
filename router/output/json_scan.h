/* A JSON value checked byte by byte (RFC 8259), without building anything: whether it can still
 * become valid, and where it ends. Depth is bounded. The one leniency: control bytes within strings
 * pass, for models write newlines there; json_scan_copy() escapes them.
 *
 * Zero-initialise. Pure.
 */
#ifndef ROUTER_OUTPUT_JSON_SCAN_H
#define ROUTER_OUTPUT_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define JSON_SCAN_DEPTH_MAX 128

enum json_scan_state {
    JSON_SCAN_VALUE,
    JSON_SCAN_FIRST, /* a value or `]` */
    JSON_SCAN_FIRST_KEY,
    JSON_SCAN_KEY,
    JSON_SCAN_COLON,
    JSON_SCAN_AFTER,
    JSON_SCAN_STRING,
    JSON_SCAN_ESCAPE,
    JSON_SCAN_HEX,
    JSON_SCAN_WORD,
    JSON_SCAN_MINUS,
    JSON_SCAN_ZERO,
    JSON_SCAN_INT,
    JSON_SCAN_DOT,
    JSON_SCAN_FRACTION,
    JSON_SCAN_E,
    JSON_SCAN_SIGN,
    JSON_SCAN_EXPONENT,
    JSON_SCAN_OVER
};
enum json_step {
    JSON_STEP_MORE,
    JSON_STEP_DONE,   /* this byte completed the value */
    JSON_STEP_BEFORE, /* the value, a number, ended before this byte */
    JSON_STEP_BAD
};

struct json_scan {
    enum json_scan_state state;
    int depth;
    uint64_t objects[JSON_SCAN_DEPTH_MAX / 64]; /* a bit per depth */
    bool key;
    uint8_t hex;
    const char *word;
};

enum json_step json_scan_push(struct json_scan *s, unsigned char c);
/* Appends a byte of the value, escaped where it is a control byte within a string. Call before
 * pushing it. */
void json_scan_copy(const struct json_scan *s, unsigned char c, struct buf *out);
/* Whether all of `text`, blanks around it aside, is one value. */
bool json_scan_whole(const char *text, size_t len);

#endif
