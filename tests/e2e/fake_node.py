"""A decode node that says what it is told to, behind a real router: for what depends on the words of an answer. Only from within
a test that has called clients.require()."""
import concurrent.futures
import importlib
import json
import os
import struct
import sys
import tempfile
import threading

# A router is started while gRPC's threads run here; its handlers of fork() would then end the child before it is one.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc  # noqa: E402
import grpc_tools.protoc  # noqa: E402

import cluster  # noqa: E402

PROTO = os.path.join(cluster.SOURCE, "proto", "baton", "v1")


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def write_json(path, what):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(what, f)


def stubs():
    if "internal_pb2" not in sys.modules:
        with tempfile.TemporaryDirectory(prefix="baton-stubs-") as folder:
            made = grpc_tools.protoc.main(["protoc", "-I", PROTO, f"--python_out={folder}", os.path.join(PROTO, "internal.proto")])
            assert made == 0
            sys.path.insert(0, folder)
            importlib.import_module("internal_pb2")
            sys.path.remove(folder)
    return sys.modules["internal_pb2"]


class FakeNode:
    """`says`: the ids of the answer, the same for every choice; `prompts`: the ids it was asked with, of all calls."""

    def __init__(self, vocab, finish="stop"):
        self.pb = stubs()
        self.vocab = vocab
        self.says = []
        self.finish = finish
        self.prompts = []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        pb = self.pb
        unary, both = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        self.server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("baton.v1.Admin", {
                verb: unary(self.status, pb.AdminRequest.FromString, pb.NodeStatus.SerializeToString) for verb in ("Status", "Drain")}),
            grpc.method_handlers_generic_handler("baton.v1.Decode", {
                "Start": both(self.start, pb.DecodeRequest.FromString, pb.DecodeEvent.SerializeToString)})))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def close(self):
        self.server.stop(0)

    def status(self, _request, _context):
        return self.pb.NodeStatus(name="d0", role="both", model="fake", boot=1, wire_min=1, wire_max=1, ready=True, max_context=4096,
                                  vocab=self.vocab, slots=8, block_tokens=16, blocks=self.pb.Blocks(total=100, free=100))

    def start(self, requests, _context):
        pb, asked = self.pb, next(requests).start
        self.prompts.append(list(struct.unpack(f"<{len(asked.prompt) // 4}i", asked.prompt)))
        room = threading.Semaphore(int(asked.credits))

        def credit():
            try:
                for r in requests:
                    for _ in range(r.control.credit):
                        room.release()
            except Exception:  # the call is over
                pass

        threading.Thread(target=credit, daemon=True).start()
        yield pb.DecodeEvent(accepted=pb.Accepted(ticket=pb.Ticket(w0=1, w1=1)))
        said = self.says[:asked.sampling.max_tokens]
        for position, i in enumerate(said):
            for choice in range(max(1, asked.n)):
                assert room.acquire(timeout=30), "no credit"
                yield pb.DecodeEvent(tokens=pb.Tokens(tokens=[pb.Token(choice=choice, position=position, id=i, logprob=-0.5)]))
        for choice in range(max(1, asked.n)):
            cut = self.finish == "length" or len(said) < len(self.says)
            reason = pb.Finish.REASON_LENGTH if cut else pb.Finish.REASON_STOP
            yield pb.DecodeEvent(finish=pb.Finish(choice=choice, reason=reason))
        yield pb.DecodeEvent(done=pb.Done(prompt_tokens=len(asked.prompt) // 4, completion_tokens=len(said) * max(1, asked.n)))


class FakeCluster(cluster.Cluster):
    """A router whose only node is a FakeNode; the model folder is the embedded model's, with `added` tokens ({text: special}) and a
    chat template of the test's."""

    def __init__(self, template, added=None, more=()):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="baton-model-")
        tokenizer, config, names = (read_json(os.path.join(cluster.TINY, f))
                                    for f in ("tokenizer.json", "config.json", "tokenizer_config.json"))
        vocab = config["vocab_size"]
        for text, special in (added or {}).items():
            tokenizer["added_tokens"].append({"id": vocab, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                                              "normalized": False, "special": special})
            vocab += 1
        config["vocab_size"] = vocab
        names["chat_template"] = template  # or [{"name", "template"}]
        for name, what in (("tokenizer.json", tokenizer), ("config.json", config), ("tokenizer_config.json", names)):
            write_json(os.path.join(self.folder.name, name), what)
        self.node = FakeNode(vocab)
        try:
            cluster.start_router(self, [("both", self.node.address)], self.folder.name, ["--model-name", "fake", *more])
        except BaseException:
            self.close()
            raise

    def close(self):
        super().close()
        self.node.close()
        self.folder.cleanup()

    def ids(self, text):
        return self.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"]

    def will_say(self, text):
        """The next answers are this text, with the special tokens in it."""
        self.node.says = self.ids(text)

    def prompt(self):
        """The text of what the node was asked last."""
        return self.post("/detokenize", {"tokens": self.node.prompts[-1]}).json["prompt"]
