#!/usr/bin/env python3
"""Makes tests/formats/goldens: small inputs and what the reference implementations make of them.

    make_goldens.py [NAME ...]     needs PyPI's numpy, gguf, torch,
                               transformers and compressed-tensors

Run by hand when a format is added; tests read the committed files only.

fp8.bin: the values of the 256 bytes of e4m3, e5m2 and their FNUZ forms. dequant.bin: records of {type as in GGUF u32, elements u32, bytes u32, the blocks, the floats}, little-endian.
"""
import json
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


# --- quantized safetensors: the parts as tools write them, and "want.NAME" as the float weight

def pack_bits(values, bits, axis):
    """A little-endian stream of `bits`-bit integers in 32-bit words along an axis: what GPTQ's packer writes, for 3 bits
    too, where values cross words."""
    values = np.moveaxis(values.astype(np.uint32), axis, 0)
    words = np.zeros(((values.shape[0] * bits + 31) // 32,) + values.shape[1:], np.uint32)
    for i, v in enumerate(values):
        at, shift = i * bits // 32, i * bits % 32
        words[at] |= (v << np.uint32(shift)).astype(np.uint32)
        if shift + bits > 32:
            words[at + 1] |= v >> np.uint32(32 - shift)
    return np.moveaxis(words, 0, axis).view(np.int32)


def gptq_case(rng, bits, act_order=False, less=True, scale_type=np.float16):
    outputs, inputs, group = 32, 64, 16
    q = rng.integers(0, 1 << bits, (inputs, outputs))
    zero = rng.integers(1, 1 << bits, (inputs // group, outputs))
    scale = (rng.standard_normal((inputs // group, outputs)) * 0.01).astype(scale_type)
    order = np.arange(inputs, dtype=np.int32) // group
    if act_order:
        rng.shuffle(order)
    want = scale.astype(np.float32)[order] * (q - zero[order]).astype(np.float32)
    name = "model.layers.0.mlp.up_proj."
    return {name + "qweight": pack_bits(q, bits, 0), name + "qzeros": pack_bits(zero - less, bits, 1),
            name + "scales": scale, name + "g_idx": order, "model.norm.weight": np.ones(8, np.float32),
            "want." + name + "weight": np.ascontiguousarray(want.T)}


def awq_case(rng):
    outputs, inputs, group = 32, 64, 16
    q, zero = rng.integers(0, 16, (inputs, outputs)), rng.integers(0, 16, (inputs // group, outputs))
    scale = (rng.standard_normal((inputs // group, outputs)) * 0.01).astype(np.float16)
    want = scale.astype(np.float32).repeat(group, 0) * (q - zero.repeat(group, 0)).astype(np.float32)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def pack(v):
        out = np.zeros((v.shape[0], v.shape[1] // 8), np.uint32)
        for i, column in enumerate(order):
            out |= v[:, column::8].astype(np.uint32) << np.uint32(4 * i)
        return out.view(np.int32)
    return {"a.qweight": pack(q), "a.qzeros": pack(zero), "a.scales": scale, "want.a.weight": np.ascontiguousarray(want.T)}


def compressed_case(rng, bits=4, kind="int", strategy="group", symmetric=True, act_order=False, block=None, fmt=None,
                    shape=(24, 64)):
    import torch
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    rows, cols = shape
    group = 16 if strategy == "group" else None
    args = QuantizationArgs(num_bits=bits, type=kind, strategy=strategy, group_size=group, symmetric=symmetric,
                            block_structure=block)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    grid = {"group": (rows, cols // 16), "channel": (rows, 1), "tensor": (1,)}.get(strategy)
    if block:
        grid = (-(-rows // block[0]), -(-cols // block[1]))
    scale = torch.rand(grid) * 0.1 + 0.01
    state = {"weight": torch.randn(rows, cols), "weight_scale": scale}
    if not symmetric:
        state["weight_zero_point"] = torch.randint(-4, 4, grid, dtype=torch.int8)
    packed = BaseCompressor.get_value_from_registry(fmt).compress(dict(state), scheme)
    want = BaseCompressor.get_value_from_registry(fmt).decompress(dict(packed), scheme)["weight"]
    out = {"l.0." + k: v for k, v in packed.items()}
    if act_order:
        order = torch.arange(cols, dtype=torch.int32) // 16
        order = order[torch.randperm(cols)]
        from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
        ints = unpack_from_int32(packed["weight_packed"], bits, (rows, cols)).float()
        want = ints * scale[:, order.long()]
        out["l.0.weight_g_idx"] = order
    out["want.l.0.weight"] = want.float().contiguous()
    return out


def compressed_config(fmt, **weights):
    return {"quant_method": "compressed-tensors", "format": fmt, "ignore": ["lm_head", "re:.*norm.*"], "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}}


def fp8_case(grid, block, shape=(40, 96), inverse=False, dtype=None):
    import torch
    w = (torch.randn(shape) * 50).to(torch.float8_e4m3fn)
    scale = (torch.rand(grid) * 0.1 + 0.001).to(dtype or torch.float32)
    full = scale.float()
    if block:
        full = full.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)[..., :shape[-2], :shape[-1]]
    elif full.numel() == shape[-2]:
        full = full.reshape(shape[-2], 1)
    name = "weight_scale_inv" if inverse else "weight_scale"
    return {"x.weight": w, "x." + name: scale, "x.input_scale": torch.ones(()), "y.weight": torch.randn(4, 8),
            "want.x.weight": w.float() * full}


def mxfp4_case(rng):
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    blocks = torch.from_numpy(rng.integers(0, 256, (3, 8, 2, 16), dtype=np.uint8))
    scales = torch.from_numpy(rng.integers(110, 135, (3, 8, 2), dtype=np.uint8))
    want = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    want = want.transpose(1, 2).contiguous()
    name = "model.layers.0.mlp.experts.gate_up_proj"
    return {name + "_blocks": blocks, name + "_scales": scales, name + "_bias": torch.zeros(3, 8), "want." + name: want}


def quantized_cases(rng):
    import torch
    for bits in (2, 3, 4, 8):
        yield f"gptq{bits}", {"quant_method": "gptq", "bits": bits, "group_size": 16}, gptq_case(rng, bits)
    yield "gptq4_act_order", {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True}, gptq_case(rng, 4, True)
    yield "gptq4_v2", {"quant_method": "gptq", "bits": 4, "group_size": 16, "checkpoint_format": "gptq_v2"}, gptq_case(
        rng, 4, less=False, scale_type=np.float32)
    yield "awq", {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}, awq_case(rng)
    pack, group = "pack-quantized", {"strategy": "group", "group_size": 16}
    yield "ct_int4", compressed_config(pack, num_bits=4, type="int", symmetric=True, **group), compressed_case(rng, fmt=pack)
    yield "ct_int4_zero", compressed_config(pack, num_bits=4, type="int", symmetric=False, **group), compressed_case(
        rng, symmetric=False, fmt=pack)
    yield "ct_int4_order", compressed_config(pack, num_bits=4, type="int", symmetric=True, actorder="group", **group), \
        compressed_case(rng, act_order=True, fmt=pack)
    yield "ct_int3_zero", compressed_config(pack, num_bits=3, type="int", symmetric=False, **group), compressed_case(
        rng, bits=3, symmetric=False, fmt=pack)
    yield "ct_int8_channel", compressed_config(pack, num_bits=8, type="int", symmetric=True, strategy="channel"), \
        compressed_case(rng, bits=8, strategy="channel", fmt=pack, shape=(24, 50))
    yield "ct_int8_naive", compressed_config("int-quantized", num_bits=8, type="int", symmetric=False, strategy="channel"), \
        compressed_case(rng, bits=8, strategy="channel", symmetric=False, fmt="int-quantized")
    for strategy in ("tensor", "channel"):
        yield "ct_fp8_" + strategy, compressed_config("float-quantized", num_bits=8, type="float", symmetric=True,
                                                      strategy=strategy), \
            compressed_case(rng, bits=8, kind="float", strategy=strategy, fmt="float-quantized")
    yield "ct_fp8_block", compressed_config("float-quantized", num_bits=8, type="float", symmetric=True, strategy="block",
                                            block_structure=[16, 32]), \
        compressed_case(rng, bits=8, kind="float", strategy="block", block=[16, 32], fmt="float-quantized", shape=(40, 80))
    yield "fp8_tensor", {"quant_method": "fp8"}, fp8_case((), None)
    yield "fp8_channel", {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["y"]}, fp8_case((40, 1), None)
    yield "fp8_block", {"quant_method": "fp8", "weight_block_size": [16, 32]}, fp8_case((3, 3), (16, 32), inverse=True)
    yield "fp8_block_stacked", {"quant_method": "fp8", "weight_block_size": [16, 32], "fmt": "e4m3"}, fp8_case(
        (2, 1, 2), (16, 32), shape=(2, 16, 40), inverse=True, dtype=torch.bfloat16)
    yield "fp8_block_default", {"quant_method": "fp8"}, fp8_case((1, 2), (128, 128), shape=(8, 160), inverse=True)
    yield "mxfp4", {"quant_method": "mxfp4"}, mxfp4_case(rng)


def make_quantized():
    import torch
    from safetensors.torch import save_file
    torch.manual_seed(1)
    configs = []
    folder = os.path.join(OUT, "quantized")
    os.makedirs(folder, exist_ok=True)
    for name, config, tensors in quantized_cases(np.random.default_rng(2)):
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v.contiguous()
                   for k, v in tensors.items()}
        save_file(tensors, os.path.join(folder, name + ".safetensors"))
        configs.append({"name": name, "config": config})
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in configs) + "\n]\n")


def main():
    makers = {"dequant": make_dequant, "fp8": make_fp8, "quantized": make_quantized}
    os.makedirs(OUT, exist_ok=True)
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
