"""Layers that nnx.vmap and nnx.scan stack along leading axes, against the loop and against flax's own gradient."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from problems import EPS, rejects

import signal_drift as sd

D = {"param_dtype": jnp.float64}
X = jax.random.normal(jax.random.key(0), (5, 3), jnp.float64)
KEYS = jax.random.split(jax.random.key(1), 2)


class Block(nnx.Module):
    """LayerNorm and two layers, 3 to 2 and back, of random biases."""

    def __init__(self, key):
        rngs, options = nnx.Rngs(key), {"bias_init": jax.nn.initializers.normal(), **D}
        self.norm = nnx.LayerNorm(3, rngs=rngs, **D)
        self.down = nnx.Linear(3, 2, rngs=rngs, **options)
        self.up = nnx.LinearGeneral(2, (3,), rngs=rngs, **options)

    def __call__(self, x):
        return x + self.up(jnp.tanh(self.down(self.norm(x))))


class Scanned(nnx.Module):
    def __init__(self):
        self.blocks, self.head = nnx.vmap(Block)(KEYS), nnx.Linear(3, 1, rngs=nnx.Rngs(2), **D)

    def __call__(self, x):
        run = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.blocks))


class Unrolled(nnx.Module):
    def __init__(self):
        self.blocks, self.head = nnx.List(Block(key) for key in KEYS), nnx.Linear(3, 1, rngs=nnx.Rngs(2), **D)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Ensemble(nnx.Module):
    """Two by two layers side by side, and their sum."""

    def __init__(self):
        keys = jax.random.split(jax.random.key(3), (2, 2))
        self.members = nnx.vmap(nnx.vmap(lambda key: nnx.Linear(3, 2, rngs=nnx.Rngs(key), **D)))(keys)

    def __call__(self, x):
        run = nnx.vmap(nnx.vmap(lambda m, x: jnp.tanh(m(x)), in_axes=(0, None)), in_axes=(0, None))
        return run(self.members, x).sum((0, 1))


scanned, unrolled = cache(Scanned), cache(Unrolled)


def unrolled_name(name):
    """The name of blocks.down.1 in the unrolled model: blocks.1.down."""
    first, *rest = name.split(".")
    return ".".join([first, *rest[::-1]])


def loss_of(forward):
    return lambda weights: jnp.mean(jnp.sin(forward(weights, X)))


def test_the_layers_of_a_scan_are_those_of_the_loop():
    base, _ = sd.base_and_forward(scanned(), example=X)
    others, _ = sd.base_and_forward(unrolled())
    assert sorted(base) == ["blocks.down.0", "blocks.down.1", "blocks.up.0", "blocks.up.1", "head"]
    for name, W in base.items():
        np.testing.assert_array_equal(W, others[unrolled_name(name)])


def test_the_hessian_of_the_scan_is_that_of_the_loop():
    """H_LoRA of the scan against jax.hessian of the loop, row by row under the names of its layers."""
    (base, forward), (others, other) = (sd.base_and_forward(model()) for model in (scanned, unrolled))
    draw = np.random.default_rng(0)
    theta = {
        k: sd.Adapter(*map(jnp.asarray, (draw.normal(size=(1, n)), draw.normal(size=(m, 1)))))
        for k, (m, n) in ((k, W.shape) for k, W in base.items())
    }
    ours = np.asarray(sd.decompose(loss_of(forward), base, theta, 0.5).lora.dense())
    flat, back = ravel_pytree({unrolled_name(k): pair for k, pair in theta.items()})
    loop = loss_of(other)
    theirs = np.asarray(jax.jit(jax.hessian(lambda v: loop(sd.effective_weights(others, back(v), 0.5))))(flat))
    numbers = back(jnp.arange(float(len(flat))))
    rows = np.concatenate([np.concatenate([x.ravel() for x in numbers[unrolled_name(k)]]) for k in sorted(base)])
    theirs = theirs[np.ix_(rows.astype(int), rows.astype(int))]
    assert np.max(np.abs(ours - theirs)) < 1e4 * EPS * np.max(np.abs(theirs))
    assert np.any(rows != np.arange(len(rows)))


def test_gradient_is_that_of_nnx_layer_by_layer():
    model = Ensemble()
    base, forward = sd.base_and_forward(model, example=X)
    assert list(base) == ["members.0.0", "members.0.1", "members.1.0", "members.1.1"]
    gradient = jax.jit(jax.grad(loss_of(forward)))(base)
    theirs = nnx.jit(nnx.grad(lambda model: jnp.mean(jnp.sin(model(X)))))(model)
    for name, G in gradient.items():
        steps = name.split(".")
        path, index = [s for s in steps if not s.isdecimal()], tuple(int(s) for s in steps if s.isdecimal())
        kernel = theirs
        for step in path:
            kernel = kernel[step]
        wanted = np.asarray(kernel["kernel"][...])[index].T
        np.testing.assert_allclose(G, wanted, rtol=0, atol=1e3 * EPS * (1 + np.max(np.abs(wanted))))
        assert np.max(np.abs(G)) > 1e-6


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ("blocks.*", ["blocks.down.0", "blocks.down.1", "blocks.up.0", "blocks.up.1"]),
        ("*.1", ["blocks.down.1", "blocks.up.1"]),
        ("blocks.up.0", ["blocks.up.0"]),
        (lambda name, module: isinstance(module, nnx.LinearGeneral) and name.endswith("0"), ["blocks.up.0"]),
    ],
    ids=["block", "place", "layer", "function"],
)
def test_layers_of_a_stack_are_selected_one_by_one(layers, wanted):
    assert sorted(sd.base_and_forward(scanned(), layers)[0]) == wanted


def test_a_layer_of_a_stack_is_replaced_and_no_other():
    base, forward = sd.base_and_forward(scanned(), "blocks.up.1")
    model = nnx.clone(scanned())
    model.blocks.up.kernel[...] = model.blocks.up.kernel[...].at[1].add(1)
    moved = forward({"blocks.up.1": base["blocks.up.1"] + 1}, X)
    np.testing.assert_allclose(moved, nnx.jit(lambda m: m(X))(model), rtol=0, atol=100 * EPS)
    assert np.max(np.abs(moved - forward(base, X))) > 0.1


class Aside(nnx.Module):
    """Two layers stacked along the last axis of a kernel."""

    def __init__(self, width):
        def make(key):
            return nnx.Linear(width, width, use_bias=False, rngs=nnx.Rngs(key), **D)

        self.layers = nnx.vmap(make, out_axes=2)(KEYS)

    def __call__(self, x):
        return nnx.vmap(lambda layer, x: layer(x), in_axes=(2, None))(self.layers, x)


def test_another_axis_than_the_first_is_refused():
    """From its shape where that tells, from its use where all axes are as long."""
    with rejects("layers", "'layers' (Linear)", "(3, 3, 2)", "(3, 3)", "leading axes"):
        sd.base_and_forward(Aside(3), "layers")
    with rejects("model", "'layers.0'", "layers.kernel", "(2, 2, 2)"):
        sd.base_and_forward(Aside(2), example=X[:, :2])


def test_what_is_no_matrix_is_said_and_a_stack_of_norms_is_not():
    class Mixed(nnx.Module):
        def __init__(self):
            self.blocks, self.conv = nnx.vmap(Block)(KEYS), nnx.Conv(3, 4, (2,), rngs=nnx.Rngs(0))
            self.words, self.own = nnx.Embed(7, 3, rngs=nnx.Rngs(0)), nnx.Param(jnp.ones((3, 2)))

    base, forward = sd.base_and_forward(Mixed())
    assert sorted(base) == ["blocks.down.0", "blocks.down.1", "blocks.up.0", "blocks.up.1"]
    lines = [line.split() for line in repr(forward).splitlines()]
    assert "`equations`" in lines[1]
    assert sorted(lines[2:]) == [
        ["conv.kernel", "2×3×4", "Conv"],
        ["own", "3×2", "Mixed"],
        ["words.embedding", "7×3", "Embed"],
    ]
    assert len(repr(sd.base_and_forward(scanned(), "head")[1]).splitlines()) == 1
