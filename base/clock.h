/* Time: monotonic nanoseconds for everything that is measured or waited for, wall time only for
 * stamps shown to people. Pure code never reads a clock: it is given `now_ns`. Thread: any. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define NS_NEVER INT64_MAX

int64_t clock_now_ns(void);  /* CLOCK_MONOTONIC */
int64_t clock_unix_ns(void); /* CLOCK_REALTIME */
void clock_sleep_ns(int64_t ns);

#endif
