"""Decoders of the Llama family on disk, as others publish them, tiny and drawn from a seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

COMMON: dict[str, Any] = {
    "vocab_size": 7,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
LLAMA = COMMON | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
FAR = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "tied": LLAMA | {"tie_word_embeddings": True, "rope_theta": 100.0},
    "untied": LLAMA | {"head_dim": 6, "num_key_value_heads": 4, "rope_parameters": {"rope_theta": 20.0}},
    "biases": LLAMA | {"attention_bias": True, "rope_theta": 100.0},
    "llama3": LLAMA | {"head_dim": 8, "rope_parameters": FAR},
    "qwen2": COMMON | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 30.0},
}
TOKENS = np.array([[1, 5, 3, 0, 6, 6, 2, 4]])
NORMS = ("input_layernorm", "post_attention_layernorm")


def tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Weights by the names of `transformers`, in float32."""
    draws = np.random.default_rng(0)
    width, hidden, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    d = config.get("head_dim", width // heads)
    q, k = heads * d, config["num_key_value_heads"] * d
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    qwen, biases = config["model_type"] == "qwen2", config.get("attention_bias", False)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        for name, rows in {"q": q, "k": k, "v": k}.items():
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (rows, width)
            if qwen or biases:
                shapes[f"{at}.self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (width, q)
        if biases:
            shapes[f"{at}.self_attn.o_proj.bias"] = (width,)
        shapes |= {f"{at}.mlp.{name}_proj.weight": (hidden, width) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (width, hidden)
        shapes |= {f"{at}.{name}.weight": (width,) for name in NORMS}
    shapes["model.norm.weight"] = (width,)
    return {name: (draws.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}


def stored(folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray] | None = None) -> Path:
    """One decoder in Hugging Face's form."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors(config) if weights is None else weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def by_transformers(folder: Path, transformers: Any, torch: Any) -> np.ndarray:
    """Logits of `TOKENS`, computed by these two packages."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


def gguf(path: Path, config: dict[str, Any], kind: Any = None, **fields: Any) -> Path:
    """One decoder in the form of llama.cpp, queries and keys of a Llama permuted. Needs the extra smollm."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    kind = GGMLQuantizationType.F32 if kind is None else kind
    architecture = fields.get("architecture", "llama")
    writer = GGUFWriter(path, architecture)
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if "scaling" in fields:
        writer.add_rope_scaling_type(fields["scaling"])
    if "tokens" in fields:
        writer.add_tokenizer_model(fields.get("model", "gpt2"))
        writer.add_tokenizer_pre(fields["pre"])
        writer.add_token_list(fields["tokens"])
        writer.add_token_types(fields["types"])
        writer.add_token_merges(fields["merges"])
    for name, x in tensors(config).items():
        if name not in fields.get("without", ()):
            quantised = kind if x.ndim > 1 else GGMLQuantizationType.F32
            turned = _permuted(name, x, heads) if architecture == "llama" else x
            writer.add_tensor(_short(name), quantize(turned, quantised), raw_dtype=quantised)
    for name, x in fields.get("more", {}).items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SHORT = {
    "model.layers": "blk",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
}


def _short(name: str) -> str:
    for long, short in SHORT.items():
        name = name.replace(long, short)
    return name


def _permuted(name: str, x: np.ndarray, heads: dict[str, int]) -> np.ndarray:
    """Rows i and i + d/2 of every head become 2i and 2i + 1."""
    for letter, count in heads.items():
        if f"{letter}_proj" in name:
            return np.swapaxes(x.reshape(count, 2, -1, *x.shape[1:]), 1, 2).reshape(x.shape)
    return x
