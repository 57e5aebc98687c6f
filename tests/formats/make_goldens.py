#!/usr/bin/env python3
"""Makes tests/formats/goldens: small inputs and what the reference implementations make of them.

    make_goldens.py [NAME ...]     needs PyPI's numpy, gguf and torch

Run by hand when a format is added; tests read the committed files only.

fp8.bin: the values of the 256 bytes of e4m3, e5m2 and their FNUZ forms. dequant.bin: records of {type as in GGUF u32, elements u32, bytes u32, the blocks, the floats}, little-endian.
"""
import os
import struct
import sys

import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "goldens")


def random_blocks(rng, kind, n):
    """Any bytes are legal quants; the halves that scale them are kept finite."""
    from gguf.constants import GGML_QUANT_SIZES
    size = GGML_QUANT_SIZES[kind][1]
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
              "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}[kind.name]
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in halves:
        scale = rng.choice([1e-7, 6e-5, 1e-3, 1.0, 300.0], n) * rng.standard_normal(n)
        raw[:, at:at + 2] = scale.astype(np.float16).view(np.uint8).reshape(n, 2)
    if kind.name == "MXFP4":
        raw[:, 0] = rng.choice([0, 1, 2, 100, 126, 127, 128, 254], n)
    return raw


def make_dequant():
    from gguf import quants
    from gguf.constants import GGMLQuantizationType as T
    rng = np.random.default_rng(1)
    with open(os.path.join(OUT, "dequant.bin"), "wb") as f:
        for kind in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS,
                     T.MXFP4):
            small = quants.GGML_QUANT_SIZES[kind][0] == 32
            raw = random_blocks(rng, kind, 24 if small else 4)
            want = quants.dequantize(raw, kind).astype(np.float32)
            f.write(struct.pack("<III", int(kind), want.size, raw.size) + raw.tobytes() + want.tobytes())
        for kind, data in ((T.F16, np.arange(0, 65536, 61, dtype=np.uint16).view(np.float16)),
                           (T.BF16, np.arange(0, 65536, 61, dtype=np.uint16))):
            want = data.astype(np.float32) if kind == T.F16 else quants.dequantize(data.view(np.uint8), kind)
            f.write(struct.pack("<III", int(kind), want.size, data.nbytes) + data.tobytes() + want.tobytes())


def make_fp8():
    import torch
    byte = torch.arange(256, dtype=torch.uint8)
    with open(os.path.join(OUT, "fp8.bin"), "wb") as f:
        for kind in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
            f.write(byte.view(kind).float().numpy().tobytes())


def main():
    makers = {"dequant": make_dequant, "fp8": make_fp8}
    os.makedirs(OUT, exist_ok=True)
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
