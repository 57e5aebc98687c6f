"""A process holds its weights once, at its start too: the file that they are made of does not count beside them. With its pool and
all else that a running node needs it stays within 300 MB more."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import cluster

MAKER = os.path.join(cluster.SOURCE, "tools", "peers", "make_gguf.py")
MIB = 1 << 20
BESIDES = 88 * MIB  # of the file at most 64 MiB are mapped at a time; and the program itself
SERVING = 300 * 10**6


def most_bytes(node):
    """The most memory that was resident at one time: mapped files and the pool count."""
    with open(f"/proc/{node.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) * 1024


@unittest.skipIf(cluster.SLOWER != 1, "a sanitizer's own memory counts")
class Memory(unittest.TestCase):
    def start(self, model, cache):
        with cluster.Cluster() as c:
            return most_bytes(cluster.start_node(c, "baton-decode", "d0", model, ["--weights-cache", cache]))

    def test_start(self):
        with tempfile.TemporaryDirectory() as folder:
            model, cache = os.path.join(folder, "model.gguf"), os.path.join(folder, "cache")
            subprocess.run([sys.executable, MAKER, "--shape", "small", "--type", "Q8_0", model], check=True,
                           stdout=subprocess.DEVNULL)
            weights = os.path.getsize(model)
            self.assertGreater(weights, BESIDES)
            os.mkdir(cache)
            for what, where in (("converted", "none"), ("converted and kept", cache), ("kept", cache)):
                most = self.start(model, where)
                print(f"{what}: {most / MIB:.0f} MiB, weights {weights / MIB:.0f}", flush=True)
                self.assertLess(most, weights + BESIDES, what)
            self.assertTrue(os.listdir(cache))

    def test_serving(self):
        weights = os.path.getsize(os.path.join(cluster.TINY, "model.safetensors"))
        with cluster.up(transport="shm") as c:
            cluster.join_threads(cluster.in_threads(8, lambda i: c.complete(
                {"prompt": f"{i} work " * 100, "max_tokens": 64})))
            for name, node in c.nodes.items():
                most = most_bytes(node)
                print(f"{name}: {most / MIB:.0f} MiB", flush=True)
                self.assertLess(most, weights + 2 * cluster.POOL_BYTES + SERVING, name)


SHAPE, SHAPE_BYTES = "smollm2-360m", 724 << 20  # bf16
PROMPT_TOKENS = 700


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(re.search(r"MemAvailable:\s+(\d+)", f.read())[1]) * 1024


def has_panels():
    """Whether bf16 weights of a large model are copied, as `auto` has it: where rows of bf16 are multiplied fast."""
    said = subprocess.run([os.path.join(cluster.BIN, "baton"), "doctor"], capture_output=True, text=True, timeout=60).stdout
    return re.search(r": (\w+) kernels", said)[1] in ("amx", "avx512_bf16")


@unittest.skipIf(cluster.SLOWER != 1, "a sanitizer's own memory counts")
class LargeModel(unittest.TestCase):
    """Beside whose weights nothing else is large: what is held twice shows."""

    @classmethod
    def setUpClass(cls):
        if shutil.disk_usage(tempfile.gettempdir()).free < 4 * SHAPE_BYTES + (1 << 30):
            raise unittest.SkipTest("no room for a model on disk")
        if available_bytes() < 4 * SHAPE_BYTES:
            raise unittest.SkipTest("no memory for a model")
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.model = os.path.join(cls.folder.name, "model")
        subprocess.run([os.path.join(cluster.BIN, "baton"), "make-model", "--shape", SHAPE, "--out", cls.model], check=True,
                       stdout=subprocess.DEVNULL)
        cls.stored = os.path.getsize(os.path.join(cls.model, "model.safetensors"))

    def serve(self, what, more, weights=None, split=False):
        """The most that each node had after a prompt, within what it may have. `weights()`: their bytes, once it runs."""
        more = [*more, "--kv-transport", "shm"]
        prefill, decode = ([more], [more]) if split else ([], [[*more, "--role", "both"]])
        with cluster.parts(prefill, decode, model=self.model) as c:
            answer = c.complete({"prompt": [i % 250 for i in range(PROMPT_TOKENS)], "max_tokens": 8, "ignore_eos": True})
            self.assertEqual(answer["usage"]["completion_tokens"], 8)
            held = weights() if weights else self.stored
            for node in c.workers():
                most = most_bytes(node)
                print(f"{what}, {node.name}: {most / MIB:.0f} MiB of {(held + cluster.POOL_BYTES + SERVING) / MIB:.0f}, weights "
                      f"{held / MIB:.0f}, pool {cluster.POOL_BYTES / MIB:.0f}", flush=True)
                self.assertLessEqual(most, held + cluster.POOL_BYTES + SERVING, f"{what}, {node.name}")
                self.assertGreater(most, held / 2, "of a node that holds them")

    def test_as_stored(self):
        """Where they lie, or copied into panels, which are kept."""
        cache = os.path.join(self.folder.name, "as-stored")
        os.mkdir(cache)
        self.serve("the first start", ["--weights-cache", cache])
        self.serve("prefill and decode", ["--weights-cache", cache], split=True)
        with self.subTest("from what was kept"):
            if not os.listdir(cache):
                self.assertFalse(has_panels())
                self.skipTest("nothing is kept: the weights are read where they lie")
            self.serve("from what was kept", ["--weights-cache", cache])

    def test_rounded(self):
        """To half of their size, which is what counts."""
        cache = os.path.join(self.folder.name, "rounded")
        os.mkdir(cache)

        def kept():
            return sum(os.path.getsize(os.path.join(cache, name)) for name in os.listdir(cache))

        for what in ("rounded, the first start", "rounded, from what was kept"):
            self.serve(what, ["--weights", "int8", "--weights-cache", cache], kept)
        self.assertLess(kept(), 0.6 * self.stored)


if __name__ == "__main__":
    cluster.main()
