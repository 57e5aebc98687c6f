#!/usr/bin/env python3
"""Soaks a cluster: thousands of requests of all kinds, most of them cancelled at a random moment, then looks for what was lost.

    tools/soak.py [--requests N] [--warm-up N] [--at-once N] [--prefill P] [--decode D] [--transport T] [--bin DIR]

Starts `baton up`, sends --warm-up requests (so that pools and caches are filled), notes every process's memory, sends --requests
more, and fails unless afterwards every KV block of every node is free or cached, nothing runs or waits, no request failed, and no
process has grown by more than --growth-mib. tests/e2e/test_cancel.py does the same with
1,000 requests in every test run; this is for longer ones.
"""
import argparse
import os
import random
import sys
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(SOURCE, "tests", "e2e"))
sys.dont_write_bytecode = True


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--requests", type=int, default=10000, metavar="N", help="requests that are measured (10000)")
    p.add_argument("--warm-up", type=int, default=1000, metavar="N", help="requests before (1000)")
    p.add_argument("--at-once", type=int, default=16, metavar="N", help="clients at a time (16)")
    p.add_argument("--prefill", type=int, default=1, metavar="P", help="prefill nodes (1)")
    p.add_argument("--decode", type=int, default=2, metavar="D", help="decode nodes (2)")
    p.add_argument("--transport", default="auto", metavar="auto|shm|ucx", help="how KV travels (auto)")
    p.add_argument("--growth-mib", type=float, default=8, metavar="MIB", help="memory that a process may gain (8)")
    p.add_argument("--seed", type=int, default=1, metavar="S", help="what is random follows from it (1)")
    p.add_argument("--bin", default=os.environ.get("BATON_BIN"), metavar="DIR", help="programs (build/release/bin)")
    return p.parse_args()


def soak(c, count, args, seed):
    """Sends `count` requests from --at-once clients; how many ran to their end."""
    import cluster
    import test_cancel

    def client(i):
        rng = random.Random(seed * 1000003 + i)
        share = count // args.at_once + (i < count % args.at_once)
        return sum(test_cancel.random_request(c, rng, patience_s=0.1) for _ in range(share))

    return sum(cluster.join_threads(cluster.in_threads(args.at_once, client), 60 + count))


def main():
    args = parse()
    if args.bin:
        os.environ["BATON_BIN"] = os.path.abspath(args.bin)
    import cluster
    with cluster.up(prefill=args.prefill, decode=args.decode, transport=args.transport) as c:
        soak(c, args.warm_up, args, args.seed)
        c.wait_quiet(10)
        before = {n.name: n.rss_bytes() for n in c.nodes.values()}
        began = time.monotonic()
        ended = soak(c, args.requests, args, args.seed + 1)
        took = time.monotonic() - began
        c.wait_quiet(10)
        m = c.router.metrics()
        print(f"{args.requests} requests in {took:.1f} s, {ended} ran to their end; in all: " + ", ".join(
            f"{kind} {m.sum('baton_requests_total', outcome=kind):.0f}" for kind in ("ok", "cancelled", "failed")))
        grown = False
        for n in c.nodes.values():
            after = n.rss_bytes()
            gain = (after - before[n.name]) / (1 << 20)
            grown |= gain > args.growth_mib
            print(f"{n.name}: {before[n.name] / (1 << 20):.1f} MiB -> {after / (1 << 20):.1f} MiB ({gain:+.1f})")
        if m.sum("baton_requests_total", outcome="failed"):
            sys.exit("soak: requests failed")
        if grown:
            sys.exit("soak: a process has grown")
    print("soak: all blocks free or cached, nothing runs, memory flat")


if __name__ == "__main__":
    main()
