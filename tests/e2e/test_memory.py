"""A process holds its weights once, at its start too: the file that they are made of does not count beside them."""
import os
import re
import subprocess
import sys
import tempfile
import unittest

import cluster

MAKER = os.path.join(cluster.SOURCE, "tools", "peers", "make_gguf.py")
MIB = 1 << 20
BESIDES = 88 * MIB  # of the file at most 64 MiB are mapped at a time; and the program itself
SERVING = 300 * MIB


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


if __name__ == "__main__":
    cluster.main()
