"""The public gRPC API, driven by grpcio with stubs made from the .proto file at test time: Generate, Tokenize, Models, health,
reflection, cancellation, deadlines, statuses."""
import json
import os
import re
import sys
import tempfile
import threading
import time

import clients
import cluster
import half_sent

clients.require()
# Programs are started while channels are open: between fork and exec nothing of grpcio's may run (its own poller, closed by then,
# aborts the child now and then).
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
import grpc  # noqa: E402  (there only now)
import grpc_tools.protoc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402

PROTO = os.path.join(cluster.SOURCE, "proto", "baton", "v1")
LONG = "Once upon a time there was a little fox. " * 12


class Grpc(cluster.SharedCase):
    @classmethod
    def setUpClass(cls):
        cls.stubs = tempfile.TemporaryDirectory()
        made = grpc_tools.protoc.main(["protoc", "-I", PROTO, f"--python_out={cls.stubs.name}", f"--grpc_python_out={cls.stubs.name}",
                                       os.path.join(PROTO, "inference.proto")])
        assert made == 0
        sys.path.insert(0, cls.stubs.name)
        import inference_pb2
        import inference_pb2_grpc
        cls.pb = inference_pb2
        cls.c = cluster.up(transport="shm")
        cls.channel = grpc.insecure_channel(cls.c.router.grpc)
        cls.api = inference_pb2_grpc.InferenceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        super().tearDownClass()
        cls.stubs.cleanup()

    def request(self, text="Once upon a time", n=1, stop=(), **sampling):
        sampling.setdefault("temperature", 0)
        sampling.setdefault("max_tokens", 16)
        return self.pb.GenerateRequest(text=text, n=n, stop=list(stop), sampling=self.pb.SamplingParams(**sampling))

    def collect(self, responses, n=1):
        said = [{"text": "", "ids": [], "logprobs": [], "finish": 0} for _ in range(n)]
        usage = None
        for r in responses:
            mine = said[r.choice]
            mine["text"] += r.text
            mine["ids"] += r.ids
            mine["logprobs"] += r.logprobs
            mine["finish"] = r.finish_reason or mine["finish"]
            if r.HasField("usage"):
                self.assertIsNone(usage, "usage comes once")
                usage = r.usage
        return said, usage

    def test_generate(self):
        said, usage = self.collect(self.api.Generate(self.request(LONG, ignore_eos=True), timeout=60))
        self.assertEqual(len(said[0]["ids"]), 16)
        self.assertEqual(said[0]["finish"], self.pb.FINISH_REASON_LENGTH)
        self.assertEqual(usage.completion_tokens, 16)
        http = self.c.complete({"prompt": LONG, "max_tokens": 16, "temperature": 0, "ignore_eos": True})
        self.assertEqual(said[0]["text"], http["choices"][0]["text"])
        self.assertEqual(usage.prompt_tokens, http["usage"]["prompt_tokens"])
        whole = self.c.post("/detokenize", {"tokens": said[0]["ids"]}).json["prompt"]
        self.assertEqual(re.sub(r"<\|\w+\|>", "", whole), said[0]["text"], "but for special tokens")
        self.assertGreater(self.c.kv_bytes(self.c.transport), 0)

    def test_scores_of_the_prompt(self):
        http = self.c.complete({"prompt": LONG, "max_tokens": 0, "echo": True, "logprobs": 2})["choices"][0]["logprobs"]
        for more in ({"prompt_only": True}, {"max_tokens": 3, "ignore_eos": True}):
            scores, tokens, usage = [], 0, None
            for r in self.api.Generate(self.request(LONG, prompt_logprobs=2, **more)):
                scores += r.prompt_logprobs
                tokens += len(r.ids)
                self.assertFalse(r.prompt_logprobs and tokens, "scores come first")
                usage = r.usage if r.HasField("usage") else usage
            self.assertEqual(tokens, more.get("max_tokens", 0))
            self.assertEqual(usage.completion_tokens, tokens)
            self.assertEqual([s.position for s in scores], list(range(1, usage.prompt_tokens)))
            self.assertEqual(len(scores) + 1, len(http["tokens"]))
            for s, score, top in list(zip(scores, http["token_logprobs"][1:], http["top_logprobs"][1:])):
                self.assertAlmostEqual(s.logprob, score, places=5)
                self.assertEqual(len(s.top), 2)
                self.assertAlmostEqual(s.top[0].logprob, max(top.values()), places=5)
                self.assertEqual(s.rank == 1, s.id == s.top[0].id)

    def test_grammars(self):
        schema = '{"type": "object", "properties": {"a": {"type": "integer", "maximum": 99}}, "required": ["a"], ' \
                 '"additionalProperties": false}'
        for option, right in (({"json_schema": schema}, lambda t: list(json.loads(t)) == ["a"] and json.loads(t)["a"] <= 99),
                              ({"regex": "[a-f]{4}-\\d\\d"}, lambda t: re.fullmatch("[a-f]{4}-[0-9]{2}", t)),
                              ({"gbnf": 'root ::= "yes" | "no"'}, lambda t: t in ("yes", "no")),
                              ({"choice": self.pb.Choice(texts=["red", 'a "b"'])}, lambda t: t in ("red", 'a "b"'))):
            said, _ = self.collect(self.api.Generate(self.request(n=2, temperature=1, seed=3, max_tokens=200, **option)), 2)
            for choice in said:
                self.assertEqual(choice["finish"], self.pb.FINISH_REASON_STOP)
                self.assertTrue(right(choice["text"]), choice["text"])
        said, _ = self.collect(self.api.Generate(self.request(json_object=True, max_tokens=3)))
        self.assertEqual(said[0]["text"][0], "{")
        for option, says in (({"json_schema": '{"items": {"contains": {}}}'}, "#/items"), ({"regex": "a("}, "offset 2"),
                             ({"gbnf": "root ::= x"}, "line 1 column 10")):
            with self.assertRaises(grpc.RpcError) as caught:
                list(self.api.Generate(self.request(**option)))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(says, caught.exception.details())

    def test_generate_from_ids(self):
        ids = list(self.api.Tokenize(self.pb.TokenizeRequest(text=LONG)).ids)
        request = self.request(LONG)
        by_text, _ = self.collect(self.api.Generate(request))
        request.ClearField("text")
        request.ids.ids.extend(ids)
        by_ids, _ = self.collect(self.api.Generate(request))
        self.assertEqual(by_text, by_ids)

    def test_choices_and_logprobs(self):
        request = self.request(n=3, temperature=1, seed=7, logprobs=2, ignore_eos=True)
        said, usage = self.collect(self.api.Generate(request), 3)
        again, _ = self.collect(self.api.Generate(request), 3)
        self.assertEqual(said, again)
        self.assertEqual(usage.completion_tokens, 48)
        for one in said:
            self.assertEqual([p.id for p in one["logprobs"]], one["ids"])
            self.assertEqual([p.position for p in one["logprobs"]], list(range(16)))
            self.assertTrue(all(len(p.top) == 2 and p.logprob <= 0 for p in one["logprobs"]))
        self.assertGreater(len({one["text"] for one in said}), 1)

    def test_stop(self):
        whole, _ = self.collect(self.api.Generate(self.request(max_tokens=40, ignore_eos=True)))
        text = whole[0]["text"]
        stop = text[len(text) // 2:len(text) // 2 + 3]
        cut, _ = self.collect(self.api.Generate(self.request(max_tokens=40, ignore_eos=True, stop=[stop])))
        self.assertEqual(cut[0]["text"], text[:text.index(stop)])
        self.assertEqual(cut[0]["finish"], self.pb.FINISH_REASON_STOP)

    def test_empty_and_large_texts(self):
        """An empty text is one; a large one is read at the desk and means the same."""
        _, usage = self.collect(self.api.Generate(self.request("", max_tokens=2, ignore_eos=True)))
        self.assertEqual(usage.completion_tokens, 2)
        text = "the fox ran. " * 20000
        ids = self.c.post("/tokenize", {"prompt": text}).json["tokens"]
        got = self.api.Tokenize(self.pb.TokenizeRequest(text=text), timeout=60)
        self.assertEqual(list(got.ids), ids)
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.api.Generate(self.request("the fox ran. " * 8000), timeout=60))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("maximum context length", caught.exception.details())

    def test_cancel(self):
        call = self.api.Generate(self.request(LONG, max_tokens=1500, ignore_eos=True))
        next(call)
        call.cancel()
        took = cluster.wait_until("the nodes are quiet", lambda: self.c.nodes["d0"].metrics().get("baton_requests_running") == 0, 1,
                                  every_s=0.002)
        print(f"cancel to gone: {took:.3f} s", flush=True)
        self.c.wait_quiet(2)

    def test_deadline(self):
        began = time.monotonic()
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.api.Generate(self.request(LONG, n=8, max_tokens=1500, ignore_eos=True), timeout=0.3))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - began, 2 * cluster.SLOWER)
        self.c.wait_quiet(2)

    def test_statuses(self):
        for code, change in ((grpc.StatusCode.NOT_FOUND, {"model": "gpt-17"}), (grpc.StatusCode.INVALID_ARGUMENT, {"n": 1000}),
                             (grpc.StatusCode.INVALID_ARGUMENT, {"text": "word " * 20000})):
            request = self.request()
            for key, value in change.items():
                setattr(request, key, value)
            with self.assertRaises(grpc.RpcError) as caught:
                list(self.api.Generate(request, timeout=30))
            self.assertEqual(caught.exception.code(), code, change)
            self.assertTrue(caught.exception.details())
        for sampling in ({"temperature": -1}, {"temperature": float("nan")}, {"top_p": 2}, {"logprobs": 100},
                         {"max_tokens": 2**32 - 1}, {"repetition_penalty": 0}, {"min_p": float("inf")},
                         {"logit_bias": {2**31: 1.0}}, {"stop_token_ids": [2**32 - 1]}):
            with self.subTest(sampling=sampling), self.assertRaises(grpc.RpcError) as caught:
                list(self.api.Generate(self.request(**sampling), timeout=30))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT, sampling)
            self.assertIn(next(iter(sampling)), caught.exception.details())
        request = self.request()
        request.ClearField("text")
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.api.Generate(request))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        request.ids.ids.extend([5, 2**31 + 5])
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.api.Generate(request))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_bytes_that_are_no_message(self):
        for method, kind in (("Generate", self.channel.unary_stream), ("Tokenize", self.channel.unary_unary)):
            call = kind(f"/baton.v1.Inference/{method}", request_serializer=bytes, response_deserializer=bytes)
            for payload in (b"\xff" * 40, b"\x1a\xff\xff\xff\xff\x0f", os.urandom(2000)):
                with self.assertRaises(grpc.RpcError):
                    answer = call(payload, timeout=10)
                    if method == "Generate":
                        list(answer)
                    raise grpc.RpcError()  # random bytes that happen to be a message
        call = self.channel.unary_unary("/baton.v1.Inference/NoSuchThing", request_serializer=bytes, response_deserializer=bytes)
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"", timeout=10)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_tokenize_and_models(self):
        text = "There was a café. 2 + 2 = 4"
        ids = list(self.api.Tokenize(self.pb.TokenizeRequest(text=text, add_special_tokens=False)).ids)
        self.assertEqual(ids, self.c.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"])
        models = self.api.Models(self.pb.ModelsRequest()).models
        self.assertEqual([(m.name, m.max_context) for m in models], [(self.c.model, 2048)])

    def test_health(self):
        for service in ("", "baton.v1.Inference"):
            answer = health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, service)
        with cluster.parts(decode=[["--role", "both"]]) as c:
            with grpc.insecure_channel(c.nodes["d0"].grpc) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_questions_that_never_come(self):
        """Calls that open at a node and say nothing are ended, and take no request's place for ever."""
        silence, calls = threading.Event(), []

        def nothing():
            silence.wait(60)
            yield from ()

        with cluster.parts(decode=[["--role", "both", "--engine-max-batch", "4"]]) as c:
            with grpc.insecure_channel(c.nodes["d0"].grpc) as channel:
                status = channel.stream_unary("/baton.v1.Admin/Status", request_serializer=bytes, response_deserializer=bytes)
                calls = [status.future(nothing()) for _ in range(90)]
                until = time.monotonic() + 20 * cluster.SLOWER
                while not all(call.done() for call in calls) and time.monotonic() < until:
                    time.sleep(0.1)
                silence.set()
                codes = {call.code() for call in calls if call.done()}
                self.assertTrue(all(call.done() for call in calls), f"{sum(not call.done() for call in calls)} are open; {codes}")
                self.assertLessEqual(codes, {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})
                while True:  # the router may have been refused, too
                    answer = c.post("/v1/completions", {"prompt": "Hi", "max_tokens": 2})
                    if answer.status == 200 or time.monotonic() > until:
                        break
                    time.sleep(0.2)
                self.assertEqual(answer.status, 200, answer.body)

    def test_calls_that_ask_nothing(self):
        """At the router a call that says nothing is ended after timeouts.stall; and keys are asked for in gRPC's own words."""
        silence = threading.Event()

        def nothing():
            silence.wait(60)
            yield from ()

        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("sk-one\n")
            keys.flush()
            more = ["--timeouts-stall", "1s", "--api-keys-file", keys.name]
            with cluster.parts(decode=[["--role", "both"]], router_more=more) as c, \
                    grpc.insecure_channel(c.router.grpc) as channel:
                key = (("authorization", "Bearer sk-one"),)
                ask = channel.stream_stream("/baton.v1.Inference/Generate", request_serializer=bytes, response_deserializer=bytes)
                began = time.monotonic()
                with self.assertRaises(grpc.RpcError) as caught:
                    list(ask(nothing(), metadata=key, timeout=30))
                silence.set()
                self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
                self.assertLess(time.monotonic() - began, 5 * cluster.SLOWER)
                one = channel.unary_stream("/baton.v1.Inference/Generate", request_serializer=self.pb.GenerateRequest.SerializeToString,
                                           response_deserializer=self.pb.GenerateResponse.FromString)
                with self.assertRaises(grpc.RpcError) as caught:
                    list(one(self.request(), timeout=30))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
                request = self.request()
                request.request_id = 'a b" level=error event="forged'
                self.assertTrue(list(one(request, metadata=key, timeout=30)))
                time.sleep(2)  # over the stall, and quiet: nothing that ended well is looked at again
                self.assertTrue(list(one(request, metadata=key, timeout=30)))
                self.assertNotIn("forged", c.processes["router"].stderr())

    def test_messages_that_are_half_sent(self):
        """Clients that begin many large messages and end none: memory has a bound, others are served, and a drain does not wait."""
        mib = 1 << 20
        with cluster.parts(decode=[["--role", "both"]], router_more=["--router-limits-body-bytes", "4MiB"]) as c:
            router = c.nodes["router"]
            host, port = router.grpc.rsplit(":", 1)
            before = router.rss_bytes()
            floods = [half_sent.HalfSent((host, int(port)), b"/baton.v1.Inference/Generate", 120, 3 * mib) for _ in range(4)]
            for flood in floods:
                flood.send(4)
            grown = router.rss_bytes() - before
            print(f"sent {sum(f.sent for f in floods) >> 20} MiB, grown by {grown >> 20} MiB", flush=True)
            self.assertLess(grown, 500 * mib * cluster.SLOWER)  # 256 MiB, the least that there is, and what the allocator keeps
            self.assertEqual(c.post("/v1/completions", {"prompt": "Hi", "max_tokens": 2}).status, 200)
            with grpc.insecure_channel(router.grpc) as channel:
                one = channel.unary_stream("/baton.v1.Inference/Generate", request_serializer=self.pb.GenerateRequest.SerializeToString,
                                           response_deserializer=self.pb.GenerateResponse.FromString)
                self.assertTrue(list(one(self.request(), timeout=30)))
            floods.append(half_sent.HalfSent((host, int(port)), b"/baton.v1.Inference/Generate", 20, mib))
            floods[-1].send(1)
            began = time.monotonic()
            c.stop()
            self.assertLess(time.monotonic() - began, 15 * cluster.SLOWER)
            for flood in floods:
                flood.close()

    def test_reflection(self):
        ask = reflection_pb2.ServerReflectionRequest
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        answers = list(stub.ServerReflectionInfo(iter([ask(list_services=""), ask(file_containing_symbol="baton.v1.Inference")])))
        names = {s.name for s in answers[0].list_services_response.service}
        self.assertTrue({"baton.v1.Inference", "grpc.health.v1.Health"} <= names, names)
        files = answers[1].file_descriptor_response.file_descriptor_proto
        self.assertTrue(any(b"GenerateRequest" in f for f in files))


if __name__ == "__main__":
    cluster.main()
