#!/usr/bin/env python3
"""Makes tiny GGUF files as llama.cpp's own converter does, and the logits of what they were converted from.

    VENV/bin/pip install torch transformers gguf
    VENV/bin/python tools/goldens/gguf_goldens.py LLAMA_CPP_TREE          # convert_hf_to_gguf.py of that tree is run

A GGUF file leaves out what llama.cpp takes for granted (GPT-OSS's limit of 7, SmolLM3's every fourth layer), so the
shapes are those of arch_goldens.py with such numbers as they are published. Two more are quantized, each tensor in another
of the types; their logits are of the floats that llama.cpp's Python makes of them. tests/model/goldens/gguf/NAME.gguf,
.json and .bin; nothing here runs in CI.
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
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from gguf import GGMLQuantizationType as T  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

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


QUANTIZED = {
    "quantized": (64, 96, 2, [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.IQ4_NL]),
    "quantized-k": (256, 256, 1, [T.Q4_K, T.Q6_K, T.Q2_K, T.Q3_K, T.Q5_K, T.IQ4_XS]),
}
# where a block's scale and the scale of its minimum stand, and how many of the one balance the other
SCALES = {T.Q2_K: (80, 82, 1.5), T.Q3_K: (108, None, 0), T.Q4_K: (0, 2, 7.5), T.Q5_K: (0, 2, 15.5), T.Q6_K: (208, None, 0),
          T.IQ4_NL: (0, None, 0), T.IQ4_XS: (0, None, 0)}


def random_blocks(shape, kind, rng):
    """any bytes are numbers of the types that llama.cpp's Python only reads; their scales are chosen"""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    at, at_minimum, share = SCALES[kind]
    scale = 1.0
    for _ in range(2):
        raw[:, at:at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        if at_minimum is not None:
            raw[:, at_minimum:at_minimum + 2] = np.frombuffer(np.float16(scale * share).tobytes(), np.uint8)
        scale = 0.08 / gguf.dequantize(raw, kind).std()
    return raw.reshape(shape[0], -1)


def quantize(name, folder, path):
    """the tensors of a converted file in other types, and the floats of these to the folder"""
    reader, kinds, rng = gguf.GGUFReader(path), QUANTIZED[name][3], np.random.default_rng(5)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, QUANTIZED[name][2])
    floats = load_file(folder / "model.safetensors")
    of = {names.get_name(key, try_suffixes=(".weight",)): key for key in floats}
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", "qwen3")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for i, tensor in enumerate(t for t in reader.tensors):
        value = floats[of[tensor.name]].float().numpy()
        if value.ndim == 2:
            kind = kinds[i % len(kinds)]
            raw = random_blocks(value.shape, kind, rng) if kind in SCALES else gguf.quantize(value, kind)
            value = gguf.dequantize(raw, kind).reshape(value.shape)
            writer.add_tensor(tensor.name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, value)
        floats[of[tensor.name]] = torch.from_numpy(value.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(floats, folder / "model.safetensors", metadata={"format": "pt"})


def make_quantized(name, seed):
    hidden, ffn, layers, _ = QUANTIZED[name]
    scratch = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "build"))
    arch_goldens.OUT = scratch
    arch_goldens.ARCHS[name] = ("qwen3", dict(hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
                                              head_dim=hidden // 4))
    arch_goldens.make(name, seed)
    convert(scratch / name, scratch / "plain.gguf")
    quantize(name, scratch / name, scratch / "plain.gguf")
    model = transformers.AutoModelForCausalLM.from_pretrained(scratch / name, dtype=torch.float32).eval()
    meta = json.loads((scratch / f"{name}.json").read_text())
    ids = meta["ids"][: model_goldens.PROMPT_TOKENS]
    for _ in range(model_goldens.STEPS):
        ids.append(int(model_goldens.logits_of(model, ids)[-1].argmax()))
    model_goldens.logits_of(model, ids).contiguous().numpy().astype("<f4").tofile(OUT / f"{name}.bin")
    meta.update(model=f"tests/model/goldens/gguf/{name}.gguf", ids=ids)
    (OUT / f"{name}.json").write_text(json.dumps(meta) + "\n")
    shutil.rmtree(scratch)
    size = (OUT / f"{name}.gguf").stat().st_size
    print(f"{name}: {size >> 10} KiB", flush=True)
    assert size < 400_000


def main():
    OUT.mkdir(exist_ok=True)
    here = model_goldens.OUT
    for name in sys.argv[1:] or [*AS_IS, *CHANGED, *QUANTIZED]:
        if name in QUANTIZED:
            make_quantized(name, 2100 + list(QUANTIZED).index(name))
            continue
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
