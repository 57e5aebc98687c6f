/* What a chat template expects of its messages, beyond what Hugging Face's data model says: found
 * out once, by rendering a few messages with it and looking for them in what comes out.
 *
 * Pure; any thread.
 */
#ifndef ROUTER_TEMPLATE_HABITS_H
#define ROUTER_TEMPLATE_HABITS_H

#include <stdbool.h>

struct chat_template;

struct template_habits {
    bool arguments_text; /* a call's arguments are to be JSON text, not an object */
    bool content_parts;  /* content is to be an array of parts */
    bool content_none;   /* beside calls, content that is not there is to be None, else "" */
    bool developer;      /* it knows the role "developer" itself */
    bool thinking;       /* it calls reasoning of earlier answers so */
};

struct template_habits template_habits_of(const struct chat_template *t, const char *text);

#endif
