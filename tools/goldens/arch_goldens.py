#!/usr/bin/env python3
"""Makes a tiny random checkpoint of every supported architecture, and its logits by transformers in fp32.

    python -m venv VENV && VENV/bin/pip install torch transformers
    VENV/bin/python tools/goldens/arch_goldens.py             # all
    VENV/bin/python tools/goldens/arch_goldens.py gemma3      # some

tests/model/goldens/NAME/ is the checkpoint, NAME.json holds the ids (a prompt of 40 tokens and 8 greedy steps), NAME.bin the
logits of all rows as little-endian fp32. Tests read these files; nothing here runs in CI. Weights are bf16 (some fp16), so a
checkpoint stays below 400 KB; every shape has odd sizes, and windows and contexts are short enough to matter within 48 tokens.
"""
import json
import pathlib
import shutil
import sys

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from model_goldens import OUT, PROMPT_TOKENS, STEPS, logits_of

BASE = dict(vocab_size=144, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
            pad_token_id=0, tie_word_embeddings=False)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


YARN = rope("yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)

ARCHS = {
    "mistral": ("mistral", dict(sliding_window=13, head_dim=24)),
    "qwen2": ("qwen2", dict(use_sliding_window=True, sliding_window=11, max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(head_dim=20, rope_parameters=YARN)),
    "smollm3": ("smollm3", dict(no_rope_layer_interval=2, num_hidden_layers=4)),
    "olmo2": ("olmo2", dict()),
    "olmo3": ("olmo3", dict(num_hidden_layers=4, sliding_window=9)),
    "granite": ("granite", dict(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2,
                                logits_scaling=2.0)),
    "phi3": ("phi3", dict(sliding_window=17)),
    "phi3-longrope": ("phi3", dict(
        original_max_position_embeddings=128, partial_rotary_factor=0.7,
        rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.7,
                             original_max_position_embeddings=128,
                             short_factor=[1.0 + 0.1 * i for i in range(4)], long_factor=[2.0 + i for i in range(4)]))),
    "phi3-longrope-long": ("phi3", dict(
        original_max_position_embeddings=16, partial_rotary_factor=0.7,
        rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.7,
                             original_max_position_embeddings=16,
                             short_factor=[1.0 + 0.1 * i for i in range(4)], long_factor=[2.0 + i for i in range(4)]))),
    "dynamic-rope": ("llama", dict(rope_parameters=rope("dynamic", factor=2.0))),
    "gemma": ("gemma", dict(head_dim=20, tie_word_embeddings=True)),
    "gemma2": ("gemma2", dict(head_dim=20, sliding_window=9, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
                              final_logit_softcapping=3.0, tie_word_embeddings=True)),
    "gemma3": ("gemma3_text", dict(head_dim=20, sliding_window=9, query_pre_attn_scalar=24, num_hidden_layers=4,
                                   sliding_window_pattern=2, tie_word_embeddings=True,
                                   rope_parameters=dict(full_attention=rope("linear", 1e6, factor=8.0),
                                                        sliding_attention=rope()))),
    "mixtral": ("mixtral", dict(num_local_experts=5, num_experts_per_tok=2)),
    "qwen2-moe": ("qwen2_moe", dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=40,
                                    shared_expert_intermediate_size=56, norm_topk_prob=False, decoder_sparse_step=1,
                                    mlp_only_layers=[1])),
    "qwen3-moe": ("qwen3_moe", dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, head_dim=20,
                                    norm_topk_prob=True)),
    "olmoe": ("olmoe", dict(num_experts=8, num_experts_per_tok=3, intermediate_size=24, clip_qkv=1.5)),
    "granite-moe": ("granitemoe", dict(num_local_experts=6, num_experts_per_tok=2, intermediate_size=32,
                                       embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2,
                                       logits_scaling=2.0)),
    "granite-moe-shared": ("granitemoeshared", dict(num_local_experts=6, num_experts_per_tok=2, intermediate_size=32,
                                                    shared_intermediate_size=40)),
    "gpt-oss": ("gpt_oss", dict(num_local_experts=5, num_experts_per_tok=2, intermediate_size=32, head_dim=16,
                                sliding_window=9, num_hidden_layers=2, swiglu_limit=1.5,
                                rope_parameters=dict(YARN, truncate=False))),
    "deepseek-v2": ("deepseek_v2", dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, n_shared_experts=2,
                                        q_lora_rank=None, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8,
                                        v_head_dim=10, first_k_dense_replace=1, topk_method="group_limited_greedy",
                                        n_group=4, topk_group=2, routed_scaling_factor=1.5, num_key_value_heads=4)),
    "deepseek-v3": ("deepseek_v3", dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, n_shared_experts=1,
                                        q_lora_rank=28, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8,
                                        v_head_dim=10, first_k_dense_replace=1, n_group=4, topk_group=2,
                                        routed_scaling_factor=2.5, norm_topk_prob=True, num_key_value_heads=4,
                                        num_nextn_predict_layers=0,
                                        rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0))),
    "jetmoe": ("jetmoe", dict(num_local_experts=4, num_experts_per_tok=2, kv_channels=12, num_key_value_heads=3,
                               intermediate_size=32)),
    "hunyuan": ("hunyuan_v1_dense", dict(head_dim=20)),
    "hunyuan-moe": ("hunyuan_v1_moe", dict(head_dim=20, num_experts=4, moe_topk=2, intermediate_size=40)),
    "hunyuan-cla": ("hunyuan_v1_dense", dict(head_dim=20, num_hidden_layers=5, use_cla=True, cla_share_factor=2)),
}

# The same as the hub's files have them: older keys, a text model inside a larger one.
HUB = {
    "gemma3-nested": "gemma3",
    "mistral3-nested": "mistral",
    "phi3-su": "phi3-longrope",
    "deepseek-v3-hub": "deepseek-v3",
}


def older(config):
    """rope_theta and rope_scaling, torch_dtype, no layer_types"""
    config = dict(config, torch_dtype=config["dtype"])
    parameters = config.pop("rope_parameters")
    for key in ("dtype", "layer_types"):
        config.pop(key, None)
    if "full_attention" in parameters:
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    config["rope_theta"] = parameters["rope_theta"]
    scaling = {key: value for key, value in parameters.items() if key not in ("rope_theta", "partial_rotary_factor")}
    kind = scaling.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(scaling, type="su" if kind == "longrope" else kind)
    return config


def as_the_hub(name):
    """another golden's checkpoint and logits under the names and keys that published files have"""
    from safetensors.torch import load_file, save_file
    source, folder = OUT / HUB[name], OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = older(json.loads((source / "config.json").read_text()))
    tensors = load_file(source / "model.safetensors")
    if name == "gemma3-nested":
        config.pop("architectures")
        config = dict(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", text_config=config,
                      vision_config=dict(model_type="siglip_vision_model"), eos_token_id=[2, 106], torch_dtype="bfloat16")
        tensors = {f"language_model.{key}": value for key, value in tensors.items()}
        tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"] = torch.zeros(4, 3, 2, 2)
    elif name == "mistral3-nested":
        config.pop("architectures")
        config = dict(architectures=["Mistral3ForConditionalGeneration"], model_type="mistral3", text_config=config,
                      vision_config=dict(model_type="pixtral"), torch_dtype="bfloat16")
        tensors = {key.replace("model.", "model.language_model."): value for key, value in tensors.items()}
    elif name == "phi3-su":
        for key in ("factor", "attention_factor", "original_max_position_embeddings"):
            config["rope_scaling"].pop(key, None)
    else:
        for key in ("head_dim", "qk_head_dim", "rope_interleave", "mlp_layer_types", "num_local_experts"):
            config.pop(key, None)
        config.update(topk_method="noaux_tc", scoring_func="sigmoid", moe_layer_freq=1, ep_size=1, aux_loss_alpha=0.001)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    shutil.copy(OUT / f"{HUB[name]}.bin", OUT / f"{name}.bin")
    meta = json.loads((OUT / f"{HUB[name]}.json").read_text())
    (OUT / f"{name}.json").write_text(json.dumps(dict(meta, model=f"tests/model/goldens/{name}")) + "\n")


def share_keys(model, factor):
    """Cross-layer attention, as the published code of Hunyuan-Large has it: a layer that shares computes queries alone."""
    first = {}

    for i, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        owner = i - i % factor
        if owner == i:
            def keep(_, __, out, i=i, which=None):
                first[i, which] = out
            attention.k_proj.register_forward_hook(lambda m, a, out, i=i: first.__setitem__((i, "k"), out))
            attention.v_proj.register_forward_hook(lambda m, a, out, i=i: first.__setitem__((i, "v"), out))
            attention.key_layernorm.register_forward_hook(lambda m, a, out, i=i: first.__setitem__((i, "n"), out))
        else:
            attention.k_proj.register_forward_hook(lambda m, a, out, o=owner: first[o, "k"])
            attention.v_proj.register_forward_hook(lambda m, a, out, o=owner: first[o, "v"])
            attention.key_layernorm.register_forward_hook(lambda m, a, out, o=owner: first[o, "n"])


def drop_shared(folder, factor, layers):
    from safetensors.torch import load_file, save_file
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for i in range(layers):
        if i % factor:
            for name in ("k_proj.weight", "v_proj.weight", "key_layernorm.weight"):
                del tensors[f"model.layers.{i}.self_attn.{name}"]
    save_file(tensors, path, metadata={"format": "pt"})


def make(name, seed):
    kind, more = ARCHS[name]
    shape = dict(BASE, **more)
    if kind == "jetmoe":
        shape.pop("num_attention_heads")
    config = AutoConfig.for_model(kind, **shape)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in sorted([*model.named_parameters(), *model.named_buffers()]):
            if "inv_freq" in key or "embed_scale" in key or not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=generator)
            scale = 1.0 if "router" in key or key.endswith("gate.weight") or "sinks" in key or ".wg." in key else 0.15
            norm = key.endswith("norm.weight")
            value = (1 if norm and "gemma" not in kind else 0) + (0.2 if norm else scale) * noise
            p.copy_(value.to(torch.bfloat16).to(p.dtype))  # what is saved is what was computed with
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name == "hunyuan-cla":
        share_keys(model, shape["cla_share_factor"])
        drop_shared(folder, shape["cla_share_factor"], shape["num_hidden_layers"])
    ids = torch.randint(4, shape["vocab_size"], (PROMPT_TOKENS,), generator=generator).tolist()
    for _ in range(STEPS):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    logits = logits_of(model, ids)
    logits.contiguous().float().numpy().astype("<f4").tofile(OUT / f"{name}.bin")
    meta = dict(model=f"tests/model/goldens/{name}", transformers=transformers.__version__, torch=torch.__version__,
                vocab=shape["vocab_size"], prompt_tokens=PROMPT_TOKENS, ids=ids, rows=list(range(len(ids))))
    (OUT / f"{name}.json").write_text(json.dumps(meta) + "\n")
    size = sum(p.stat().st_size for p in folder.iterdir())
    top = logits.topk(2, dim=-1).values
    print(f"{name}: {size >> 10} KiB, max |logit| {logits.abs().max():.3f}, smallest margin "
          f"{(top[:, 0] - top[:, 1]).min():.4f}", flush=True)
    return size


def main():
    wanted = sys.argv[1:] or [*ARCHS, *HUB]
    for name in wanted:
        if name in HUB:
            as_the_hub(name)
            continue
        assert make(name, 1000 + list(ARCHS).index(name)) < 400_000


if __name__ == "__main__":
    main()
