#include "router/output/output_lead.h"

#include <string.h>

#include "base/json.h"

static void put(struct jw *w, const char *key, const char *text)
{
    jw_obj(w);
    jw_key(w, key);
    jw_str(w, text);
    jw_end_obj(w);
}

static void begin(struct jw *w, const char *key)
{
    jw_obj(w);
    jw_key(w, key);
    jw_arr(w);
}

static void end(struct jw *w)
{
    jw_end_arr(w);
    jw_end_obj(w);
}

/* What models write there, and what the parser leaves out of the content. */
static void put_gap(struct jw *w, const struct output_lead *l)
{
    static const char *const gaps[] = {"", " ", "\n", "\n\n"};
    begin(w, "any");
    for (size_t i = 0; i < (l->gap ? sizeof gaps / sizeof *gaps : 1); i++)
        put(w, "literal", gaps[i]);
    end(w);
}

/* Of a marker that begins like a shorter one, what it has more. */
static const char *more_of(const struct output_reasoning *r, const char *marker)
{
    for (size_t i = 0; i < OUTPUT_MARKERS_MAX && r->close[i]; i++) {
        size_t n = strlen(r->close[i]);
        if (strlen(marker) > n && memcmp(marker, r->close[i], n) == 0)
            return marker + n;
    }
    return NULL;
}

/* Up to the end of reasoning, and what may open the answer. */
static void put_rest(struct jw *w, const struct output_lead *l)
{
    const struct output_reasoning *r = l->reasoning;
    jw_obj(w);
    jw_key(w, "until");
    jw_arr(w);
    for (size_t i = 0; i < OUTPUT_MARKERS_MAX && r->close[i]; i++)
        if (!more_of(r, r->close[i]))
            jw_str(w, r->close[i]);
    end(w);
    begin(w, "any");
    put(w, "literal", "");
    for (size_t i = 0; i < OUTPUT_MARKERS_MAX && r->close[i]; i++)
        if (more_of(r, r->close[i]))
            put(w, "marker", more_of(r, r->close[i]));
    if (r->dropped[0]) {
        begin(w, "seq");
        put_gap(w, l);
        put(w, "marker", r->dropped[0]);
        end(w);
    }
    end(w);
    put_gap(w, l);
}

/* Reasoning that the prompt has opened may be opened once more; else there may be none. */
static void put_markers(struct jw *w, const struct output_lead *l)
{
    const struct output_reasoning *r = l->reasoning;
    begin(w, "seq");
    if (!l->within) {
        put_gap(w, l);
        begin(w, "any");
        put(w, "literal", "");
        begin(w, "seq");
    }
    begin(w, "any");
    if (l->within)
        put(w, "literal", "");
    for (size_t i = 0; i < OUTPUT_MARKERS_MAX && r->open[i]; i++)
        put(w, "marker", r->open[i]);
    end(w);
    put_rest(w, l);
    if (!l->within) {
        end(w);
        end(w);
    }
    end(w);
}

static void put_channel(struct jw *w, const char *name)
{
    put(w, "marker", "<|channel|>");
    put(w, "literal", name);
}

/* Messages of the channel `analysis`, then the header of one of `final`. */
static void put_harmony(struct jw *w)
{
    static const char *const never[] = {"<|start|>", "<|channel|>", "<|return|>", "<|call|>"};
    begin(w, "seq");
    jw_obj(w);
    jw_key(w, "repeat");
    begin(w, "seq");
    put_channel(w, "analysis");
    put(w, "marker", "<|message|>");
    jw_obj(w);
    jw_key(w, "until");
    jw_arr(w);
    jw_str(w, "<|end|>");
    jw_end_arr(w);
    jw_key(w, "never");
    jw_arr(w);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        jw_str(w, never[i]);
    end(w);
    put(w, "marker", "<|start|>");
    put(w, "literal", "assistant");
    end(w);
    jw_key(w, "min");
    jw_int(w, 0);
    jw_end_obj(w);
    put_channel(w, "final");
    begin(w, "any");
    put(w, "literal", "");
    begin(w, "seq");
    put(w, "literal", " ");
    put(w, "marker", "<|constrain|>");
    put(w, "literal", "json");
    end(w);
    end(w);
    put(w, "marker", "<|message|>");
    end(w);
}

void output_lead_put(const struct output_lead *l, struct buf *out)
{
    struct jw w = jw_begin(out);
    if (l->reasoning->harmony)
        put_harmony(&w);
    else
        put_markers(&w, l);
}
