"""Clients that go away or do not read. What they held comes back on every node, and nobody else notices."""
import http.client
import json
import random
import socket
import struct
import time
import unittest

import cluster

LONG = {"prompt": "Tell me everything. " * 40, "max_tokens": 1400, "ignore_eos": True, "temperature": 0}


class Cancel(unittest.TestCase):
    def first_tokens(self, stream, count=3):
        chunks = iter(stream)
        for _ in range(count):
            next(chunks)

    def test_disconnect_reaches_nodes(self):
        """Within 100 ms, the polling included. On a busy machine the best of a few counts; a second is never passed."""
        with cluster.up() as c:
            d0, took = c.nodes["d0"], []
            for _ in range(5):
                stream = c.stream("/v1/completions", LONG)
                self.first_tokens(stream)
                self.assertEqual(d0.metrics().get("baton_requests_running"), 1)
                stream.abort()
                took.append(cluster.wait_until("the sequence is gone", lambda: d0.metrics().get(
                    "baton_requests_running") == 0, 1, every_s=0.002))
                c.wait_quiet(1)
            print("disconnect to gone, s:", " ".join(f"{t:.3f}" for t in took), flush=True)
            self.assertLess(min(took), 0.1 * cluster.SLOWER)
            m = c.router.metrics()
            self.assertEqual(m.get("baton_requests_total", outcome="cancelled"), 5)
            self.assertEqual(m.sum("baton_requests_total", outcome="failed"), 0)

    def test_disconnect_while_prefilling(self):
        with cluster.up() as c:
            for i in range(5):
                body = dict(LONG, prompt=f"{i} " + cluster.words(random.Random(i), 900), max_tokens=4)
                sock = c.connect()
                payload = json.dumps(body).encode()
                sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload)
                time.sleep(0.01 * i)
                # Reset, not closed in order.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                c.wait_quiet(3)

    def test_slow_reader_pauses_only_itself(self):
        """A client that does not read: its nodes stop computing for it; another's stream goes on at full pace; then it
        reads on and has missed nothing."""
        body = dict(LONG, n=8, max_tokens=1200, logprobs=20)
        with cluster.up() as c:
            d0 = c.nodes["d0"]
            slow = c.stream("/v1/completions", body, receive_bytes=4096)

            def steps():
                return d0.metrics().get("baton_step_tokens_count")

            still = [steps(), time.monotonic()]

            def paused():
                now = steps()
                if now != still[0]:
                    still[:] = [now, time.monotonic()]
                return time.monotonic() - still[1] > 0.7

            cluster.wait_until("the unread sequence pauses", paused, 60, every_s=0.1)
            self.assertFalse(c.router.quiet(), "it is paused, not ended")
            other = c.complete({"prompt": "Somebody else", "max_tokens": 200, "ignore_eos": True})
            self.assertEqual(other["usage"]["completion_tokens"], 200)
            tokens = [0] * 8
            for chunk in slow:
                self.assertNotIn("error", chunk)
                for x in chunk["choices"]:
                    tokens[x["index"]] += len((x["logprobs"] or {}).get("tokens", ()))
            self.assertTrue(slow.done)
            slow.close()
            self.assertEqual(tokens, [1200] * 8)
            c.wait_quiet()

    def test_stall_timeout(self):
        """Who reads nothing for timeouts.stall is cancelled, and holds nothing any more."""
        with cluster.parts(prefill=[[]], decode=[[]], router_more=["--timeouts-stall", "2s"]) as c:
            slow = c.stream("/v1/completions", dict(LONG, n=8, logprobs=20), receive_bytes=4096)
            cluster.wait_until("it is cancelled", lambda: all(n.quiet() for n in c.nodes.values()), 60, every_s=0.1)
            m = c.router.metrics()
            self.assertEqual(m.sum("baton_requests_total", outcome="ok"), 0)
            self.assertLess(m.get("baton_generated_tokens_total"), 8 * 1400)
            slow.close()

    def test_random_cancels(self):
        """1,000 requests of all kinds, most of them cancelled at a random moment: before the body is sent, while queued, while
        prefilling, while streaming, or not at all."""
        total, at_once = 1000, 16
        with cluster.up(prefill=1, decode=2) as c:
            def client(i):
                rng = random.Random(1000 + i)
                ended = 0
                for _ in range(total // at_once + 1):
                    ended += random_request(c, rng)
                return ended

            began = time.monotonic()
            ended = sum(cluster.join_threads(cluster.in_threads(at_once, client), 150))
            print(f"{total} requests, {ended} ran to their end, {time.monotonic() - began:.1f} s", flush=True)
            self.assertGreater(ended, total // 20)
            self.assertLess(ended, total)
            c.wait_quiet(5)
            m = c.router.metrics()
            self.assertEqual(m.sum("baton_requests_total", outcome="failed"), 0)
            self.assertGreater(m.get("baton_requests_total", outcome="cancelled"), total // 4)
            for n in c.workers():
                self.assertEqual(n.metrics().get("baton_kv_blocks"), n.metrics().get("baton_kv_blocks_capacity"))


def random_request(c, rng, patience_s=0.3):
    """One request, given up at a random moment; 1 when it ran to its end."""
    chat = rng.random() < 0.3
    text = cluster.words(rng, rng.choice((3, 20, 60, 200)))
    body = {"max_tokens": rng.choice((1, 4, 16, 64)), "temperature": rng.choice((0, 0.8)), "n": rng.choice((1, 1, 1, 3)),
            "stream": rng.random() < 0.7}
    body.update({"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text})
    payload = json.dumps(body).encode()
    path = "/v1/chat/completions" if chat else "/v1/completions"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
    sock = c.connect(60)
    try:
        kind = rng.random()
        if kind < 0.05:
            sock.sendall((head + payload)[:rng.randrange(1, len(head) + len(payload))])
            return 0
        sock.sendall(head + payload)
        if kind < 0.25:
            time.sleep(rng.random() * 0.02)
            return 0
        give_up = time.monotonic() + (rng.random() * patience_s if kind < 0.85 else 60 * cluster.SLOWER)
        received = b""
        while True:
            left = give_up - time.monotonic()
            if left <= 0:
                return 0
            sock.settimeout(left)
            try:
                part = sock.recv(65536)
            except TimeoutError:
                return 0
            if not part:
                break
            received += part
        status = received.split(b"\r\n", 1)[0]
        if b"200" not in status:
            raise AssertionError(f"{status!r}: {received[-300:]!r}")
        whole = b"data: [DONE]" in received if body["stream"] else b'"usage"' in received
        if not whole:
            raise AssertionError(f"the answer ended early: {received[-300:]!r}")
        return 1
    except (ConnectionError, http.client.HTTPException) as lost:
        raise AssertionError(f"the connection was lost: {lost}") from lost
    finally:
        if rng.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


if __name__ == "__main__":
    cluster.main()
