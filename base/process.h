/* What every program does to its own process before it does anything else. */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

/* Gives stdin, stdout and stderr to /dev/null where the parent closed them: the first sockets would
 * get their numbers, and log lines would go to whoever is connected. First of all in main(). */
void process_keep_stdio(void);

/* Of serving programs, before they start threads: raises the limit of open descriptors to what is
 * allowed, ignores SIGPIPE, blocks SIGINT and SIGTERM for all threads that come after and returns a
 * signalfd that reads them; -1 when there is none to be had. */
int process_init(void);

#endif
