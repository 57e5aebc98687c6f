"""Bodies that are large or hard to read hold up nobody else: they are read beside the streams, not between their tokens."""
import http.client
import json
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time

import cluster

CONTEXT = 1 << 19
BODY_BYTES = 16 << 20
GROWTH_BYTES = 1 << 30  # twenty bodies as they come in, and what is made of two of them
ATTEMPTS = 5


def long_context_model(folder):
    """The tiny model, said to have a long context: no text of 16 MiB can be refused by its length alone."""
    for name in os.listdir(cluster.TINY):
        shutil.copy(os.path.join(cluster.TINY, name), folder)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    config["max_position_embeddings"] = CONTEXT
    with open(path, "w") as f:
        json.dump(config, f)
    return folder


def filled(before, unit, after=b"}", size=BODY_BYTES):
    """A body of just under `size` bytes: a string of many `unit`s."""
    return before + b'"' + unit * ((size - len(before) - 1024) // len(unit)) + b'"' + after


CHAT = b'{"max_tokens":1,"messages":[{"role":"user","content":'
COMPLETION = b'{"max_tokens":1,"prompt":'

# Path, body, status: each hard in its own way.
HARD = {
    "no spaces": ("/v1/completions", filled(COMPLETION, b"xq"), 400),
    "words": ("/v1/completions", filled(COMPLETION, b"Once upon a time there was a fox. "), 400),
    "escapes": ("/v1/chat/completions", filled(CHAT, b"\\u00e9\\n", b"}]}"), 400),
    "unused": ("/v1/completions", filled(b'{"max_tokens":1,"prompt":"p","metadata":{"m":', b"\\u00e9", b"}}"), 200),
    "pieces": ("/tokenize", filled(b'{"with_pieces":true,"prompt":', b"the fox ", size=4 << 20), 200),
}


class Watch:
    """A stream of another client: its longest gap between two chunks."""

    def __init__(self, c):
        self.c, self.longest, self.count, self.over, self.failure = c, 0.0, 0, False, None
        self.last = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.over:
                stream = self.c.stream("/v1/completions", {"prompt": "Go on. ", "max_tokens": 1500, "ignore_eos": True})
                self.last = None
                for _ in stream:
                    now = time.monotonic()
                    if self.last:
                        self.longest = max(self.longest, now - self.last)
                    self.last = now
                    self.count += 1
                    if self.over:
                        break
                stream.close()
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def reset(self):
        """The longest gap since the last call; one that is not over yet counts."""
        longest = max(self.longest, time.monotonic() - self.last if self.last else 0)
        self.longest = 0.0
        return longest

    def stop(self):
        self.over = True
        self.thread.join(60 * cluster.SLOWER)
        if self.failure:
            raise self.failure


def send(c, path, body):
    """The request, sent as a whole and not answered yet."""
    sock = c.connect(120)
    sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
    return sock


class Desk(cluster.SharedCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.c = cls.start()
        cls.c.complete({"prompt": "warm", "max_tokens": 4})

    @classmethod
    def start(cls):
        model = long_context_model(tempfile.mkdtemp(dir=cls.folder.name))
        return cluster.parts(decode=[["--role", "both"]], model=model,
                             router_more=["--router-limits-body-bytes", str(BODY_BYTES)])

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.folder.cleanup()

    def send(self, path, body):
        return send(self.c, path, body)

    def answer(self, sock):
        """(status, headers, body) of what was sent."""
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        body = answer.read()
        sock.close()
        return answer.status, answer.headers, body

    def test_streams_go_on(self):
        """With the loop held up, a stream's longest gap is about the time that reading takes: here it is a part of it. The
        best of a few counts, because on a busy machine everything has gaps."""
        watch = Watch(self.c)
        try:
            cluster.wait_until("the stream runs", lambda: watch.count > 20, 30)
            for name, (path, body, status) in HARD.items():
                shares = []
                for _ in range(ATTEMPTS):
                    watch.reset()
                    begin = time.monotonic()
                    answer = self.c.post(path, body)
                    took = time.monotonic() - begin
                    gap = watch.reset()
                    self.assertEqual(answer.status, status, answer.body[:300])
                    print(f"{name}: {took:.3f} s, longest gap {gap:.3f} s", flush=True)
                    shares.append(gap / took)
                    if shares[-1] < 0.4:
                        break
                self.assertLess(min(shares), 0.4, name)
        finally:
            watch.stop()

    def test_grammars(self):
        """The router answers others while it compiles."""
        choices = ["%d" % (i * 7919) for i in range(19999)]
        shares = []
        for i in range(ATTEMPTS):
            over, longest = threading.Event(), [0.0]

            def pulse():
                while not over.is_set():
                    begin = time.monotonic()
                    self.c.get("/version")
                    longest[0] = max(longest[0], time.monotonic() - begin)

            thread = threading.Thread(target=pulse, daemon=True)
            thread.start()
            begin = time.monotonic()
            answer = self.c.post("/v1/completions", {"prompt": "p", "max_tokens": 1, "guided_choice": [f"x{i}", *choices]})
            took = time.monotonic() - begin
            over.set()
            thread.join()
            self.assertEqual(answer.status, 200, answer.body[:300])
            print(f"grammar: {took:.3f} s, longest answer {longest[0]:.3f} s", flush=True)
            shares.append(longest[0] / took)
            if shares[-1] < 0.3:
                return
        self.fail(f"{shares}")

    def test_many_at_once(self):
        """Those that find no room are told so; memory is bounded, and comes back."""
        router, most, over = self.c.router, [0], threading.Event()
        before = router.rss_bytes()

        def look():
            while not over.wait(0.01):
                most[0] = max(most[0], router.rss_bytes())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        path, body, status = HARD["no spaces"]
        answers = cluster.join_threads(cluster.in_threads(20, lambda _: self.c.post(path, body, timeout_s=120)))
        over.set()
        thread.join()
        statuses = [a.status for a in answers]
        print(f"{statuses.count(status)} read, {statuses.count(429)} refused, {(most[0] - before) >> 20} MiB more at most, "
              f"{(router.rss_bytes() - before) >> 20} MiB afterwards", flush=True)
        self.assertLessEqual(set(statuses), {status, 429})
        self.assertIn(status, statuses)
        for a in answers:
            if a.status == 429:
                self.assertGreater(int(a.headers["retry-after"]), 0)
                self.assertEqual(a.error["code"], "rate_limit_exceeded")
        if cluster.SLOWER == 1:
            self.assertLess(most[0] - before, GROWTH_BYTES)
            cluster.wait_until("the memory is back", lambda: router.rss_bytes() - before < 256 << 20, 10)
        self.c.complete({"prompt": "and on", "max_tokens": 4})

    def test_senders_that_leave(self):
        """What waits is not read for nobody."""
        path, body, status = HARD["escapes"]
        router = self.c.router
        begin = router.cpu_s()
        self.assertEqual(self.c.post(path, body).status, status)
        alone = router.cpu_s() - begin
        begin = router.cpu_s()
        socks = [self.send(path, body) for _ in range(6)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.assertEqual(self.c.post(path, body).status, status)
        used = router.cpu_s() - begin
        print(f"one alone: {alone:.2f} s, one behind six that left: {used:.2f} s", flush=True)
        self.assertLess(used, 5.5 * alone)

    def test_large_texts_mean_the_same(self):
        """Over the desk and past it."""
        for path, body in (("/tokenize", {"prompt": "The fox. "}), ("/v1/completions", {"prompt": "The fox. ", "max_tokens": 4,
                           "temperature": 0})):
            small, large = self.c.post(path, body), self.c.post(path, dict(body, metadata={"m": "m" * 100000}))
            self.assertEqual((small.status, large.status), (200, 200))
            for key in ("tokens", "usage"):
                self.assertEqual(small.json.get(key), large.json.get(key))
            if "choices" in small.json:
                self.assertEqual(small.json["choices"], large.json["choices"])

    def test_drain(self):
        """SIGTERM while bodies are read: they were there before it and are served; then the router ends."""
        for kinds in (("unused", "pieces"), ("no spaces",)):
            with self.start() as c:
                socks = [(send(c, *HARD[kind][:2]), HARD[kind][2]) for kind in kinds]
                # On the desk, or answered already: both mean that it was there before the signal.
                cluster.wait_until("the bodies are there", lambda: c.router.metrics().get("baton_desk_jobs")
                                   + len(select.select([sock for sock, _ in socks], [], [], 0)[0]) >= len(socks), 60)
                c.processes["router"].send_signal(signal.SIGTERM)
                for sock, status in socks:
                    answer = self.answer(sock)
                    self.assertEqual(answer[0], status, answer[2][:300])
                self.assertEqual(c.processes["router"].wait(10), 0)


if __name__ == "__main__":
    cluster.main()
