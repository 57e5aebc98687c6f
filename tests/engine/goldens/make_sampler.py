#!/usr/bin/env python3
"""Writes sampler.json: what a straightforward sampler chooses. Python's floats are doubles; values that the
sampler keeps as fp32 are rounded after each operation. Draws that fall within 1e-9 of a boundary are left out.

    python3 tests/engine/goldens/make_sampler.py > tests/engine/goldens/sampler.json
"""
import json
import math
import struct

M64 = (1 << 64) - 1
PURPOSE = 1


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & M64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
    return x ^ (x >> 31)


def rng_hash(seed, a, b, c):
    h = mix(seed)
    for w in (a, b, c):
        h = mix(h ^ w)
    return h


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def make_logits(case):
    out = []
    for v in range(case["vocab"]):
        x = (rng_hash(case["logits"], v, 0, 0) >> 40) / (1 << 21) - 4
        x = x * case["scale"]
        out.append(math.floor(x * 2) / 2 if case["ties"] else f32(x))
    return out


def adjust(case, logits):
    x = list(logits)
    ids, prompt = case["ids"], case["n_prompt"]
    generated = ids[prompt:]
    for token, bias in case["bias"]:
        x[token] = f32(x[token] + f32(bias))
    p = f32(case["repetition"])
    if p != 1:
        for token in set(ids):
            x[token] = f32(x[token] / p) if x[token] > 0 else f32(x[token] * p)
    presence, frequency = f32(case["presence"]), f32(case["frequency"])
    for token in set(generated):
        x[token] = f32(x[token] - f32(presence + f32(frequency * generated.count(token))))
    if len(generated) < case["min_tokens"]:
        for token in case["eos"] + case["stop"]:
            x[token] = -math.inf
    return x


def choose(case, x):
    order = sorted(range(len(x)), key=lambda v: (-x[v], v))
    t = f32(case["temperature"])
    if t == 0:
        return order[0], 1.0
    order = [v for v in order if x[v] > -math.inf]
    best = x[order[0]]
    weight = {v: math.exp((x[v] - best) / t) for v in order}
    if case["top_k"] > 0:
        order = order[: case["top_k"]]
    top_p, min_p = f32(case["top_p"]), f32(case["min_p"])
    clear = 1.0
    if top_p < 1:
        total, kept, cum = math.fsum(weight[v] for v in order), [], 0.0
        for v in order:
            if cum >= top_p * total:
                break
            kept.append(v)
            cum += weight[v]
            clear = min(clear, abs(cum - top_p * total))
        order = kept
    if min_p > 0:
        clear = min([clear] + [abs(weight[v] - min_p) for v in order])
        order = [v for v in order if weight[v] >= min_p]
    total = math.fsum(weight[v] for v in order)
    position = len(case["ids"]) - case["n_prompt"]
    u = (rng_hash(case["seed"], case["choice"], position, PURPOSE) >> 11) * 2.0**-53
    cum = 0.0
    for v in order:
        cum += weight[v]
        clear = min(clear, abs(cum - u * total))
        if cum > u * total:
            return v, clear
    return order[-1], 0.0


def logprobs(x, n):
    best = max(x)
    log_sum = best + math.log(math.fsum(math.exp(v - best) for v in x if v > -math.inf))
    order = [v for v in sorted(range(len(x)), key=lambda v: (-x[v], v)) if x[v] > -math.inf]
    return log_sum, [[v, round(x[v] - log_sum, 6)] for v in order[:n]]


def main():
    cases = []
    for i in range(400):
        r = lambda n, k=[0]: (k.__setitem__(0, k[0] + 1), rng_hash(i, k[0], 7, 7) % n)[1]
        vocab = [3, 17, 64, 500, 2000][r(5)]
        n_ids = r(30)
        case = {
            "vocab": vocab,
            "logits": i,
            "scale": [0.25, 1, 4][r(3)],
            "ties": r(4) == 0,
            "ids": [r(vocab) for _ in range(n_ids)],
            "n_prompt": r(n_ids + 1),
            "choice": r(4),
            "seed": r(1 << 62),
            "temperature": [0, 0.3, 0.7, 1, 2][r(5)],
            "top_k": [0, 0, 1, 5, 40][r(5)],
            "top_p": [1, 1, 0.1, 0.5, 0.9][r(5)],
            "min_p": [0, 0, 0.05, 0.3][r(4)],
            "repetition": [1, 1.1, 2, 0.8][r(4)],
            "presence": [0, 0.5, -1][r(3)],
            "frequency": [0, 0.25, -0.5][r(3)],
            "min_tokens": [0, 10][r(2)],
            "eos": [0],
            "stop": [1] if r(2) else [],
            "bias": [[r(vocab), [-100, 5, 100, -1.5][r(4)]] for _ in range(r(3))],
            "n_top": r(6),
        }
        if len({b[0] for b in case["bias"]}) < len(case["bias"]):
            continue
        x = adjust(case, make_logits(case))
        case["id"], clear = choose(case, x)
        if clear < 1e-9:
            continue
        log_sum, case["top"] = logprobs(x, case["n_top"])
        case["logprob"] = round(x[case["id"]] - log_sum, 6)
        cases.append(case)
    print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")


main()
