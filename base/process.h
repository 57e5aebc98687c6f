/* What every serving program does to its own process before it starts threads. */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

/* Raises the limit of open descriptors to what is allowed, ignores SIGPIPE, blocks SIGINT and
 * SIGTERM for all threads that come after and returns a signalfd that reads them; -1 when there is
 * none to be had. */
int process_init(void);

#endif
