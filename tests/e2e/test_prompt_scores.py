"""Log probabilities of the prompt: `echo` with `logprobs` as evaluation harnesses ask for it, and vLLM's `prompt_logprobs`. What
is said of a prompt's tokens is what the same tokens had when they were generated, bit for bit, whoever computes them."""
import json
import os
import random
import signal
import unittest

import cluster

LENGTHS = (1, 2, 3, 17, 64, 65, 66, 130, 400, 1500)


def prompts():
    rng = random.Random(5)
    return [[rng.randrange(3, 2000) for _ in range(n)] for n in LENGTHS]


def scores_of(c, ids, **fields):
    a = c.complete({"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0, **fields})
    return a["choices"][0]["logprobs"], a["usage"]


class Scores(unittest.TestCase):
    def check_answer(self, c):
        """One answer in all its parts."""
        story = "Once upon a time there was a little fox. " * 8
        plain = c.complete({"prompt": story, "max_tokens": 6, "temperature": 0, "logprobs": 2, "ignore_eos": True})
        both = c.complete({"prompt": story, "max_tokens": 6, "temperature": 0, "logprobs": 2, "ignore_eos": True, "echo": True})
        n = both["usage"]["prompt_tokens"]
        choice, said = both["choices"][0], both["choices"][0]["logprobs"]
        self.assertEqual(choice["text"], story + plain["choices"][0]["text"])
        self.assertEqual("".join(said["tokens"]), "<|bos|>" + choice["text"])
        for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            self.assertEqual(len(said[key]), n + 6, key)
        for key in ("tokens", "token_logprobs", "top_logprobs"):
            self.assertEqual(said[key][n:], plain["choices"][0]["logprobs"][key], key)
        self.assertIsNone(said["token_logprobs"][0])
        self.assertIsNone(said["top_logprobs"][0])
        for i, (token, at) in enumerate(zip(said["tokens"], said["text_offset"])):
            if i:
                self.assertEqual(choice["text"][at:at + len(token)], token)
                self.assertEqual(said["top_logprobs"][i][token], said["token_logprobs"][i])
                self.assertLessEqual(said["token_logprobs"][i], 0)
                self.assertIn(len(said["top_logprobs"][i]), (2, 3))
        # Nothing generated.
        none = c.complete({"prompt": story, "max_tokens": 0, "logprobs": 2, "echo": True, "n": 2})
        self.assertEqual(none["usage"]["completion_tokens"], 0)
        self.assertEqual(none["usage"]["prompt_tokens"], n)
        for x in none["choices"]:
            self.assertEqual((x["text"], x["finish_reason"]), (story, "length"))
            self.assertEqual(x["logprobs"]["token_logprobs"], said["token_logprobs"][:n])
        silent = c.complete({"prompt": story, "max_tokens": 0, "echo": True})
        self.assertEqual((silent["choices"][0]["text"], silent["usage"]["completion_tokens"]), (story, 0))
        # vLLM's field, for completions and chats.
        v = c.complete({"prompt": story, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 2})["choices"][0]["prompt_logprobs"]
        self.assertEqual(len(v), n)
        self.assertIsNone(v[0])
        for mine, token, score in list(zip(v, said["tokens"], said["token_logprobs"]))[1:]:
            first = next(iter(mine.values()))
            self.assertEqual((first["decoded_token"], first["logprob"]), (token, score))
            self.assertIn(len(mine), (2, 3))
            ranked = sorted(mine.values(), key=lambda x: x["rank"])
            self.assertEqual([x["rank"] for x in ranked[:2]], [1, 2])
            self.assertEqual([x["logprob"] for x in ranked], sorted((x["logprob"] for x in ranked), reverse=True))
        chat = c.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi. " * 40}], "max_tokens": 2,
                                               "prompt_logprobs": 0}).json
        self.assertEqual(len(chat["prompt_logprobs"]), chat["usage"]["prompt_tokens"])
        self.assertTrue(all(len(x) == 1 for x in chat["prompt_logprobs"][1:]))

    def check_stream(self, c):
        """Each choice's echo comes first, with its scores, however many prompts there are."""
        body = {"prompt": [p for p in prompts() if len(p) > 1], "max_tokens": 3, "temperature": 0, "logprobs": 1, "echo": True, "n": 2,
                "ignore_eos": True}
        whole = c.complete(body)["choices"]
        said = {}
        stream = c.stream("/v1/completions", body)
        for chunk in stream:
            for x in chunk["choices"]:
                mine = said.setdefault(x["index"], {"text": "", "token_logprobs": [], "tokens": [], "text_offset": []})
                mine["text"] += x["text"]
                for key in x["logprobs"] or ():
                    if key in mine:
                        mine[key] += x["logprobs"][key]
        stream.close()
        for x in whole:
            self.assertEqual(said[x["index"]]["text"], x["text"])
            for key in ("tokens", "token_logprobs"):
                self.assertEqual(said[x["index"]][key], x["logprobs"][key], key)

    def forced(self, c):
        """Tokens that were generated, then given as a prompt: the same log probabilities."""
        rng = random.Random(7)
        compared = 0
        for n in (1, 30, 100):
            ids = [rng.randrange(3, 2000) for _ in range(n)]
            text = c.complete({"prompt": ids, "max_tokens": 40, "temperature": 0.8, "seed": n, "logprobs": 1, "ignore_eos": True,
                               "skip_special_tokens": False})["choices"][0]
            request = {"prompt": ids, "max_tokens": 40, "temperature": 0.8, "seed": n, "prompt_logprobs": 0, "logprobs": 1}
            self.assertEqual(len(c.complete(request)["choices"][0]["prompt_logprobs"]), n)
            tokens = [c.vocab[t] for t in text["logprobs"]["tokens"] if t in c.vocab]
            if len(tokens) < 40:
                continue
            got, _ = scores_of(c, ids + tokens)
            self.assertEqual(got["token_logprobs"][n:], text["logprobs"]["token_logprobs"])
            compared += 1
        self.assertGreater(compared, 0)

    def load_vocab(self, c):
        """Texts of tokens that only one id has."""
        c.vocab, twice = {}, set()
        with open(os.path.join(cluster.TINY, "config.json")) as f:
            vocab = json.load(f)["vocab_size"]
        for begin in range(0, vocab, 1500):
            ids = list(range(begin, min(begin + 1500, vocab)))
            for i, text in zip(ids, scores_of(c, ids)[0]["tokens"]):
                if text in c.vocab or "\ufffd" in text:
                    twice.add(text)
                c.vocab[text] = i
        for text in twice:
            c.vocab.pop(text, None)

    def all_scores(self, c):
        answers = [scores_of(c, p)[0] for p in prompts()]
        for p, a in zip(prompts(), answers):
            self.assertEqual(len(a["token_logprobs"]), len(p))
            self.assertEqual(a["token_logprobs"].count(None), 1)
        return answers

    def test_split_is_as_aggregated(self):
        with cluster.up(prefill=0, decode=0, aggregated=1) as c:
            self.check_answer(c)
            self.check_stream(c)
            self.load_vocab(c)
            self.forced(c)
            expected = self.all_scores(c)
            c.wait_quiet()
        for transport in ("shm", "ucx"):
            try:
                with cluster.up(transport=transport) as c:
                    self.assertEqual(self.all_scores(c), expected, transport)
                    self.assertEqual(self.all_scores(c), expected, "a second time, with both caches full of it")
                    self.check_answer(c)
                    self.check_stream(c)
                    self.load_vocab(c)
                    self.forced(c)
                    c.wait_quiet()
            except cluster.NotBuiltIn:
                continue

    def test_small_chunks_and_blocks(self):
        with cluster.up(prefill=0, decode=0, aggregated=1) as c:
            expected = self.all_scores(c)
        with cluster.parts(prefill=[["--block-tokens", "8", "--chunk-tokens-max", "16", "--max-batch", "1"]],
                           decode=[["--block-tokens", "32"]]) as c:
            self.assertEqual(self.all_scores(c), expected)
            c.wait_quiet()

    def test_a_node_that_dies(self):
        """Several long prompts under way when a prefill, then a decode node dies: each answer is whole and right."""
        rng = random.Random(9)
        asked = [[rng.randrange(3, 2000) for _ in range(1700)] for _ in range(6)]
        with cluster.up(prefill=2, decode=2) as c:
            expected = [scores_of(c, p)[0] for p in asked]
            for victim in ("p0", "d0"):
                started = cluster.in_threads(len(asked), lambda i: scores_of(c, asked[i], max_tokens=4, ignore_eos=True)[0])
                cluster.wait_until("work", lambda: c.nodes["router"].metrics().get("baton_requests_running") > 0, 10, every_s=0.002)
                c.kill(victim)
                for e, g in zip(expected, cluster.join_threads(started)):
                    self.assertEqual(g["token_logprobs"][:1700], e["token_logprobs"])
                    self.assertEqual(len(g["token_logprobs"]), 1704)

    def test_refused(self):
        with cluster.up(prefill=0, decode=0, aggregated=1) as c:
            for body, param in (({"max_tokens": 0}, "max_tokens"), ({"prompt_logprobs": 21}, "prompt_logprobs"),
                                ({"prompt_logprobs": True}, "prompt_logprobs"), ({"echo": True, "logprobs": 21}, "logprobs"),
                                ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
                                ({"prompt": [[5] * 1000] * 400, "echo": True, "logprobs": 20}, "logprobs")):
                a = c.post("/v1/completions", {"prompt": "Hi", **body})
                self.assertEqual((a.status, a.error["param"]), (400, param), body)


if __name__ == "__main__":
    cluster.main()
