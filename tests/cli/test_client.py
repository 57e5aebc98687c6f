#!/usr/bin/env python3
"""The commands that talk to a server (bench serve, complete, chat), against fake_openai.py: counts exactly, times only
as loosely as a busy machine needs. test_client.py BATON [test names]"""
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
BATON = os.path.abspath(sys.argv.pop(1))


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "fake_openai.py")],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cls.url = f"http://127.0.0.1:{int(cls.server.stdout.readline())}"
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.server.stdin.close()
        cls.server.wait(10)
        cls.server.stdout.close()
        cls.folder.cleanup()

    def run_baton(self, *words, stdin=None):
        done = subprocess.run([BATON, *words], capture_output=True, text=True, timeout=120, input=stdin)
        self.assertNotIn("Sanitizer", done.stderr)
        return done

    def bench(self, *words, model="fake", status=0, probe="false"):
        out = os.path.join(self.folder.name, "out.json")
        done = self.run_baton("bench", "serve", "--url", self.url, "--model", model, "--json", out,
                              "--probe=" + probe, "--output-tokens", "6", *words)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        with open(out, encoding="utf-8") as f:
            return json.load(f), done

    def seen(self):
        with urllib.request.urlopen(self.url + "/seen") as answer:
            return json.load(answer)

    def test_counts_and_times(self):
        r, done = self.bench("--concurrency", "4", "--requests", "24", "--slo", "ttft=5000,itl=5000",
                             model="fake:ttft=60,itl=8")
        self.assertEqual((r["completed"], r["failed"], r["concurrency_max"]), (24, 0, 4))
        self.assertEqual((r["output_tokens"], r["input_tokens"], r["cached_tokens"]), (24 * 6, 24 * 7, 48))
        self.assertEqual((r["itl_ms"]["count"], r["tpot_ms"]["count"], r["ttft_ms"]["count"]), (24 * 5, 24, 24))
        for name, least in (("ttft_ms", 55), ("itl_ms", 4), ("tpot_ms", 6), ("e2e_ms", 95)):
            figures = r[name]
            self.assertGreater(figures["mean"], least, name)
            self.assertLess(figures["p50"], 20 * least, name)
            order = [figures[k] for k in ("p50", "p90", "p95", "p99", "max")]
            self.assertEqual(order, sorted(order), name)
        self.assertAlmostEqual(r["request_throughput"], 24 / r["duration_seconds"], 6)
        self.assertAlmostEqual(r["output_token_throughput"], 144 / r["duration_seconds"], 6)
        self.assertAlmostEqual(r["goodput"], r["request_throughput"], 6)
        self.assertIn("bench serve", r["command"])
        self.assertTrue(r["revision"] and r["formulas"]["goodput"] and r["probe"]["cpu"])
        for word in ("TTFT", "ITL", "TPOT", "E2E", "p99", "goodput", "requests/s"):
            self.assertIn(word, done.stdout)

    def test_probes_before_and_after(self):
        r, _ = self.bench("--requests", "2", probe="true")
        both = [r["probe_before"], r["probe_after"]]
        self.assertNotEqual(*both)
        for k in ("gflops", "gbytes_per_second", "cache_gbytes_per_second"):
            self.assertEqual(r["probe"][k], max(p[k] for p in both))
        r, _ = self.bench("--requests", "2")
        self.assertEqual((r["probe_before"], r["probe_after"]), (None, None))
        self.assertNotIn("gflops", r["probe"])

    def test_bounds_of_goodput(self):
        r, _ = self.bench("--requests", "5", "--slo", "ttft=20", model="fake:ttft=60")
        self.assertEqual(r["goodput"], 0)
        r, _ = self.bench("--requests", "5")
        self.assertIsNone(r["goodput"])

    def test_each_failure_by_its_kind(self):
        kinds = {"http500": "http_500", "http429": "http_429", "error": "server_error", "cut": "cut_off",
                 "nodone": "cut_off", "malformed": "malformed", "empty": "no_tokens"}
        for fault, kind in kinds.items():
            with self.subTest(fault):
                r, done = self.bench("--concurrency", "2", "--requests", "9", model=f"fake:fault={fault},every=3",
                                     status=1)
                self.assertEqual((r["completed"], r["failed"]), (6, 3))
                self.assertEqual(r["failures"][kind]["count"], 3)
                self.assertIn("3 of 9 requests failed", done.stderr)
                self.assertEqual(r["output_tokens"], 36)
        r, _ = self.bench("--requests", "3", "--allow-failures", model="fake:fault=http500,x=1")
        self.assertEqual(r["failed"], 3)
        self.assertIn("it broke", r["failures"]["http_500"]["example"])

    def test_timeout(self):
        begin = time.monotonic()
        r, _ = self.bench("--requests", "2", "--concurrency", "2", "--timeout", "1", model="fake:fault=slow", status=1)
        self.assertEqual(r["failures"]["timeout"]["count"], 2)
        self.assertLess(time.monotonic() - begin, 20)

    def test_odd_answers_are_told(self):
        r, _ = self.bench("--requests", "4", model="fake:fault=nousage")
        self.assertEqual((r["without_usage"], r["output_tokens"], r["completed"]), (4, 24, 4))
        r, _ = self.bench("--requests", "4", model="fake:fault=short")
        self.assertEqual((r["other_length"], r["output_tokens"]), (4, 20))

    def test_what_is_sent(self):
        before = len(self.seen())
        self.bench("--requests", "3", "--input-tokens", "17", "--api-key", "secret", "--seed", "5")
        posts = self.seen()[before:]
        first = list(posts)
        prompts = [p["body"]["prompt"] for p in posts if p["path"] == "/v1/completions"]
        self.assertEqual([len(p) for p in prompts], [17, 17, 17])
        self.assertTrue(all(1000 <= i < 1040 for p in prompts for i in p))
        self.assertNotEqual(prompts[0], prompts[1])
        body = posts[-1]["body"]
        self.assertEqual((body["max_tokens"], body["ignore_eos"], body["stream"]), (6, True, True))
        self.assertEqual(body["stream_options"], {"include_usage": True})
        self.assertEqual(posts[-1]["auth"], "Bearer secret")
        before = len(self.seen())
        r, _ = self.bench("--requests", "3", "--input-tokens", "17", "--api-key", "secret", "--seed", "5")
        self.assertEqual([p["body"] for p in self.seen()[before:]], [p["body"] for p in first])
        self.assertNotIn("secret", r["command"])
        before = len(self.seen())
        self.bench("--requests", "1", "--input-tokens", "30", model="fake:notokenize")
        self.assertTrue(all(10 <= i < 1000 for i in self.seen()[-1]["body"]["prompt"]))

    def test_chat_and_prompt_files(self):
        path = os.path.join(self.folder.name, "prompts.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write("first\n\n  \nsecond\n")
        before = len(self.seen())
        r, _ = self.bench("--requests", "4", "--chat", "--prompts", path, "--details", "--ignore-eos=false")
        bodies = [p["body"] for p in self.seen()[before:]]
        self.assertEqual([b["messages"][0]["content"] for b in bodies], ["first", "second"] * 2)
        self.assertEqual(bodies[0]["max_completion_tokens"], 6)
        self.assertNotIn("ignore_eos", bodies[0])
        self.assertEqual([len(x["gaps_ms"]) for x in r["requests"]], [5] * 4)
        self.assertTrue(r["requests"][1]["text"].startswith("echo:second"))

    def test_open_loops(self):
        begin = time.monotonic()
        r, _ = self.bench("--rate", "40", "--requests", "20", "--burstiness", "4")
        self.assertEqual(r["completed"], 20)
        self.assertGreater(time.monotonic() - begin, 0.2)
        r, _ = self.bench("--rate", "30", "--duration", "0.5")
        self.assertEqual(r["failed"], 0)
        self.assertGreater(r["completed"], 1)
        path = os.path.join(self.folder.name, "trace.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            for at, ids in ((0, [1, 2]), (200, [1, 3]), (400, [4])):
                f.write(json.dumps({"timestamp": at, "input_length": 520 if len(ids) > 1 else 40, "output_length": 3,
                                    "hash_ids": ids}) + "\n")
        before = len(self.seen())
        r, _ = self.bench("--trace", path, "--speed", "2")
        self.assertEqual((r["completed"], r["output_tokens"]), (3, 9))
        self.assertGreater(r["duration_seconds"], 0.19)
        prompts = [p["body"]["prompt"] for p in self.seen()[before:] if p["path"] == "/v1/completions"]
        self.assertEqual([len(p) for p in prompts], [520, 520, 40])
        self.assertEqual(prompts[0][:512], prompts[1][:512])
        self.assertNotEqual(prompts[0][512:], prompts[1][512:])
        r, _ = self.bench("--trace", path, "--concurrency", "2", "--input-tokens", "8", "--requests", "5")
        self.assertEqual((r["completed"], r["input_tokens"]), (5, 40))

    def test_interrupt_ends_with_a_report(self):
        p = subprocess.Popen([BATON, "bench", "serve", "--url", self.url, "--model", "fake:itl=20", "--duration", "60",
                              "--concurrency", "3", "--output-tokens", "5"], stdout=subprocess.PIPE, text=True)
        time.sleep(1.5)
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=20)
        self.assertEqual(p.returncode, 0, out)
        self.assertIn("completed, 0 failed", out)

    def test_mistakes(self):
        for words, status, text in (
                (["--concurrency", "2", "--rate", "3"], 2, "exclude"),
                (["--slo", "fast"], 1, "--slo"), (["--url", "localhost"], 1, "--url"),
                (["--trace", "/nonexistent"], 1, "/nonexistent"), (["--url", "http://127.0.0.1:1"], 1, "127.0.0.1:1"),
                (["--requests", "0"], 2, "--requests"), (["--details"], 2, "--json")):
            done = self.run_baton("bench", "serve", "--url", self.url, *words)
            self.assertEqual(done.returncode, status, words)
            self.assertIn(text, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertEqual(self.run_baton("bench").returncode, 2)
        self.assertEqual(self.run_baton("bench", "nothing").returncode, 2)
        self.assertEqual(self.run_baton("bench", "--help").returncode, 0)

    def test_complete(self):
        done = self.run_baton("complete", "--url", self.url + "/v1/", "--prompt", "x", "--max-tokens", "8", "--timing")
        self.assertEqual(done.returncode, 0, done.stderr)
        text, timing = done.stdout.splitlines()
        self.assertEqual(text, "Once upon a time there was a caf\u00e9")
        self.assertRegex(timing, r"^tokens 8  TTFT [0-9.]+ ms  ITL [0-9.]+ ms \(mean of 7 gaps\)$")
        for model, text in (("other", "does not exist"), ("fake:fault=error", "a node broke"),
                            ("fake:fault=nodone", "[DONE]"), ("fake:fault=http500", "it broke")):
            done = self.run_baton("complete", "--url", self.url, "--prompt", "x", "--model", model)
            self.assertEqual(done.returncode, 1, model)
            self.assertIn(text, done.stderr.replace("\n", " "))
        self.assertEqual(self.run_baton("complete", "--url", self.url).returncode, 2)

    def test_chat(self):
        before = len(self.seen())
        done = self.run_baton("chat", "--url", self.url, "--system", "be kind", "--max-tokens", "3", stdin="one\n\ntwo")
        self.assertEqual((done.returncode, done.stdout), (0, "echo:one upon a\necho:two upon a\n"), done.stderr)
        last = self.seen()[-1]["body"]["messages"]
        self.assertEqual(len(self.seen()) - before, 2)
        self.assertEqual([m["role"] for m in last], ["system", "user", "assistant", "user"])
        self.assertEqual([m["content"] for m in last], ["be kind", "one", "echo:one upon a", "two"])

    def test_chat_leaves_out_the_oldest_turns(self):
        done = self.run_baton("chat", "--url", self.url, "--model", "fake:turns=2", stdin="a\nb\nc\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([m["content"] for m in self.seen()[-1]["body"]["messages"] if m["role"] == "user"], ["b", "c"])
        self.assertIn("context is full", done.stderr)

    def test_chat_says_what_failed(self):
        done = self.run_baton("chat", "--url", self.url, "--model", "fake:fault=http500", stdin="a\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("it broke", done.stderr)

    def test_chat_at_a_terminal(self):
        main, other = os.openpty()
        p = subprocess.Popen([BATON, "chat", "--url", self.url, "--model", "fake:itl=100", "--max-tokens", "200"],
                             stdin=other, stdout=subprocess.PIPE)
        out = ""

        def until(words):
            nonlocal out
            while words not in out and select.select([p.stdout], [], [], 60)[0]:
                got = os.read(p.stdout.fileno(), 4096)
                if not got:
                    break
                out += got.decode()
            self.assertIn(words, out)

        for said in ("hello", "again"):
            os.write(main, said.encode() + b"\n")
            until("echo:" + said)
            p.send_signal(signal.SIGINT)
        os.write(main, b"\x04")
        p.communicate(timeout=60)
        os.close(main)
        os.close(other)
        self.assertEqual(p.returncode, 0)


if __name__ == "__main__":
    unittest.main()
