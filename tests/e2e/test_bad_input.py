"""What bad input gets: a clear error and nothing lost. After each kind the cluster still serves, holds nothing, has all its
processes, and has not grown."""
import json
import os
import random
import re
import socket
import struct
import tempfile
import time

import cluster

CONTEXT = 2048
GROWTH_BYTES = 64 << 20


class BadInput(cluster.SharedCase):
    @classmethod
    def setUpClass(cls):
        shm = ["--kv-transport", "shm"]
        cls.c = cluster.parts(prefill=[shm], decode=[shm], router_more=["--router-limits-body-bytes", "1MiB"])
        cls.pids = {n.name: n.pid for n in cls.c.nodes.values()}
        cls.c.complete({"prompt": "warm " * 100, "max_tokens": 4})
        cls.rss = {n.name: n.rss_bytes() for n in cls.c.nodes.values()}
        cls.http = (cls.c.router.host, cls.c.router.port)

    def tearDown(self):
        for process in self.c.processes.values():
            self.assertTrue(process.alive(), f"{process.name} is still there")
        a = self.c.complete({"prompt": "Still serving? " * 20, "max_tokens": 4, "ignore_eos": True})
        self.assertEqual(a["usage"]["completion_tokens"], 4)
        self.c.wait_quiet()
        for n in self.c.nodes.values():
            self.assertLess(n.rss_bytes() - self.rss[n.name], GROWTH_BYTES * cluster.SLOWER, f"{n.name} has grown")

    # ---- helpers ----

    def check_error(self, answer, status, param=None, code=None, says=None):
        self.assertEqual(answer.status, status, answer.body)
        self.assertTrue(answer.headers["content-type"].startswith("application/json"), answer.headers)
        error = answer.error
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertTrue(error["message"])
        if param:
            self.assertEqual(error["param"], param, error)
        if code:
            self.assertEqual(error["code"], code, error)
        if says:
            self.assertRegex(error["message"], says)
        for secret in ("127.0.0.1", cluster.SOURCE):
            self.assertNotIn(secret, error["message"])
        return error

    def refused(self, fields, param=None, status=400, path="/v1/completions", **more):
        body = {"prompt": "Hi", "max_tokens": 2} if path == "/v1/completions" else {
            "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        body.update(fields)
        body = {k: v for k, v in body.items() if v is not ...}
        with self.subTest(fields=str(fields)[:80], path=path):
            return self.check_error(self.c.post(path, body), status, param, **more)

    def exchange(self, address, payload, within_s=5, half_close=True):
        """Sends bytes and reads until the other side closes or says nothing more."""
        sock = socket.create_connection(address, 10)
        received = b""
        try:
            sock.sendall(payload)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            sock.settimeout(within_s)
            while True:
                part = sock.recv(65536)
                if not part:
                    break
                received += part
        except OSError:
            pass  # reset, or nothing more in time: the other side's choice
        finally:
            sock.close()
        return received

    # ---- bodies ----

    def test_not_json(self):
        for body in (b"", b"{", b"nonsense", b"[1,2]", b"\"text\"", b"null", b'{"prompt": "a" "b"}', b'{"prompt": "a",}', b"\x00\x01\x02",
                     b'{"prompt": "\xff\xfe"}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "\\ud800"}', b"[" * 100000,
                     b'{"a":' * 50000, b'{"prompt": NaN}', b'{"prompt": 1e999}', b'{"prompt":"x"}trailing'):
            for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
                with self.subTest(body=body[:30], path=path):
                    self.check_error(self.c.request("POST", path, body), 400)

    def test_wrong_types(self):
        for fields, param in (({"prompt": 7}, "prompt"), ({"prompt": {}}, "prompt"), ({"prompt": []}, "prompt"),
                              ({"prompt": [[]]}, "prompt"), ({"prompt": [1, "a"]}, "prompt"), ({"prompt": ["a", 1]}, "prompt"),
                              ({"prompt": [1.5]}, "prompt"), ({"prompt": [-1]}, "prompt"), ({"prompt": [10**9]}, "prompt"),
                              ({"prompt": [2**40]}, "prompt"), ({"prompt": ...}, "prompt"),
                              ({"max_tokens": "4"}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
                              ({"temperature": "hot"}, "temperature"), ({"temperature": True}, "temperature"),
                              ({"n": "2"}, "n"), ({"stream": "yes"}, "stream"), ({"stop": 5}, "stop"), ({"stop": [5]}, "stop"),
                              ({"logit_bias": []}, "logit_bias"), ({"seed": "x"}, "seed"), ({"logprobs": "all"}, "logprobs"),
                              ({"model": 5}, "model"), ({"stop_token_ids": ["a"]}, "stop_token_ids"),
                              ({"stream_options": 5, "stream": True}, "stream_options")):
            self.refused(fields, param)

    def test_out_of_range(self):
        for fields, param in (({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"),
                              ({"max_tokens": 10**30}, "max_tokens"), ({"temperature": -0.1}, "temperature"),
                              ({"temperature": 2.1}, "temperature"), ({"top_p": 0}, "top_p"), ({"top_p": 1.1}, "top_p"),
                              ({"min_p": -1}, "min_p"), ({"min_p": 2}, "min_p"), ({"top_k": -2}, "top_k"),
                              ({"presence_penalty": 3}, "presence_penalty"), ({"frequency_penalty": -3}, "frequency_penalty"),
                              ({"repetition_penalty": 0}, "repetition_penalty"), ({"n": 0}, "n"), ({"n": 65}, "n"),
                              ({"logprobs": 21}, "logprobs"), ({"logprobs": -1}, "logprobs"), ({"stop": ""}, "stop"),
                              ({"stop": ["x"] * 17}, "stop"), ({"logit_bias": {"3": 101}}, "logit_bias"),
                              ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": {"99999999": 1}}, "logit_bias"),
                              ({"best_of": 3}, "best_of"), ({"stream_options": {"include_usage": True}}, "stream_options"),
                              ({"min_tokens": 9}, "min_tokens"), ({"stop_token_ids": [10**6]}, "stop_token_ids")):
            self.refused(fields, param)
        for text in (b"NaN", b"Infinity", b"-Infinity", b"1e400"):
            for key in (b"temperature", b"top_p", b"presence_penalty"):
                body = b'{"prompt": "Hi", "max_tokens": 2, "%s": %s}' % (key, text)
                self.check_error(self.c.request("POST", "/v1/completions", body), 400)

    def test_chat(self):
        path = "/v1/chat/completions"
        for fields, param in (({"messages": ...}, "messages"), ({"messages": []}, "messages"), ({"messages": "Hi"}, "messages"),
                              ({"messages": [5]}, None), ({"messages": [{"content": "x"}]}, None),
                              ({"messages": [{"role": 5, "content": "x"}]}, None),
                              ({"messages": [{"role": "user", "content": 5}]}, None),
                              ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
                              ({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": 3}, "logprobs"),
                              ({"response_format": {"type": "xml"}}, "response_format"),
                              ({"response_format": {"type": "json_schema"}}, "response_format")):
            self.refused(fields, param, path=path)

    def test_too_long(self):
        ids = [5] * (CONTEXT - 10)
        answer = self.c.post("/v1/completions", {"prompt": ids, "max_tokens": 40})
        error = self.check_error(answer, 400, code="context_length_exceeded")
        self.assertEqual(error["type"], "invalid_request_error")
        self.assertTrue(error["message"].startswith(
            f"This model's maximum context length is {CONTEXT} tokens. However, you requested 40 output tokens and your prompt "
            f"contains {CONTEXT - 10} input tokens, for a total of {CONTEXT + 30} tokens. Please reduce "), error["message"])
        for path, body in (("/v1/completions", {"prompt": [5] * 5000}), ("/v1/completions", {"prompt": "word " * 20000}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 20000}]})):
            self.check_error(self.c.post(path, body), 400, code="context_length_exceeded",
                             says=f"This model's maximum context length is {CONTEXT} tokens")
        # Exactly full is fine.
        a = self.c.complete({"prompt": [5] * (CONTEXT - 4), "max_tokens": 4, "ignore_eos": True})
        self.assertEqual(a["usage"]["completion_tokens"], 4)

    def test_unknown_model(self):
        for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", {"messages": [
                {"role": "user", "content": "x"}]}), ("/tokenize", {"prompt": "x"})):
            self.check_error(self.c.post(path, dict(body, model="gpt-17")), 404, code="model_not_found",
                             says="^The model `gpt-17` does not exist")
        self.check_error(self.c.get("/v1/models/gpt-17"), 404, code="model_not_found")

    def test_paths_and_methods(self):
        for path in ("/", "/v1", "/v1/completion", "/v1/completions/", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/\u00e9",
                     "/v1/models/../../x", "/" + "a" * 4000):
            answer = self.c.get(path.encode().decode("latin1") if path.isascii() else "/v1/%C3%A9")
            self.check_error(answer, 404)
        for method, path in (("GET", "/v1/completions"), ("PUT", "/v1/completions"), ("DELETE", "/v1/models"), ("POST", "/v1/models"),
                             ("POST", "/metrics"), ("PATCH", "/v1/chat/completions"), ("GET", "/tokenize")):
            answer = self.c.request(method, path, {} if method != "GET" else None)
            self.check_error(answer, 405)
            self.assertTrue(answer.headers["allow"])
        self.assertIn(self.c.request("BREW", "/v1/completions").status, (400, 404, 405, 501))

    def test_body_over_the_limit(self):
        answer = self.exchange(self.http, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
                               half_close=False, within_s=2)
        self.assertIn(b" 413 ", answer.split(b"\r\n")[0])
        big = json.dumps({"prompt": "x" * (2 << 20)}).encode()
        self.check_error(self.c.request("POST", "/v1/completions", big), 413)

        def chunks():
            for _ in range(64):
                yield b"x" * 65536

        sock = self.c.connect()
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for part in chunks():
                sock.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
            sock.sendall(b"0\r\n\r\n")
            self.assertIn(b" 413 ", sock.recv(4096).split(b"\r\n")[0])
        except ConnectionError:
            pass  # closed in the middle of it: as good
        finally:
            sock.close()

    def test_headers_over_the_limit(self):
        answer = self.exchange(self.http, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 200000 + b"\r\n\r\n",
                               half_close=False, within_s=2)
        self.assertTrue(answer == b"" or re.match(rb"HTTP/1.1 (400|413|431) ", answer), answer[:100])
        many = b"".join(b"X-%d: y\r\n" % i for i in range(20000))
        answer = self.exchange(self.http, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n", half_close=False,
                               within_s=2)
        self.assertTrue(answer == b"" or re.match(rb"HTTP/1.1 (400|413|431) ", answer), answer[:100])

    # ---- connections ----

    def test_half_sent(self):
        """Connections that stop anywhere in a request cost nobody anything."""
        whole = b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\n{"prompt": "Hello", "max_tokens":3}'
        held = []
        for cut in list(range(0, len(whole), 5)) * 8:
            sock = self.c.connect()
            sock.sendall(whole[:cut])
            held.append(sock)
        a = self.c.complete({"prompt": "In between", "max_tokens": 4, "ignore_eos": True})
        self.assertEqual(a["usage"]["completion_tokens"], 4)
        for sock in held:
            sock.close()

    def test_odd_http(self):
        """What is not HTTP as it should be gets the API's error, whoever finds it, or a closed connection."""
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        long_header = b"X: " + b"y" * 100000 + b"\r\n\r\n"
        for payload, status in ((b"GET / HTTP/9.9\r\n\r\n", 505), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
                                (b"POST /v1/completions HTTP/1.1\r\n\r\n", 400), (head + b"Content-Length: -5\r\n\r\n", 400),
                                (head + b"Content-Length: x\r\n\r\n", 400), (head + b"Host: y\r\n\r\n", 400),
                                (head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
                                (head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
                                (chunked + b"ZZZ\r\n", 400), (chunked + b"2\r\nabcd\r\n", 400), (chunked + b"f" * 20 + b"\r\n", 413),
                                (head + b"no colon\r\n\r\n", 400), (head + b" folded: 1\r\n\r\n", 400), (head + long_header, 431),
                                (b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
                                (b"GET /\x00\x01 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
                                (b"\r\n\r\n", None), (b"GET\r\n\r\n", None), (b"hello\r\n\r\n", None), (b"\x16\x03\x01\x02" * 9, None)):
            with self.subTest(payload=payload[:80]):
                answer = self.exchange(self.http, payload, within_s=2, half_close=False)
                if status is None:
                    self.assertEqual(answer, b"")
                    continue
                head_text, _, body = answer.partition(b"\r\n\r\n")
                self.assertEqual(head_text.split(b" ")[1], str(status).encode(), answer[:200])
                self.assertIn(b"content-type: application/json", head_text.lower())
                self.assertTrue(body.startswith(b"{"), answer)
                self.assertEqual(set(json.loads(body)["error"]), {"message", "type", "param", "code"})

    def test_left_within_a_request(self):
        """Clients whose last bytes and whose end come in one segment: the router keeps nothing of them."""
        whole = b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\n{"prompt": "Hello", "max_tokens":3}'
        descriptors = f"/proc/{self.c.nodes['router'].pid}/fd"
        before = len(os.listdir(descriptors))
        held = []
        for cut in range(1, len(whole) - 1, 3):
            sock = self.c.connect()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            sock.sendall(whole[:cut])
            sock.shutdown(socket.SHUT_WR)
            held.append(sock)
        cluster.wait_until("their descriptors are back", lambda: len(os.listdir(descriptors)) <= before + 4, 10)
        for sock in held:
            sock.close()

    def test_many_long_prompts(self):
        """The first that is too long refuses them all: the others are not tokenized."""
        def cost(body):
            before = self.c.router.cpu_s()
            self.assertEqual(self.c.post("/v1/completions", body).status, 400)
            return self.c.router.cpu_s() - before

        body = {"prompt": ["ab1 z" * 20000] + ["a1b2 c,d." * 500] * 200, "max_tokens": 1}
        parsing = sum(cost(dict(body, n=0)) for _ in range(10))
        self.assertLess(sum(cost(body) for _ in range(10)), 2 * parsing + 0.05)

    def listening(self, pid):
        """The IPv4 TCP addresses that a process listens on: HTTP and what carries KV (gRPC's socket is an IPv6 one)."""
        inodes = set()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                match = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                continue
            if match:
                inodes.add(match.group(1))
        found = set()
        with open(f"/proc/{pid}/net/tcp") as f:
            for line in list(f)[1:]:
                part = line.split()
                if part[3] == "0A" and part[9] in inodes:
                    host, port = part[1].split(":")
                    found.add((socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)))
        return sorted(found)

    def garbage(self, address, rng):
        grpc_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        for size in (0, 1, 4, 9, 24, 100, 1000, 65536):
            noise = rng.randbytes(size)
            for payload in (noise, grpc_preface + noise, struct.pack("<Q", size) + noise, b"\x00" * size, b"\xff" * size,
                            grpc_preface + struct.pack(">I", 0xffffff00) + noise):
                self.exchange(address, payload, within_s=0.03)
        half_open = [socket.create_connection(address, 10) for _ in range(40)]
        for s in half_open[:20]:
            s.sendall(grpc_preface[:7])
        for s in half_open:
            s.close()

    def test_garbage_on_every_port(self):
        rng = random.Random(6)
        for node in self.c.nodes.values():
            for port in (node.port, int(node.grpc.rpartition(":")[2])):
                self.garbage((node.host, port), rng)

    def test_garbage_on_kv_ports(self):
        rng = random.Random(8)
        with cluster.up(transport="ucx") as c:
            body = {"prompt": "Before the noise. " * 30, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
            expected = c.complete(body)["choices"][0]["text"]
            for node in c.workers():
                addresses = [a for a in self.listening(node.pid) if a[1] != node.port]
                self.assertGreaterEqual(len(addresses), 1, node.name)
                for address in addresses:
                    self.garbage(address, rng)
            for i in range(3):
                self.assertEqual(c.complete(dict(body, cache_salt=str(i)))["choices"][0]["text"], expected)
            self.assertGreater(c.kv_bytes("ucx"), 0)
            c.wait_quiet()

    def test_garbage_while_serving(self):
        """Noise on the internal ports while streams run: they say what they say undisturbed."""
        body = {"prompt": "Carry on. " * 50, "max_tokens": 300, "ignore_eos": True, "temperature": 0}
        expected = self.c.complete(body)["choices"][0]["text"]
        load = cluster.in_threads(6, lambda i: self.c.complete(dict(body, cache_salt=str(i)))["choices"][0]["text"])
        rng = random.Random(7)
        until = time.monotonic() + 1.5
        addresses = [("127.0.0.1", p) for n in self.c.workers() for p in (n.port, int(n.grpc.rpartition(":")[2]))]
        while time.monotonic() < until:
            self.exchange(rng.choice(addresses), rng.randbytes(rng.randrange(1, 4000)), within_s=0.01)
        self.assertEqual(cluster.join_threads(load), [expected] * 6)

    # ---- keys, nodes, programs ----

    def test_api_keys(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("sk-one\n\n# a comment is not a key\nsk-two\n")
            keys.flush()
            more = ["--api-keys-file", keys.name]
            with cluster.parts(decode=[["--role", "both"]], router_more=more) as c:
                for headers in ({}, {"authorization": "Bearer sk-three"}, {"authorization": "Bearer "}, {"authorization": "sk"},
                                {"x-api-key": "sk-on"}, {"x-api-key": "sk-onee"}, {"authorization": "Bearer " + "x" * 8000}):
                    for method, path, body in (("POST", "/v1/completions", {"prompt": "x"}), ("GET", "/v1/models", None),
                                               ("POST", "/tokenize", {"prompt": "x"})):
                        answer = c.request(method, path, body, headers)
                        error = self.check_error(answer, 401, code="invalid_api_key")
                        self.assertEqual(error["type"], "authentication_error")
                for headers in ({"authorization": "Bearer sk-one"}, {"x-api-key": "sk-two"}, {"Authorization": "bearer sk-two"}):
                    self.assertEqual(c.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=headers).status, 200)
                self.assertEqual(c.get("/health/ready").status, 200)

    def test_foreign_model_is_refused(self):
        """A node of another model cannot join; the others serve on."""
        model = os.path.join(cluster.SHARED_MODELS, "stories260K")
        if not os.path.isdir(model):
            self.skipTest(f"no {model}")
        with cluster.Cluster() as c:
            cluster.start_node(c, "baton-decode", "d0", more=["--role", "both"])
            cluster.start_node(c, "baton-decode", "x0", model=model, more=["--role", "both"])
            cluster.start_router(c, [("decode", c.nodes["d0"].grpc), ("decode", c.nodes["x0"].grpc)])
            cluster.wait_until("it is refused", lambda: "event=node_refused" in c.processes["router"].stderr(), 10)
            served = {c.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).headers["x-baton-decode"] for _ in range(8)}
            self.assertEqual(len(served), 1)

    def test_start_mistakes(self):
        """A start that fails is one line that says why, and a status that is not 0."""
        def run(program, *args):
            p = cluster.subprocess.run([os.path.join(cluster.BIN, program), *args], capture_output=True, text=True, timeout=60,
                                       cwd=cluster.SOURCE)
            self.assertNotEqual(p.returncode, 0, args)
            self.assertGreater(p.returncode, 0, (args, p.stderr))
            lines = [line for line in p.stderr.splitlines() if " level=" not in line]
            self.assertEqual(len(lines), 1, (args, p.stderr))
            return lines[0]

        tiny = cluster.TINY
        free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self.assertIn("no/such", run("baton-decode", "--model", "no/such", *free))
        self.assertIn("no-such-flag", run("baton-decode", "--model", tiny, "--no-such-flag", "1"))
        self.assertIn("block", run("baton-decode", "--model", tiny, "--block-tokens", "0"))
        self.assertIn("node.role", run("baton-decode", "--model", tiny, "--role", "prefill", *free))
        self.assertIn("node.role", run("baton-prefill", "--model", tiny, "--role", "both", *free))
        self.assertIn("max_context", run("baton-decode", "--model", tiny, "--max-context", "1", *free))
        taken = str(self.c.nodes["d0"].port)
        self.assertIn(taken, run("baton-decode", "--model", tiny, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:" + taken))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
            config.write("model: {path: models/tiny}\nkv:\n  block_tokens: sixteen\n")
            config.flush()
            line = run("baton-decode", "--config", config.name)
            self.assertIn(f"{config.name}:3", line)
            self.assertIn("kv.block_tokens", line)
            self.assertIn("sixteen", line)


if __name__ == "__main__":
    cluster.main()
