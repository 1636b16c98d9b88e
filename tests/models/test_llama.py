"""The decoder against `transformers`, from a Hugging Face folder and from a GGUF file, and at what is none of them.

`llama_logits.json` has what transformers 5.24 computes in float32 from the weights that `llamas` draws.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from llamas import CONFIGS, FAR, LLAMA, TOKENS, by_transformers, gguf, stored, tensors
from problems import EPS, rejects
from safetensors.numpy import save_file

import signal_drift as sd
from signal_drift.files import open_gguf
from signal_drift.models.llama import Llama, LlamaConfig, load_gguf, load_llama
from signal_drift.models.llama.decoder import LlamaAttention, rotated

LOGITS = json.loads((Path(__file__).parent / "llama_logits.json").read_text(encoding="utf-8"))
CLOSE = 1e-4
"""Logits of size 3 in float32 after some 500 operations: 500·6e-8·3."""


@nnx.jit
def logits(model: Llama, tokens: jax.Array) -> jax.Array:
    """Compiled once for all tests of one architecture."""
    return model(tokens)


def off(model: Llama, wanted: Any) -> float:
    """The largest distance of the logits of `TOKENS`."""
    return float(np.abs(np.asarray(logits(model, jnp.asarray(TOKENS)))[0] - np.asarray(wanted)).max())


def altered(model: Llama, **entries: Any) -> Llama:
    """The model with another configuration and the same weights."""
    other = nnx.clone(model)
    for _, module in nnx.iter_modules(other):
        if isinstance(module, LlamaAttention):
            module.config = replace(module.config, **entries)
    return other


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    model = load_llama(stored(tmp_path, CONFIGS[name]))
    assert off(model, LOGITS[name]) < CLOSE
    assert off(altered(model, rope_interleaved=True), LOGITS[name]) > 100 * CLOSE  # control


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_stored_logits_are_those_of_the_transformers_at_hand(tmp_path: Path, name: str) -> None:
    peers = [
        pytest.importorskip(x, reason="needs the extra peers", exc_type=ImportError) for x in ("transformers", "torch")
    ]
    found = by_transformers(stored(tmp_path, CONFIGS[name]), *peers)[0]
    np.testing.assert_allclose(found, LOGITS[name], rtol=0, atol=CLOSE)


def swapped(weights: dict[str, np.ndarray], part: str, order: list[int]) -> dict[str, np.ndarray]:
    """The heads of one projection in another order."""
    return {k: x.reshape(4, 4, 16)[order].reshape(16, 16) if part in k else x for k, x in weights.items()}


def test_a_wrong_grouping_of_the_heads_would_be_seen(tmp_path: Path) -> None:
    """Query heads 0 and 1 share the first head of keys: with 0 and 2 in their place, o turned along, it is another."""
    turned = swapped(tensors(CONFIGS["tied"]), "q_proj", [0, 2, 1, 3])
    weights = {
        k: x.reshape(16, 4, 4)[:, [0, 2, 1, 3]].reshape(16, 16) if "o_proj" in k else x for k, x in turned.items()
    }
    assert off(load_llama(stored(tmp_path, CONFIGS["tied"], weights)), LOGITS["tied"]) > 100 * CLOSE


@pytest.mark.parametrize("entries", [{"rope_divisors": ()}, {"rope_theta": 51.0}], ids=["no divisors", "another θ"])
def test_another_turn_would_be_seen(tmp_path: Path, entries: dict[str, Any]) -> None:
    assert off(altered(load_llama(stored(tmp_path, CONFIGS["llama3"])), **entries), LOGITS["llama3"]) > 10 * CLOSE


def test_logits_do_not_see_later_tokens(tmp_path: Path) -> None:
    model = load_llama(stored(tmp_path, CONFIGS["tied"]))
    other = TOKENS.copy()
    other[0, 5] = 1
    found = [np.asarray(logits(model, jnp.asarray(tokens)))[0] for tokens in (TOKENS, other)]
    np.testing.assert_array_equal(found[0][:5], found[1][:5])
    assert np.abs(found[0][5:] - found[1][5:]).max(1).min() > CLOSE


def test_positions_turn_pairs_by_their_angles() -> None:
    """They are the products of complex numbers, in both layouts."""
    x = np.random.default_rng(0).standard_normal((1, 3, 2, 6))
    config = LlamaConfig(7, 12, 4, 1, 2, 2, 6, rope_theta=9.0, rope_divisors=(1.0, 2.0, 4.0))
    turn = np.exp(1j * np.arange(3)[:, None, None] * 9.0 ** (-np.arange(3) / 3) / [1, 2, 4])
    halves, pairs = (x[..., :3] + 1j * x[..., 3:]) * turn, (x[..., ::2] + 1j * x[..., 1::2]) * turn
    found = rotated(config, jnp.asarray(x)), rotated(replace(config, rope_interleaved=True), jnp.asarray(x))
    np.testing.assert_allclose(found[0], np.concatenate([halves.real, halves.imag], -1), atol=20 * EPS)
    np.testing.assert_allclose(found[1], np.stack([pairs.real, pairs.imag], -1).reshape(x.shape), atol=20 * EPS)


@cache
def small() -> Llama:
    config = LlamaConfig(7, 4, 6, 1, num_attention_heads=2, num_key_value_heads=1, head_dim=2)
    return Llama(config, rngs=nnx.Rngs(0), dtype=jnp.float64)


def test_a_sequence_longer_than_the_context_is_named() -> None:
    model = Llama(replace(small().config, max_position_embeddings=3), rngs=nnx.Rngs(0), dtype=jnp.float64)
    assert model(jnp.asarray(TOKENS[:, :3])).shape[1] == 3
    with rejects("tokens", "4", "max_position_embeddings = 3"):
        model(jnp.asarray(TOKENS[:, :4]))


NAMES = [*(f"layers.0.attention.{x}" for x in "koqv"), *(f"layers.0.feed_forward.{x}" for x in ("down", "gate", "up"))]


def test_what_is_adapted_are_seven_matrices_a_layer() -> None:
    base, forward = sd.base_and_forward(small(), example=jax.ShapeDtypeStruct((1, 3), jnp.int32))
    assert sorted(base) == NAMES
    assert [x.parameter for x in forward.passed_over] == ["head.embedding", "words.embedding"]
    assert base["layers.0.attention.k"].shape == (2, 4)
    tokens = jnp.asarray(TOKENS)
    np.testing.assert_array_equal(forward(base, tokens), small()(tokens))


def test_a_product_with_the_hessian_is_that_of_merged_weights() -> None:
    """H_LoRA v, factored, against merged weights in the modules, to rounding of a few hundred operations."""
    base, forward = sd.base_and_forward(small())
    tokens, targets = jnp.asarray(TOKENS[:, :-1]), jnp.asarray(TOKENS[:, 1:])

    def loss(logits: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1))

    draw = np.random.default_rng(0)
    theta = {
        k: sd.Adapter(jnp.asarray(draw.normal(size=(1, n))), jnp.asarray(draw.normal(size=(m, 1))))
        for k, (m, n) in ((k, W.shape) for k, W in base.items())
    }
    lora = sd.decompose(lambda w: loss(forward(w, tokens)), base, theta, 0.5).lora
    flat, unravel = ravel_pytree(theta)
    v = jnp.asarray(draw.normal(size=flat.shape))

    def composed(flat: jax.Array) -> jax.Array:
        model = nnx.clone(small())
        for k, W in sd.effective_weights(base, unravel(flat), 0.5).items():
            _, i, part, name = k.split(".")
            getattr(getattr(model.layers[int(i)], part), name).kernel[...] = W.T
        return loss(model(tokens))

    wanted = jax.jit(lambda flat: jax.jvp(jax.grad(composed), (flat,), (v,))[1])(flat)
    np.testing.assert_allclose(lora @ v, wanted, rtol=0, atol=1e4 * EPS * float(jnp.abs(wanted).max()))


def test_an_adapter_of_flax_is_taken_apart() -> None:
    """One nnx.LoRA around one matrix, whose base it leaves as it was."""
    model = nnx.clone(small())
    layer: Any = model.layers[0].attention
    layer.v = nnx.LoRA(4, 1, 2, base_module=layer.v, param_dtype=jnp.float64, rngs=nnx.Rngs(1))
    found = sd.lora_and_forward(model, example=jax.ShapeDtypeStruct((1, 3), jnp.int32))
    ((name, W),) = found.base.items()
    assert name == "layers.0.attention.v.base_module"
    np.testing.assert_array_equal(W, sd.base_and_forward(small())[0]["layers.0.attention.v"])


def shards(folder: Path) -> Path:
    """The weights in two files and an index."""
    weights = tensors(CONFIGS["tied"])
    (folder / "model.safetensors").unlink()
    place = {k: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, k in enumerate(weights)}
    for file in set(place.values()):
        save_file({k: x for k, x in weights.items() if place[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}), encoding="utf-8")
    return folder


def test_weights_may_be_in_several_files(tmp_path: Path) -> None:
    assert off(load_llama(shards(stored(tmp_path, CONFIGS["tied"]))), LOGITS["tied"]) < CLOSE


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_weights_in_half_precision_are_read_as_they_are(tmp_path: Path, dtype: Any) -> None:
    """A tied head beside the embedding it is tied to, and inv_freq, are passed over."""
    half = {k: np.asarray(jnp.asarray(x).astype(dtype)) for k, x in tensors(CONFIGS["tied"]).items()}
    exact = load_llama(stored(tmp_path / "exact", CONFIGS["tied"], {k: x.astype(np.float32) for k, x in half.items()}))
    extra = {
        "lm_head.weight": half["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": half["model.norm.weight"],
    }
    model = load_llama(stored(tmp_path / "half", CONFIGS["tied"], half | extra))
    assert model.layers[0].attention.q.kernel.dtype == jnp.float32
    np.testing.assert_array_equal(logits(model, jnp.asarray(TOKENS)), logits(exact, jnp.asarray(TOKENS)))


def change(**entries: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(CONFIGS["tied"] | entries))


def without(*names: str, **more: np.ndarray) -> Callable[[Path], None]:
    weights = {k: x for k, x in tensors(CONFIGS["tied"]).items() if k not in names}
    return lambda folder: save_file(weights | more, folder / "model.safetensors")


def cut(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


Broken = dict[str, tuple[Callable[[Path], Any], str, str]]
BROKEN: Broken = {
    "no config": (lambda f: (f / "config.json").unlink(), "folder: ", "has no config.json"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "config.json: must be a JSON object", "[]"),
    "another model": (change(architectures=["GPT2LMHeadModel"]), "config.json: architectures", "GPT2LMHeadModel"),
    "no architecture": (change(architectures=None), "config.json: architectures", "None"),
    "another activation": (change(hidden_act="gelu"), "config.json: hidden_act must be 'silu'", "gelu"),
    "biases of the SwiGLU": (change(mlp_bias=True), "config.json: mlp_bias must be False", "True"),
    "sliding windows": (change(use_sliding_window=True), "config.json: use_sliding_window must be False", "True"),
    "quantised": (change(quantization_config={"bits": 4}), "config.json: quantization_config must be None", "bits"),
    "no width": (change(hidden_size=None), "config.json: has no 'hidden_size'", ""),
    "a width of nothing": (change(hidden_size=0), "config.json: hidden_size: must be a positive integer", "0"),
    "heads that do not divide": (change(num_attention_heads=3), "config.json: num_attention_heads must divide 16", "3"),
    "groups that do not divide": (change(num_key_value_heads=3), "config.json: num_key_value_heads: must divide", "3"),
    "odd heads": (change(head_dim=3), "config.json: head_dim: must be even", "3"),
    "another rope": (change(rope_scaling={"type": "yarn"}), "config.json: rope_type must be 'default'", "yarn"),
    "half a llama3": (change(rope_parameters=FAR | {"factor": None}), "config.json: rope_type 'llama3'", "factor"),
    "llama3 upside down": (
        change(rope_parameters=FAR | {"low_freq_factor": 5.0}),
        "config.json: low_freq_factor must be below high_freq_factor",
        "5.0",
    ),
    "no θ": (change(rope_theta="large"), "config.json: rope_theta must be a positive number", "large"),
    "rope that is no object": (change(rope_parameters=[1]), "config.json: rope_parameters must be an object", "[1]"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "folder: ", "has neither model.safetensors nor"),
    "truncated": (cut("model.safetensors"), "model.safetensors: is damaged", ""),
    "a layer missing": (without("model.norm.weight"), "model.safetensors: has no 'model.norm.weight'", ""),
    "one layer more": (
        without(**{"model.layers.0.self_attn.q_norm.weight": np.ones(4)}),
        "model.safetensors: has 'model.layers.0.self_attn.q_norm.weight', which is no part",
        "",
    ),
    "another vocabulary": (change(vocab_size=8), "model.safetensors: 'model.embed_tokens.weight'", "(7, 16)"),
    "integers": (
        without(**{"model.norm.weight": np.ones(16, np.int8)}),
        "model.safetensors: 'model.norm.weight' is of dtype I8",
        "",
    ),
    "no index": (
        lambda f: (shards(f) / "model.safetensors.index.json").write_text("[]"),
        "model.safetensors.index.json: must have an object weight_map",
        "None",
    ),
    "a shard missing": (
        lambda f: (shards(f) / "model-00002-of-00002.safetensors").unlink(),
        "model.safetensors.index.json: names 'model-00002-of-00002.safetensors', which is not there",
        "",
    ),
}


@pytest.mark.parametrize(("breaks", "begins", "names"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_llama_is_one_line(tmp_path: Path, breaks: Callable[[Path], Any], begins: str, names: str) -> None:
    breaks(stored(tmp_path, CONFIGS["tied"]))
    with rejects(begins, names):
        load_llama(tmp_path)


def test_a_file_of_llama_cpp_gives_the_same_logits(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the extra smollm")
    for name, config in (("tied", CONFIGS["tied"]), ("untied", LLAMA | {"rope_theta": 100.0})):
        wanted = np.asarray(logits(load_llama(stored(tmp_path / name, config)), jnp.asarray(TOKENS)))[0]
        model = load_gguf(gguf(tmp_path / f"{name}.gguf", config))
        assert off(model, wanted) < CLOSE
        assert off(altered(model, rope_interleaved=False), wanted) > 100 * CLOSE  # control


def test_a_qwen2_of_llama_cpp_has_biases_and_halves(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the extra smollm")
    model = load_gguf(gguf(tmp_path / "model.gguf", CONFIGS["qwen2"], architecture="qwen2"))
    assert off(model, LOGITS["qwen2"]) < CLOSE


def test_frequencies_of_llama3_are_divided_in_gguf_too(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs the extra smollm")
    config = LLAMA | {"rope_parameters": FAR}
    model = load_llama(stored(tmp_path / "folder", config))
    wanted = np.asarray(logits(model, jnp.asarray(TOKENS)))[0]
    divisors = np.array(model.config.rope_divisors, np.float32)
    assert divisors.max() == 8 > divisors.min() > 1
    more = {"rope_freqs.weight": divisors}
    path = gguf(tmp_path / "model.gguf", config | {"rope_theta": FAR["rope_theta"]}, more=more)
    assert off(load_gguf(path), wanted) < CLOSE


def test_a_quantised_file_is_near(tmp_path: Path) -> None:
    """In Q8_0, 127 steps of a size in float16 to the largest weight of a block: half a step, and 2⁻¹¹ of the weight."""
    package: Any = pytest.importorskip("gguf", reason="needs the extra smollm")
    config = CONFIGS["tied"] | {"hidden_size": 32, "intermediate_size": 32, "head_dim": 8}
    whole = load_gguf(gguf(tmp_path / "whole.gguf", config))
    kind = package.GGMLQuantizationType.Q8_0
    coarse = load_gguf(gguf(tmp_path / "coarse.gguf", config, kind))
    for name, x in sd.base_and_forward(whole)[0].items():
        y = sd.base_and_forward(coarse)[0][name]
        assert 0 < np.abs(x - y).max() <= np.abs(x).max() * (1 / 254 + 2**-11)


BAD_GGUF: Broken = {
    "no such file": (lambda _: None, "model.gguf: is damaged or no GGUF file", "FileNotFoundError"),
    "empty": (lambda p: p.write_bytes(b""), "model.gguf: is damaged or no GGUF file", ""),
    "another kind": (lambda p: p.write_bytes(b"PK\3\4" * 9), "model.gguf: is damaged or no GGUF file", "magic"),
    "truncated in a tensor": (
        lambda p: p.write_bytes(gguf(p, CONFIGS["tied"]).read_bytes()[:-40]),
        "model.gguf: is damaged or no GGUF file",
        "",
    ),
    "truncated in its fields": (
        lambda p: p.write_bytes(gguf(p, CONFIGS["tied"]).read_bytes()[:200]),
        "model.gguf: is damaged or no GGUF file",
        "",
    ),
    "another architecture": (
        lambda p: gguf(p, CONFIGS["tied"], architecture="mamba"),
        "model.gguf: the architecture must be one of ['llama', 'qwen2']",
        "mamba",
    ),
    "stretched": (
        lambda p: gguf(p, CONFIGS["tied"], scaling=_scaling()),
        "model.gguf: llama.rope.scaling.type must be 'none'",
        "yarn",
    ),
    "heads that do not divide": (
        lambda p: gguf(p, CONFIGS["tied"] | {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 4}),
        "model.gguf: llama.attention.head_count must divide 16",
        "3",
    ),
    "a tensor missing": (
        lambda p: gguf(p, CONFIGS["tied"], without=["model.norm.weight"]),
        "model.gguf: has no 'output_norm.weight'",
        "",
    ),
    "a tensor more": (
        lambda p: gguf(p, CONFIGS["tied"], more={"blk.0.attn_q_norm.weight": np.ones(4, np.float32)}),
        "model.gguf: has 'blk.0.attn_q_norm.weight', which is no part",
        "",
    ),
}


def _scaling() -> Any:
    from gguf import RopeScalingType

    return RopeScalingType.YARN


@pytest.mark.parametrize(("makes", "begins", "names"), BAD_GGUF.values(), ids=BAD_GGUF)
def test_what_is_no_llama_in_gguf_is_one_line(
    tmp_path: Path, makes: Callable[[Path], Any], begins: str, names: str
) -> None:
    pytest.importorskip("gguf", reason="needs the extra smollm")
    makes(tmp_path / "model.gguf")
    with rejects(begins, names):
        load_gguf(tmp_path / "model.gguf")


def test_a_quantisation_that_cannot_be_undone_is_named(tmp_path: Path) -> None:
    """One that gguf has a number and a size for, and no rule."""
    package: Any = pytest.importorskip("gguf", reason="needs the extra smollm")
    file = open_gguf(gguf(tmp_path / "model.gguf", CONFIGS["tied"]))
    norm = file.tensors["output_norm.weight"]
    file.tensors["output_norm.weight"] = norm._replace(tensor_type=package.GGMLQuantizationType.Q8_K)
    with rejects("model.gguf: 'output_norm.weight' is stored as Q8_K, which is not read; read are F32"):
        load_gguf(file)
