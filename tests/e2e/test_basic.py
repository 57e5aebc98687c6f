"""The public HTTP API as clients see it: every field of every answer, streamed and not, and the routes around them."""
import json
import re

import cluster

STORY = "Once upon a time there was a little fox. " * 12  # long enough for a prefill node


class Basic(cluster.SharedCase):
    @classmethod
    def setUpClass(cls):
        cls.c = cluster.up(transport="shm")

    # ---- completions ----

    def check_usage(self, usage, completion=None):
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self.assertIsInstance(cached, int)
        self.assertLess(cached, usage["prompt_tokens"])
        if completion is not None:
            self.assertEqual(usage["completion_tokens"], completion)

    def test_completion(self):
        answer = self.c.post("/v1/completions", {"model": self.c.model, "prompt": "Once upon a time", "max_tokens": 12,
                                                 "temperature": 0, "ignore_eos": True},
                             headers={"x-request-id": "my-own-id"})
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.headers["content-type"].startswith("application/json"))
        self.assertEqual(answer.headers["x-request-id"], "my-own-id")
        self.assertEqual(answer.headers["x-baton-decode"], "d0")
        a = answer.json
        self.assertRegex(a["id"], "^cmpl-")
        self.assertEqual(a["object"], "text_completion")
        self.assertEqual(a["model"], self.c.model)
        self.assertIsInstance(a["created"], int)
        self.assertEqual(len(a["choices"]), 1)
        choice = a["choices"][0]
        self.assertEqual(choice["index"], 0)
        self.assertEqual(choice["finish_reason"], "length")
        self.assertIsNone(choice["logprobs"])
        self.assertTrue(choice["text"])
        self.check_usage(a["usage"], completion=12)

    def test_prefill_node_is_named(self):
        answer = self.c.post("/v1/completions", {"prompt": "A prompt of its own. " + STORY, "max_tokens": 4})
        self.assertEqual(answer.headers["x-baton-prefill"], "p0")
        self.assertEqual(answer.headers["x-baton-decode"], "d0")
        self.assertTrue(answer.headers["x-request-id"])
        self.assertGreater(self.c.kv_bytes(self.c.transport), 0)

    def test_cached_tokens(self):
        body = {"prompt": "This one is asked for twice. " + STORY, "max_tokens": 4, "temperature": 0}
        first, second = self.c.complete(body), self.c.complete(body)
        self.assertGreater(second["usage"]["prompt_tokens_details"]["cached_tokens"],
                           first["usage"]["prompt_tokens_details"]["cached_tokens"])
        self.assertEqual(first["choices"], second["choices"])

    def test_cache_salt_separates(self):
        body = {"prompt": "Nobody else may know. " + STORY, "max_tokens": 1, "cache_salt": "one"}
        self.c.complete(body)
        self.assertGreater(self.c.complete(body)["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        other = self.c.complete(dict(body, cache_salt="two"))
        self.assertEqual(other["usage"]["prompt_tokens_details"]["cached_tokens"], 0)

    def test_completion_stream_equals_whole(self):
        body = {"prompt": STORY, "max_tokens": 40, "temperature": 0, "logprobs": 3, "ignore_eos": True}
        whole = self.c.complete(body)["choices"][0]
        stream = self.c.stream("/v1/completions", dict(body, stream_options={"include_usage": True}))
        self.assertTrue(stream.headers["content-type"].startswith("text/event-stream"))
        self.assertEqual(stream.headers["x-baton-decode"], "d0")
        text, chunks = stream.text()
        self.assertTrue(stream.done)
        stream.close()
        self.assertEqual(text, whole["text"])
        self.assertEqual(len({(c["id"], c["created"], c["model"]) for c in chunks}), 1)
        self.assertTrue(all(c["object"] == "text_completion" for c in chunks))
        last = chunks.pop()
        self.assertEqual(last["choices"], [])
        self.check_usage(last["usage"], completion=40)
        self.assertTrue(all(c["usage"] is None for c in chunks))
        reasons = [c["choices"][0]["finish_reason"] for c in chunks]
        self.assertEqual([r for r in reasons if r], ["length"])
        self.assertEqual(reasons[-1], "length")
        joined = {"tokens": [], "token_logprobs": [], "text_offset": [], "top_logprobs": []}
        for chunk in chunks:
            for key in joined:
                joined[key] += (chunk["choices"][0]["logprobs"] or {}).get(key, [])
        self.assertEqual(joined, {k: whole["logprobs"][k] for k in joined})

    def test_completion_logprobs(self):
        choice = self.c.complete({"prompt": "The fox", "max_tokens": 6, "temperature": 0, "logprobs": 3,
                                  "ignore_eos": True})["choices"][0]
        p = choice["logprobs"]
        self.assertEqual({len(p[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}, {6})
        for token, logprob, top in zip(p["tokens"], p["token_logprobs"], p["top_logprobs"]):
            self.assertLessEqual(logprob, 0)
            self.assertIn(len(top), (1, 2, 3))  # ids of one text share a key
            self.assertEqual(max(top.values()), top[token], "greedy takes the most likely")
        self.assertEqual(p["text_offset"][0], 0)
        self.assertEqual(p["text_offset"], sorted(p["text_offset"]))

    def test_echo(self):
        a = self.c.complete({"prompt": "One day", "max_tokens": 4, "temperature": 0, "echo": True})
        self.assertTrue(a["choices"][0]["text"].startswith("One day"))

    def test_many_prompts(self):
        texts = ["The cat", "The dog", STORY]
        alone = [self.c.complete({"prompt": t, "max_tokens": 8, "temperature": 0})["choices"][0]["text"] for t in texts]
        a = self.c.complete({"prompt": texts, "max_tokens": 8, "temperature": 0})
        self.assertEqual([x["index"] for x in a["choices"]], [0, 1, 2])
        self.assertEqual([x["text"] for x in a["choices"]], alone)

    def test_n(self):
        body = {"prompt": STORY, "max_tokens": 16, "temperature": 1.0, "seed": 5, "n": 2, "ignore_eos": True}
        a = self.c.complete(body)
        self.assertEqual([x["index"] for x in a["choices"]], [0, 1])
        self.assertNotEqual(a["choices"][0]["text"], a["choices"][1]["text"])
        self.check_usage(a["usage"], completion=32)
        again = self.c.complete(body)
        self.assertEqual(a["choices"], again["choices"])
        alone = self.c.complete(dict(body, n=1))
        self.assertEqual(alone["choices"][0]["text"], a["choices"][0]["text"], "choice 0 draws as a request alone")
        texts = {0: "", 1: ""}
        stream = self.c.stream("/v1/completions", body)
        for chunk in stream:
            for x in chunk["choices"]:
                texts[x["index"]] += x["text"]
        stream.close()
        self.assertEqual([texts[0], texts[1]], [x["text"] for x in a["choices"]])

    def test_stop(self):
        body = {"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
        whole = self.c.complete(body)["choices"][0]["text"]
        stop = whole[len(whole) // 2:len(whole) // 2 + 4]
        for stops in (stop, ["not in there, surely", stop]):
            cut = self.c.complete(dict(body, stop=stops))
            self.assertEqual(cut["choices"][0]["text"], whole[:whole.index(stop)])
            self.assertEqual(cut["choices"][0]["finish_reason"], "stop")
            stream = self.c.stream("/v1/completions", dict(body, stop=stops))
            self.assertEqual(stream.text()[0], whole[:whole.index(stop)])
            stream.close()
        kept = self.c.complete(dict(body, stop=stop, include_stop_str_in_output=True))
        self.assertEqual(kept["choices"][0]["text"], whole[:whole.index(stop) + len(stop)])
        self.c.wait_quiet()

    def test_stop_token_ids(self):
        body = {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "ignore_eos": True, "logprobs": 0}
        tokens = self.c.complete(body)["choices"][0]["logprobs"]["tokens"]
        stop = self.single_id(tokens[2:])
        a = self.c.complete(dict(body, stop_token_ids=[stop]))
        self.assertEqual(a["choices"][0]["finish_reason"], "stop")
        self.assertLess(a["usage"]["completion_tokens"], 20)

    def single_id(self, texts):
        """The id of the first of these texts that is one token."""
        for text in texts:
            ids = self.c.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"]
            if len(ids) == 1:
                return ids[0]
        raise AssertionError(f"no single token in {texts}")

    def test_seed(self):
        body = {"prompt": "The little bird", "max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "top_k": 50, "ignore_eos": True}
        texts = [self.c.complete(dict(body, seed=s))["choices"][0]["text"] for s in (1, 2, 1, 3, 2)]
        self.assertEqual(texts[0], texts[2])
        self.assertEqual(texts[1], texts[4])
        self.assertEqual(len(set(texts)), 3)

    def test_sampling_parameters_are_taken(self):
        body = {"prompt": "The sun and the moon", "max_tokens": 16, "temperature": 0, "ignore_eos": True, "logprobs": 0}
        plain = self.c.complete(body)["choices"][0]
        first = self.single_id(plain["logprobs"]["tokens"])
        banned = self.c.complete(dict(body, logit_bias={str(first): -100}))["choices"][0]
        self.assertNotEqual(banned["text"], plain["text"])
        for more in ({"presence_penalty": 2.0, "frequency_penalty": 2.0}, {"repetition_penalty": 1.8}):
            self.assertNotEqual(self.c.complete(dict(body, max_tokens=120, **more))["choices"][0]["text"],
                                self.c.complete(dict(body, max_tokens=120))["choices"][0]["text"], more)
        self.assertEqual(self.c.complete(dict(body, temperature=1, top_k=1))["choices"][0]["text"], plain["text"])
        self.assertEqual(self.c.complete(dict(body, temperature=1, min_p=1))["choices"][0]["text"], plain["text"])

    def test_unknown_fields_are_ignored(self):
        self.c.complete({"prompt": "Hi", "max_tokens": 2, "no_such_field": {"a": [1]}, "user": "me"})

    # ---- chat ----

    MESSAGES = [{"role": "system", "content": "You are a story teller."}, {"role": "user", "content": "Tell me a story."}]

    def test_chat(self):
        a = self.c.post("/v1/chat/completions", {"model": self.c.model, "messages": self.MESSAGES, "temperature": 0,
                                                 "max_completion_tokens": 10}).json
        self.assertRegex(a["id"], "^chatcmpl-")
        self.assertEqual(a["object"], "chat.completion")
        choice = a["choices"][0]
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertIsInstance(choice["message"]["content"], str)
        self.assertIn(choice["finish_reason"], ("stop", "length"))
        self.check_usage(a["usage"])

    def test_chat_stream(self):
        body = {"messages": self.MESSAGES, "temperature": 0, "max_tokens": 24, "n": 2, "ignore_eos": True}
        whole = self.c.post("/v1/chat/completions", body).json
        stream = self.c.stream("/v1/chat/completions", dict(body, stream_options={"include_usage": True}))
        chunks = list(stream)
        self.assertTrue(stream.done)
        stream.close()
        self.assertTrue(all(c["object"] == "chat.completion.chunk" for c in chunks))
        self.assertEqual(len({(c["id"], c["created"], c["model"]) for c in chunks}), 1)
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"], dict(whole["usage"], prompt_tokens_details=chunks[-1]["usage"]
                                                   ["prompt_tokens_details"]))
        for index in (0, 1):
            mine = [x for c in chunks for x in c["choices"] if x["index"] == index]
            self.assertEqual(mine[0]["delta"]["role"], "assistant")
            self.assertEqual(mine[0]["delta"].get("content"), "")
            self.assertEqual(mine[-1]["delta"].get("content") or "", "")
            self.assertEqual(mine[-1]["finish_reason"], whole["choices"][index]["finish_reason"])
            self.assertTrue(all(x["finish_reason"] is None for x in mine[:-1]))
            self.assertEqual("".join(x["delta"].get("content") or "" for x in mine),
                             whole["choices"][index]["message"]["content"])

    def test_chat_logprobs(self):
        a = self.c.post("/v1/chat/completions", {"messages": self.MESSAGES, "temperature": 0, "max_tokens": 5, "logprobs": True,
                                                 "top_logprobs": 2, "ignore_eos": True}).json
        content = a["choices"][0]["logprobs"]["content"]
        self.assertEqual(len(content), 5)
        for t in content:
            self.assertEqual(len(t["top_logprobs"]), 2)
            self.assertEqual(t["top_logprobs"][0]["logprob"], t["logprob"])
            self.assertEqual(bytes(t["bytes"]).decode(errors="replace"), t["token"])
            self.assertLessEqual(t["logprob"], 0)

    def test_chat_content_parts(self):
        parts = [dict(m, content=[{"type": "text", "text": m["content"]}]) for m in self.MESSAGES]
        one, two = (self.c.post("/v1/chat/completions", {"messages": m, "temperature": 0, "max_tokens": 8}).json
                    for m in (self.MESSAGES, parts))
        self.assertEqual(one["choices"][0]["message"]["content"], two["choices"][0]["message"]["content"])

    def test_chat_is_a_rendered_completion(self):
        ids = self.c.post("/tokenize", {"messages": self.MESSAGES}).json["tokens"]
        chat = self.c.post("/v1/chat/completions", {"messages": self.MESSAGES, "temperature": 0, "max_tokens": 16}).json
        raw = self.c.complete({"prompt": ids, "temperature": 0, "max_tokens": 16})
        self.assertEqual(chat["choices"][0]["message"]["content"], raw["choices"][0]["text"])
        self.assertEqual(chat["usage"]["prompt_tokens"], len(ids))

    # ---- the rest ----

    def test_models(self):
        a = self.c.get("/v1/models").json
        self.assertEqual(a["object"], "list")
        card = a["data"][0]
        self.assertEqual(card["id"], self.c.model)
        self.assertEqual(card["object"], "model")
        self.assertEqual(card["max_model_len"], 2048)
        self.assertEqual(self.c.get(f"/v1/models/{self.c.model}").json, card)

    def test_tokenize(self):
        text = "Once upon a time, there was a café. 12 + 30 = 42\n"
        a = self.c.post("/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True}).json
        self.assertEqual(a["count"], len(a["tokens"]))
        self.assertEqual(len(a["token_strs"]), a["count"])
        self.assertEqual(a["max_model_len"], 2048)
        self.assertEqual(self.c.post("/detokenize", {"tokens": a["tokens"]}).json["prompt"], text)
        with_special = self.c.post("/tokenize", {"prompt": text}).json["tokens"]
        self.assertEqual(with_special[1:], a["tokens"])
        self.assertEqual(self.c.post("/tokenize", {"content": text}).json["tokens"], a["tokens"])

    def test_pieces(self):
        """Each token's text; the bytes of those that hold part of a character."""
        text = "a\u0000 fox 🦊, café"
        pieces = [t["piece"] for t in self.c.post("/tokenize", {"content": text, "with_pieces": True}).json["tokens"]]
        self.assertTrue(any(isinstance(p, list) for p in pieces))
        self.assertEqual(b"".join(bytes(p) if isinstance(p, list) else p.encode() for p in pieces).decode(), text)

    def test_health_version_metrics(self):
        for path in ("/health", "/health/live", "/health/ready"):
            self.assertEqual(self.c.get(path).status, 200, path)
            for node in self.c.workers():
                self.assertEqual(node.get(path)[0], 200, (node.name, path))
        self.assertRegex(self.c.get("/version").json["version"], r"^\d+\.\d+")
        self.c.complete({"prompt": "Hi", "max_tokens": 3})
        m = self.c.router.metrics()
        self.assertGreater(m.get("baton_requests_total", outcome="ok"), 0)
        self.assertGreater(m.get("baton_generated_tokens_total"), 0)
        self.assertGreater(m.get("baton_prompt_tokens_total"), 0)
        for name in ("baton_time_to_first_token_seconds_count", "baton_inter_token_latency_seconds_count"):
            self.assertGreater(m.get(name), 0, name)
        self.assertGreater(m.get("baton_request_seconds_count", phase="total"), 0)
        for role in ("prefill", "decode"):
            self.assertEqual(m.get("baton_nodes", node_role=role, state="up"), 1)
        self.assertEqual(m.get("baton_nodes"), 2)
        for node in self.c.workers():
            m = node.metrics()
            states = {l["state"] for n, l, _ in m.samples if n == "baton_kv_blocks"}
            self.assertEqual(states, {"free", "reserved", "receiving", "running", "cached", "quarantined"})
            self.assertEqual(m.get("baton_kv_blocks"), m.get("baton_kv_blocks_capacity"), "the sum holds")
        for node in self.c.nodes.values():
            self.check_exposition(node.get("/metrics")[1], node.name)

    def check_exposition(self, text, who):
        """Prometheus text: a TYPE before the samples, the same labels on all, units and _total where they belong."""
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        for name, labels, _ in cluster.Metrics(text).samples:
            family = name if name in types else re.sub("_(bucket|sum|count)$", "", name)
            self.assertIn(family, types, who)
            self.assertTrue({"model", "node", "role"} <= labels.keys(), (who, name, labels))
            self.assertEqual(family.endswith("_total"), types[family] == "counter", (who, family))

    def test_keep_alive(self):
        sock = self.c.connect()
        try:
            body = json.dumps({"prompt": "Hi", "max_tokens": 2}).encode()
            request = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                       + str(len(body)).encode() + b"\r\n\r\n" + body)
            for _ in range(3):
                sock.sendall(request)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += sock.recv(65536)
                head, _, rest = answer.partition(b"\r\n\r\n")
                self.assertIn(b"200", head.split(b"\r\n")[0])
                length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
                while len(rest) < length:
                    rest += sock.recv(65536)
        finally:
            sock.close()


if __name__ == "__main__":
    cluster.main()
