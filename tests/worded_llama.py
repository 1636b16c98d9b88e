"""A tiny decoder with a tokenizer for words of one letter, and its loss's dense derivatives in one layer."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from llamas import LLAMA, stored

EPS = float(np.finfo(np.float32).eps)
CLOSE = 500 * EPS
"""Relative: as for the logits of `test_llama`, a few hundred operations in float32."""
CONFIG = LLAMA | {"hidden_size": 8, "intermediate_size": 6, "num_attention_heads": 2, "max_position_embeddings": 9}
CONFIG |= {"num_key_value_heads": 1}
LAYERS = {"model.layers.0.self_attn.q_proj": (8, 8), "model.layers.1.mlp.down_proj": (8, 6)}
WORDS = ["a", "b", "c", "d", "e", "f", "g"]
TEXT = "b f d a g g c e"
TOKENS = np.array([[WORDS.index(word) for word in TEXT.split()]])


def model_in(folder: Path, vocab: list[str] = WORDS, **config: Any) -> Path:
    """A decoder with a tokenizer for words of one letter, whose file says to cut what is longer than three."""
    stored(folder, CONFIG | config)
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    words = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(vocab)}, "unk_token": vocab[0]}
    tokenizer = {"version": "1.0", "truncation": cut, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"model": words}), encoding="utf-8")
    return folder


def linear(decoder: Any, layer: str) -> nnx.Linear:
    """The module of one of `LAYERS`, named by hand."""
    return decoder.layers[0].attention.q if layer.endswith("q_proj") else decoder.layers[1].feed_forward.down


def derivatives(decoder: nnx.Module, layer: str, W: jax.Array, shift: int = 1) -> tuple[float, np.ndarray, np.ndarray]:
    """ℓ of `TEXT`, G and H_ℓ at the matrix W of one layer, to predict the tokens so many places on."""
    graphdef, state = nnx.split(decoder)
    value, G, H = program(layer, graphdef)(W, state, jnp.asarray(TOKENS[0, shift : 7 + shift]))
    return float(value), np.asarray(G), np.asarray(H).reshape(W.size, W.size)


@cache
def program(layer: str, graphdef: nnx.GraphDef) -> Any:
    """Do the same for the values of the others and the tokens to predict."""

    def loss(W: jax.Array, state: nnx.State, targets: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state, copy=True)
        linear(model, layer).kernel[...] = W.T
        chance = jax.nn.softmax(model(jnp.asarray(TOKENS)))[0]
        return -jnp.mean(jnp.log(chance[jnp.arange(7), targets]))

    return jax.jit(lambda *x: (*jax.value_and_grad(loss)(*x), jax.hessian(loss)(*x)))
