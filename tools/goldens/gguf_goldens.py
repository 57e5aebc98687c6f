#!/usr/bin/env python3
"""Makes tiny GGUF files as llama.cpp's own converter does, and the logits of what they were converted from.

    VENV/bin/pip install torch transformers gguf
    VENV/bin/python tools/goldens/gguf_goldens.py LLAMA_CPP_TREE          # convert_hf_to_gguf.py of that tree is run

A GGUF file leaves out what llama.cpp takes for granted (GPT-OSS's limit of 7, SmolLM3's every fourth layer), so the
shapes are those of arch_goldens.py with such numbers as they are published. tests/model/goldens/gguf/NAME.gguf, .json
and .bin; nothing here runs in CI.
"""
import json
import logging
import pathlib
import shutil
import sys
import tempfile

TREE = pathlib.Path(sys.argv[1]).resolve()
sys.argv[1:2] = []
sys.path[:0] = [str(TREE), str(TREE / "gguf-py")]

import gguf  # noqa: E402
import torch  # noqa: E402

import arch_goldens  # noqa: E402
import model_goldens  # noqa: E402

OUT = model_goldens.OUT / "gguf"
ROOT = model_goldens.ROOT
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
AS_IS = ("qwen3", "mixtral", "phi3-longrope", "deepseek-v2", "deepseek-v3", "granite-moe-shared", "hunyuan")
CHANGED = {
    "llama3": ("llama", dict(rope_parameters=LLAMA3)),
    "linear": ("llama", dict(rope_parameters=arch_goldens.rope("linear", factor=4.0), attention_bias=True, mlp_bias=True)),
    "olmoe": ("olmoe", dict(num_experts=8, num_experts_per_tok=3, intermediate_size=24)),
    "smollm3": ("smollm3", dict(num_hidden_layers=4)),
    "gemma2": ("gemma2", dict(head_dim=20, sliding_window=9, query_pre_attn_scalar=20, attn_logit_softcapping=5.0,
                              final_logit_softcapping=3.0, tie_word_embeddings=True)),
    "gpt-oss": ("gpt_oss", dict(num_local_experts=4, num_experts_per_tok=2, intermediate_size=32, head_dim=16,
                                sliding_window=9, num_hidden_layers=2,
                                rope_parameters=dict(arch_goldens.YARN, truncate=False))),
}


def vocabulary(self):
    count = self.hparams["vocab_size"]
    writer = self.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}".encode() for i in range(count)])
    writer.add_token_types([1] * count)
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def convert(folder, path):
    import convert_hf_to_gguf as converter
    from conversion import get_model_class
    from conversion.base import ModelBase
    logging.disable(logging.INFO)
    with torch.inference_mode():
        shape = ModelBase.load_hparams(folder, False)
        kind = get_model_class(converter.get_model_architecture(shape, converter.ModelType.TEXT), mmproj=False)
        kind.set_vocab = vocabulary
        kind(folder, gguf.LlamaFileType.MOSTLY_BF16, path).write()


def main():
    OUT.mkdir(exist_ok=True)
    here = model_goldens.OUT
    for name in sys.argv[1:] or [*AS_IS, *CHANGED]:
        if name in CHANGED:
            arch_goldens.ARCHS[name] = CHANGED[name]
            scratch = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "build"))
            arch_goldens.OUT = scratch
            arch_goldens.make(name, 2000 + list(CHANGED).index(name))
            source = scratch
        else:
            source = here
        path = OUT / f"{name}.gguf"
        path.unlink(missing_ok=True)
        convert(source / name, path)
        path.chmod(0o644)
        shutil.copy(source / f"{name}.bin", OUT / f"{name}.bin")
        meta = json.loads((source / f"{name}.json").read_text())
        meta["model"] = f"tests/model/goldens/gguf/{name}.gguf"
        (OUT / f"{name}.json").write_text(json.dumps(meta) + "\n")
        print(f"{name}: {path.stat().st_size >> 10} KiB", flush=True)
        assert path.stat().st_size < 400_000


if __name__ == "__main__":
    main()
