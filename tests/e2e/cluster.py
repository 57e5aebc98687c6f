"""Starts Baton's programs for a test, watches them, and takes them away again whatever happens.

    with cluster.up(prefill=1, decode=2) as c:            # `baton up`
        answer = c.post("/v1/completions", {"prompt": "Once", "max_tokens": 8})
        c.kill("d0")                                      # kill -9 of one process
    # SIGTERM was sent, every process has ended, and `baton up` exited with 0

`parts()` starts the single programs with flags of their own instead. Processes are started from the main thread and are
told to end when the test does (PR_SET_PDEATHSIG), so that a test that is killed leaves nothing behind. Ports are
chosen by the programs (port 0), so tests run beside each other. What the programs wrote to stderr is shown when a
test fails. Environment, set by CTest: BATON_BIN (folder of the programs), BATON_SOURCE (the checkout), BATON_SLOWER (factor
on time limits, for sanitizer builds).
"""
import ctypes
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

SOURCE = os.environ.get("BATON_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("BATON_BIN") or os.path.join(SOURCE, "build", "release", "bin")
SLOWER = float(os.environ.get("BATON_SLOWER") or 1)
TINY = os.path.join(SOURCE, "models", "tiny")
SHARED_MODELS = os.path.join(SOURCE, "..", "shared", "data", "models", "hf")
POOL_BYTES = 64 << 20
SKIPPED = 77  # exit status that CTest shows as "skipped"

_libc = ctypes.CDLL(None)


def skip_program(why):
    """Ends the test program as a whole, visibly skipped."""
    print(f"SKIP: {why}", flush=True)
    sys.exit(SKIPPED)


def main():
    """What every test file ends with. All cases skipped: the program is skipped."""
    program = unittest.main(exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    for case, why in result.skipped:
        print(f"SKIP: {case}: {why}")
    if result.testsRun and len(result.skipped) == result.testsRun:
        sys.exit(SKIPPED)


def wait_until(what, check, within_s, every_s=0.02):
    """Polls until check() is true and returns how long that took."""
    begin = time.monotonic()
    while True:
        value = check()
        now = time.monotonic()
        if value:
            return now - begin
        if now - begin > within_s * SLOWER:
            raise AssertionError(f"not within {within_s * SLOWER:g} s: {what}")
        time.sleep(every_s)


class SharedCase(unittest.TestCase):
    """Cases that share a cluster, `c`, which their setUpClass() starts; its logs are shown when one of them failed."""

    c = None
    failed = False

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            type(self).failed = True

    @classmethod
    def tearDownClass(cls):
        cls.c.__exit__(AssertionError if cls.failed else None, None, None)


class NotBuiltIn(unittest.SkipTest):
    """This build was made on a machine without the library."""


class Process:
    """One program: its lines on stdout as they come, its stderr in a file."""

    def __init__(self, argv, name, death_signal=signal.SIGKILL):
        self.name = name
        self.lines = queue.Queue()
        self.log = tempfile.TemporaryFile(prefix=f"baton-{name}-")

        def before_exec():
            _libc.prctl(1, int(death_signal))

        assert threading.current_thread() is threading.main_thread(), "the death signal follows the starting thread"
        self.popen = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, cwd=SOURCE,
                                      preexec_fn=before_exec)
        self.pid = self.popen.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.put(line.decode(errors="replace").rstrip("\n"))
        self.lines.put(None)

    def wait_line(self, prefix, on_line=None, within_s=60):
        """The first line that begins with `prefix`; on_line(line) sees the others."""
        deadline = time.monotonic() + within_s * SLOWER
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name}: no line \"{prefix}\" in time; stderr:\n{self.stderr()}") from None
            if line is None:
                if "built without UCX" in self.stderr():
                    raise NotBuiltIn("built without UCX")
                raise AssertionError(f"{self.name} ended (status {self.popen.wait()}); stderr:\n{self.stderr()}")
            if line.startswith(prefix):
                return line
            if on_line:
                on_line(line)

    def stderr(self):
        self.log.flush()
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def send_signal(self, sig):
        if self.alive():
            self.popen.send_signal(sig)

    def wait(self, within_s=30):
        return self.popen.wait(within_s * SLOWER)

    def close(self):
        if self.alive():
            self.popen.kill()
            self.popen.wait()
        self.reader.join()
        self.popen.stdout.close()
        self.log.close()


def fields(line):
    """key=value pairs of a line."""
    return dict(re.findall(r"(\w+)=(\S+)", line))


class Metrics:
    """A parsed /metrics page: get("baton_kv_blocks", state="free") sums what has all those labels."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            match = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", line)
            if match:
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
                self.samples.append((match.group(1), labels, float(match.group(3))))

    def get(self, name, **labels):
        found = [v for n, have, v in self.samples if n == name and labels.items() <= have.items()]
        if not found:
            raise KeyError(f"{name} {labels}")
        return sum(found)

    def sum(self, name, **labels):
        try:
            return self.get(name, **labels)
        except KeyError:
            return 0.0


class Node:
    """A process with an HTTP port of its own."""

    def __init__(self, name, role, pid, http_url, grpc=None):
        self.name, self.role, self.pid, self.grpc = name, role, pid, grpc
        parts = urllib.parse.urlsplit(http_url)
        self.host, self.port = parts.hostname, parts.port
        self.gone = False

    def get(self, path, timeout_s=10):
        conn = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s * SLOWER)
        try:
            conn.request("GET", path)
            answer = conn.getresponse()
            return answer.status, answer.read().decode()
        finally:
            conn.close()

    def metrics(self):
        status, text = self.get("/metrics")
        assert status == 200, f"{self.name}: /metrics says {status}"
        return Metrics(text)

    def quiet(self):
        """Nothing runs and every KV block is free or cached."""
        m = self.metrics()
        if self.role == "router":
            return m.get("baton_requests_running") == 0 and m.get("baton_requests_waiting") == 0
        rest = m.get("baton_kv_blocks", state="free") + m.get("baton_kv_blocks", state="cached")
        return (m.get("baton_requests_running") == 0 and m.get("baton_requests_waiting") == 0
                and rest == m.get("baton_kv_blocks_capacity"))

    def cpu_s(self):
        """User and system time used so far."""
        with open(f"/proc/{self.pid}/stat") as f:
            after = f.read().rpartition(")")[2].split()
        return (int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        """Anonymous memory that is resident: the KV pool (shared memory) and mapped files do not count."""
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) * 1024


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Stream:
    """A streaming request as it goes: iterate over its chunks (parsed JSON); `done` after [DONE]."""

    def __init__(self, host, port, path, body, headers=None, receive_bytes=None, timeout_s=60):
        self.conn = http.client.HTTPConnection(host, port, timeout=timeout_s * SLOWER)
        if receive_bytes:
            self.conn.sock = socket.socket()
            self.conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            self.conn.sock.settimeout(timeout_s * SLOWER)
            self.conn.sock.connect((host, port))
        payload = json.dumps(dict(body, stream=True)).encode()
        self.conn.request("POST", path, payload, {"content-type": "application/json", **(headers or {})})
        self.sock = self.conn.sock
        self.answer = self.conn.getresponse()
        self.status, self.headers = self.answer.status, self.answer.headers
        self.done = False
        if self.status != 200:
            self.body = self.answer.read()
            raise AssertionError(f"the stream was answered {self.status}: {self.body!r}")

    def __iter__(self):
        while True:
            line = self.answer.readline()
            if not line:
                return
            line = line.rstrip(b"\r\n")
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]":
                self.done = True
                self.answer.read()
                return
            yield json.loads(line[6:])

    def text(self):
        """All of it, for completions with one choice: the text and the chunks."""
        text, chunks = "", []
        for chunk in self:
            if "error" in chunk:
                raise AssertionError(f"error in a stream: {chunk}")
            chunks.append(chunk)
            for choice in chunk["choices"]:
                text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        return text, chunks

    def abort(self):
        """Goes away without a word, as a closed browser tab does."""
        self.close()

    def close(self):
        self.answer.close()
        self.conn.close()


class Cluster:
    """Processes and the nodes in them; `nodes` has the router too."""

    def __init__(self):
        self.processes = {}  # by name; `up` is `baton up`
        self.nodes = {}
        self.model = None
        self.expected_exits = set()

    # ---- as a context ----

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        except BaseException:
            kind = True
            raise
        finally:
            if kind is not None and kind is not unittest.SkipTest:
                self.show_logs()
            self.close()

    def show_logs(self):
        for process in self.processes.values():
            lines = process.stderr().splitlines()
            print(f"---- stderr of {process.name} (status {process.popen.poll()}), last of {len(lines)} lines", file=sys.stderr)
            print("\n".join(lines[-60:]), file=sys.stderr, flush=True)

    def stop(self, within_s=30):
        """SIGTERM, the router first; every process that was not killed must exit with 0."""
        for name in sorted(self.processes, key=lambda n: n != "router"):
            process = self.processes[name]
            process.send_signal(signal.SIGTERM)
            status = process.wait(within_s)
            if name not in self.expected_exits:
                assert status == 0, f"{name} exited with {status} after SIGTERM"

    def close(self):
        for process in self.processes.values():
            process.close()

    # ---- nodes ----

    @property
    def router(self):
        return self.nodes["router"]

    def workers(self, role=None):
        return [n for n in self.nodes.values() if not n.gone and n.role != "router" and role in (None, n.role)]

    def kill(self, name):
        """kill -9 of one process."""
        node = self.nodes[name]
        node.gone = True
        os.kill(node.pid, signal.SIGKILL)
        self.expected_exits.add(name)

    def wait_quiet(self, within_s=5):
        def check():
            return all(n.quiet() for n in self.nodes.values() if not n.gone)

        try:
            return wait_until("every node is quiet", check, within_s)
        except AssertionError:
            for n in self.nodes.values():
                if not n.gone:
                    m = n.metrics()
                    print(n.name, [(k, l.get("state", ""), v) for k, l, v in m.samples if "blocks" in k or "_running" in k or
                                   "_waiting" in k], file=sys.stderr)
            raise

    def wait_nodes_up(self, within_s=20):
        """Until the router takes work and every worker that lives is up in its eyes: from its first decode node on it takes
        work, and that one may do it alone. A node that it refuses never is."""
        def check():
            m = self.router.metrics()
            return m.get("baton_nodes", state="up") + m.get("baton_nodes", state="refused") >= len(self.workers())

        wait_until("the router is ready", lambda: self.router.get("/health/ready")[0] == 200, within_s)
        wait_until("the router has all nodes", check, within_s)

    def kv_bytes(self, transport=None, direction="in"):
        """KV bytes that crossed so far, over all living nodes."""
        labels = {"direction": direction, **({"transport": transport} if transport else {})}
        return sum(n.metrics().sum("baton_kv_transfer_bytes_total", **labels) for n in self.workers())

    # ---- requests ----

    def request(self, method, path, body=None, headers=None, timeout_s=60):
        conn = http.client.HTTPConnection(self.router.host, self.router.port, timeout=timeout_s * SLOWER)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body).encode()
                headers = {"content-type": "application/json", **(headers or {})}
            conn.request(method, path, body, headers or {})
            answer = conn.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            conn.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body, **more):
        return self.request("POST", path, body, **more)

    def stream(self, path, body, **more):
        return Stream(self.router.host, self.router.port, path, body, **more)

    def complete(self, body, **more):
        """A completion that must succeed; its parsed answer."""
        answer = self.post("/v1/completions", body, **more)
        assert answer.status == 200, f"{answer.status}: {answer.body!r}"
        return answer.json

    def connect(self, timeout_s=10):
        return socket.create_connection((self.router.host, self.router.port), timeout_s * SLOWER)


def child_pid(parent, name):
    """The pid of `parent`'s child of that program name (a process's name is cut at 15 bytes)."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as f:
                head, _, after = f.read().rpartition(")")
        except OSError:
            continue
        if int(after.split()[1]) == parent and head.partition("(")[2] == name[:15]:
            return int(entry)
    return None


def up(prefill=1, decode=1, aggregated=0, model=TINY, transport="auto", more=()):
    """`baton up`, which is ready when the router has all nodes: p0.., d0.., a0.. A run for another transport says so in the environment."""
    c = Cluster()
    transport = os.environ.get("BATON_E2E_TRANSPORT") or transport
    c.transport = "shm" if transport == "auto" else transport
    argv = [os.path.join(BIN, "baton"), "up", "--model", model, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
            "--prefill", str(prefill), "--decode", str(decode), "--aggregated", str(aggregated), "--threads", "1",
            "--transport", transport, "--pool-bytes", str(POOL_BYTES), *more]
    process = Process(argv, "up", signal.SIGTERM)
    c.processes["up"] = process

    def on_line(line):
        if line.startswith("node "):
            f = fields(line)
            c.nodes[f["name"]] = Node(f["name"], f["role"], int(f["pid"]), f["http"])

    try:
        f = fields(process.wait_line("ready ", on_line))
        c.model = f["model"]
        c.nodes["router"] = Node("router", "router", child_pid(process.pid, "baton-router"), f["http"], f["grpc"])
    except BaseException:
        c.close()
        raise
    return c


def start_node(c, program, name, model=TINY, more=()):
    """A node of `parts()`; its address is in c.nodes[name].grpc."""
    argv = [os.path.join(BIN, program), "--model", model, "--name", name, "--listen", "127.0.0.1:0", "--http",
            "127.0.0.1:0", "--threads", "1", "--pool-bytes", str(POOL_BYTES), *more]
    process = Process(argv, name)
    c.processes[name] = process
    f = fields(process.wait_line("node "))
    c.nodes[name] = Node(name, f["role"], int(f["pid"]), f["http"], f["grpc"])
    return c.nodes[name]


def start_router(c, nodes, model=TINY, more=()):
    """The router of `parts()` over [(role, address)]."""
    argv = [os.path.join(BIN, "baton-router"), "--model", model, "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
            "--nodes", ",".join(f"{role}={address}" for role, address in nodes), *more]
    process = Process(argv, "router")
    c.processes["router"] = process
    f = fields(process.wait_line("ready "))
    c.model = f["model"]
    c.nodes["router"] = Node("router", "router", process.pid, f["http"], f["grpc"])
    c.wait_nodes_up()


def parts(prefill=(), decode=(), model=TINY, router_more=()):
    """Single programs: `prefill` and `decode` hold the extra flags of a node each; nodes are p0.., d0.., router."""
    c = Cluster()
    try:
        nodes = []
        for i, more in enumerate(prefill):
            nodes.append(("prefill", start_node(c, "baton-prefill", f"p{i}", model, more).grpc))
        for i, more in enumerate(decode):
            nodes.append(("decode", start_node(c, "baton-decode", f"d{i}", model, more).grpc))
        start_router(c, nodes, model, router_more)
    except BaseException:
        c.show_logs()
        c.close()
        raise
    return c


# ---- load ----

def in_threads(count, work):
    """Runs work(i) for i in range(count) at the same time; results in order, the first failure is raised."""
    results, failures = [None] * count, []

    def run(i):
        try:
            results[i] = work(i)
        except BaseException as failure:  # pylint: disable=broad-except
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for t in threads:
        t.start()
    return threads, results, failures


def join_threads(started, within_s=120):
    threads, results, failures = started
    deadline = time.monotonic() + within_s * SLOWER
    for t in threads:
        t.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise failures[0]
    hung = sum(t.is_alive() for t in threads)
    assert hung == 0, f"{hung} of {len(threads)} requests hang"
    return results


WORDS = ("the a fox bird girl boy garden river little big old red happy sad ran jumped saw found gave said to in on with "
         "and but then one day there was mother friend ball tree house apple dog cat box song rain sun moon").split()


def words(rng, count):
    """English-like text of `count` words."""
    return " ".join(rng.choice(WORDS) for _ in range(count))
