"""Loads a decoder of the Llama family from a GGUF file."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from signal_drift.errors import InputError
from signal_drift.errors.arguments import MOST
from signal_drift.errors.words import shown
from signal_drift.files import GgufFile, open_gguf
from signal_drift.models.fill import Place, Source, fill, places
from signal_drift.models.llama.decoder import Llama, LlamaConfig

INTERLEAVED = {"llama": True, "qwen2": False}
"""The architectures that are read, and whether the converter permuted Q and K for interleaved pairs."""
DIVISORS = "rope_freqs.weight"
MATRICES = {
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}


def load_gguf(file: str | Path | GgufFile, dtype: DTypeLike = jnp.float32) -> Llama:
    """Load the decoder in a GGUF file, a path or what `open_gguf` returned, its weights no longer quantised.

    Needs the `smollm` extra. Raises `InputError` for another architecture, for a setting without a formula here, for a
    damaged file, and for tensors that are missing, of another shape, not of this model, or of a quantisation that
    cannot be undone.
    """
    file = file if isinstance(file, GgufFile) else open_gguf(file)
    config = _config(file)
    model = nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0), dtype=dtype))
    wanted, shapes = _places(model), {name: file.shape(name) for name in file.tensors}
    for name in shapes.keys() - wanted.keys() - {DIVISORS}:
        raise InputError(f"{file.label}: has {shown(name)}, which is no part of the architectures {list(INTERLEAVED)}")
    fill(wanted, Source(file.label, shapes, file.tensor))
    return model


def _config(file: GgufFile) -> LlamaConfig:
    kind = file.field("general.architecture", str)
    if kind not in INTERLEAVED:
        raise InputError(f"{file.label}: the architecture must be one of {list(INTERLEAVED)}, got {shown(kind)}")

    def number(name: str, default: int | None = None) -> int:
        return file.field(f"{kind}.{name}", int, default)

    heads, width = number("attention.head_count"), number("embedding_length")
    if heads < 1 or width % heads:
        raise InputError(f"{file.label}: {kind}.attention.head_count must divide {width}, got {heads}")
    d = number("attention.key_length", width // heads)
    for name, value in {"rope.dimension_count": d, "attention.value_length": d, "expert_count": 0}.items():
        if number(name, value) != value:
            raise InputError(f"{file.label}: {kind}.{name} must be {value}, got {number(name)}")
    scaling = file.field(f"{kind}.rope.scaling.type", str, "none")
    if scaling != "none":
        raise InputError(f"{file.label}: {kind}.rope.scaling.type must be 'none', got {shown(scaling)}")
    try:
        return LlamaConfig(
            vocab_size=file.shape("token_embd.weight")[0] if "token_embd.weight" in file.tensors else 1,
            hidden_size=width,
            intermediate_size=number("feed_forward_length"),
            num_hidden_layers=number("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=number("attention.head_count_kv", heads),
            head_dim=d,
            rms_norm_eps=file.field(f"{kind}.attention.layer_norm_rms_epsilon", float),
            rope_theta=file.field(f"{kind}.rope.freq_base", float, 10000.0),
            rope_interleaved=INTERLEAVED[kind],
            rope_divisors=tuple(map(float, file.tensor(DIVISORS))) if DIVISORS in file.tensors else (),
            tie_word_embeddings="output.weight" not in file.tensors,
            query_key_value_bias="blk.0.attn_q.bias" in file.tensors,
            output_bias="blk.0.attn_output.bias" in file.tensors,
            max_position_embeddings=number("context_length", MOST),
        )
    except InputError as error:
        raise InputError(f"{file.label}: {error}") from None


def _places(model: Llama) -> dict[str, Place]:
    """Names in the file and the variables they belong to."""
    modules: dict[str, Any] = {"token_embd": model.words, "output_norm": model.norm}
    if model.head is not None:
        modules["output"] = model.head
    for i, layer in enumerate(model.layers):
        at = f"blk.{i}"
        modules |= {f"{at}.attn_norm": layer.attention_norm, f"{at}.ffn_norm": layer.norm}
        modules |= {f"{at}.{name}": layer.matrices()[short] for name, short in MATRICES.items()}
    return {key: place for name, module in modules.items() for key, place in places(name, module).items()}
