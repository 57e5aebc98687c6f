"""SIGTERM: nothing new is admitted, what runs is finished or handed over, then the program exits with 0."""
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import time
import unittest
import urllib.parse

import cluster


def body(i, tokens=500):
    return {"prompt": f"Number {i}. " + "Go on and on. " * 20, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}


class Drain(unittest.TestCase):
    def load(self, c, count, tokens=500):
        self.said = [0] * count

        def one(i):
            stream, text = c.stream("/v1/completions", dict(body(i, tokens), logprobs=0)), ""
            for chunk in stream:
                self.assertNotIn("error", chunk)
                for x in chunk["choices"]:
                    text += x["text"]
                    self.said[i] += len((x["logprobs"] or {}).get("tokens", ()))
            stream.close()
            self.assertTrue(stream.done)
            return text

        started = cluster.in_threads(count, one)

        def running():
            if started[2]:
                raise started[2][0]
            return min(self.said) > 3

        cluster.wait_until("all streams run", running, 30, every_s=0.005)
        return started

    def test_router(self):
        with cluster.parts(prefill=[[]], decode=[[]]) as c:
            router = c.processes["router"]
            load = self.load(c, 8)
            router.send_signal(signal.SIGTERM)

            def refused():
                try:
                    answer = c.post("/v1/completions", {"prompt": "too late", "max_tokens": 1}, timeout_s=2)
                except OSError:
                    return True  # no longer listening
                if answer.status == 503:
                    self.assertGreater(int(answer.headers["retry-after"]), 0)
                return answer.status == 503

            cluster.wait_until("nothing new is admitted", refused, 2)
            self.assertTrue(router.alive(), "it is still draining")
            cluster.join_threads(load, 60)
            self.assertEqual(self.said, [500] * 8)
            self.assertEqual(router.wait(15), 0)
            cluster.wait_until("the nodes are quiet", lambda: all(n.quiet() for n in c.workers()), 3)
            del c.nodes["router"]

    def test_decode_node_of_two(self):
        with cluster.parts(prefill=[[]], decode=[[], []]) as c:
            expected = [c.complete(body(i))["choices"][0]["text"] for i in range(8)]
            load = self.load(c, 8)
            began = time.monotonic()
            c.processes["d0"].send_signal(signal.SIGTERM)
            c.nodes["d0"].gone = True
            self.assertEqual(c.processes["d0"].wait(60), 0)
            print(f"drained in {time.monotonic() - began:.2f} s", flush=True)
            answer = c.post("/v1/completions", body(99, 2))
            self.assertEqual((answer.status, answer.headers["x-baton-decode"]), (200, "d1"))
            self.assertEqual(cluster.join_threads(load, 60), expected)
            self.assertEqual(self.said, [500] * 8)
            self.assertEqual(c.router.metrics().sum("baton_requests_total", outcome="failed"), 0)
            c.wait_quiet()

    def test_hand_over_at_the_deadline(self):
        """A drain whose time is up hands over what still runs: clients notice nothing."""
        with cluster.parts(prefill=[[]], decode=[["--timeouts-drain", "300ms"], []]) as c:
            tokens = 1000
            expected = [c.complete(body(i, tokens))["choices"][0]["text"] for i in range(4)]
            load = self.load(c, 4, tokens)
            c.processes["d0"].send_signal(signal.SIGTERM)
            c.nodes["d0"].gone = True
            self.assertEqual(c.processes["d0"].wait(15), 0)
            self.assertEqual(cluster.join_threads(load, 90), expected)
            self.assertEqual(self.said, [tokens] * 4)
            self.assertGreater(c.router.metrics().get("baton_requests_resumed_total"), 0)
            c.wait_quiet()

    def test_prefill_node_of_two(self):
        with cluster.parts(prefill=[[], []], decode=[[]]) as c:
            load = self.load(c, 8, 200)
            c.processes["p0"].send_signal(signal.SIGTERM)
            c.nodes["p0"].gone = True
            self.assertEqual(c.processes["p0"].wait(15), 0)
            answer = c.post("/v1/completions", body(99, 2))
            self.assertEqual((answer.status, answer.headers["x-baton-prefill"]), (200, "p1"))
            cluster.join_threads(load, 60)
            c.wait_quiet()

    def test_up_outlives_its_readers(self):
        """Who read the lines of `baton up` has gone, and then it has something to say: the cluster serves on."""
        def nodes(up):
            return [p for p in (cluster.child_pid(up.pid, n) for n in ("baton-prefill", "baton-decode", "baton-router")) if p]

        argv = [os.path.join(cluster.BIN, "baton"), "up", "--model", cluster.TINY, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                "--threads", "1", "--pool-bytes", str(cluster.POOL_BYTES)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cluster.SOURCE) as up:
            try:
                line = next(line for line in up.stdout if line.startswith(b"ready "))
                address = urllib.parse.urlsplit(cluster.fields(line.decode())["http"]).netloc
                up.stdout.close()
                up.stderr.close()
                os.kill(cluster.child_pid(up.pid, "baton-prefill"), signal.SIGKILL)
                cluster.wait_until("it is noticed", lambda: len(nodes(up)) == 2, 10)
                time.sleep(0.2)
                conn = http.client.HTTPConnection(address, timeout=20 * cluster.SLOWER)
                conn.request("POST", "/v1/completions", json.dumps({"prompt": "Once", "max_tokens": 2}))
                self.assertEqual(conn.getresponse().status, 200)
                conn.close()
                self.assertIsNone(up.poll())
                up.send_signal(signal.SIGINT)
                self.assertEqual(up.wait(20 * cluster.SLOWER), 0)
            finally:
                up.kill()

    def test_up_and_a_death_just_when_ready(self):
        """A node that has died when `up` reads that all are there: it is ready, and says what became of the node."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:" + str(free.getsockname()[1])

        def get(path, body=None):
            conn = http.client.HTTPConnection(address, timeout=20 * cluster.SLOWER)
            try:
                conn.request("POST" if body else "GET", path, body)
                answer = conn.getresponse()
                return answer.status, answer.read().decode()
            except OSError:
                return 0, ""
            finally:
                conn.close()

        def state(pid):
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()[0]

        argv = [os.path.join(cluster.BIN, "baton"), "up", "--model", cluster.TINY, "--listen", address, "--grpc", "127.0.0.1:0",
                "--threads", "1", "--pool-bytes", str(cluster.POOL_BYTES)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=cluster.SOURCE) as up:
            try:
                cluster.wait_until("there is a router", lambda: cluster.child_pid(up.pid, "baton-router"), 20)
                up.send_signal(signal.SIGSTOP)
                cluster.wait_until("it has both nodes",
                                   lambda: cluster.Metrics(get("/metrics")[1]).sum("baton_nodes", state="up") == 2, 20)
                prefill = cluster.child_pid(up.pid, "baton-prefill")
                os.kill(prefill, signal.SIGKILL)
                cluster.wait_until("it is dead", lambda: state(prefill) == "Z", 10)
                up.send_signal(signal.SIGCONT)
                self.assertTrue(any(line.startswith(b"ready ") for line in up.stdout))
                self.assertEqual(get("/v1/completions", json.dumps({"prompt": "Once", "max_tokens": 2}))[0], 200)
                self.assertIsNone(up.poll())
                up.send_signal(signal.SIGINT)
                self.assertEqual(up.wait(20 * cluster.SLOWER), 0)
            finally:
                up.kill()

    def test_up_without_stdio(self):
        """With stdin, stdout and stderr closed by the parent their numbers are nobody else's."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:" + str(free.getsockname()[1])

        def ready():
            conn = http.client.HTTPConnection(address, timeout=5)
            try:
                conn.request("GET", "/health/ready")
                return conn.getresponse().status == 200
            except OSError:
                self.assertIsNone(up.poll())
                return False
            finally:
                conn.close()

        words = [os.path.join(cluster.BIN, "baton"), "up", "--model", cluster.TINY, "--listen", address, "--grpc", "127.0.0.1:0",
                 "--threads", "1", "--pool-bytes", str(cluster.POOL_BYTES)]
        with subprocess.Popen(["sh", "-c", f"exec {shlex.join(words)} <&- >&- 2>&-"], cwd=cluster.SOURCE) as up:
            try:
                cluster.wait_until("it serves", ready, 20)
                up.send_signal(signal.SIGINT)
                self.assertEqual(up.wait(20 * cluster.SLOWER), 0)
            finally:
                up.kill()

    def test_while_loading(self):
        """A node that is told to stop before it is ready does so, instead of getting ready first."""
        def told_before():
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # what is pending stays so across exec()
            os.kill(os.getpid(), signal.SIGTERM)

        for program in ("baton-prefill", "baton-decode"):
            words = [os.path.join(cluster.BIN, program), "--model", cluster.TINY, "--listen", "127.0.0.1:0", "--http",
                     "127.0.0.1:0", "--threads", "1", "--pool-bytes", str(cluster.POOL_BYTES)]
            node = subprocess.run(words, cwd=cluster.SOURCE, capture_output=True, text=True, timeout=30 * cluster.SLOWER,
                                  preexec_fn=told_before, check=False)
            self.assertEqual((node.returncode, node.stdout), (0, ""), node.stderr)
            self.assertIn("while=loading", node.stderr)
            self.assertNotIn("node_ready", node.stderr)

    def test_up_under_load(self):
        """Ctrl-C on `baton up`: the streams end as they should, every process exits."""
        with cluster.up(prefill=1, decode=2) as c:
            pids = [n.pid for n in c.nodes.values()]
            load = self.load(c, 8)
            c.processes["up"].send_signal(signal.SIGINT)
            cluster.join_threads(load, 60)
            self.assertEqual(self.said, [500] * 8)
            self.assertEqual(c.processes["up"].wait(20), 0)
            for pid in pids:
                self.assertRaises(ProcessLookupError, cluster.os.kill, pid, 0)


if __name__ == "__main__":
    cluster.main()
