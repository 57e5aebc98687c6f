#include "cli/facts.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/huge.h"
#include "base/revision.h"
#include "baton_version.h"
#include "kernels/ops.h"

static void read_cpu_name(char *out, size_t cap)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, cap, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        value[strcspn(value, "\n")] = '\0';
        snprintf(out, cap, "%s", value + 1 + strspn(value + 1, " "));
        break;
    }
    if (f)
        fclose(f);
}

void facts_machine_read(struct facts_machine *m)
{
    struct utsname u;
    const struct ops *ops = NULL;
    cpu_set_t set;
    *m = (struct facts_machine){.body = "unknown"};
    read_cpu_name(m->cpu, sizeof m->cpu);
    if (uname(&u) == 0)
        snprintf(m->system, sizeof m->system, "%.20s %.60s %.20s", u.sysname, u.release, u.machine);
    if (ops_cpu("auto", &ops, NULL) == ST_OK)
        m->body = ops->name;
    m->cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                           : sysconf(_SC_NPROCESSORS_ONLN);
    m->memory_gbytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1e9;
}

enum status facts_probe(int threads, struct kernels_probe *out, struct error *err)
{
    struct facts_machine m;
    facts_machine_read(&m);
    if (threads <= 0)
        threads = (int)m.cores;
    const size_t bytes = kernels_probe_bytes();
    char *buffer = huge_alloc(bytes);
    struct team *team = team_create(threads, threads <= m.cores, false);
    enum status st = ST_OK;
    if (buffer && team) {
        memset(buffer, 0x3c, bytes);
        *out = kernels_probe_run(team, buffer, bytes);
    } else {
        st = err_set(err, ST_NO_MEMORY, "no memory to measure the machine with");
    }
    if (team)
        team_destroy(team);
    huge_free(buffer, bytes);
    return st;
}

const struct kernels_probe *facts_probe_after(int threads, struct kernels_probe *out)
{
    struct error err = {0};
    if (facts_probe(threads, out, &err) == ST_OK)
        return out;
    fprintf(stderr, "baton bench: after the rows: %s\n", err.text);
    return NULL;
}

void facts_put_run(struct jw *w, const char *program, int argc, char **argv)
{
    struct buf command = {0};
    char date[32];
    time_t now = time(NULL);
    struct tm tm;
    buf_puts(&command, program);
    for (int i = 1; i < argc; i++) {
        const char *shown = argv[i];
        if (strcmp(argv[i - 1], "--api-key") == 0)
            shown = "***";
        else if (strncmp(shown, "--api-key=", 10) == 0)
            shown = "--api-key=***";
        buf_printf(&command, strpbrk(shown, " \t\n\"'") ? " '%s'" : " %s", shown);
    }
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    jw_key(w, "command");
    jw_str(w, command.data);
    jw_key(w, "version");
    jw_str(w, BATON_VERSION);
    jw_key(w, "revision");
    jw_str(w, baton_revision);
    jw_key(w, "date");
    jw_str(w, date);
    buf_fini(&command);
}

static void put_real(struct jw *w, const char *key, double v)
{
    jw_key(w, key);
    jw_real(w, v);
}

static void put_figures(struct jw *w, const struct kernels_probe *probe)
{
    put_real(w, "gflops", probe->gflops);
    put_real(w, "bf16_gflops", probe->bf16_gflops);
    put_real(w, "int8_gops", probe->int8_gops);
    put_real(w, "gbytes_per_second", probe->gbytes_per_second);
    put_real(w, "cache_gbytes_per_second", probe->cache_gbytes_per_second);
    jw_key(w, "read_bytes");
    jw_uint(w, probe->read_bytes);
}

void facts_put_probe(struct jw *w, const struct kernels_probe *probe, int threads)
{
    struct facts_machine m;
    facts_machine_read(&m);
    jw_key(w, "probe");
    jw_obj(w);
    jw_key(w, "cpu");
    jw_str(w, m.cpu);
    jw_key(w, "system");
    jw_str(w, m.system);
    jw_key(w, "cores");
    jw_int(w, m.cores);
    put_real(w, "memory_gbytes", m.memory_gbytes);
    jw_key(w, "kernels");
    jw_str(w, m.body);
    if (probe) {
        jw_key(w, "threads");
        jw_int(w, threads > 0 ? threads : m.cores);
        put_figures(w, probe);
    }
    jw_end_obj(w);
}

void facts_put_probes(struct jw *w, const struct kernels_probe *before,
                      const struct kernels_probe *after, int threads)
{
    const struct kernels_probe *both[] = {before, after};
    struct kernels_probe best;
    if (before && after)
        best = kernels_probe_best(before, after);
    facts_put_probe(w, before && after ? &best : before ? before : after, threads);
    for (int i = 0; i < 2; i++) {
        jw_key(w, i ? "probe_after" : "probe_before");
        if (both[i]) {
            jw_obj(w);
            put_figures(w, both[i]);
            jw_end_obj(w);
        } else {
            jw_null(w);
        }
    }
}

void facts_put_formulas(struct jw *w, const char *const (*formulas)[2])
{
    jw_key(w, "formulas");
    jw_obj(w);
    for (size_t i = 0; formulas[i][0]; i++) {
        jw_key(w, formulas[i][0]);
        jw_str(w, formulas[i][1]);
    }
    jw_end_obj(w);
}

void facts_print_formulas(const char *const (*formulas)[2])
{
    int width = 0;
    for (size_t i = 0; formulas[i][0]; i++)
        width = (int)strlen(formulas[i][0]) > width ? (int)strlen(formulas[i][0]) : width;
    printf("\n");
    for (size_t i = 0; formulas[i][0]; i++)
        printf("  %-*s = %s\n", width, formulas[i][0], formulas[i][1]);
}

enum status facts_write_file(const char *path, const struct buf *text, struct error *err)
{
    char part[4096];
    bool to_stdout = strcmp(path, "-") == 0;
    if (text->failed)
        return err_set(err, ST_NO_MEMORY, "%s: the result is too large", path);
    if (!to_stdout && snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return err_set(err, ST_INVALID, "%s: the name is too long", path);
    FILE *f = to_stdout ? stdout : fopen(part, "w");
    if (!f)
        return err_set(err, ST_IO, "%s: %s", part, strerror(errno));
    bool ok = fwrite(text->data, 1, text->len, f) == text->len && fputc('\n', f) != EOF;
    ok = (to_stdout ? fflush(f) : fclose(f)) == 0 && ok;
    if (!ok || (!to_stdout && rename(part, path) != 0))
        return err_set(err, ST_IO, "%s: %s", path, strerror(errno));
    return ST_OK;
}
