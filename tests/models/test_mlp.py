"""The bridge from a flax model to (base, forward), against the model itself and against NumPy."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from problems import kronecker_jacobian, rejects, rounding

import signal_drift as sd


def silu(x):
    return x / (1 + np.exp(-x))


class Block(nnx.Module):
    """LayerNorm, then a linear layer with bias."""

    def __init__(self, d_in, d_out, rngs):
        self.norm = nnx.LayerNorm(d_in, param_dtype=jnp.float64, rngs=rngs)
        self.linear = nnx.Linear(
            d_in, d_out, bias_init=jax.nn.initializers.normal(), param_dtype=jnp.float64, rngs=rngs
        )

    def __call__(self, x):
        return self.linear(self.norm(x))


class Nested(nnx.Module):
    """Blocks in a list in a module, and a head without bias: linear layers at three depths."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.body = nnx.Sequential(Block(3, 5, rngs), nnx.silu, Block(5, 2, rngs))
        self.head = nnx.Linear(2, 4, use_bias=False, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, x):
        return self.head(self.body(x))


X = jax.random.normal(jax.random.key(0), (6, 3), jnp.float64)


@pytest.mark.parametrize("activate_output", [False, True])
@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 4, 2), (3, 3, 3)], ids=str)
def test_mlp_is_the_chain_of_its_base_weights(widths, activate_output):
    """y = W_L φ(… φ(W_1 x)) with W of shape (d_out, d_in), in NumPy."""
    model = sd.MLP(widths, rngs=nnx.Rngs(1), activate_output=activate_output)
    base, _ = sd.base_and_forward(model)
    assert {k: W.shape for k, W in base.items()} == {
        f"layers.{i}": (d_out, d_in) for i, (d_in, d_out) in enumerate(pairwise(widths))
    }
    y = np.asarray(X)
    for i in range(len(widths) - 1):
        y = y @ np.asarray(base[f"layers.{i}"]).T
        y = silu(y) if i < len(widths) - 2 or activate_output else y
    assert np.allclose(model(X), y, rtol=0, atol=rounding(max(widths), X))


def test_mlp_uses_the_given_activation_and_dtype():
    model = sd.MLP((3, 4, 2), rngs=nnx.Rngs(1), activation=jnp.tanh, dtype=jnp.dtype(jnp.float32))
    base, _ = sd.base_and_forward(model)
    assert all(W.dtype == jnp.float32 for W in base.values())
    first, second = (np.asarray(base[f"layers.{i}"], float) for i in range(2))
    y = np.tanh(np.asarray(X, np.float32) @ first.T) @ second.T
    assert np.allclose(model(X.astype(jnp.float32)), y, rtol=0, atol=1e-6 * np.linalg.norm(X))  # 8·ε₃₂


def test_mlp_weights_have_variance_one_over_d_in():
    """The mean square of N = 20000 entries N(0, 1/50) is 1/50 within four standard errors √(2/N)/50 (chance 6·10⁻⁵).

    Fan-out would give 1/400, seven hundred standard errors away.
    """
    W = np.asarray(sd.base_and_forward(sd.MLP((50, 400), rngs=nnx.Rngs(0)))[0]["layers.0"])
    assert abs(50 * np.mean(W**2) - 1) < 4 * np.sqrt(2 / W.size)


@pytest.mark.parametrize("model", [sd.MLP((3, 5, 2), rngs=nnx.Rngs(2)), Nested(3)], ids=["mlp", "nested"])
def test_forward_at_the_base_weights_is_the_model(model):
    base, forward = sd.base_and_forward(model)
    assert np.array_equal(forward(base, X), model(X))


@pytest.mark.parametrize("model", [sd.MLP((3, 5, 2), rngs=nnx.Rngs(2)), Nested(3)], ids=["mlp", "nested"])
def test_forward_can_be_jitted(model):
    base, forward = sd.base_and_forward(model)
    size = [np.linalg.norm(W) for W in base.values()]
    assert np.allclose(jax.jit(forward)(base, X), model(X), rtol=0, atol=rounding(5, X, *size))


def test_base_finds_every_linear_layer_under_its_path():
    base, _ = sd.base_and_forward(Nested(3))
    shapes = {"body.layers.0.linear": (5, 3), "body.layers.2.linear": (2, 5), "head": (4, 2)}
    assert {name: W.shape for name, W in base.items()} == shapes


def test_forward_replaces_the_weights_and_freezes_the_rest():
    """Other weights, the model's own norms (mean 0, variance 1 + 10⁻⁶, no scale yet) and its biases, in NumPy."""
    model = Nested(3)
    base, forward = sd.base_and_forward(model)
    rng = np.random.default_rng(0)
    weights = {name: jnp.asarray(rng.standard_normal(W.shape)) for name, W in base.items()}
    before = model(X)

    y = np.asarray(X)
    for i in (0, 2):
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-6)
        block = model.body.layers[i]
        assert isinstance(block, Block)
        assert block.linear.bias is not None
        bias = np.asarray(block.linear.bias[...])
        assert np.all(bias != 0)
        y = y @ np.asarray(weights[f"body.layers.{i}.linear"]).T + bias
        y = silu(y) if i == 0 else y
    y = y @ np.asarray(weights["head"]).T

    size = [np.linalg.norm(W) for W in weights.values()]
    assert np.allclose(forward(weights, X), y, rtol=0, atol=rounding(5, X, *size))
    assert np.array_equal(model(X), before)


def test_forward_takes_a_subset_of_the_layers():
    model = Nested(3)
    base, forward = sd.base_and_forward(model)
    assert np.array_equal(forward({"head": 2 * base["head"]}, X), 2 * model(X))


def test_models_of_one_architecture_share_one_compilation():
    traced = []

    @jax.jit
    def loss(part, weights):
        traced.append(1)
        return part(weights)

    def squares(forward, weights):
        return jnp.sum(forward(weights, X) ** 2)

    for make in (Nested, lambda seed: sd.MLP((3, 5, 2), rngs=nnx.Rngs(seed))):
        traced.clear()
        pairs = [sd.base_and_forward(make(seed)) for seed in (1, 2)]
        structures = [jax.tree.structure(forward) for _, forward in pairs]
        assert structures[0] == structures[1]
        values = [float(loss(Partial(squares, forward), base)) for base, forward in pairs]
        assert values[0] != values[1]
        assert len(traced) == 1


def test_base_can_be_decomposed():
    """The bridge as it is meant to be used: adapters on a nested model with biases, a dict of ranks."""
    base, forward = sd.base_and_forward(Nested(3))
    adapters = sd.init_adapters(jax.random.key(0), base, {name: i + 1 for i, name in enumerate(base)})
    parts = sd.decompose(lambda weights: jnp.mean(forward(weights, X) ** 2), base, adapters, 0.5)
    assert parts.task.shape == (33, 33)
    J, H_drift = kronecker_jacobian(adapters, dict.fromkeys(base, 0.5)), parts.drift.dense()
    difference = parts.lora.dense() - parts.signal.dense() - H_drift
    assert np.linalg.norm(difference) <= rounding(33, J, parts.task.dense(), J) + rounding(33, H_drift)


@pytest.mark.parametrize("widths", [(), (3,), (3, 0, 2), (-1, 2)], ids=str)
def test_widths_that_make_no_network_are_named(widths):
    with rejects("widths", widths):
        sd.MLP(widths, rngs=nnx.Rngs(0))


def test_model_without_linear_layers_is_named():
    with rejects("model", "LayerNorm"):
        sd.base_and_forward(nnx.LayerNorm(3, rngs=nnx.Rngs(0)))


def test_weights_of_an_unknown_layer_are_named():
    base, forward = sd.base_and_forward(Nested(3))
    with rejects("weights", "'typo'"):
        forward({"typo": base["head"]}, X)


def test_weights_of_the_wrong_orientation_are_named():
    """Flax stores kernels as (d_in, d_out)."""
    base, forward = sd.base_and_forward(Nested(3))
    layer = next(name for name, W in base.items() if W.shape[0] != W.shape[1])
    with rejects(f"weights[{layer!r}]", base[layer].shape):
        forward({layer: base[layer].T}, X)
