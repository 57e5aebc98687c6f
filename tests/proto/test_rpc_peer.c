/* A peer in another process that dies, or falls silent. One test: processes are forked before there
 * are threads. */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc_pair.h"

/* Writes its port, then answers only "bye". */
static void server_main(int out, int descriptors)
{
    struct rlimit limit = {(rlim_t)descriptors, (rlim_t)descriptors};
    struct rpc_args args = pair_args();
    struct rpc *r;
    struct rpc_event ev;
    int bound = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (rpc_create(&args, &r, NULL) != ST_OK ||
        rpc_listen(r, "127.0.0.1:0", &bound, NULL) != ST_OK || rpc_start(r, NULL) != ST_OK ||
        write(out, &bound, sizeof bound) != sizeof bound)
        _exit(1);
    for (;;)
        if (next_event(r, &ev, NS_PER_S) && ev.kind == RPC_EV_MESSAGE && text_is(&ev, "bye"))
            rpc_call_finish(ev.call, ST_OK, NULL);
}

static pid_t spawn_server(int *port, int descriptors)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0)
        server_main(fds[1], descriptors);
    cr_assert_eq(read(fds[0], port, sizeof *port), sizeof *port);
    close(fds[0]);
    close(fds[1]);
    return pid;
}

static struct rpc_call *open_call(struct rpc *r, int port)
{
    struct rpc_channel *ch;
    struct rpc_call *c;
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    cr_assert_eq(rpc_connect(r, address, &ch, NULL), ST_OK);
    cr_assert_eq(rpc_call_start(ch, METHOD_STREAM, NS_NEVER, NULL, &c), ST_OK);
    return c;
}

/* More connections than the server has descriptors; when they are gone it accepts again. */
static void flood(struct rpc *r, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fds[400], n = 0;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (; n < 400; n++) {
        fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        cr_assert_eq(connect(fds[n], (struct sockaddr *)&to, sizeof to), 0);
    }
    clock_sleep_ns(200 * NS_PER_MS);
    while (n > 0)
        close(fds[--n]);
    enum status st = ST_LINK;
    for (int i = 0; i < 50 && st != ST_OK; i++) { /* it sees the ends of the others one by one */
        clock_sleep_ns(100 * NS_PER_MS);
        struct rpc_call *c = open_call(r, port);
        rpc_call_send(c, (const uint8_t *)"bye", 3);
        struct rpc_event ev = expect(r, RPC_EV_CLOSED);
        st = ev.status;
        rpc_call_release(c);
    }
    cr_assert_eq(st, ST_OK, "no call after the flood");
}

Test(rpc_peer, a_killed_one_reads_as_link_at_once_and_a_silent_one_in_time, .timeout = 60)
{
    struct rpc_args args = pair_args();
    struct rpc *r;
    struct rpc_event ev;
    int port[2] = {0};
    pid_t pid[2];
    for (int i = 0; i < 2; i++)
        pid[i] = spawn_server(&port[i], 256);
    args.keepalive_ns = NS_PER_S; /* the timeout stays at its least, 5 s */
    cr_assert_eq(rpc_create(&args, &r, NULL), ST_OK);
    cr_assert_eq(rpc_start(r, NULL), ST_OK);
    flood(r, port[0]);
    struct rpc_call *killed = open_call(r, port[0]);
    struct rpc_call *silent = open_call(r, port[1]);
    cr_assert_not(next_event(r, &ev, 500 * NS_PER_MS));
    int64_t began = clock_now_ns();
    kill(pid[1], SIGSTOP);
    kill(pid[0], SIGKILL);
    ev = expect(r, RPC_EV_CLOSED);
    cr_assert_eq(ev.call, killed);
    cr_assert_eq(ev.status, ST_LINK, "%s: %s", status_name(ev.status), ev.text);
    cr_assert_lt(clock_now_ns() - began, 2 * NS_PER_S);
    ev = expect(r, RPC_EV_CLOSED);
    cr_assert_eq(ev.call, silent);
    cr_assert_eq(ev.status, ST_LINK, "%s: %s", status_name(ev.status), ev.text);
    cr_assert_gt(clock_now_ns() - began, 4 * NS_PER_S);
    rpc_destroy(r, 0);
    kill(pid[1], SIGKILL);
    waitpid(pid[0], NULL, 0);
    waitpid(pid[1], NULL, 0);
}
