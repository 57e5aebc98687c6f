#include "cli/bench/profile.h"

#include <stdio.h>

#define PARTS (PROFILE_KINDS + 2)

struct part {
    const char *name;
    double seconds; /* of a thread */
    int64_t calls;
};

/* The kinds of ops and what is neither: time of a forward between ops (waking the threads, sorting
 * of pairs), and of a step outside of its forward. */
static void parts_of(const struct model_profile *p, double seconds, struct part *out)
{
    const double forward = (double)p->forward_ns * 1e-9;
    double inside = 0;
    for (int k = 0; k < PROFILE_KINDS; k++) {
        out[k] = (struct part){.name = profile_kind_name((enum profile_kind)k),
                               .seconds = (double)p->by[k].ns * 1e-9 / p->members,
                               .calls = p->by[k].calls};
        inside += out[k].seconds;
    }
    out[PROFILE_KINDS] =
        (struct part){.name = "between_ops", .seconds = forward - inside, .calls = p->forwards};
    out[PROFILE_KINDS + 1] = (struct part){
        .name = "sampler_and_engine", .seconds = seconds - forward, .calls = p->forwards};
}

void profile_print(const struct model_profile *p, double seconds)
{
    struct part parts[PARTS];
    parts_of(p, seconds, parts);
    printf(": %lld forwards, each\n%-20s %12s %12s %8s\n", (long long)p->forwards, "", "calls",
           "us", "share");
    for (int i = 0; i < PARTS; i++)
        if (parts[i].calls > 0)
            printf("%-20s %12lld %12.1f %7.1f%%\n", parts[i].name,
                   (long long)(parts[i].calls / p->forwards),
                   1e6 * parts[i].seconds / (double)p->forwards, 100 * parts[i].seconds / seconds);
}

void profile_put(struct jw *w, const struct model_profile *p, double seconds)
{
    struct part parts[PARTS];
    parts_of(p, seconds, parts);
    jw_obj(w);
    jw_key(w, "threads");
    jw_int(w, p->members);
    jw_key(w, "forwards");
    jw_int(w, p->forwards);
    jw_key(w, "kinds");
    jw_arr(w);
    for (int i = 0; i < PARTS; i++) {
        if (parts[i].calls == 0)
            continue;
        jw_obj(w);
        jw_key(w, "kind");
        jw_str(w, parts[i].name);
        jw_key(w, "calls");
        jw_int(w, parts[i].calls);
        jw_key(w, "seconds");
        jw_real(w, parts[i].seconds);
        jw_key(w, "share");
        jw_real(w, parts[i].seconds / seconds);
        jw_end_obj(w);
    }
    jw_end_arr(w);
    jw_end_obj(w);
}
