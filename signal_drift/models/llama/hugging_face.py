"""Loads a decoder of the Llama family from a Hugging Face folder."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real
from signal_drift.errors.words import shown
from signal_drift.files import find_weights, read_config, read_stored
from signal_drift.files.hugging_face import CONFIG, WEIGHTS, settings_of
from signal_drift.models.fill import Place, Source, fill, places
from signal_drift.models.llama.decoder import Llama, LlamaConfig

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM")
PLAIN: dict[str, Any] = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "use_sliding_window": False,
    "quantization_config": None,
    "partial_rotary_factor": 1,
}
"""Entries of a configuration that a model here has no other value of."""
MATRICES = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}


def load_llama(folder: str | Path, dtype: DTypeLike = jnp.float32) -> Llama:
    """Load the decoder that a Hugging Face folder describes, its logits those of `transformers`.

    The weights are in model.safetensors, or in the files that model.safetensors.index.json names. Raises `InputError`
    for a folder without them, another architecture, a setting without a formula here, and for weights that are missing,
    damaged, of another shape, or not of this model.
    """
    folder = Path(folder)
    config = llama_config(read_config(folder))
    model = nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0), dtype=dtype))
    stored, wanted = find_weights(folder), _places(model)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    for name in stored.keys() - wanted.keys() - tied:
        if not name.endswith("rotary_emb.inv_freq"):
            raise InputError(f"{WEIGHTS}: has {shown(name)}, which is no part of a {' or '.join(ARCHITECTURES)}")
    shapes = {name: x.shape for name, x in stored.items()}
    fill(wanted, Source(WEIGHTS, shapes, lambda name: read_stored(name, stored[name])))
    return model


def llama_config(found: dict[str, Any]) -> LlamaConfig:
    """Read the entries of a config.json; raise `InputError` for one that has no formula here."""
    named = found.get("architectures")
    architecture = named[0] if isinstance(named, list) and len(named) == 1 else named
    if architecture not in ARCHITECTURES:
        raise InputError(f"{CONFIG}: architectures must be one of {list(ARCHITECTURES)}, got {shown(named)}")
    for name, value in PLAIN.items():
        if found.get(name, value) != value:
            raise InputError(f"{CONFIG}: {name} must be {value!r}, got {shown(found[name])}")
    qwen = architecture == "Qwen2ForCausalLM"
    biases = {"query_key_value_bias": qwen or bool(found.get("attention_bias", False))}
    biases["output_bias"] = biases["query_key_value_bias"] and not qwen
    heads, width = found.get("num_attention_heads"), found.get("hidden_size")
    known = found | biases
    if known.get("num_key_value_heads") is None:
        known["num_key_value_heads"] = heads
    if known.get("head_dim") is None and isinstance(heads, int) and isinstance(width, int) and heads > 0:
        if width % heads:
            raise InputError(f"{CONFIG}: num_attention_heads must divide {width}, got {heads}")
        known["head_dim"] = width // heads
    try:
        return LlamaConfig(**settings_of(LlamaConfig, known | _rope(known)))
    except InputError as error:
        raise InputError(f"{CONFIG}: {str(error).removeprefix(f'{CONFIG}: ')}") from None


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    """How positions turn: in rope_parameters since transformers 5, before that in rope_theta and rope_scaling."""
    said = found.get("rope_parameters") or found.get("rope_scaling") or {}
    if not isinstance(said, dict):
        raise InputError(f"{CONFIG}: rope_parameters must be an object, got {shown(said)}")
    theta, kind = said.get("rope_theta", found.get("rope_theta", 10000.0)), said.get("rope_type", said.get("type"))
    if not is_real(theta) or theta <= 0:
        raise InputError(f"{CONFIG}: rope_theta must be a positive number, got {shown(theta)}")
    rope = {"rope_theta": float(theta), "rope_interleaved": False, "rope_divisors": ()}
    if kind in (None, "default"):
        return rope
    if kind != "llama3":
        raise InputError(f"{CONFIG}: rope_type must be 'default' or 'llama3', got {shown(kind)}")
    return rope | {"rope_divisors": _llama3_divisors(said, float(theta), found.get("head_dim"))}


def _llama3_divisors(said: dict[str, Any], theta: float, d: Any) -> tuple[float, ...]:
    """Divide slow frequencies by the factor and fast ones by 1, and interpolate 1/divisor between them.

    With c the number of turns over the original length, 1/divisor = (1 − u)/factor + u where
    u = (c − low)/(high − low), from 0 to 1.
    """
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    for name in names:
        if not is_real(said.get(name)) or said[name] <= 0:
            raise InputError(f"{CONFIG}: rope_type 'llama3' needs a positive {name}, got {shown(said.get(name))}")
    factor, low, high, length = (float(said[name]) for name in names)
    if not low < high:
        raise InputError(f"{CONFIG}: low_freq_factor must be below high_freq_factor = {high}, got {low}")
    turns = [length * theta ** (-i / d) / (2 * math.pi) for i in range(0, d, 2)] if isinstance(d, int) else []
    part = [min(max((c - low) / (high - low), 0.0), 1.0) for c in turns]
    return tuple(1 / ((1 - u) / factor + u) for u in part)


def matrix_names(model: Llama) -> dict[str, str]:
    """Return where in the decoder each of its matrices is, by the names of `transformers` and PEFT.

    >>> model = Llama(LlamaConfig(11, 8, 12, 1, 2, 1, head_dim=4), rngs=nnx.Rngs(0))
    >>> matrix_names(model)["model.layers.0.self_attn.q_proj"]
    'layers.0.attention.q'
    """
    paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(model)}
    return {name: paths[id(module)] for name, module in _matrices(model).items()}


def _matrices(model: Llama) -> dict[str, nnx.Linear]:
    return {
        f"model.layers.{i}.{name}": layer.matrices()[short]
        for i, layer in enumerate(model.layers)
        for name, short in MATRICES.items()
    }


def _places(model: Llama) -> dict[str, Place]:
    """Names in the file and the variables they belong to."""
    modules: dict[str, Any] = {"model.embed_tokens": model.words, "model.norm": model.norm, **_matrices(model)}
    if model.head is not None:
        modules["lm_head"] = model.head
    for i, layer in enumerate(model.layers):
        at = f"model.layers.{i}"
        modules |= {f"{at}.input_layernorm": layer.attention_norm, f"{at}.post_attention_layernorm": layer.norm}
    return {key: place for name, module in modules.items() for key, place in places(name, module).items()}
