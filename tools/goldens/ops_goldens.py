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
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from transformers import CohereConfig, LlamaConfig
from transformers.masking_utils import sliding_window_causal_mask_function
from transformers.models.cohere import modeling_cohere
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

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


def attend(tokens, shape, dtype, window=0, softcap=0.0, sinks=False):
    """q[tokens, heads, dim], k[tokens, kv_heads, dim], v[tokens, kv_heads, value_dim] (none: its keys' first out_dim
    elements), sinks[heads], out[tokens, heads, out_dim]; by the layers of Gemma 2 and GPT-OSS"""
    heads, kv_heads, dim, value_dim, out_dim = shape
    q = torch.randn(1, heads, tokens, dim) * 2
    k = rounded((1, kv_heads, tokens, dim), dtype)
    v = rounded((1, kv_heads, tokens, value_dim), dtype) if value_dim else k[..., :out_dim]
    sink = torch.randn(heads)
    sees = sliding_window_causal_mask_function(window or tokens + 1)
    mask = torch.tensor([[bool(sees(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(tokens)] for i in range(tokens)])
    mask = torch.zeros(tokens, tokens).masked_fill(~mask, torch.finfo(torch.float32).min)[None, None]
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, head_dim=dim, sinks=sink, training=False)
    if sinks:
        out, _ = modeling_gpt_oss.eager_attention_forward(module, q, k, v, mask, scaling=dim**-0.5)
    else:
        out, _ = modeling_gemma2.eager_attention_forward(module, q, k, v, mask, scaling=dim**-0.5, softcap=softcap or None)
    arrays = [q[0].transpose(0, 1), k[0].transpose(0, 1)] + ([v[0].transpose(0, 1)] if value_dim else []) + [sink, out[0]]
    return record("attend", [tokens, heads, kv_heads, dim, value_dim, out_dim, dtype + 16 * sinks, window],
                  [dim**-0.5, softcap], arrays)


def rope_part(positions, heads, dim, stride, interleaved):
    """positions[tokens], inv_freq[dim / 2], x[tokens, heads, stride], out of the same shape: the first dim elements of each
    head are rotated; interleaved by Cohere's layers, else by Llama's"""
    config = (CohereConfig if interleaved else LlamaConfig)(hidden_size=heads * dim, num_attention_heads=heads)
    config.head_dim = dim
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    rotary = (modeling_cohere.CohereRotaryEmbedding if interleaved else LlamaRotaryEmbedding)(config)
    x = torch.randn(1, heads, len(positions), stride)
    cos, sin = rotary(x, torch.tensor([positions]))
    turn = modeling_cohere.apply_rotary_pos_emb if interleaved else apply_rotary_pos_emb
    turned, _ = turn(x[..., :dim], x[..., :dim], cos, sin)
    out = torch.cat([turned, x[..., dim:]], dim=-1)
    arrays = [torch.tensor(positions), rotary.inv_freq, x[0].transpose(0, 1), out[0].transpose(0, 1)]
    return record("rope_part", [len(positions), heads, dim, stride, interleaved], [rotary.attention_scaling], arrays)


def glu(tokens, dim, kind):
    """gate, up and out, each [tokens, dim]; the kinds of kernels/ops.h. In double: 1 + tanh loses all that is left of it."""
    gate, up = torch.randn(tokens, dim) * 4, torch.randn(tokens, dim) * 4
    inputs, gate, up = [gate, up], gate.double(), up.double()
    clamped = SimpleNamespace(limit=3.5, alpha=1.702)
    turned = torch.stack([gate, up], dim=-1).flatten(-2)
    out = [lambda: F.silu(gate) * up, lambda: F.gelu(gate, approximate="tanh") * up, lambda: F.gelu(gate) * up,
           lambda: modeling_gpt_oss.GptOssExperts._apply_gate(clamped, turned)][kind]()
    return record("glu", [tokens, dim, kind], [3.5, 1.702], [*inputs, out])


def route(tokens, experts, top_k, kind, groups=1, top_groups=1, normalize=True):
    """logits[tokens, experts], bias[experts], expert[tokens, top_k] in any order, weight[tokens, top_k]; by the routers of
    0 Mixtral, 1 GPT-OSS, 2 Qwen3 MoE, 3 DeepSeek-V2 (groups), 4 DeepSeek-V3 (groups and bias)"""
    config = SimpleNamespace(num_experts_per_tok=top_k, num_local_experts=experts, num_experts=experts, hidden_size=experts,
                             norm_topk_prob=normalize, routed_scaling_factor=2.5, n_group=groups, topk_group=top_groups,
                             topk_method="group_limited_greedy" if groups > 1 else "greedy")
    router = [MixtralTopKRouter, modeling_gpt_oss.GptOssTopKRouter, Qwen3MoeTopKRouter, DeepseekV2TopkRouter,
              DeepseekV3TopkRouter][kind](config)
    router.weight.data = torch.eye(experts)  # logits are what goes in
    bias = torch.randn(experts) * 0.3
    if kind == 4:
        router.e_score_correction_bias.copy_(bias)
    logits = torch.randn(tokens, experts) * 2
    with torch.no_grad():
        _, weight, expert = router(logits)
    return record("route", [tokens, experts, top_k, kind, groups, top_groups, normalize], [2.5 if kind > 2 else 1.0],
                  [logits, bias, expert, weight])


def softcap(n, cap):
    """x[n], out[n]"""
    x = torch.randn(n) * 40
    return record("softcap", [n], [cap], [x, torch.tanh(x / cap) * cap])


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
    torch.manual_seed(21)
    gqa, latent, values = (4, 2, 12, 12, 12), (5, 1, 28, 0, 20), (4, 2, 12, 7, 7)
    for dtype, window, cap, sinks in ((0, 1, 0, 0), (1, 9, 2, 0), (2, 64, 0, 1), (0, 65, 0, 1), (1, 0, 2, 0), (0, 0, 0, 1)):
        records.append(attend(70, gqa, dtype, window, softcap=float(cap), sinks=bool(sinks)))
    records.append(attend(70, latent, 0))
    records.append(attend(70, latent, 1, 13, sinks=True))
    records.append(attend(70, values, 0, 5, softcap=30.0))
    for interleaved in (0, 1):
        records.append(rope_part([0, 1, 77, 131071], 3, 12, 20, interleaved))
        records.append(rope_part([5, 6], 2, 64, 64, interleaved))
    records += [glu(3, 50, kind) for kind in range(4)]
    records += [route(6, 8, 2, 0), route(6, 32, 4, 1), route(6, 60, 4, 2, normalize=False), route(6, 128, 8, 2),
                route(6, 64, 6, 3), route(6, 160, 6, 3, 8, 3), route(6, 256, 8, 4, 8, 4), route(6, 64, 6, 4, 1, 1),
                route(6, 32, 4, 4, 4, 2, normalize=False)]
    records.append(softcap(100, 30.0))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(b"".join(records))


if __name__ == "__main__":
    main()
