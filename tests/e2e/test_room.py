"""Nodes whose KV memory is short: who gets it, and what becomes of what does not fit."""
import time
import unittest

import cluster

CLIENTS = 24


class Room(unittest.TestCase):
    def test_nodes_of_two_sizes(self):
        """Long prompts go where they fit; what outgrows a small node goes on on the large one and says what it says undisturbed."""
        with cluster.parts(prefill=[[]], decode=[["--kv-pool-bytes", "1MiB"], []]) as c:
            small = 16 * c.nodes["d0"].metrics().get("baton_kv_blocks_capacity")
            self.assertLess(small, 800)

            def long_prompt(i):
                answer = c.post("/v1/completions", {"prompt": [5 + i] * 900, "max_tokens": 4, "ignore_eos": True})
                self.assertEqual(answer.status, 200, answer.body)
                return answer.headers["x-baton-decode"]

            self.assertEqual(cluster.join_threads(cluster.in_threads(8, long_prompt)), ["d1"] * 8)
            bodies = [{"prompt": [50 + i] * 100, "max_tokens": 900, "ignore_eos": True, "temperature": 0.8, "seed": i} for i in range(4)]
            grown = cluster.join_threads(cluster.in_threads(4, lambda i: c.complete(bodies[i])))
            self.assertGreater(c.router.metrics().get("baton_requests_resumed_total"), 0)
            for body, answer in zip(bodies, grown):
                self.assertEqual(answer["usage"]["completion_tokens"], 900)
                self.assertEqual(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
            c.wait_quiet()
        with cluster.parts(decode=[["--role", "both"]]) as c:
            for body, answer in zip(bodies, grown):
                self.assertEqual(c.complete(body)["choices"][0]["text"], answer["choices"][0]["text"])

    def test_no_node_is_large_enough(self):
        with cluster.parts(prefill=[[]], decode=[["--kv-pool-bytes", "1MiB"]]) as c:
            for body in ({"prompt": [5] * 900, "max_tokens": 4}, {"prompt": [5] * 100, "max_tokens": 900, "ignore_eos": True}):
                answer = c.post("/v1/completions", body)
                self.assertEqual(answer.status, 400, answer.body)
                self.assertEqual(answer.error["code"], "context_length_exceeded")
            c.wait_quiet()

    def test_equal_clients_get_equal_shares(self):
        """Many clients and room for a few: each is served about as often as any other."""
        with cluster.parts(prefill=[[]], decode=[["--kv-pool-bytes", "2MiB"]]) as c:
            until = time.monotonic() + 6 * cluster.SLOWER

            def client(i):
                served = 0
                while time.monotonic() < until:
                    c.complete({"prompt": f"Once upon a time {i} " * 12, "max_tokens": 40, "ignore_eos": True, "cache_salt": str(i)})
                    served += 1
                return served

            served = cluster.join_threads(cluster.in_threads(CLIENTS, client))
            print("served", sorted(served), flush=True)
            self.assertGreaterEqual(min(served), max(served) / 2 - 2)


if __name__ == "__main__":
    cluster.main()
