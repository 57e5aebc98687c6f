"""Layers of other kinds than a Llama's cross from prefill to decode nodes: sliding windows, experts, latent attention, shared
keys and values, LongRoPE. What a cluster says is what one aggregated node says, bit for bit: over shared memory and over UCX, with
KV blocks of different sizes on the two sides, and when a decode node is killed in the middle of its streams.

The models are the goldens of tests/model with random weights. They have no tokenizer, without which the router does not start;
here they get one whose tokens are all different, and requests are made of ids."""
import json
import os
import random
import shutil
import tempfile
import threading
import unittest

import cluster
import test_exact

MODELS = {"gemma3": "windows of 9 tokens, every other layer sees all", "mistral": "windows of 13 tokens in every layer",
          "gpt-oss": "windows and sinks, experts", "qwen3-moe": "experts", "deepseek-v3": "latent attention, experts",
          "hunyuan-cla": "keys and values shared by layers", "phi3-longrope": "other frequencies for long prompts"}
GOLDENS = os.path.join(cluster.SOURCE, "tests", "model", "goldens")
CONTEXT = 1800
# LongRoPE is decided by the prompt: streams pass its 128 tokens as they go on, and are resumed as what they were.
STREAM_PROMPTS = (70, 95, 120, 200)
STREAM_TOKENS = 1400


def served_folder(model, into):
    """The golden with room for long texts, and with a tokenizer."""
    folder = os.path.join(into, model)
    os.mkdir(folder)
    shutil.copy(os.path.join(GOLDENS, model, "model.safetensors"), folder)
    with open(os.path.join(GOLDENS, model, "config.json")) as f:
        config = json.load(f)
    config["max_position_embeddings"] = CONTEXT
    vocab = {f" {i}": i for i in range(config["vocab_size"])}
    tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
                 "decoder": {"type": "Fuse"}, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": " 0"}}
    for name, what in (("config.json", config), ("tokenizer.json", tokenizer)):
        with open(os.path.join(folder, name), "w") as f:
            json.dump(what, f)
    return folder


def streamed(c, in_the_middle=None):
    """The texts of several long streams. `in_the_middle` is called when each has begun and none can have ended: nobody reads on,
    and what is not read stops a sequence."""
    rng = random.Random(21)
    bodies = []
    for i, n in enumerate(STREAM_PROMPTS):
        prompt = [rng.randrange(3, 144) for _ in range(n)]
        bodies.append({"prompt": prompt, "max_tokens": STREAM_TOKENS, "ignore_eos": True, "seed": i, "temperature": i % 2,
                       "logprobs": 1})
    begun, go_on = threading.Semaphore(0), threading.Event()

    def one(i):
        stream = c.stream("/v1/completions", bodies[i], receive_bytes=4096)
        said = []
        for chunk in stream:
            for choice in chunk["choices"]:
                said += zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"]) if choice["logprobs"] else []
            if in_the_middle and not go_on.is_set():
                begun.release()
                go_on.wait(60 * cluster.SLOWER)
        stream.close()
        assert stream.done
        return said

    started = cluster.in_threads(len(bodies), one)
    if in_the_middle:
        for _ in bodies:
            assert begun.acquire(timeout=60 * cluster.SLOWER)
        in_the_middle()
        go_on.set()
    return cluster.join_threads(started)


def parts(folder, transport, prefill_block, decode_blocks):
    def node(block):
        return ["--block-tokens", str(block), "--kv-transport", transport]

    return cluster.parts(prefill=[node(prefill_block)], decode=[node(b) for b in decode_blocks], model=folder)


class Architectures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.into = tempfile.TemporaryDirectory(prefix="baton-models-")
        cls.addClassCleanup(cls.into.cleanup)
        cls.known = {}

    def expected(self, model):
        """The folder, its prompts, and what one node that does both says to them and to the streams."""
        if model not in self.known:
            folder = served_folder(model, self.into.name)
            prompts = test_exact.prompts(folder)[::2]
            with cluster.up(prefill=0, decode=0, aggregated=1, model=folder) as c:
                self.known[model] = folder, prompts, test_exact.said(c, prompts), streamed(c)
        return self.known[model]

    def compare(self, c, model, transport):
        _, prompts, expected, _ = self.expected(model)
        got = test_exact.said(c, prompts)
        self.assertGreater(c.kv_bytes(transport), 0, "KV crossed")
        self.assertEqual(c.kv_bytes(), c.kv_bytes(transport), "by no other way")
        for prompt, e, g in zip(prompts, expected, got):
            self.assertEqual(e, g, f"prompt of {len(prompt)} tokens")
        c.wait_quiet()

    def check_death(self, c, model):
        def kill_one():
            # A first token is the prefill node's: its stream may still be on the way to a decode node.
            running = {}

            def all_run():
                running.update({n.name: n.metrics().get("baton_requests_running") for n in c.workers("decode")})
                return sum(running.values()) == len(STREAM_PROMPTS)

            cluster.wait_until("every stream runs on a decode node", all_run, 60)
            c.kill(max(running, key=running.get))

        got = streamed(c, kill_one)
        self.assertGreater(c.router.metrics().get("baton_requests_resumed_total"), 0)
        for i, (e, g) in enumerate(zip(self.expected(model)[3], got)):
            self.assertEqual(len(g), STREAM_TOKENS)
            self.assertEqual(e, g, f"stream {i}")
        c.wait_quiet()

    def check(self, model):
        folder = self.expected(model)[0]
        with parts(folder, "shm", 8, [64, 16]) as c:
            self.compare(c, model, "shm")
            self.check_death(c, model)
        try:
            with parts(folder, "ucx", 48, [16]) as c:
                self.compare(c, model, "ucx")
        except cluster.NotBuiltIn:
            print("without UCX", flush=True)


for name in MODELS:
    setattr(Architectures, "test_" + name.replace("-", "_"), lambda self, model=name: self.check(model))

if __name__ == "__main__":
    cluster.main()
