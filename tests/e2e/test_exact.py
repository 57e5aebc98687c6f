"""However the work is split, the tokens and their log probabilities are the same, bit for bit: an aggregated node, 1P+1D over
shared memory, 1P+1D over UCX, and P and D with different KV block sizes, of quantized KV too. Where P and D differ in the type of
KV, the first token is P's and what follows is near it. Greedy, at least 20 prompts of differing lengths."""
import json
import os
import random
import unittest

import cluster

TOKENS = 24
# Past a block, past the shortest handoff, past a chunk, past several.
TINY_LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 63, 65, 66, 70, 96, 127, 128, 129, 200, 257, 400, 511, 513, 700, 1200, 1900)


def prompts(model):
    """Prompts as ids: lengths that the model's context has room for, contents that only the seed decides."""
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    rng = random.Random(20)
    most = config["max_position_embeddings"] - TOKENS
    lengths = [n for n in TINY_LENGTHS if n <= most]
    while len(lengths) < 24:
        lengths.append(rng.randint(65, most))
    return [[rng.randrange(3, config["vocab_size"]) for _ in range(n)] for n in lengths]


def said(c, all_prompts):
    """What a cluster says to each prompt. Several at a time, so that batches form."""
    def ask(i):
        body = {"prompt": all_prompts[i], "max_tokens": TOKENS, "temperature": 0, "logprobs": 2, "ignore_eos": True}
        choice = c.complete(body)["choices"][0]
        return choice["text"], choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"]

    answers = []
    for begin in range(0, len(all_prompts), 8):
        part = range(begin, min(begin + 8, len(all_prompts)))
        answers += cluster.join_threads(cluster.in_threads(len(part), lambda i, p=part: ask(p[i])))
    return answers


class Exact(unittest.TestCase):
    reference = {}

    def aggregated(self, model, kv="auto"):
        if (model, kv) not in Exact.reference:
            with cluster.up(prefill=0, decode=0, aggregated=1, model=model, more=["--kv-dtype", kv]) as c:
                Exact.reference[model, kv] = said(c, prompts(model))
                self.assertEqual(c.kv_bytes(), 0)
        return Exact.reference[model, kv]

    def compare(self, c, model, transport, kv="auto"):
        expected, got = self.aggregated(model, kv), said(c, prompts(model))
        self.assertGreaterEqual(len(got), 20)
        self.assertGreater(c.kv_bytes(transport), 0, "KV crossed")
        self.assertEqual(c.kv_bytes(), c.kv_bytes(transport), "by no other way")
        for prompt, e, g in zip(prompts(model), expected, got):
            self.assertEqual(len(g[1]), TOKENS)
            self.assertEqual(e, g, f"prompt of {len(prompt)} tokens")
        c.wait_quiet()

    def check_model(self, model, transport):
        if not os.path.isdir(model):
            self.skipTest(f"no {model}")
        self.aggregated(model)
        with cluster.up(model=model, transport=transport) as c:
            self.compare(c, model, transport)

    def test_shm(self):
        self.check_model(cluster.TINY, "shm")

    def test_ucx(self):
        self.check_model(cluster.TINY, "ucx")

    def test_auto_is_shm_on_one_host(self):
        with cluster.up() as c:
            c.complete({"prompt": list(range(3, 203)), "max_tokens": 1})
            self.assertGreater(c.kv_bytes("shm"), 0)
            self.assertEqual(c.kv_bytes(), c.kv_bytes("shm"))

    def test_stories260k_shm(self):
        self.check_model(os.path.join(cluster.SHARED_MODELS, "stories260K"), "shm")

    def test_stories260k_ucx(self):
        self.check_model(os.path.join(cluster.SHARED_MODELS, "stories260K"), "ucx")

    def test_babyllama_shm(self):
        self.check_model(os.path.join(cluster.SHARED_MODELS, "babyllama-tok105"), "shm")

    def test_babyllama_ucx(self):
        self.check_model(os.path.join(cluster.SHARED_MODELS, "babyllama-tok105"), "ucx")

    def check_blocks(self, prefill, decode, transport, kv="auto"):
        self.aggregated(cluster.TINY, kv)
        more = ["--kv-transport", transport, "--kv-dtype", kv, "--block-tokens"]
        with cluster.parts(prefill=[more + [str(prefill)]], decode=[more + [str(decode)]]) as c:
            self.compare(c, cluster.TINY, transport, kv)

    def test_small_blocks_to_large(self):
        self.check_blocks(8, 64, "shm")

    def test_large_blocks_to_small(self):
        self.check_blocks(48, 16, "ucx")

    def test_int8(self):
        self.check_blocks(8, 64, "shm", "int8")

    def test_int8_ucx(self):
        self.check_blocks(48, 16, "ucx", "int8")

    def test_fp8(self):
        self.check_blocks(16, 7, "shm", "fp8")

    def test_int4(self):
        self.check_blocks(5, 32, "ucx", "int4")

    def check_types(self, prefill, decode, transport, most):
        """Nodes of unequal types of KV. `most`: how far log probabilities after the first token may be, on average."""
        every, reference = prompts(cluster.TINY), self.aggregated(cluster.TINY, prefill)
        long = [i for i, ids in enumerate(every) if len(ids) >= 257]  # none that D would compute itself
        more = ["--kv-transport", transport, "--kv-dtype"]
        with cluster.parts(prefill=[more + [prefill]], decode=[more + [decode, "--block-tokens", "48"]]) as c:
            got = said(c, [every[i] for i in long])
            self.assertGreater(c.kv_bytes(transport), 0, "KV crossed")
            c.wait_quiet()
        apart, compared = 0.0, 0
        for i, (_, tokens, logprobs) in zip(long, got):
            _, tokens_of_p, logprobs_of_p = reference[i]
            self.assertEqual(len(tokens), TOKENS)
            self.assertEqual((tokens[0], logprobs[0]), (tokens_of_p[0], logprobs_of_p[0]), "the first token is P's")
            for k in range(1, TOKENS):
                if tokens[k] != tokens_of_p[k]:
                    break
                apart += abs(logprobs[k] - logprobs_of_p[k])
                compared += 1
        self.assertGreater(compared, 3 * len(long), "texts part at once")
        self.assertLess(apart / compared, most)
        self.assertGreater(apart, 0, "D's types are in use")

    def test_bf16_to_int8(self):
        self.check_types("bf16", "int8", "shm", 0.02)

    def test_int8_to_bf16(self):
        self.check_types("int8", "bf16", "ucx", 0.02)

    def test_fp8_to_int4(self):
        self.check_types("fp8", "int4", "shm", 0.3)

    def test_int4_to_fp32(self):
        self.check_types("int4", "fp32", "ucx", 0.3)

    def test_two_and_two(self):
        self.aggregated(cluster.TINY)
        with cluster.up(prefill=2, decode=2, transport="shm") as c:
            self.compare(c, cluster.TINY, "shm")


if __name__ == "__main__":
    cluster.main()
