"""An idle cluster uses less than 2 % of a core per process, before work and after it."""
import time
import unittest

import cluster

SECONDS = 5
MOST = 0.02


class Idle(unittest.TestCase):
    def measure(self, when, clusters):
        nodes = {f"{transport}/{n.name}": n for transport, c in clusters.items() for n in c.nodes.values()}
        before = {name: n.cpu_s() for name, n in nodes.items()}
        began = time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - began
        used = {name: (n.cpu_s() - before[name]) / took for name, n in nodes.items()}
        print(when, " ".join(f"{name}={100 * share:.2f}%" for name, share in used.items()), flush=True)
        for name, share in used.items():
            self.assertLess(share, MOST * cluster.SLOWER, name)

    def test_idle(self):
        with cluster.up(transport="shm") as shm, cluster.up(transport="ucx") as ucx:
            clusters = {"shm": shm, "ucx": ucx}
            self.measure("new", clusters)
            for transport, c in clusters.items():
                cluster.join_threads(cluster.in_threads(8, lambda i, c=c: c.complete(
                    {"prompt": f"{i} work " * 60, "max_tokens": 32})))
                self.assertGreater(c.kv_bytes(transport), 0)
                c.wait_quiet()
            self.measure("after work", clusters)


if __name__ == "__main__":
    cluster.main()
