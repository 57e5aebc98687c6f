"""A cluster on three hosts, made of network namespaces with addresses of their own on a bridge, and started from the files of
deploy/examples as they stand: KV travels over UCX and TCP, and a host that drops off the network ends nothing but its own
part. Needs root and `ip`; skipped, visibly, elsewhere."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

import cluster

EXAMPLES = os.path.join(cluster.SOURCE, "deploy", "examples")
ROUTER, PREFILL, DECODE = "10.77.0.1", "10.77.0.2", "10.77.0.3"


def ip(*args, check=True):
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip()}")
    return done.returncode == 0


class Hosts:
    """A bridge in a namespace of its own, and a namespace per host, linked to it: nothing of the machine's own network is
    touched, and the names hold our pid."""

    def __init__(self, addresses):
        self.tag = f"bt{os.getpid()}"
        self.bridge = f"{self.tag}-br"
        self.names = {a: f"{self.tag}-{i}" for i, a in enumerate(addresses)}

    def __enter__(self):
        try:
            ip("netns", "add", self.bridge)
            ip("-n", self.bridge, "link", "add", "br0", "type", "bridge")
            ip("-n", self.bridge, "link", "set", "br0", "up")
            for i, (address, name) in enumerate(self.names.items()):
                ip("netns", "add", name)
                ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{i}", "netns", self.bridge)
                ip("-n", self.bridge, "link", "set", f"port{i}", "master", "br0")
                ip("-n", self.bridge, "link", "set", f"port{i}", "up")
                ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in (*self.names.values(), self.bridge):
            ip("netns", "delete", name, check=False)

    def link(self, address, state):
        """Pulls the plug at the bridge: what is sent vanishes, no connection is closed, nobody is told."""
        ip("-n", self.bridge, "link", "set", f"port{list(self.names).index(address)}", state)

    def run(self, address, program, config, name):
        argv = ["ip", "netns", "exec", self.names[address], os.path.join(cluster.BIN, program), "--config",
                os.path.join(EXAMPLES, config)]
        return cluster.Process(argv, name)


class HostNode(cluster.Node):
    """A node whose HTTP is asked from inside its host; `ip netns exec` has become the program, so pids are the programs'."""

    namespace = None

    def get(self, path, timeout_s=10):
        return asked(self.namespace, self.host, self.port, path, timeout_s)


def asked(namespace, host, port, path, timeout_s):
    text = ("import sys, urllib.request as r, urllib.error as e\n"
            "try:\n a = r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=float(sys.argv[2]))\n"
            "except e.HTTPError as x:\n a = x\n"
            "print(a.status); sys.stdout.write(a.read().decode())")
    done = subprocess.run(["ip", "netns", "exec", namespace, sys.executable, "-c", text, f"http://{host}:{port}{path}",
                           str(timeout_s)], capture_output=True, text=True, timeout=timeout_s + 20)
    if done.returncode != 0:
        raise OSError(done.stderr.strip().splitlines()[-1])
    status, _, body = done.stdout.partition("\n")
    return int(status), body


ASK = """
import http.client, json, sys, time
host, port, body, timeout_s = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
c = http.client.HTTPConnection(host, port, timeout=timeout_s)
began = time.monotonic()
c.request("POST", "/v1/completions", body, {"content-type": "application/json"})
a = c.getresponse()
print("status", a.status, a.headers.get("x-baton-prefill"), a.headers.get("x-baton-decode"), flush=True)
while True:
    line = a.readline()
    if not line:
        break
    if line.strip():
        print(line.decode().strip(), flush=True)
print("end", time.monotonic() - began, flush=True)
"""


class ThreeHosts(unittest.TestCase):
    def setUp(self):
        self.hosts = Hosts([ROUTER, PREFILL, DECODE])
        self.hosts.__enter__()
        self.addCleanup(self.hosts.__exit__)
        self.c = cluster.Cluster()
        self.finished = False
        self.addCleanup(self.c.close)
        self.addCleanup(self.show_unless_finished)
        self.start("d0", DECODE, "baton-decode", "decode.yaml", "node ")
        self.start("p0", PREFILL, "baton-prefill", "prefill.yaml", "node ")
        self.start("router", ROUTER, "baton-router", "router.yaml", "ready ")
        self.c.wait_nodes_up()

    def start(self, name, address, program, config, word):
        process = self.hosts.run(address, program, config, name)
        self.c.processes[name] = process
        f = cluster.fields(process.wait_line(word))
        node = HostNode(name, f.get("role", "router"), process.pid, f["http"], f["grpc"])
        node.namespace = self.hosts.names[address]
        self.c.nodes[name] = node

    def ask(self, body, timeout_s=60):
        """Starts a request from the router's host; its lines come as they come."""
        router = self.c.router
        return cluster.Process(["ip", "netns", "exec", self.hosts.names[ROUTER], sys.executable, "-u", "-c", ASK, router.host,
                                str(router.port), json.dumps(body), str(timeout_s * cluster.SLOWER)], "client")

    def finish(self):
        """The last line of every case: all programs stop in order."""
        self.c.stop()
        self.finished = True

    def show_unless_finished(self):
        if not self.finished:
            self.c.show_logs()

    def test_kv_over_tcp(self):
        for name in ("p0", "d0"):
            lines = [line for line in self.c.processes[name].stderr().splitlines() if "event=ucx_ready" in line]
            self.assertEqual(len(lines), 1, name)
            self.assertIn("tcp", cluster.fields(lines[0])["transports"].split(","))
        client = self.ask({"prompt": "Once upon a time there was a fox. " * 40, "max_tokens": 32, "ignore_eos": True})
        self.assertEqual(client.wait_line("status").split(), ["status", "200", "prefill-0", "decode-0"])
        client.wait_line("end ")
        client.close()
        for name, direction in (("p0", "out"), ("d0", "in")):
            m = self.c.nodes[name].metrics()
            self.assertGreater(m.get("baton_kv_transfer_bytes_total", transport="ucx", direction=direction), 100000, name)
            self.assertEqual(m.get("baton_kv_transfer_bytes_total", direction=direction),
                             m.get("baton_kv_transfer_bytes_total", transport="ucx", direction=direction))
        self.c.wait_quiet()
        self.finish()

    def test_decode_host_drops_off(self):
        """In the middle of a stream, silently: the request ends in bounded time, with an error as no other decode node is there,
        and the cluster serves again when the host is back."""
        client = self.ask({"prompt": "Once upon a time there was a fox. " * 40, "max_tokens": 1500, "stream": True,
                           "ignore_eos": True}, timeout_s=120)
        client.wait_line("data: ")
        began = time.monotonic()
        self.hosts.link(DECODE, "down")
        error = client.wait_line('data: {"error"', within_s=60)
        client.wait_line("end ")
        client.close()
        print(f"ended {time.monotonic() - began:.1f} s after the link: {error[:160]}", flush=True)
        cluster.wait_until("the decode node has let go", lambda: self.c.nodes["d0"].quiet(), 60, every_s=0.5)
        cluster.wait_until("the prefill node has let go", lambda: self.c.nodes["p0"].quiet(), 60, every_s=0.5)
        self.hosts.link(DECODE, "up")
        self.c.wait_nodes_up(60)
        self.serve_again()

    def test_decode_host_drops_off_during_the_handoff(self):
        clients = [self.ask({"prompt": f"{i} Once upon a time there was a fox. " * 160, "max_tokens": 4, "ignore_eos": True},
                            timeout_s=120) for i in range(6)]
        cluster.wait_until("KV flows", lambda: self.c.nodes["p0"].metrics().sum(
            "baton_kv_transfer_bytes_total", direction="out") > 0, 20, every_s=0)
        self.hosts.link(DECODE, "down")
        began = time.monotonic()
        outcomes = [c.wait_line("status ", within_s=90).split()[1] for c in clients]
        print(f"outcomes {' '.join(outcomes)} after {time.monotonic() - began:.1f} s", flush=True)
        for c in clients:
            c.wait_line("end ")
            c.close()
        self.assertTrue(set(outcomes) <= {"200", "503", "500", "502", "504"}, outcomes)
        cluster.wait_until("the prefill node has let go", lambda: self.c.nodes["p0"].quiet(), 60, every_s=0.5)
        self.hosts.link(DECODE, "up")
        self.c.wait_nodes_up(60)
        self.serve_again()

    def serve_again(self):
        def served():
            client = self.ask({"prompt": "And again there was a fox. " * 40, "max_tokens": 4, "ignore_eos": True})
            status = client.wait_line("status ").split()[1]
            client.close()
            return status == "200"

        cluster.wait_until("it serves again", served, 60, every_s=0.5)
        before = self.c.nodes["d0"].metrics().sum("baton_kv_transfer_bytes_total", direction="in")
        client = self.ask({"prompt": "A prompt that crosses anew. " * 40, "max_tokens": 4, "ignore_eos": True})
        self.assertEqual(client.wait_line("status ").split()[1], "200")
        client.wait_line("end ")
        client.close()
        after = self.c.nodes["d0"].metrics().sum("baton_kv_transfer_bytes_total", direction="in")
        self.assertGreater(after, before, "over a new link")
        cluster.wait_until("all is quiet", lambda: all(n.quiet() for n in self.c.nodes.values()), 20, every_s=0.5)
        self.finish()


def possible():
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Hosts([ROUTER, PREFILL]):
            return None
    except (OSError, RuntimeError) as why:
        return f"no network namespaces here: {why}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that namespaces are deleted then too
    reason = possible()
    if reason:
        cluster.skip_program(reason)
    cluster.main()
