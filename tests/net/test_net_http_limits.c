/* How much of a request's body the HTTP server takes, to the byte. */
#include <criterion/criterion.h>

#include "net_rig.h"

static char text[4096];

/* The limit itself is allowed, one byte more is not, whether the length is known before or not. */
Test(http_limits, the_last_byte_of_the_limit)
{
    for (int i = 0; i < 4; i++) {
        struct http_server *s = rig_server(rig_args());
        static char request[8192];
        int fd = rig_connect(http_port(s)), body = 4096 + i / 2;
        int n = i % 2 ? sprintf(request, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
                                body)
                      : sprintf(request,
                                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked"
                                "\r\n\r\n%x\r\n",
                                (unsigned)body);
        memset(request + n, 'b', (size_t)body);
        strcpy(request + n + body, i % 2 ? "" : "\r\n0\r\n\r\n");
        rig_send(fd, request);
        if (body == 4096) {
            size_t len;
            struct http_request *r = rig_event(s, HTTP_EV_REQUEST).request;
            http_body(r, &len);
            cr_assert_eq(len, 4096);
            http_respond(r, 200, "text/plain", "taken", 5);
            http_release(r);
            cr_assert(rig_expect(fd, text, sizeof text, "taken"), "%d: %s", i, text);
        } else {
            cr_assert(rig_expect(fd, text, sizeof text, " 413 "), "%d: %s", i, text);
        }
        close(fd);
        http_server_destroy(s, 0);
    }
}
