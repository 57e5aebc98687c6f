"""Writes a checkpoint as a Hugging Face model folder: `python3 export.py --work DIR --out DIR`."""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file

from model import Config, Llama

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def weights_of(model):
    """bf16 tensors under their Hugging Face names; tied embeddings are stored once."""
    named = {}
    for name, tensor in model.state_dict().items():
        named["model." + name] = tensor.to(torch.bfloat16).contiguous()
    return named


def config_of(config, ids):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": config.vocab, "hidden_size": config.hidden,
        "intermediate_size": config.ffn, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim, "hidden_act": "silu",
        "max_position_embeddings": config.context, "rope_theta": config.theta,
        "rope_scaling": None, "rms_norm_eps": config.eps, "attention_bias": False,
        "mlp_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
        "tie_word_embeddings": True, "use_cache": True, "torch_dtype": "bfloat16",
        "bos_token_id": ids["<|bos|>"], "eos_token_id": [ids["<|eos|>"], ids["<|end|>"]]}


def tokenizer_config_of(special, config):
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.context,
        "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|eos|>",
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(t["id"]): {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip",
                                             "single_word", "special")} for t in special},
        "chat_template": CHAT_TEMPLATE}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    state = torch.load(args.work / "checkpoint.pt", weights_only=True, map_location="cpu")
    config = Config(**state["config"])
    model = Llama(config)
    model.load_state_dict(state["model"])
    text = (args.work / "tokenizer.json").read_text(encoding="utf-8")
    special = json.loads(text)["added_tokens"]
    ids = {t["content"]: t["id"] for t in special}
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(weights_of(model), str(args.out / "model.safetensors"), metadata={"format": "pt"})
    (args.out / "tokenizer.json").write_text(text, encoding="utf-8")
    full = config_of(config, ids)
    write_json(args.out / "config.json", full)
    write_json(args.out / "generation_config.json",
               {"bos_token_id": full["bos_token_id"], "eos_token_id": full["eos_token_id"],
                "pad_token_id": ids["<|eos|>"], "do_sample": True, "temperature": 0.7,
                "top_p": 0.95})
    write_json(args.out / "tokenizer_config.json", tokenizer_config_of(special, config))
    print(f"step {state['step']}: {args.out}")


if __name__ == "__main__":
    main()
