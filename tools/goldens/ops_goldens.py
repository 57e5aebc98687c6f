"""Writes tests/kernels/goldens/ops.bin: what PyTorch and Hugging Face's Llama layers make of small random inputs.

    python tools/goldens/ops_goldens.py [OUT]

Needs torch and transformers. The file is a sequence of little-endian records:
    char op[16], int32 ints[8], float reals[2], int32 n, float data[n]
where data holds the op's inputs and its output one after the other, as each function below says. `dtype` is 0 fp32, 1 bf16,
2 fp16: the stored type of weights or KV, whose values are already rounded to it.
"""

import pathlib
import struct
import sys

import torch
import torch.nn.functional as F
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def record(op, ints, reals, arrays):
    data = torch.cat([a.detach().float().reshape(-1) for a in arrays])
    ints = list(ints) + [0] * (8 - len(ints))
    reals = list(reals) + [0.0] * (2 - len(reals))
    head = struct.pack("<16s8i2fi", op.encode(), *ints, *reals, data.numel())
    return head + data.numpy().astype("<f4").tobytes()


def rounded(shape, dtype):
    return torch.randn(shape).to(DTYPES[dtype]).float()


def rmsnorm(tokens, dim, dtype, eps):
    """x[tokens, dim], weight[dim], out[tokens, dim]"""
    x, norm = torch.randn(tokens, dim) * 3, LlamaRMSNorm(dim, eps)
    norm.weight.data = rounded((dim,), dtype)
    return record("rmsnorm", [tokens, dim, dtype], [eps], [x, norm.weight, norm(x)])


def gemm(m, n, k, dtype):
    """x[m, k], w[n, k], bias[n], out[m, n]"""
    x, w, bias = torch.randn(m, k), rounded((n, k), dtype), torch.randn(n)
    return record("gemm", [m, n, k, dtype], [], [x, w, bias, F.linear(x, w, bias)])


def rope(positions, heads, dim, theta):
    """positions[tokens], inv_freq[dim / 2], x[tokens, heads, dim], out[tokens, heads, dim]"""
    config = LlamaConfig(hidden_size=heads * dim, num_attention_heads=heads, head_dim=dim)
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    rotary = LlamaRotaryEmbedding(config)
    x = torch.randn(1, heads, len(positions), dim)
    cos, sin = rotary(x, torch.tensor([positions]))
    out, _ = apply_rotary_pos_emb(x, x, cos, sin)
    arrays = [torch.tensor(positions), rotary.inv_freq, x[0].transpose(0, 1), out[0].transpose(0, 1)]
    return record("rope", [len(positions), heads, dim], [rotary.attention_scaling], arrays)


def attention(tokens, heads, kv_heads, dim, dtype):
    """q[tokens, heads, dim], k and v[tokens, kv_heads, dim], out[tokens, heads, dim]; causal"""
    q = torch.randn(heads, tokens, dim) * 2
    k, v = rounded((kv_heads, tokens, dim), dtype), rounded((kv_heads, tokens, dim), dtype)
    out = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)
    arrays = [q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), out[0].transpose(0, 1)]
    return record("attention", [tokens, heads, kv_heads, dim, dtype], [dim**-0.5], arrays)


def silu_mul(tokens, dim):
    """gate, up and out, each [tokens, dim]"""
    gate, up = torch.randn(tokens, dim) * 8, torch.randn(tokens, dim)
    return record("silu_mul", [tokens, dim], [], [gate, up, F.silu(gate) * up])


def main():
    torch.manual_seed(20)
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/kernels/goldens/ops.bin"
    records = []
    for dtype in range(3):
        records.append(rmsnorm(3, 40 + dtype, dtype, 1e-5))
        records.append(gemm(5, 29, 67, dtype))
        records.append(attention(70, 4, 2, 12, dtype))
    records.append(rmsnorm(2, 256, 1, 1e-6))
    records.append(gemm(1, 7, 600, 1))
    records.append(gemm(11, 30, 64, 2))
    records.append(rope([0, 1, 2, 77, 5000, 131071], 2, 32, 500000.0))
    records.append(rope([3, 4, 5], 3, 20, 10000.0))
    records.append(attention(3, 3, 3, 32, 1))
    records.append(attention(129, 3, 1, 8, 1))
    records.append(silu_mul(3, 50))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(b"".join(records))


if __name__ == "__main__":
    main()
