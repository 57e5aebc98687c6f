#include "node/compiler.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/ring.h"

struct compiler {
    struct ring *in, *out; /* of drafts; NULL in `in`: the end */
    pthread_t thread;
    bool running;
};

static void *compiler_main(void *arg)
{
    struct compiler *c = arg;
    for (;;) {
        struct grammar_draft *draft;
        poll(&(struct pollfd){.fd = ring_fd(c->in), .events = POLLIN}, 1, -1);
        ring_clear(c->in);
        while (ring_pop(c->in, &draft)) {
            if (draft == NULL)
                return NULL;
            grammar_draft_compile(draft);
            bool fits = ring_push(c->out, &draft); /* there is one at a time */
            assert(fits);
        }
    }
}

enum status compiler_start(struct compiler **out, struct error *err)
{
    struct compiler *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ST_NO_MEMORY, "no memory for the thread that compiles grammars");
    c->in = ring_create(2, sizeof(struct grammar_draft *)); /* a draft, and the end */
    c->out = ring_create(1, sizeof(struct grammar_draft *));
    c->running = c->in && c->out && pthread_create(&c->thread, NULL, compiler_main, c) == 0;
    if (!c->running) {
        compiler_stop(c);
        return err_set(err, ST_NO_MEMORY, "cannot start the thread that compiles grammars");
    }
    *out = c;
    return ST_OK;
}

void compiler_stop(struct compiler *c)
{
    struct grammar_draft *draft = NULL;
    if (!c)
        return;
    if (c->running) {
        bool fits = ring_push(c->in, &draft);
        assert(fits);
        pthread_join(c->thread, NULL);
        while (ring_pop(c->out, &draft))
            grammar_draft_free(draft);
    }
    ring_destroy(c->in);
    ring_destroy(c->out);
    free(c);
}

void compiler_give(struct compiler *c, struct grammar_draft *draft)
{
    bool fits = ring_push(c->in, &draft);
    assert(fits);
}

int compiler_fd(const struct compiler *c)
{
    return ring_fd(c->out);
}

struct grammar_draft *compiler_next(struct compiler *c)
{
    struct grammar_draft *draft;
    ring_clear(c->out);
    return ring_pop(c->out, &draft) ? draft : NULL;
}
