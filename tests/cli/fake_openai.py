#!/usr/bin/env python3
"""A server that answers as an OpenAI-compatible one does, with delays and faults that are known beforehand.

    fake_openai.py        prints the port that it listens on, serves until stdin ends

What a request gets is asked for in its model's name: "fake" answers well; "fake:ttft=50,itl=10" waits so many
milliseconds; "fake:fault=KIND" fails every request, "fake:fault=KIND,every=3" each third one. Kinds: http500, http429,
error (an error event in the stream), cut (the connection closes early), nodone (ends without [DONE]), malformed, empty,
slow (never goes on), nousage, short (one token less).
GET /seen gives all bodies that were posted so far. Only the standard library is used.
"""
import http.server
import json
import sys
import threading
import time

WORDS = ["Once", " upon", " a", " time", " there", " was", " a", " caf\u00e9", " by", " the", " sea", "."]
seen = []
lock = threading.Lock()
counts = {}


def options_of(model):
    name, _, rest = model.partition(":")
    options = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        options[key] = value
    return name, options


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def fail(self, status, code, message):
        self.answer(status, {"error": {"message": message, "type": "t", "param": None, "code": code}})

    def do_GET(self):
        if self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})
        elif self.path == "/seen":
            self.answer(200, seen)
        else:
            self.fail(404, "not_found", "no such route")

    def event(self, body):
        text = body if isinstance(body, str) else json.dumps(body)
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            seen.append({"path": self.path, "body": body, "auth": self.headers.get("Authorization")})
        if self.path == "/tokenize":
            if body["model"].startswith("fake:notokenize"):
                self.fail(404, "not_found", "no such route")
            else:
                self.answer(200, {"count": 40, "tokens": list(range(1000, 1040))})
            return
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            self.fail(404, "not_found", "no such route")
            return
        self.complete(body)

    def complete(self, body):
        model, options = options_of(body["model"])
        with lock:
            counts[body["model"]] = count = counts.get(body["model"], 0) + 1
        fault = options.get("fault") if count % int(options.get("every", 1)) == 0 else None
        chat = self.path.endswith("chat/completions")
        if model != "fake":
            self.fail(404, "model_not_found", f"The model `{model}` does not exist.")
        elif fault == "http500":
            self.fail(500, "server_error", "it broke")
        elif fault == "http429":
            self.fail(429, "rate_limited", "too many")
        elif "turns" in options and sum(m["role"] == "user" for m in body["messages"]) > int(options["turns"]):
            self.fail(400, "context_length_exceeded", "This model's maximum context length is small.")
        else:
            self.stream(body, options, fault, chat)

    def choice(self, chat, text, finish=None):
        if chat:
            return {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
        return {"index": 0, "text": text, "finish_reason": finish}

    def stream(self, body, options, fault, chat):
        n = body.get("max_completion_tokens") or body.get("max_tokens") or 6
        if fault == "short":
            n -= 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head = {"id": "x", "object": "chat.completion.chunk" if chat else "text_completion", "model": "fake"}
        if chat:
            self.event({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""},
                                             "finish_reason": None}], "usage": None})
        time.sleep(float(options.get("ttft", 0)) / 1000)
        for i in range(0 if fault == "empty" else n):
            if i > 0:
                time.sleep(float(options.get("itl", 0)) / 1000)
            if i == n // 2:
                self.wfile.write(b"8\r\n: ping\n\n\r\n")
                if self.misbehave(fault):
                    return
            text = "echo:" + body["messages"][-1]["content"] if chat and i == 0 else WORDS[i % len(WORDS)]
            self.event({**head, "choices": [self.choice(chat, text)], "usage": None})
        self.event({**head, "choices": [self.choice(chat, "", "length")], "usage": None})
        if fault != "nousage":
            prompt = body.get("prompt")
            self.event({**head, "choices": [], "usage": {
                "prompt_tokens": len(prompt) if isinstance(prompt, list) else 7, "completion_tokens": n,
                "total_tokens": 7 + n, "prompt_tokens_details": {"cached_tokens": 2}}})
        if fault != "nodone":
            self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def misbehave(self, fault):
        """True when there is nothing more to say."""
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
            return True
        if fault == "error":
            self.event({"error": {"message": "a node\nbroke", "type": "server_error", "param": None, "code": "x"}})
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
            return True
        if fault == "malformed":
            self.event("{not json")
        if fault == "slow":
            time.sleep(30)
            self.close_connection = True
            return True
        return False


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        pass


def main():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
