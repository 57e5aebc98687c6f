"""kill -9 in the middle of work. A decode or prefill node that dies costs clients a pause: every stream completes, and says
what it says undisturbed, no position lost and none repeated. When the router dies, what its calls held is released."""
import contextlib
import http.client
import os
import random
import signal
import time
import unittest

import cluster

STREAMS = 16


def requests(seed, prompt_words, max_tokens):
    """Greedy and sampled, with penalties, with two choices: whatever a resumed stream must rebuild."""
    rng = random.Random(seed)
    made = []
    for i in range(STREAMS):
        body = {"prompt": f"{seed}.{i} " + cluster.words(rng, rng.choice(prompt_words)), "max_tokens": max_tokens,
                "ignore_eos": True, "temperature": 0, "logprobs": 1, "stream_options": {"include_usage": True}}
        if i % 4 == 1:
            body.update(temperature=0.9, top_p=0.9, seed=i)
        if i % 4 == 2:
            body.update(temperature=0.7, seed=i, presence_penalty=0.5, repetition_penalty=1.2)
        if i % 8 == 3:
            body.update(temperature=1, seed=i, n=2, max_tokens=max_tokens // 2)
        made.append(body)
    return made


class Load:
    """Streams that run at the same time; what each has said so far can be seen from outside."""

    def __init__(self, c, bodies):
        self.c, self.bodies = c, bodies
        self.tokens = [0] * len(bodies)
        self.decode_nodes = [None] * len(bodies)
        self.started = cluster.in_threads(len(bodies), self.one)

    def one(self, i):
        stream = self.c.stream("/v1/completions", self.bodies[i])
        self.decode_nodes[i] = stream.headers["x-baton-decode"]
        said = {}
        usage = None
        for chunk in stream:
            if "error" in chunk:
                raise AssertionError(f"stream {i}: {chunk}")
            usage = chunk.get("usage") or usage
            for x in chunk["choices"]:
                mine = said.setdefault(x["index"], {"text": "", "tokens": [], "logprobs": [], "finish": []})
                mine["text"] += x["text"]
                if x.get("logprobs"):
                    mine["tokens"] += x["logprobs"]["tokens"]
                    mine["logprobs"] += x["logprobs"]["token_logprobs"]
                    self.tokens[i] += len(x["logprobs"]["tokens"])
                if x["finish_reason"]:
                    mine["finish"].append(x["finish_reason"])
        stream.close()
        assert stream.done, f"stream {i} ended without [DONE]"
        return said, usage["completion_tokens"]

    def wait_tokens(self, each):
        def check():
            if self.started[2]:
                raise self.started[2][0]
            return min(self.tokens) >= each

        cluster.wait_until(f"{each} tokens on every stream", check, 60, every_s=0.002)

    def join(self):
        return cluster.join_threads(self.started)


class Death(unittest.TestCase):
    def check(self, bodies, expected, got):
        for i, (body, e, g) in enumerate(zip(bodies, expected, got)):
            self.assertEqual(g[1], body["max_tokens"] * body.get("n", 1), f"stream {i}: tokens counted")
            for index, said in g[0].items():
                self.assertEqual(len(said["tokens"]), body["max_tokens"], f"stream {i}.{index}: tokens said")
                self.assertEqual(said["finish"], ["length"], f"stream {i}.{index}")
            self.assertEqual(e[0], g[0], f"stream {i}")

    def undisturbed(self, bodies):
        with cluster.up(prefill=0, decode=0, aggregated=1) as c:
            return Load(c, bodies).join()

    def test_decode_node(self):
        for transport in ("shm", "ucx"):
            with self.subTest(transport=transport):
                self.decode_node(transport)

    def decode_node(self, transport):
        bodies = requests(1, (5, 30, 90, 250), 200)
        expected = self.undisturbed(bodies)
        with cluster.up(prefill=2, decode=2, transport=transport) as c:
            load = Load(c, bodies)
            load.wait_tokens(8)
            on_it = [i for i, n in enumerate(load.decode_nodes) if n == "d0"]
            unfinished = sum(load.tokens[i] < bodies[i]["max_tokens"] for i in on_it)
            c.kill("d0")
            got = load.join()
            self.check(bodies, expected, got)
            self.assertGreater(unfinished, 0, "the node was serving when it died")
            self.assertGreater(c.router.metrics().get("baton_requests_resumed_total"), 0)
            self.assertEqual(c.router.metrics().sum("baton_requests_total", outcome="failed"), 0)
            c.wait_quiet()
            self.assertEqual(c.complete({"prompt": "still here", "max_tokens": 3, "ignore_eos": True})["usage"]
                             ["completion_tokens"], 3)

    def test_prefill_node_of_two(self):
        bodies = requests(2, (400, 700, 900), 24)
        expected = self.undisturbed(bodies)
        with cluster.up(prefill=2, decode=2, more=["--block-tokens", "16"]) as c:
            load = Load(c, bodies)
            cluster.wait_until("the prefill node works", lambda: c.nodes["p0"].metrics().sum(
                "baton_kv_transfer_bytes_total", direction="out") > 0, 20, every_s=0.001)
            waiting = sum(n == 0 for n in load.tokens)
            c.kill("p0")
            self.check(bodies, expected, load.join())
            self.assertGreater(waiting, 0, "it had prompts to compute when it died")
            self.assertIn("event=prefill_lost", c.processes["up"].stderr())
            self.assertEqual(c.router.metrics().sum("baton_requests_total", outcome="failed"), 0)
            c.wait_quiet()

    def test_only_prefill_node(self):
        """Decode nodes then compute prompts by themselves."""
        bodies = requests(3, (400, 700, 900), 24)
        expected = self.undisturbed(bodies)
        with cluster.up(prefill=1, decode=2) as c:
            load = Load(c, bodies)
            cluster.wait_until("the prefill node works", lambda: c.nodes["p0"].metrics().sum(
                "baton_kv_transfer_bytes_total", direction="out") > 0, 20, every_s=0.001)
            waiting = sum(n == 0 for n in load.tokens)
            c.kill("p0")
            self.check(bodies, expected, load.join())
            self.assertGreater(waiting, 0, "it had prompts to compute when it died")
            self.assertIn("event=prefill_lost", c.processes["up"].stderr())
            c.wait_quiet()
            after = c.complete({"prompt": "Nobody prefills " + "any more " * 60, "max_tokens": 4,
                                "ignore_eos": True})
            self.assertEqual(after["usage"]["completion_tokens"], 4)

    def test_router(self):
        """Its calls end with it: nodes have everything back within 2 s."""
        with cluster.parts(prefill=[[]], decode=[[], []]) as c:
            bodies = requests(4, (30, 300), 1000)

            def one(i):
                try:
                    stream = c.stream("/v1/completions", bodies[i])
                    with contextlib.closing(stream):
                        for _ in stream:
                            pass
                except (OSError, ValueError, http.client.HTTPException):
                    pass  # its server died: any way to notice is fine

            load = cluster.in_threads(STREAMS, one)
            cluster.wait_until("both decode nodes run", lambda: all(
                n.metrics().get("baton_requests_running") > 0 for n in c.workers("decode")), 30)
            c.kill("router")
            began = time.monotonic()
            cluster.wait_until("the nodes are quiet", lambda: all(n.quiet() for n in c.workers()), 2)
            print(f"quiet {time.monotonic() - began:.3f} s after the router's death", flush=True)
            cluster.join_threads(load, 30)
            # Another router takes over the same nodes.
            c.expected_exits.discard("router")
            c.processes.pop("router").close()
            cluster.start_router(c, [("prefill", c.nodes["p0"].grpc), ("decode", c.nodes["d0"].grpc),
                                     ("decode", c.nodes["d1"].grpc)])
            c.complete({"prompt": "A new router. " * 30, "max_tokens": 4})

    def test_a_node_comes_back(self):
        with cluster.parts(prefill=[[]], decode=[[]]) as c:
            c.complete({"prompt": "before", "max_tokens": 2})
            address = c.nodes["d0"].grpc
            c.kill("d0")
            cluster.wait_until("the router says so", lambda: c.router.get("/health/ready")[0] == 503, 10)
            answer = c.post("/v1/completions", {"prompt": "nobody is there", "max_tokens": 2})
            self.assertEqual(answer.status, 503)
            self.assertGreater(int(answer.headers["retry-after"]), 0)
            c.processes.pop("d0").close()
            c.expected_exits.discard("d0")
            cluster.start_node(c, "baton-decode", "d0", more=["--node-listen", address])
            c.wait_nodes_up()
            long = c.complete({"prompt": "after it came back " * 30, "max_tokens": 2, "ignore_eos": True})
            self.assertEqual(long["usage"]["completion_tokens"], 2)
            self.assertGreater(c.nodes["d0"].metrics().sum("baton_kv_transfer_bytes_total", direction="in"), 0,
                               "the prefill node found the new one")

    def test_stopped_decode_node(self):
        """SIGSTOP: the node answers nothing and nothing says so. Keepalive notices, streams resume."""
        bodies = requests(5, (30, 90), 150)
        expected = self.undisturbed(bodies)
        keepalive = ["--timeouts-keepalive", "5s"]
        with cluster.parts(prefill=[[]], decode=[[], []], router_more=keepalive) as c:
            load = Load(c, bodies)
            load.wait_tokens(4)
            os.kill(c.nodes["d0"].pid, signal.SIGSTOP)
            try:
                self.check(bodies, expected, load.join())
            finally:
                os.kill(c.nodes["d0"].pid, signal.SIGCONT)
            c.wait_quiet(15)


if __name__ == "__main__":
    cluster.main()
