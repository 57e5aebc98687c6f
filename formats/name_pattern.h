/* Patterns over module names, as quantization configs have them: "re:PATTERN" is a regular
 * expression that must match from the start of the name (Python's re.match), anything else a whole
 * name.
 *
 * The dialect is what such configs use: literals, `.`, classes, \d \w \s \. and the like, groups,
 * alternatives, * + ? {m,n} with their lazy forms, ^ $ \b, look-ahead. Matching backtracks, with a
 * bound on its steps; a pattern over NAME_PATTERN_MAX bytes or of unknown syntax is refused.
 *
 * Thread: any; pure, no state, no memory.
 */
#ifndef FORMATS_NAME_PATTERN_H
#define FORMATS_NAME_PATTERN_H

#include <stdbool.h>

#include "base/status.h"

#define NAME_PATTERN_MAX 1000 /* bytes */

/* ST_UNSUPPORTED names the pattern. Only patterns that passed may be given to name_matches(). */
enum status name_pattern_check(const char *pattern, struct error *err);
/* Without "re:": the name itself, or (as configs of transformers mean it) a module that holds it or
 * the end of its path. A match that takes too many steps is none. */
bool name_matches(const char *pattern, const char *name);
/* The same, but without "re:" the name itself only. */
bool name_matches_whole(const char *pattern, const char *name);

#endif
