#!/usr/bin/env python3
"""Makes tiny checkpoints quantized in each supported way, and the logits of their dequantized weights by transformers.

    VENV/bin/pip install torch transformers compressed-tensors
    VENV/bin/python tools/goldens/quant_goldens.py            # all
    VENV/bin/python tools/goldens/quant_goldens.py awq        # some

tests/model/goldens/quant/NAME/ is the checkpoint as the quantizer's own tool would have written it, NAME.json and NAME.bin
are as those of arch_goldens.py. What transformers computes with are floats, made here from the quantized numbers by each
format's published formula. Nothing here runs in CI.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from arch_goldens import BASE, YARN
from model_goldens import OUT as GOLDENS
from model_goldens import PROMPT_TOKENS, ROOT, STEPS, logits_of

OUT = GOLDENS / "quant"
SHAPE = dict(BASE, hidden_size=64, intermediate_size=96, num_hidden_layers=2, head_dim=16)
DEEPSEEK = dict(SHAPE, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, n_shared_experts=1, q_lora_rank=28,
                kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, first_k_dense_replace=1, n_group=4,
                topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True, num_key_value_heads=4,
                num_nextn_predict_layers=1, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0))
DEEPSEEK.pop("head_dim")
GPT_OSS = dict(SHAPE, num_local_experts=4, num_experts_per_tok=2, intermediate_size=32, sliding_window=9, swiglu_limit=7.0,
               rope_parameters=dict(YARN, truncate=False))
GROUP = 32


# Each takes a matrix [outputs, inputs] and gives what is stored, by suffix, and the matrix that it stands for.

def fp8(w, scale):
    q = (w / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return q, q.float() * scale


def fp8_blocks(w, block=16):
    rows, cols = (-(-n // block) for n in w.shape)
    padded = torch.zeros(rows * block, cols * block)
    padded[: w.shape[0], : w.shape[1]] = w
    scale = padded.view(rows, block, cols, block).abs().amax(dim=(1, 3)) / 448 + 1e-9
    wide = scale.repeat_interleave(block, 0).repeat_interleave(block, 1)[: w.shape[0], : w.shape[1]]
    q, back = fp8(w, wide)
    return {"weight": q, "weight_scale_inv": scale}, back


def fp8_tensor(w):
    scale = w.abs().max() / 448
    q, back = fp8(w, scale)
    return {"weight": q, "weight_scale": scale.reshape(1), "input_scale": torch.ones(1)}, back


def fp8_channels(w):
    scale = (w.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16)
    q, back = fp8(w, scale.float())
    return {"weight": q, "weight_scale": scale}, back


def int_groups(w, bits, symmetric):
    """q from 0 up, zero points and scales [outputs, groups]"""
    g = w.view(w.shape[0], -1, GROUP)
    top = 2**bits - 1
    if symmetric:
        scale, zero = g.abs().amax(2) / (top // 2), torch.full(g.shape[:2], (top + 1) // 2)
    else:
        low, high = g.amin(2).clamp(max=0), g.amax(2).clamp(min=0)
        scale = (high - low) / top
        zero = (-low / scale.to(torch.float16).float()).round().clamp(0, top).to(torch.int64)
    scale = scale.to(torch.float16)
    q = ((g / scale.float()[..., None]).round() + zero[..., None]).clamp(0, top).to(torch.int32)
    back = (q - zero[..., None]) * scale.float()[..., None]
    return q.view(w.shape), zero.to(torch.int32), scale, back.view(w.shape)


def pack(v, order=range(8)):
    """eight numbers of four bits in a row to one of 32"""
    v = v.to(torch.int64).view(v.shape[0], -1, 8)
    out = sum(v[..., from_] << (4 * to) for to, from_ in enumerate(order))
    return torch.where(out >= 2**31, out - 2**32, out).to(torch.int32)


def gptq(w):
    order = torch.randperm(w.shape[1], generator=torch.Generator().manual_seed(w.shape[1]))
    q, zero, scale, back = int_groups(w[:, order], 4, False)
    zero = zero.clamp(min=1)  # what is stored is one less
    q, zero_of = q.clone(), zero.repeat_interleave(GROUP, 1)
    inverse = torch.argsort(order)
    back = ((q - zero_of) * scale.float().repeat_interleave(GROUP, 1))[:, inverse]
    group = (torch.arange(w.shape[1]) // GROUP)[inverse].to(torch.int32)
    return {"qweight": pack(q[:, inverse]).T.contiguous(), "qzeros": pack((zero - 1).T.contiguous()),
            "scales": scale.T.contiguous(), "g_idx": group}, back


def awq(w):
    q, zero, scale, back = int_groups(w, 4, False)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {"qweight": pack(q.T.contiguous(), order), "qzeros": pack(zero.T.contiguous(), order),
            "scales": scale.T.contiguous()}, back


def ct_int4(w):
    q, _, scale, back = int_groups(w, 4, True)
    return {"weight_packed": pack_to_int32((q - 8).to(torch.int8), 4), "weight_scale": scale,
            "weight_shape": torch.tensor(w.shape)}, back


def ct_int4_zero(w):
    q, zero, scale, back = int_groups(w, 4, False)
    return {"weight_packed": pack_to_int32((q - 8).to(torch.int8), 4), "weight_scale": scale,
            "weight_zero_point": pack_to_int32((zero - 8).to(torch.int8), 4, packed_dim=0),
            "weight_shape": torch.tensor(w.shape)}, back


def ct_int8(w):
    scale = (w.abs().amax(1, keepdim=True) / 127).to(torch.bfloat16)
    q = (w / scale.float()).round().clamp(-128, 127).to(torch.int8)
    return {"weight": q, "weight_scale": scale}, q.float() * scale.float()


def ct(kind, bits, strategy, **more):
    weights = dict(num_bits=bits, type=kind, strategy=strategy, symmetric=True, dynamic=False, **more)
    layout = "float-quantized" if kind == "float" else "int-quantized" if bits == 8 else "pack-quantized"
    return dict(quant_method="compressed-tensors", format=layout, quantization_status="compressed", ignore=["lm_head"],
                config_groups=dict(group_0=dict(targets=["Linear"], weights=weights, input_activations=None)))


INT4 = dict(bits=4, group_size=GROUP)
KINDS = {
    "fp8-block": ("deepseek_v3", DEEPSEEK, fp8_blocks,
                  dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[16, 16])),
    "fp8-tensor": ("llama", dict(SHAPE, tie_word_embeddings=True), fp8_tensor,
                   dict(quant_method="fp8", activation_scheme="static")),
    "fp8-channel": ("mixtral", dict(SHAPE, num_local_experts=4, num_experts_per_tok=2, intermediate_size=32), fp8_channels,
                    dict(quant_method="fbgemm_fp8", activation_scale_ub=1200.0, modules_to_not_convert=["lm_head"])),
    "gptq": ("qwen2", SHAPE, gptq, dict(quant_method="gptq", desc_act=True, sym=False, checkpoint_format="gptq", **INT4)),
    "awq": ("mistral", dict(SHAPE, sliding_window=None), awq,
            dict(quant_method="awq", version="gemm", zero_point=True, modules_to_not_convert=None, **INT4)),
    "ct-int4": ("llama", SHAPE, ct_int4, ct("int", 4, "group", group_size=GROUP)),
    "ct-int4-zero": ("phi3", dict(SHAPE, sliding_window=17), ct_int4_zero,
                     ct("int", 4, "group", group_size=GROUP) | {}),
    "ct-int8": ("qwen3", SHAPE, ct_int8, ct("int", 8, "channel")),
    "ct-fp8": ("gemma2", dict(SHAPE, sliding_window=9, query_pre_attn_scalar=24, tie_word_embeddings=True), fp8_channels,
               ct("float", 8, "channel")),
    "mxfp4": ("gpt_oss", GPT_OSS, None, dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn"])),
}
KINDS["ct-int4-zero"][3]["config_groups"]["group_0"]["weights"]["symmetric"] = False


def mxfp4(w):
    """[experts, inputs, outputs] as transformers has it: blocks of 32 inputs, two numbers a byte, and a power of two each"""
    values = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = torch.cat([values, -values])
    blocks = w.transpose(1, 2).reshape(w.shape[0], w.shape[2], -1, 32)
    power = torch.floor(torch.log2(blocks.abs().amax(3) / 4 + 1e-9)) - 0
    scaled = blocks / torch.exp2(power)[..., None]
    q = (scaled[..., None] - values).abs().argmin(-1)
    back = (values[q] * torch.exp2(power)[..., None]).reshape(w.shape[0], w.shape[2], -1).transpose(1, 2)
    packed = (q[..., 0::2] | q[..., 1::2] << 4).to(torch.uint8)
    return {"_blocks": packed, "_scales": (power + 127).to(torch.uint8)}, back.contiguous()


def add_prediction_layer(tensors, layers):
    """one layer of multi-token prediction, which transformers does not compute: a copy of the last with what joins it"""
    last, more = f"model.layers.{layers - 1}.", f"model.layers.{layers}."
    for name in [n for n in tensors if n.startswith(last)]:
        tensors[more + name[len(last):]] = tensors[name].clone()
    hidden = tensors["model.norm.weight"].shape[0]
    for name in ("enorm", "hnorm", "shared_head.norm"):
        tensors[more + name + ".weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    tensors[more + "eh_proj.weight"] = torch.zeros(hidden, 2 * hidden, dtype=torch.bfloat16)
    for name in ("embed_tokens", "shared_head.head"):
        tensors[more + name + ".weight"] = tensors["model.embed_tokens.weight"].clone()


def quantize(name, tensors):
    _, _, method, _ = KINDS[name]
    stored, floats = {}, {}
    for key, w in tensors.items():
        suffixes = None
        if method and w.dim() == 2 and "_proj" in key or ".w1." in key or ".w2." in key or ".w3." in key:
            suffixes, back = method(w.float())
            stem = key[: -len("weight")]
        elif name == "mxfp4" and "experts" in key and key.endswith("_proj"):
            suffixes, back = mxfp4(w.float())
            stem = key
        if suffixes is None:
            stored[key], floats[key] = w, w.float()
        else:
            stored.update({stem + suffix: v.contiguous() for suffix, v in suffixes.items()})
            floats[key] = back
    return stored, floats


def make(name, seed):
    kind, shape, _, scheme = KINDS[name]
    config = AutoConfig.for_model(kind, **shape)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in sorted([*model.named_parameters(), *model.named_buffers()]):
            if "inv_freq" in key or "embed_scale" in key or not p.is_floating_point():
                continue
            norm = key.endswith("norm.weight")
            wide = "router" in key or key.endswith("gate.weight") or "sinks" in key
            p.copy_((1 if norm and "gemma" not in kind else 0)
                    + (0.2 if norm else 1.0 if wide else 0.15) * torch.randn(p.shape, generator=generator))
    folder, scratch = OUT / name, pathlib.Path(tempfile.mkdtemp(dir=ROOT / "build"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.to(torch.bfloat16).save_pretrained(scratch)
    tensors = load_file(scratch / "model.safetensors")
    if shape.get("num_nextn_predict_layers"):
        add_prediction_layer(tensors, shape["num_hidden_layers"])
    stored, floats = quantize(name, tensors)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(floats, scratch / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((scratch / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(written, quantization_config=scheme), indent=2) + "\n")
    model = AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32, attn_implementation="eager",
                                                 experts_implementation="eager").eval()
    ids = torch.randint(4, shape["vocab_size"], (PROMPT_TOKENS,), generator=generator).tolist()
    for _ in range(STEPS):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    logits = logits_of(model, ids)
    logits.contiguous().float().numpy().astype("<f4").tofile(OUT / f"{name}.bin")
    meta = dict(model=f"tests/model/goldens/quant/{name}", transformers=transformers.__version__, torch=torch.__version__,
                vocab=shape["vocab_size"], prompt_tokens=PROMPT_TOKENS, ids=ids, rows=list(range(len(ids))))
    (OUT / f"{name}.json").write_text(json.dumps(meta) + "\n")
    shutil.rmtree(scratch)
    size = sum(p.stat().st_size for p in folder.iterdir())
    top = logits.topk(2, dim=-1).values[PROMPT_TOKENS - 1:]
    print(f"{name}: {size >> 10} KiB, smallest margin {(top[:, 0] - top[:, 1]).min():.4f}", flush=True)
    assert size < 400_000
    for path in folder.iterdir():
        path.chmod(0o644)


def main():
    for name in sys.argv[1:] or list(KINDS):
        make(name, 3000 + list(KINDS).index(name))


if __name__ == "__main__":
    main()
