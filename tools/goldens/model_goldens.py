#!/usr/bin/env python3
"""Makes the golden logits of tests/model/goldens with PyTorch and transformers, computing in fp32.

    python -m venv VENV && VENV/bin/pip install torch transformers
    VENV/bin/python tools/goldens/model_goldens.py            # everything
    VENV/bin/python tools/goldens/model_goldens.py tiny       # after models/tiny has been trained anew

Two random Llama checkpoints are made with fixed seeds (so they only change when their shape here does), and the embedded
model is taken as it is. For each: a prompt of 40 tokens and 8 greedy steps; NAME.json holds the ids and which rows are
stored, NAME.bin the logits of those rows as little-endian fp32. Tests read these files; nothing here runs in CI.
"""
import json
import pathlib
import shutil
import sys

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "model" / "goldens"
PROMPT_TOKENS, STEPS = 40, 8

RANDOM = {
    # untied, GQA, odd sizes, the rope scaling of Llama 3 with a wavelength in each of its three bands
    "llama3-gqa": (7, torch.bfloat16, dict(
        vocab_size=331, hidden_size=72, intermediate_size=101, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=32),
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=[2, 3])),
    # tied, biases everywhere, a head_dim that is not hidden / heads, linear rope scaling; config.json as older
    # releases of transformers wrote it
    "bias-tied": (8, torch.float16, dict(
        vocab_size=257, hidden_size=54, intermediate_size=115, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, head_dim=20, max_position_embeddings=256, rms_norm_eps=1e-6, rope_theta=20000.0,
        rope_scaling=dict(rope_type="linear", factor=4.0), attention_bias=True, mlp_bias=True,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)),
}


def make_random(name):
    seed, dtype, shape = RANDOM[name]
    model = LlamaForCausalLM(LlamaConfig(**shape))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if "norm" in key else 0.12 * noise)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    if name == "bias-tied":
        write_legacy_config(folder / "config.json")
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def write_legacy_config(path):
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = dict(type=rope["rope_type"], factor=rope["factor"])
    path.write_text(json.dumps(config, indent=2) + "\n")


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def make_golden(name, folder, keep_all):
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    vocab = model.config.vocab_size
    generator = torch.Generator().manual_seed(99)
    ids = torch.randint(4, vocab, (PROMPT_TOKENS,), generator=generator).tolist()
    for _ in range(STEPS):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    logits = logits_of(model, ids)
    rows = list(range(0 if keep_all else PROMPT_TOKENS - 1, len(ids)))
    # row i predicts token i + 1: the last row's prediction is stored, its token is not in ids
    logits[rows].contiguous().float().numpy().astype("<f4").tofile(OUT / f"{name}.bin")
    meta = dict(model=str(folder.relative_to(ROOT)), transformers=transformers.__version__, torch=torch.__version__,
                vocab=vocab, prompt_tokens=PROMPT_TOKENS, ids=ids, rows=rows)
    (OUT / f"{name}.json").write_text(json.dumps(meta) + "\n")
    print(f"{name}: {len(rows)} rows of {vocab}, max |logit| {logits.abs().max():.3f}")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or [*RANDOM, "tiny"]
    for name in wanted:
        if name in RANDOM:
            make_golden(name, make_random(name), keep_all=True)
        elif name == "tiny" and (ROOT / "models/tiny/model.safetensors").exists():
            make_golden(name, ROOT / "models/tiny", keep_all=False)
        else:
            print(f"{name}: no such model, left out", file=sys.stderr)


if __name__ == "__main__":
    main()
