/* `baton`: one program, many commands. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/process.h"
#include "base/revision.h"
#include "baton_version.h"
#include "cli/commands.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"up", cmd_up, "start a whole cluster on this host"},
    {"chat", cmd_chat, "talk with a running server"},
    {"complete", cmd_complete, "stream one completion of a running server"},
    {"generate", cmd_generate, "run a model in this process on one prompt"},
    {"perplexity", cmd_perplexity, "how well a model foretells a text, and beside another run"},
    {"tokenize", cmd_tokenize, "text to token ids and back"},
    {"render", cmd_render, "messages to the text of a model's chat template"},
    {"bench", cmd_bench, "benchmarks: serve, model, grammar, kernels, transfer"},
    {"probe", cmd_probe, "measure the machine's limits"},
    {"inspect", cmd_inspect, "what a model folder holds and what serving it costs"},
    {"make-model", cmd_make_model, "a random-weight checkpoint of a well-known shape"},
    {"doctor", cmd_doctor, "check this host"},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void show_help(FILE *out)
{
    fprintf(out, "usage: baton COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-12s  %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\nbaton COMMAND --help shows a command's options.\n");
}

/* What a command wrote is its result, but for `up`, whose work is not on stdout. */
static int run_command(const struct command *c, int argc, char **argv)
{
    int rc = c->run(argc, argv);
    errno = 0;
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (!lost || rc != 0 || c->run == cmd_up)
        return rc;
    fprintf(stderr, "baton %s: stdout: %s\n", c->name, strerror(errno ? errno : EIO));
    return 1;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    process_keep_stdio();
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return run_command(&commands[i], argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0) {
        printf("baton %s (%s)\n", BATON_VERSION, baton_revision);
        return 0;
    }
    bool asked =
        strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (!asked && name[0] != '\0')
        fprintf(stderr, "baton: unknown command \"%s\" (see baton --help)\n", name);
    else
        show_help(asked ? stdout : stderr);
    return asked ? 0 : 2;
}
