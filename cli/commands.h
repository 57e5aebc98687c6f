/* The subcommands of `baton`. Each gets argv with argv[0] being its own name, owns everything that
 * it opens, writes results to stdout and everything else to stderr, and returns the process's exit
 * status: 0, 1 for a failure (one line said why), 2 for a wrong command line. A new command is a
 * cmd_*.c file and a row in main.c.
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

int cmd_up(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_complete(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_probe(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_make_model(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif
