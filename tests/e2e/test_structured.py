"""Structured output: what is asked for is what comes, over every way of asking; a mistake is a 400 that names its place; a
node that dies in the middle changes nothing."""
import json
import re
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


def bodies():
    made = []
    for i in range(6):
        body = {"prompt": f"{i} " + "Once upon a time there was a fox. " * (i + 1), "max_tokens": 1500, "json_schema": LONG,
                "temperature": 0, "stream": True}
        if i % 2:
            body.update(temperature=0.8, seed=i, presence_penalty=0.3)
        made.append(body)
    return made


def run(c, at_first=None):
    """The texts of all streams; `at_first` is called once every stream has said something."""
    made = bodies()
    said = threading.Semaphore(0)

    def one(i):
        stream = c.stream("/v1/completions", made[i])
        text, finish = "", None
        for n, chunk in enumerate(stream):
            for x in chunk["choices"]:
                text += x["text"]
                finish = x["finish_reason"] or finish
            if n == 5:
                said.release()
        stream.close()
        assert stream.done
        return text, finish

    started = cluster.in_threads(len(made), one)
    if at_first:
        for _ in made:
            assert said.acquire(timeout=60)
        at_first()
    return cluster.join_threads(started)


class Death(unittest.TestCase):
    def test_decode_node_dies(self):
        with cluster.up(prefill=0, decode=0, aggregated=1) as c:
            expected = run(c)
        for text, finish in expected:
            self.assertEqual(finish, "stop")
            self.assertTrue(is_long(text), text)
        with cluster.up(prefill=1, decode=2) as c:
            def busiest():
                return max(c.workers("decode"), key=lambda n: n.metrics().get("baton_requests_running")).name

            got = run(c, lambda: c.kill(busiest()))
            self.assertEqual(c.router.metrics().sum("baton_requests_total", outcome="failed"), 0)
            self.assertGreater(c.router.metrics().get("baton_requests_resumed_total"), 0)
        self.assertEqual(expected, got)


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
            expected = run(c)

            def ask():
                for i in range(10):  # goes away while the router or one of the nodes compiles, or soon after
                    sock = send(c, slow_body(i))
                    time.sleep(0.08 * i)
                    sock.close()
                together = cluster.join_threads(cluster.in_threads(3, lambda _: self.complete(c, 10)))
                self.assertEqual(together, [self.complete(c, 10)] * 3)

            self.assertEqual(run(c, ask), expected)
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
