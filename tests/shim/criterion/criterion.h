/* A stand-in for Criterion where Criterion cannot run: its sandbox does not start under
 * ThreadSanitizer. The same test sources compile against this header, which runs every test of the
 * program in turn, in one process, and prints Criterion's closing line. Only the part that our
 * tests use is here: Test() with .init .fini .timeout .signal .disabled, the cr_assert and the
 * cr_expect family (each may take a printf message), cr_fail, cr_skip_test, cr_log_*.
 *
 * A failed assertion leaves the test by longjmp, so what the test had allocated stays; a failed
 * expectation, or an assertion that fails on another thread than the test's, is counted and that
 * thread goes on. A test that expects a signal runs in a child. `--filter SUITE/NAME` takes a shell
 * pattern; other options are ignored. A test that runs out of its time is ended by SIGALRM, which a
 * handler would get too late under ThreadSanitizer: the last [RUN ] line names it.
 */
#ifndef SHIM_CRITERION_H
#define SHIM_CRITERION_H

#include <fnmatch.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct shim_test {
    const char *suite, *name;
    void (*body)(void), (*init)(void), (*fini)(void);
    double timeout;
    int signal;
    bool disabled;
    struct shim_test *next;
};
struct shim_state {
    struct shim_test *first, *last, *now;
    jmp_buf leave;
    pthread_t thread;
    atomic_bool failed;
    bool skipped;
};
/* Weak: a test program of several sources has one state and one main. */
__attribute__((weak)) struct shim_state shim;

static inline void shim_register(struct shim_test *t)
{
    if (shim.last != NULL)
        shim.last->next = t;
    else
        shim.first = t;
    shim.last = t;
}

struct shim_where {
    const char *file;
    int line;
    bool go_on; /* after a failure */
};

__attribute__((format(printf, 4, 5))) static inline void
shim_check(bool ok, const char *what, struct shim_where at, const char *fmt, ...)
{
    if (ok)
        return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(stderr, "[----] %s:%d: %s/%s: %s:%s\n", at.file, at.line, shim.now->suite,
            shim.now->name, what, text);
    atomic_store(&shim.failed, true);
    if (!at.go_on && pthread_equal(pthread_self(), shim.thread))
        longjmp(shim.leave, 1);
}

__attribute__((format(printf, 1, 2))) static inline void shim_skip(const char *fmt, ...)
{
    va_list args;
    fprintf(stderr, "[SKIP] %s/%s:", shim.now->suite, shim.now->name);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    shim.skipped = true;
    longjmp(shim.leave, 1);
}

static inline void shim_run_body(struct shim_test *t)
{
    alarm(t->timeout > 0 ? (unsigned)ceil(4 * t->timeout) : 0); /* sanitizers are slow */
    if (setjmp(shim.leave) == 0) {
        if (t->init != NULL)
            t->init();
        t->body();
    }
    if (t->fini != NULL && setjmp(shim.leave) == 0)
        t->fini();
    alarm(0);
}

static inline void shim_run_in_child(struct shim_test *t)
{
    fflush(NULL);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        signal(t->signal, SIG_DFL);
        shim_run_body(t);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status) ||
        WTERMSIG(status) != t->signal) {
        fprintf(stderr, "[----] %s/%s: expected signal %d\n", t->suite, t->name, t->signal);
        shim.failed = true;
    }
}

__attribute__((weak)) int main(int argc, char **argv)
{
    const char *pattern = "*";
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--filter") == 0)
            pattern = argv[i + 1];
    int passing = 0, failing = 0;
    shim.thread = pthread_self();
    for (struct shim_test *t = shim.first; t != NULL; t = t->next) {
        char full[256];
        snprintf(full, sizeof full, "%s/%s", t->suite, t->name);
        if (t->disabled || fnmatch(pattern, full, 0) != 0)
            continue;
        shim.now = t;
        fprintf(stderr, "[RUN ] %s\n", full);
        shim.failed = shim.skipped = false;
        if (t->signal != 0)
            shim_run_in_child(t);
        else
            shim_run_body(t);
        failing += shim.failed;
        passing += !shim.failed && !shim.skipped;
        fprintf(stderr, "[%s] %s\n", shim.failed ? "FAIL" : shim.skipped ? "SKIP" : "PASS", full);
    }
    fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0 \n",
            passing + failing, passing, failing);
    return failing != 0;
}

#define Test(Suite, Name, ...)                                                                     \
    static void Suite##_##Name##_body(void);                                                       \
    static struct shim_test Suite##_##Name##_test = {                                              \
        .suite = #Suite, .name = #Name, .body = Suite##_##Name##_body, __VA_ARGS__};               \
    __attribute__((constructor)) static void Suite##_##Name##_register(void)                       \
    {                                                                                              \
        shim_register(&Suite##_##Name##_test);                                                     \
    }                                                                                              \
    static void Suite##_##Name##_body(void)

#define shim_at(go_on) ((struct shim_where){__FILE__, __LINE__, go_on})
#define shim_that(ok, what, ...) shim_check((ok), what, shim_at(false), " " __VA_ARGS__)
#define shim_also(ok, what, ...) shim_check((ok), what, shim_at(true), " " __VA_ARGS__)
#define shim_str(a, op, b) (strcmp((a), (b)) op 0)
#define cr_assert(c, ...) shim_that((c), #c, __VA_ARGS__)
#define cr_assert_not(c, ...) shim_that(!(c), "not " #c, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) shim_that((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) shim_that((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) shim_that((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) shim_that((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) shim_that((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) shim_that((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(p, ...) shim_that((p) == NULL, #p " is NULL", __VA_ARGS__)
#define cr_assert_not_null(p, ...) shim_that((p) != NULL, #p " is not NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) shim_that(shim_str(a, ==, b), #a " equals " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) shim_that(shim_str(a, !=, b), #a " differs " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...)                                                             \
    shim_that(memcmp((a), (b), (n)) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, eps, ...)                                                         \
    shim_that(fabs((double)(a) - (double)(b)) <= (eps), #a " near " #b, __VA_ARGS__)
#define cr_expect(c, ...) shim_also((c), #c, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) shim_also((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) shim_also((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_not(c, ...) shim_also(!(c), "not " #c, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) shim_also((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) shim_also((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) shim_also(shim_str(a, ==, b), #a " equals " #b, __VA_ARGS__)
#define cr_assert_fail(...) shim_that(false, "failed", __VA_ARGS__)
#define cr_fail(...) shim_that(false, "failed", __VA_ARGS__)
#define cr_skip_test(...) shim_skip(" " __VA_ARGS__)
#define cr_skip(...) shim_skip(" " __VA_ARGS__)
#define cr_log_info(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))
#define cr_log_warn(...) cr_log_info(__VA_ARGS__)
#define cr_log_error(...) cr_log_info(__VA_ARGS__)

#endif
