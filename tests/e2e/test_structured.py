"""Structured output: what is asked for is what comes, over every way of asking; a mistake is a 400 that names its place; a
node that dies in the middle changes nothing."""
import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
import unittest

import cluster

PERSON = {"type": "object",
          "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                         "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3}},
          "required": ["name", "age", "tags"], "additionalProperties": False}
LONG = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer", "minimum": 0, "maximum": 999},
                                                                    "text": {"type": "string", "minLength": 30, "maxLength": 40}},
                                   "required": ["id", "text"], "additionalProperties": False}, "minItems": 12, "maxItems": 12}
GBNF = 'root ::= "1. " move (" " move){2}\nmove ::= [NBKQR]? [a-h] [1-8] "+"?'


def is_person(text):
    v = json.loads(text)
    return (list(v) == ["name", "age", "tags"] and isinstance(v["name"], str) and len(v["name"]) <= 12 and
            isinstance(v["age"], int) and 0 <= v["age"] <= 120 and 1 <= len(v["tags"]) <= 3 and
            set(v["tags"]) <= {"red", "green", "blue"})


def is_long(text):
    v = json.loads(text)
    return len(v) == 12 and all(list(x) == ["id", "text"] and 30 <= len(x["text"]) <= 40 for x in v)


ASKED = (({"response_format": {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}}, is_person),
         ({"structured_outputs": {"json": PERSON}}, is_person),
         ({"guided_json": json.dumps(PERSON)}, is_person),
         ({"json_schema": PERSON}, is_person),
         ({"structured_outputs": {"regex": "[A-Z][a-z]{3,8}, \\d{4}"}}, lambda t: re.fullmatch("[A-Z][a-z]{3,8}, [0-9]{4}", t)),
         ({"guided_choice": ["yes", "no", "perhaps"]}, lambda t: t in ("yes", "no", "perhaps")),
         ({"grammar": GBNF}, lambda t: re.fullmatch(r"1\. [NBKQR]?[a-h][1-8]\+?( [NBKQR]?[a-h][1-8]\+?){2}", t)))


class Structured(cluster.SharedCase):
    @classmethod
    def setUpClass(cls):
        cls.c = cluster.up()

    def test_every_way_of_asking(self):
        for i, (fields, right) in enumerate(ASKED):
            for more in ({"temperature": 0}, {"temperature": 1, "seed": i, "n": 3}):
                with self.subTest(fields=list(fields), more=more):
                    body = {"prompt": "Once upon a time", "max_tokens": 300, **fields, **more}
                    for choice in self.c.complete(body)["choices"]:
                        self.assertEqual(choice["finish_reason"], "stop", choice)
                        self.assertTrue(right(choice["text"]), choice["text"])
                    messages = [{"role": "user", "content": "Tell me a story."}]
                    chat = self.c.post("/v1/chat/completions", {"messages": messages, "max_tokens": 300, **fields, **more}).json
                    for choice in chat["choices"]:
                        self.assertEqual(choice["finish_reason"], "stop", choice)
                        self.assertTrue(right(choice["message"]["content"]), choice)

    def test_json_object(self):
        body = {"prompt": "{", "max_tokens": 120, "response_format": {"type": "json_object"}, "temperature": 1}
        ended = 0
        for seed in range(12):
            choice = self.c.complete({**body, "seed": seed})["choices"][0]
            self.assertTrue(choice["text"].startswith("{"))
            if choice["finish_reason"] == "stop":
                self.assertIsInstance(json.loads(choice["text"]), dict)
                ended += 1
        self.assertGreater(ended, 0)

    def test_streamed_is_the_same(self):
        body = {"prompt": "Once upon a time", "max_tokens": 300, "json_schema": PERSON, "temperature": 1, "seed": 5}
        whole = self.c.complete(body)["choices"][0]
        stream = self.c.stream("/v1/completions", {**body, "stream": True})
        text = "".join(x["text"] for chunk in stream for x in chunk["choices"])
        stream.close()
        self.assertEqual(text, whole["text"])
        self.assertTrue(is_person(text))

    def test_logprobs_and_limits(self):
        a = self.c.complete({"prompt": "x", "max_tokens": 5, "guided_regex": "(ab)*c", "temperature": 0, "logprobs": 3})
        for top in a["choices"][0]["logprobs"]["top_logprobs"]:
            self.assertGreater(len(top), 0)
        a = self.c.complete({"prompt": "x", "max_tokens": 4, "guided_regex": "a{100}", "temperature": 0})
        self.assertEqual(a["choices"][0]["finish_reason"], "length")
        self.assertEqual(set(a["choices"][0]["text"]), {"a"})
        # What ends a text may not come before it is complete, and nothing may come after.
        a = self.c.complete({"prompt": "x", "max_tokens": 90, "guided_regex": "a{30}", "min_tokens": 80, "ignore_eos": True})
        self.assertEqual((a["choices"][0]["finish_reason"], a["choices"][0]["text"]), ("stop", "a" * 30))

    def test_refused(self):
        for fields, param, says in (
                ({"json_schema": {"properties": {"a": {"contains": {}}}}}, "json_schema",
                 '#/properties/a: keyword "contains" is not supported'),
                ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}},
                 "response_format", '#: type "objekt"'),
                ({"guided_regex": "ab("}, "guided_regex", "offset 3"),
                ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs", "line 1 column 10"),
                ({"grammar": 'root ::= root "a" | "b"'}, "grammar", "left recursion"),
                ({"guided_choice": []}, "guided_choice", "not empty"),
                ({"guided_regex": "a", "grammar": 'root ::= "a"'}, "grammar", "only one of them")):
            with self.subTest(fields=fields):
                answer = self.c.post("/v1/completions", {"prompt": "x", "max_tokens": 3, **fields})
                self.assertEqual(answer.status, 400, answer.body)
                error = answer.json["error"]
                self.assertEqual(error["param"], param)
                self.assertIn(says, error["message"])
        self.assertEqual(len(self.c.complete({"prompt": "x", "max_tokens": 2})["choices"]), 1)


TURNS = "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}"
# What the tiny model's special tokens 2 to 5 are called instead, whether they are special still, and the template.
OPENED = (("<think>", "<|a|>", "</think>", "<|end|>"), False,
          TURNS + "<think>\n{% if enable_thinking is defined and not enable_thinking %}\n</think>\n\n{% endif %}{% endif %}")
OPENING = (OPENED[0], True, TURNS + "{# <think> #}{% endif %}")
HARMONY = (("<|channel|>", "<|message|>", "<|start|>", "<|end|>"), True, TURNS + "{# <|channel|><|message|> #}<|start|>assistant{% endif %}")
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {"enum": [1, 22]}},
                                                                      "required": ["n"], "additionalProperties": False}}},
         {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "additionalProperties": False}}}]
SAY = [{"role": "user", "content": "Once upon a time"}]


@contextlib.contextmanager
def reasoning_model(kind):
    """The tiny model with markers of reasoning for special tokens; only token 1 ends a text."""
    markers, special, template = kind
    with tempfile.TemporaryDirectory(prefix="baton-model-") as folder:
        shutil.copytree(cluster.TINY, folder, dirs_exist_ok=True)

        def change(name, work):
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as f:
                what = json.load(f)
            work(what)
            with open(path, "w", encoding="utf-8") as f:
                json.dump(what, f)

        def rename(tokenizer):
            for i, text in enumerate(markers):
                token = next(t for t in tokenizer["added_tokens"] if t["id"] == i + 2)
                tokenizer["model"]["vocab"].pop(token["content"])
                tokenizer["model"]["vocab"][text] = i + 2
                token.update(content=text, special=special)

        change("tokenizer.json", rename)
        change("tokenizer_config.json", lambda t: (t.update(chat_template=template, eos_token="<|eos|>"), t.pop("added_tokens_decoder")))
        for name in ("config.json", "generation_config.json"):
            change(name, lambda t: t.update(eos_token_id=1))
        yield folder


def token_of(c, text):
    ids = c.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"]
    assert len(ids) == 1, (text, ids)
    return str(ids[0])


class Reasoning(unittest.TestCase):
    """The model may reason first; the answer behind it is what was asked for."""

    @contextlib.contextmanager
    def cluster_of(self, kind, pushed):
        """The model has never learned to write markers, so they are pushed a bit."""
        with reasoning_model(kind) as folder, cluster.up(model=folder) as c:
            self.ask = {"messages": SAY, "max_tokens": 400, "temperature": 1, "top_p": 1,
                        "logit_bias": {token_of(c, text): bias for text, bias in pushed.items()}}
            yield c

    def chats(self, c, more, seeds=8):
        """Choices that ended by themselves, most of `seeds`; all others are cut off."""
        ended = []
        for seed in range(seeds):
            answer = c.post("/v1/chat/completions", {**self.ask, **more, "seed": seed})
            self.assertEqual(answer.status, 200, answer.body)
            for choice in answer.json["choices"]:
                self.assertIn(choice["finish_reason"], ("stop", "length", "tool_calls"))
                if choice["finish_reason"] != "length":
                    ended.append((choice, answer.json["usage"]))
        self.assertGreater(len(ended), seeds // 2)
        return ended

    def check_answers(self, c, always):
        thought = 0
        for fields, right in ASKED:
            with self.subTest(fields=list(fields)):
                for choice, usage in self.chats(c, fields):
                    message = choice["message"]
                    self.assertTrue(right(message["content"]), message)
                    if message.get("reasoning_content"):
                        thought += 1
                        self.assertGreater(usage["completion_tokens_details"]["reasoning_tokens"], 0)
        self.assertGreater(thought, 25 if always else 5)

    def check_calls(self, c):
        for choice, _ in self.chats(c, {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}):
            call = choice["message"]["tool_calls"][0]["function"]
            self.assertIn((call["name"], json.loads(call["arguments"])), (("f", {"n": 1}), ("f", {"n": 22}), ("g", {})))
            self.assertFalse(choice["message"]["content"])
        named = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}
        thought = 0
        for choice, _ in self.chats(c, named):
            self.assertIn(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]), ({"n": 1}, {"n": 22}))
            thought += bool(choice["message"].get("reasoning_content"))
        self.assertGreater(thought, 0)

    def check_stream(self, c):
        for seed in range(4):
            body = {**self.ask, "json_schema": PERSON, "seed": seed, "n": 2}
            whole = c.post("/v1/chat/completions", body).json["choices"]
            stream = c.stream("/v1/chat/completions", {**body, "stream": True})
            said = [["", ""], ["", ""]]
            for chunk in stream:
                for x in chunk["choices"]:
                    said[x["index"]][0] += x["delta"].get("reasoning_content") or ""
                    said[x["index"]][1] += x["delta"].get("content") or ""
            stream.close()
            self.assertEqual(said, [[x["message"].get("reasoning_content") or "", x["message"]["content"] or ""] for x in whole])

    def test_opened_by_the_prompt(self):
        with self.cluster_of(OPENED, {"</think>": 4}) as c:
            self.check_answers(c, True)
            self.check_calls(c)
            self.check_stream(c)
            # within the reasoning nothing ends but for want of room, whatever is pushed
            body = {**self.ask, "json_schema": PERSON, "max_tokens": 40, "logit_bias": {"1": 100, token_of(c, "</think>"): -100}}
            choice = c.post("/v1/chat/completions", body).json["choices"][0]
            self.assertEqual(choice["finish_reason"], "length")
            self.assertFalse(choice["message"]["content"])
            self.assertTrue(choice["message"]["reasoning_content"])
            # where there is to be none, the answer comes at once
            for off in ({"enable_thinking": False}, {"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}},
                        {"separate_reasoning": False}):
                for choice, _ in self.chats(c, {"json_schema": PERSON, **off}, 3):
                    self.assertTrue(is_person(choice["message"]["content"]), choice)
                    self.assertFalse(choice["message"].get("reasoning_content"))
            # blanks in front may be the answer's own
            for choice, _ in self.chats(c, {"guided_regex": "\\n? [ab]{3}"}):
                self.assertRegex(choice["message"]["content"], "^\n? [ab]{3}$")

    def test_opened_by_the_model(self):
        with self.cluster_of(OPENING, {"<think>": 9, "</think>": 6}) as c:
            self.check_answers(c, False)
            self.check_calls(c)
            self.check_stream(c)

    def test_harmony(self):
        with self.cluster_of(HARMONY, {"<|channel|>": 9, "<|message|>": 9, "<|start|>": 9, "<|end|>": 7, "f": 3}) as c:
            self.check_answers(c, False)
            self.check_calls(c)
            self.check_stream(c)


def bodies():
    made = []
    for i in range(6):
        body = {"prompt": f"{i} " + "Once upon a time there was a fox. " * (i + 1), "max_tokens": 1500, "json_schema": LONG,
                "temperature": 0, "stream": True}
        if i % 2:
            body.update(temperature=0.8, seed=i, presence_penalty=0.3)
        made.append(body)
    return made


def run(c, made, at_first=None, path="/v1/completions", after=5, hold=False):
    """Text, reason of its end and reasoning of all streams; `at_first` is called once every stream has said something. With `hold`
    nobody reads on before it is over: what is not read stops a sequence, and none can have ended."""
    said, go_on = threading.Semaphore(0), threading.Event()

    def one(i):
        stream = c.stream(path, made[i], receive_bytes=4096 if hold else None)
        text, finish, thought = "", None, ""
        for n, chunk in enumerate(stream):
            for x in chunk["choices"]:
                delta = x.get("delta", {})
                text += x.get("text") or delta.get("content") or ""
                thought += delta.get("reasoning_content") or ""
                finish = x["finish_reason"] or finish
            if n == after:
                said.release()
                if hold:
                    go_on.wait(60 * cluster.SLOWER)
        stream.close()
        assert stream.done
        return text, finish, thought

    started = cluster.in_threads(len(made), one)
    if at_first:
        for _ in made:
            assert said.acquire(timeout=60 * cluster.SLOWER)
        at_first()
        go_on.set()
    return cluster.join_threads(started)


class Death(unittest.TestCase):
    def die_in_the_middle(self, made, model=cluster.TINY, **how):
        """What an undisturbed aggregated node says, which a cluster whose busiest decode node dies says too."""
        with cluster.up(prefill=0, decode=0, aggregated=1, model=model) as c:
            expected = run(c, made, **how)
        with cluster.up(prefill=1, decode=2, model=model) as c:
            def busiest():
                return max(c.workers("decode"), key=lambda n: n.metrics().get("baton_requests_running")).name

            got = run(c, made, lambda: c.kill(busiest()), hold=True, **how)
            self.assertEqual(c.router.metrics().sum("baton_requests_total", outcome="failed"), 0)
            self.assertGreater(c.router.metrics().get("baton_requests_resumed_total"), 0)
        self.assertEqual(expected, got)
        return expected

    def test_decode_node_dies(self):
        for text, finish, _ in self.die_in_the_middle(bodies()):
            self.assertEqual(finish, "stop")
            self.assertTrue(is_long(text), text)

    def test_decode_node_dies_while_reasoning(self):
        """Within the reasoning, and where some have left it."""
        made = []
        for i in range(6):
            body = {"messages": [{"role": "user", "content": f"{i} Once upon a time"}], "max_tokens": 1500, "json_schema": LONG,
                    "temperature": 0.8, "seed": i, "logit_bias": {"4": 3}, "stream": True}
            made.append(body)
        with reasoning_model(OPENED) as folder:
            ended = reasoned = 0
            for text, finish, thought in self.die_in_the_middle(made, model=folder, path="/v1/chat/completions", after=12):
                reasoned += bool(thought)
                if finish == "stop":
                    ended += 1
                    self.assertTrue(is_long(text), text)
            self.assertGreater(min(ended, reasoned), 0)


def slow(i):
    """A pattern that nobody has seen, and that takes some tenths of a second to compile, on the router and on each node."""
    return f"[a-c]{{5}}{i}.{{0,{8000 + i}}}"


def slow_body(i):
    """Not so short a prompt that no prefill node is asked."""
    return {"prompt": f"{i} " + "Once upon a time there was a fox. " * 10, "max_tokens": 12, "temperature": 0, "guided_regex": slow(i)}


def send(c, body):
    """A request as a whole; nobody waits for its answer."""
    body = json.dumps(body).encode()
    sock = c.connect()
    sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return sock


class Compiling(unittest.TestCase):
    def complete(self, c, i):
        text = c.complete(slow_body(i))["choices"][0]["text"]
        self.assertRegex(text, "^[a-c]{5}")
        return text

    def test_beside_streams_and_for_those_who_leave(self):
        with cluster.up(prefill=1, decode=1) as c:
            expected = run(c, bodies())

            def ask():
                for i in range(10):  # goes away while the router or one of the nodes compiles, or soon after
                    sock = send(c, slow_body(i))
                    time.sleep(0.08 * i)
                    sock.close()
                together = cluster.join_threads(cluster.in_threads(3, lambda _: self.complete(c, 10)))
                self.assertEqual(together, [self.complete(c, 10)] * 3)

            self.assertEqual(run(c, bodies(), ask), expected)
            c.wait_quiet()

    def test_the_end_comes_meanwhile(self):
        with cluster.up(prefill=1, decode=1) as c:
            cluster.join_threads(cluster.in_threads(4, lambda i: self.complete(c, i)))
            open_ones = [send(c, slow_body(i)) for i in range(4, 8)]
            time.sleep(0.3)
        for sock in open_ones:
            sock.close()


if __name__ == "__main__":
    cluster.main()
