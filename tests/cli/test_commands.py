#!/usr/bin/env python3
"""The commands that need no server: inspect, make-model, doctor, perplexity, probe, bench model, kernels and transfer.
test_commands.py BATON SOURCE_DIR [test names]"""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

BATON = os.path.abspath(sys.argv.pop(1))
SOURCE = sys.argv.pop(1)
TINY = os.path.join(SOURCE, "models", "tiny")
RUN_KEYS = {"command", "version", "revision", "date", "probe", "rows", "formulas", "model"}


class Commands(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def baton(self, *words, status=0):
        done = subprocess.run([BATON, *words], capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, status, f"{words}: {done.stderr}")
        self.assertNotIn("Sanitizer", done.stderr)
        return done

    def bench(self, *words):
        self.baton("bench", *words, "--quick", "--json", self.path("out.json"))
        with open(self.path("out.json"), encoding="utf-8") as f:
            result = json.load(f)
        self.assertEqual(RUN_KEYS - set(result), set())
        self.assertGreater(result["probe"]["gflops"], 0)
        self.assertGreater(result["probe"]["gbytes_per_second"], 0)
        self.assertGreater(len(result["rows"]), 0)
        return result

    def check_probes(self, result):
        """Both that were taken are there, and `probe` has the better figures of them."""
        both = [result[k] for k in ("probe_before", "probe_after")]
        for figures in both:
            self.assertGreater(min(figures.values()), 0)
            self.assertGreaterEqual(figures["read_bytes"], 256 << 20)
        self.assertNotEqual(*both)
        self.assertEqual({k: result["probe"][k] for k in both[0]}, {k: max(p[k] for p in both) for k in both[0]})

    def test_full_disk(self):
        """A result that could not be written is a failure."""
        for words in (("generate", TINY, "--prompt", "x", "--max-tokens", "2", "--json"), ("inspect", TINY), ("doctor",),
                      ("make-model", "--list")):
            with open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run([BATON, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(done.returncode, 1, words)
            self.assertIn("stdout: No space left", done.stderr)

    def test_ids_over_the_vocabulary(self):
        done = subprocess.run([BATON, "tokenize", TINY, "--decode"], input="5 99999\n", capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("token id 99999", done.stderr)

    def test_inspect(self):
        facts = json.loads(self.baton("inspect", TINY, "--json").stdout)
        with open(os.path.join(TINY, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        with open(os.path.join(TINY, "model.safetensors"), "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        header.pop("__metadata__", None)
        size = sum(t["data_offsets"][1] - t["data_offsets"][0] for t in header.values())
        self.assertEqual((facts["layers"], facts["vocab"]), (config["num_hidden_layers"], config["vocab_size"]))
        self.assertEqual((facts["tensors"], facts["weight_bytes"], facts["problems"]), (len(header), size, []))
        kv = 2 * 2 * facts["layers"] * facts["kv_heads"] * facts["head_dim"]
        self.assertEqual(facts["kv_bytes_per_token"]["bf16"], kv)
        self.assertEqual(facts["kv_bytes_per_token"]["int8"], kv * 17 // 32)  # 32 elements and a scale to a head
        self.assertEqual(facts["kv_bytes_per_token"]["int4"], kv * 10 // 32)
        self.assertEqual(list(facts["kv_bytes_per_token"]), ["fp32", "bf16", "fp16", "fp8", "int8", "int4"])
        text = self.baton("inspect", TINY).stdout
        for word in ("LlamaForCausalLM", "parameters", "KV per token", "tokenizer.json yes"):
            self.assertIn(word, text)

    def test_inspect_of_what_is_quantized(self):
        goldens = os.path.join(SOURCE, "tests/model/goldens")
        facts = json.loads(self.baton("inspect", "--json", os.path.join(goldens, "gguf/quantized-k.gguf")).stdout)
        self.assertEqual((facts["problems"], facts["quantization"], facts["tensors_converted"]), ([], "gguf", 9))
        for name, words in (("gpt-oss", ("1 layer keeps the last 9 tokens", "1 layer keeps every token", "sinks")),
                            ("deepseek-v3", ("latent", "28 values")),
                            ("hunyuan-cla", ("3 of 5 layers store",)), ("quant/gptq", ("GPTQ 4 bits", "14 tensors"))):
            text = self.baton("inspect", os.path.join(goldens, name), status=1).stdout
            for word in (*words, "no tokenizer"):
                self.assertIn(word, text)

    def test_inspect_of_what_cannot_be_served(self):
        os.mkdir(self.path("m"))
        shutil.copy(os.path.join(TINY, "config.json"), self.path("m"))
        done = self.baton("inspect", self.path("m"), status=1)
        self.assertIn("problem", done.stdout)
        self.assertIn("cannot be served", done.stderr)
        facts = json.loads(self.baton("inspect", "--json", self.path("m"), status=1).stdout)
        self.assertGreater(len(facts["problems"]), 0)
        self.assertIn("nonexistent", self.baton("inspect", "/nonexistent", status=1).stderr)
        self.baton("inspect", status=2)

    def test_make_model(self):
        self.assertIn("llama-3.2-1b", self.baton("make-model", "--list").stdout)
        words = ["make-model", "--shape", "tiny-llama-test", "--dtype", "fp32", "--seed", "3", "--out"]
        for name in "ab":
            self.baton(*words, self.path(name))
        with open(self.path("a/model.safetensors"), "rb") as a, open(self.path("b/model.safetensors"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        facts = json.loads(self.baton("inspect", "--json", self.path("a")).stdout)
        self.assertEqual((facts["problems"], list(facts["by_type"])), ([], ["F32"]))
        done = self.baton("generate", self.path("a"), "--prompt", "hello", "--greedy", "--max-tokens", "4", "--json")
        self.assertEqual(json.loads(done.stdout)["usage"]["completion_tokens"], 4)
        self.baton("make-model", "--shape", "tiny-moe-test", "--out", self.path("moe"))
        facts = json.loads(self.baton("inspect", "--json", self.path("moe")).stdout)
        self.assertEqual((facts["experts"], facts["experts_per_token"], facts["expert_layers"]), (8, 2, 2))
        self.assertLess(facts["active_parameters"], facts["parameters"])
        self.assertIn("8 of ffn 48 in 2 layers, 2 per token", self.baton("inspect", self.path("moe")).stdout)
        self.assertIn("empty", self.baton(*words, self.path("a"), status=1).stderr)
        done = self.baton("make-model", "--shape", "x", "--out", self.path("c"), status=1)
        self.assertIn("tiny-llama-test", done.stderr)
        done = self.baton("make-model", "--shape", "x", "--out", self.path("c"), "--dtype", "int3", status=2)
        self.assertIn("--dtype", done.stderr)
        self.baton("make-model", status=2)

    def test_doctor(self):
        done = subprocess.run([BATON, "doctor"], capture_output=True, text=True, timeout=60)
        lines = done.stdout.splitlines()
        self.assertTrue(all(line[:4] in ("ok  ", "warn", "fail") for line in lines), done.stdout)
        self.assertEqual(done.returncode, any(line.startswith("fail") for line in lines))
        for word in ("cpu", "numa", "memlock", "hugepages", "ucx", "rdma", "gpu", "port 8000", "clock"):
            self.assertTrue(any(word in line for line in lines), word)

    def test_probe(self):
        probe = json.loads(self.baton("probe", "--threads", "1").stdout)["probe"]
        self.assertEqual(probe["threads"], 1)
        self.assertGreater(min(probe[k] for k in ("gflops", "gbytes_per_second", "cache_gbytes_per_second")), 0)
        self.assertGreaterEqual(probe["read_bytes"], 256 << 20)

    def test_probe_by_threads(self):
        # Up to four and two times what floats do; far more is no measurement. Where others take the cores away while one of the two
        # is measured, the ratio says nothing: what a probe does wrong it does every time.
        def plausible(limits):
            return all(row[key] is None or row[key] < most * row["fma_gflops"]
                       for row in limits for key, most in (("int8_dot_gops", 8), ("bf16_dot_gflops", 4)))

        for _ in range(6):
            limits = json.loads(self.baton("probe").stdout)["limits"]
            if plausible(limits):
                break
        self.assertTrue(plausible(limits), limits)
        threads = [row["threads"] for row in limits]
        self.assertEqual(threads, sorted(set(threads)))
        self.assertEqual((threads[0], threads[-1]), (1, len(os.sched_getaffinity(0))))
        with open("/proc/cpuinfo") as f:
            flags = f.read().split()
        for row in limits:
            for key in ("fma_gflops", "read_gbytes_per_second", "copy_gbytes_per_second", "wake_us", "barrier_us"):
                self.assertGreater(row[key], 0)
            for key, flag in (("int8_dot_gops", "avx2"), ("bf16_dot_gflops", "avx512_bf16"), ("amx_bf16_gflops", "amx_bf16"),
                              ("amx_int8_l1_gops", "amx_int8")):
                self.assertTrue(row[key] is None or flag in flags, f"{key} without {flag}")
            if all(flag in flags for flag in ("avx2", "fma", "f16c")):
                self.assertIsNotNone(row["int8_dot_gops"])

    def test_weights_that_are_kept(self):
        """Converted weights are kept where that is asked for, and the next start maps them and says the same."""
        words = ("generate", TINY, "--prompt", "Once upon", "--greedy", "--max-tokens", "8", "--json", "--weights", "int8", "--log-level",
                 "info", "--weights-cache")
        said = self.baton(*words, "none")
        for maps in (False, True):
            again = self.baton(*words, self.folder.name)
            self.assertEqual(json.loads(said.stdout)["ids"], json.loads(again.stdout)["ids"])
            self.assertEqual(maps, "weights_mapped" in again.stderr, again.stderr)
            self.assertEqual(os.listdir(self.folder.name), ["tiny.int8.packed"], again.stderr)
        self.assertIn("--weights-cache", self.baton(*words, "", status=1).stderr)

    def test_bench_model(self):
        result = self.bench("model", TINY, "--prompt-tokens", "48", "--gen-tokens", "4", "--batch", "1,3", "--depth", "16,40")
        self.check_probes(result)
        rows = result["rows"]
        self.assertEqual([(r["phase"], r["batch"], r["depth"], r["tokens"]) for r in rows],
                         [("prefill", 1, 0, 48), ("prefill", 3, 0, 144), ("decode", 1, 16, 4), ("decode", 3, 16, 12),
                          ("decode", 1, 40, 4), ("decode", 3, 40, 12)])
        for r in rows:
            self.assertAlmostEqual(r["tokens_per_second"] * r["seconds"], r["tokens"], 6)
            self.assertGreater(r["fraction"], 0)
            self.assertNotIn("profile", r)
        for words, text in ((["--batch", "0"], "--batch"), (["--depth", "1,x"], "--depth"),
                            (["--depth", "1000000"], "context")):
            self.assertIn(text, self.baton("bench", "model", TINY, *words, status=1).stderr)
        self.baton("bench", "model", status=2)

    def test_bench_model_profile(self):
        rows = self.bench("model", TINY, "--prompt-tokens", "48", "--gen-tokens", "4", "--batch", "2", "--depth", "16",
                          "--profile", "--threads", "2")["rows"]
        self.assertEqual([r["profile"]["forwards"] for r in rows], [1, 4])
        for r in rows:
            kinds = {k["kind"]: k for k in r["profile"]["kinds"]}
            self.assertTrue({"attention", "gemm_qkv", "gemm_head", "norm", "barrier", "between_ops", "sampler_and_engine"} <=
                            set(kinds))
            self.assertAlmostEqual(sum(k["share"] for k in kinds.values()), 1, 6)
            self.assertAlmostEqual(sum(k["seconds"] for k in kinds.values()), r["seconds"], 6)
            self.assertEqual(kinds["attention"]["calls"], 2 * 5 * r["profile"]["forwards"])
        text = self.baton("bench", "model", TINY, "--quick", "--repetitions", "1", "--profile").stdout
        self.assertIn("decode, batch 8, depth 128: 32 forwards, each", text)

    def perplexity(self, *words):
        self.baton("perplexity", *words, "--json", self.path("out.json"))
        with open(self.path("out.json"), encoding="utf-8") as f:
            return json.load(f)

    def test_perplexity(self):
        with open(self.path("text"), "w", encoding="utf-8") as f:
            f.write("Once upon a time there was a small hen named Grace. She lived near the castle. 12 + 30 = 42. " * 12)
        words = (TINY, "--context", "64", "--chunks", "3")
        first = self.perplexity(*words, "--text", self.path("text"), "--save", self.path("base"))
        self.assertEqual((first["chunks"], first["scored"]), (3, 3 * 31))
        self.assertTrue(1 < first["perplexity"] < 50)
        self.assertNotIn("divergence", first)
        # Bits hang on neither threads nor chunks.
        self.perplexity(*words, "--text", self.path("text"), "--save", self.path("again"), "--threads", "1",
                        "--chunk-tokens-max", "7", "--block-tokens", "5")
        with open(self.path("base"), "rb") as a, open(self.path("again"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        same = self.perplexity(TINY, "--base", self.path("base"))
        self.assertEqual((same["scored"], same["perplexity"], same["same_top"]), (93, first["perplexity"], 1))
        self.assertLess(same["divergence"]["mean"], 1e-7)
        # What is compared with is read to the end before its name is taken.
        self.perplexity(TINY, "--base", self.path("again"), "--save", self.path("again"))
        self.assertLess(self.perplexity(TINY, "--base", self.path("again"))["divergence"]["mean"], 1e-7)
        self.assertFalse(os.path.exists(self.path("again.part")))
        other = self.perplexity(TINY, "--base", self.path("base"), "--kv-dtype", "int4", "--chunks", "2")
        self.assertEqual(other["scored"], 62)
        self.assertGreater(other["divergence"]["mean"], 1e-5)
        self.assertGreaterEqual(other["divergence_most"], other["divergence"]["mean"])
        text = self.baton("perplexity", TINY, "--base", self.path("base")).stdout
        for word in ("perplexity", "KL divergence", "same top token   100.00 %"):
            self.assertIn(word, text)

    def test_perplexity_of_what_cannot_be(self):
        with open(self.path("text"), "w", encoding="utf-8") as f:
            f.write("too short")
        self.baton("perplexity", TINY, status=2)
        self.baton("perplexity", TINY, "--text", self.path("text"), "--base", "x", status=2)
        self.assertIn("--context", self.baton("perplexity", TINY, "--text", self.path("text"), status=1).stderr)
        self.assertIn("/nonexistent", self.baton("perplexity", TINY, "--text", "/nonexistent", status=1).stderr)
        row = 2 * (3072 + 4)
        sound = b"_logits_" + struct.pack("<Iii4i", 4, 3072, 1, 7, 8, 9, 10) + struct.pack("<ff3072H", 0.001, -70, *range(3072))
        self.assertEqual(len(sound), 36 + row)
        for change, said in ((lambda b: b, None), (lambda b: b[:-1], "not whole"), (lambda b: b + b"x", "not whole"),
                             (lambda b: b[:9], "not a file of log"), (lambda b: b"_other__" + b[8:], "not a file of log"),
                             (lambda b: b[:8] + struct.pack("<I", 1 << 30) + b[12:], "cannot be"),
                             (lambda b: b[:16] + struct.pack("<i", 1 << 24) + b[20:], "not whole"),
                             (lambda b: b[:20] + struct.pack("<i", 3072) + b[24:], "outside"),
                             (lambda b: b[:20] + struct.pack("<i", -1) + b[24:], "outside"),
                             (lambda b: b[:36] + struct.pack("<f", float("nan")) + b[40:], "finite"),
                             (lambda b: b[:44] + bytes(2 * 3072), "foretells nothing"),
                             (lambda b: b[:12] + struct.pack("<i", 3071) + b[16:], "vocabulary of 3071")):
            with open(self.path("base"), "wb") as f:
                f.write(change(sound))
            done = self.baton("perplexity", TINY, "--base", self.path("base"), status=1 if said else 0)
            self.assertIn(said or "", done.stderr)
        with open(self.path("base"), "wb") as f:  # as it is written where all logits are equal
            f.write(sound[:36] + struct.pack("<ff", 0, -8) + bytes(2 * 3072))
        self.baton("perplexity", TINY, "--base", self.path("base"))
        done = self.baton("perplexity", TINY, "--base", self.path("base"), "--save", "/dev/full", status=1)
        self.assertIn("/dev/full", done.stderr)

    def test_perplexity_of_a_gguf_file(self):
        """The folder as a GGUF file says the same, and the comparison's own reading of what was saved agrees."""
        tools = os.path.join(SOURCE, "tools", "peers")
        subprocess.run([sys.executable, "-B", os.path.join(tools, "hf_gguf.py"), TINY, self.path("tiny.gguf")], check=True)
        words = ("--prompt", "Add 17 and 25. It's Anna's:\n", "--greedy", "--max-tokens", "24", "--json")
        said = [json.loads(self.baton("generate", m, *words).stdout) for m in (TINY, self.path("tiny.gguf"))]
        self.assertEqual(said[0]["prompt_ids"], said[1]["prompt_ids"])
        self.assertEqual(said[0]["ids"], said[1]["ids"])
        with open(self.path("text"), "w", encoding="utf-8") as f:
            f.write(said[0]["text"] * 20)
        self.baton("perplexity", TINY, "--text", self.path("text"), "--context", "64", "--save", self.path("base"))
        found = self.perplexity(self.path("tiny.gguf"), "--base", self.path("base"), "--kv-dtype", "int8", "--save",
                                self.path("int8"))
        sys.path.insert(0, tools)
        self.addCleanup(sys.path.remove, tools)
        sys.dont_write_bytecode = True
        divergence = __import__("divergence")
        base, other = (divergence.Saved(self.path(name)) for name in ("base", "int8"))
        self.assertEqual((base.ids, base.count), (other.ids, found["scored"]))
        each = divergence.divergences(base, [other])[0]
        mean = sum(each) / len(each)
        self.assertAlmostEqual(mean / found["divergence"]["mean"], 1, delta=0.05)
        self.assertGreater(mean, 0)

    def test_bench_sampler(self):
        self.baton("bench", "sampler", "--samples", "3", "--json", self.path("out.json"))
        with open(self.path("out.json"), encoding="utf-8") as f:
            result = json.load(f)
        self.check_probes(result)
        rows = result["rows"]
        self.assertEqual({row["vocab"] for row in rows}, {128256, 262144})
        self.assertIn("top-p 0.95", {row["request"] for row in rows})
        self.assertTrue(all(0 < row["us"]["p50"] <= row["us"]["p90"] <= row["us"]["p99"] <= row["us"]["max"] for row in rows))

    def test_second_probe_fails(self):
        """The rows are kept where memory has become too little to measure the machine again."""
        words = [BATON, "bench", "sampler", "--samples", "300", "--json", self.path("out.json")]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                self.leave_no_memory(process)
                err = process.communicate(timeout=240)[1]
            finally:
                process.kill()
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("after the rows: no memory", err)
        with open(self.path("out.json"), encoding="utf-8") as f:
            result = json.load(f)
        self.assertIsNone(result["probe_after"])
        self.assertEqual(result["probe"], result["probe"] | result["probe_before"])
        self.assertTrue(all(row["us"]["p50"] > 0 for row in result["rows"]))

    def leave_no_memory(self, process):
        """Once it has given back what its first probe read, 256 MiB or more; its rows may take some of that meanwhile."""
        most, freed = 0, 128 << 20
        while process.poll() is None:
            with open(f"/proc/{process.pid}/statm", encoding="ascii") as f:
                now = int(f.read().split()[0]) * resource.getpagesize()
            if now > 1 << 40:
                self.skipTest("a sanitizer's own memory counts")
            most = max(most, now)
            if now <= most - freed:
                resource.prlimit(process.pid, resource.RLIMIT_AS, (now + (64 << 20),) * 2)
                return
            time.sleep(0.002)
        self.fail("it ended before its rows did")

    def test_bench_grammar(self):
        self.baton("bench", "grammar", TINY, "--walks", "1", "--tokens", "8", "--json", self.path("out.json"))
        with open(self.path("out.json"), encoding="utf-8") as f:
            result = json.load(f)
        self.check_probes(result)
        self.assertIn("schema_recursive", {row["grammar"] for row in result["rows"]})
        self.assertTrue(all(row["cold_us"]["steps"] > 0 for row in result["rows"]))

    def test_bench_kernels(self):
        found = self.bench("kernels", "--threads", "1")
        rows = found["rows"]
        self.assertTrue({"gemm", "moe", "attention", "rmsnorm", "combine", "logits_peak"} <= {r["op"] for r in rows})
        for r in rows:
            self.assertAlmostEqual(r["fraction"], r["achieved"] / r["limit"], 6)
        for name, best in found["probe"].items():
            if name in found["probe_before"]:
                self.assertEqual(best, max(found["probe_before"][name], found["probe_after"][name]), name)
        self.assertIn("gbytes_per_second", found["probe_after"])
        # ref does not come to the larger shapes in the time there is.
        self.assertIn("ref", {r["backend"] for r in found["left_out"]})
        self.assertTrue(all(r["seconds"] > found["call_seconds_max"] for r in found["left_out"]))

    def test_bench_kernels_one_op(self):
        rows = self.bench("kernels", "--threads", "1", "--op", "softcap", "--backend", "portable")["rows"]
        self.assertEqual([(r["op"], r["backend"], r["dtype"]) for r in rows], [("softcap", "portable", "fp32")])
        for words in (["--op", "hardcap"], ["--backend", "cray"]):
            self.assertIn(" ".join(words), self.baton("bench", "kernels", *words, status=2).stderr)

    def test_bench_transfer(self):
        result = self.bench("transfer", "--bytes", "1,100000", "--repetitions", "2")
        self.check_probes(result)
        rows = result["rows"]
        ways = [t for t in ("shm", "ucx") if t in {r["transport"] for r in rows}]
        self.assertIn("shm", ways)
        self.assertEqual([(r["transport"], r["layout"], r["bytes"]) for r in rows],
                         [(t, l, b) for t in ways for l in ("equal", "converted") for b in (32768, 131072)])
        for r in rows:
            self.assertAlmostEqual(r["gbytes_per_second"], r["bytes"] / 1e9 / r["seconds"], 6)
            self.assertAlmostEqual(r["fraction"], r["gbytes_per_second"] / result["probe"]["gbytes_per_second"], 6)
        for words in (["--bytes", "0"], ["--bytes", "1,x"], ["--transport", "pigeon"]):
            self.assertIn(words[0], self.baton("bench", "transfer", *words, status=1).stderr)

    def test_version(self):
        version = self.baton("--version").stdout
        self.assertRegex(version, r"^baton \d+\.\d+\.\d+ \((unknown|[0-9a-f]{12}(-dirty)?)\)$")
        if os.path.exists(os.path.join(SOURCE, ".git")) and shutil.which("git"):
            self.assertNotIn("unknown", version)
        self.assertEqual(self.baton("inspect", "--version").stdout.split()[-1], version.split()[-1])

    def test_help_of_all(self):
        for line in self.baton("--help").stdout.splitlines()[2:-2]:
            name = line.split()[0]
            self.assertTrue(self.baton(name, "--help").stdout.startswith("usage: baton " + name), name)


if __name__ == "__main__":
    unittest.main()
