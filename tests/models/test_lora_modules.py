"""nnx.LoRA modules as (base, adapters, forward): flax's own output and gradient, and what is no such adapter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import EPS, rejects

import signal_drift as sd

D = {"param_dtype": jnp.float64}
NORMAL = jax.nn.initializers.normal(0.5)
X = jax.random.normal(jax.random.key(0), (5, 4), jnp.float64)


class Adapted(nnx.Module):
    """Both of flax's forms of LoRA, with and without a module inside, and a frozen layer."""

    def __init__(self, b_initializer=NORMAL):
        rngs, options = nnx.Rngs(7), {"b_initializer": b_initializer, "rngs": nnx.Rngs(8)}
        self.around = nnx.LoRA(4, 2, 3, base_module=nnx.Linear(4, 3, bias_init=NORMAL, rngs=rngs, **D), **options, **D)
        self.inside = nnx.LoRALinear(3, 5, lora_rank=3, lora_param_dtype=jnp.float64, rngs=rngs, **D)
        self.inside.lora.lora_b[...] = b_initializer(jax.random.key(0), (3, 5), jnp.float64)
        self.alone, self.frozen = nnx.LoRA(5, 1, 2, **options, **D), nnx.Linear(5, 2, rngs=rngs, **D)

    def __call__(self, x):
        x = jnp.tanh(self.inside(jnp.tanh(self.around(x))))
        return self.alone(x) + self.frozen(x)


def test_lora_modules_become_base_and_adapters():
    model = Adapted()
    base, adapters, s, forward = sd.lora_and_forward(model)
    assert {k: (W.shape, len(adapters[k].A)) for k, W in base.items()} == {
        "around.base_module": ((3, 4), 2),
        "inside": ((5, 3), 3),
        "alone.base_module": ((2, 5), 1),
    }
    weights = sd.effective_weights(base, adapters, s)
    difference = forward(weights, X) - model(X)
    assert np.max(np.abs(difference)) < 100 * EPS
    assert np.max(np.abs(forward(base, X) - model(X))) > 0.01
    assert np.all(base["alone.base_module"] == 0)
    A = np.asarray(adapters["around.base_module"].A)
    np.testing.assert_array_equal(A, np.asarray(model.around.lora_a[...]).T)


def test_gradient_of_converted_adapters_is_that_of_nnx():
    model = Adapted()
    base, adapters, s, forward = sd.lora_and_forward(model)
    ours = jax.jit(jax.grad(lambda theta: jnp.sum(jnp.sin(forward(sd.effective_weights(base, theta, s), X)))))(adapters)
    theirs = nnx.jit(nnx.grad(lambda m: jnp.sum(jnp.sin(m(X))), argnums=nnx.DiffState(0, nnx.LoRAParam)))(model)
    pairs = {
        "around.base_module": theirs["around"],
        "inside": theirs["inside"]["lora"],
        "alone.base_module": theirs["alone"],
    }
    for name, flax in pairs.items():
        np.testing.assert_allclose(ours[name].A, flax["lora_a"][...].T, rtol=0, atol=1e3 * EPS)
        np.testing.assert_allclose(ours[name].B, flax["lora_b"][...].T, rtol=0, atol=1e3 * EPS)
        assert np.max(np.abs(ours[name].B)) > 0.01


def test_base_and_forward_leaves_lora_modules_as_they_are():
    model = Adapted()
    base, forward = sd.base_and_forward(model)
    assert sorted(base) == ["around.base_module", "frozen", "inside"]
    np.testing.assert_array_equal(forward(base, X), model(X))


class Chain(nnx.Module):
    def __init__(self, *steps):
        self.steps = nnx.List(steps)

    def __call__(self, x):
        for step in self.steps:
            x = step(x)
        return x


def linear(d_in=4, d_out=4, **options):
    return nnx.Linear(d_in, d_out, rngs=nnx.Rngs(1), **D | options)


def lora(base=None, d_in=4, d_out=4, kind=nnx.LoRA, **options):
    return kind(d_in, 2, d_out, base_module=base, b_initializer=NORMAL, rngs=nnx.Rngs(2), **D | options)


def lora_linear(kind=nnx.LoRALinear, **options):
    rank = {"lora_rank": 2, "b_initializer": NORMAL, "lora_param_dtype": jnp.float64}
    return kind(4, 4, rngs=nnx.Rngs(3), **rank | D | options)


class Scaled(nnx.LoRALinear):
    """α/r = 8, by a subclass."""

    def __call__(self, x, out_sharding=None):
        return nnx.Linear.__call__(self, x) + 8 * self.lora(x)


class ScaledLoRA(nnx.LoRA):
    def __call__(self, x, **options):
        assert self.base_module is not None
        return self.base_module(x) + 0.25 * (x @ self.lora_a[...] @ self.lora_b[...])


class Gated(nnx.LoRALinear):
    """Nonlinear within the rank, as some of LoRA's relatives are."""

    def __call__(self, x, out_sharding=None):
        return nnx.Linear.__call__(self, x) + jnp.tanh(x @ self.lora.lora_a[...]) @ self.lora.lora_b[...]


class Normed(nnx.LoRALinear):
    """The magnitude of W₀ + BA is its own, as in DoRA."""

    def __call__(self, x, out_sharding=None):
        W = self.kernel[...] + self.lora.lora_a[...] @ self.lora.lora_b[...]
        return x @ (W / jnp.linalg.norm(W, axis=0))


class ScaledBase(nnx.Linear):
    def __call__(self, inputs, out_sharding=None):
        return 2 * super().__call__(inputs)


class Parts(nnx.Module):
    """`run(self, x)` of modules by name."""

    def __init__(self, run, **modules):
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def __call__(self, x):
        return self.run(self, x)


def shared(make):
    """Two modules, each made of one and the same part, and their sum."""
    part = linear()
    return Parts(lambda m, x: m.a(x) + m.b(x), a=make(part), b=make(part))


def one_factor():
    model: Any = Parts(lambda m, x: m.b(m.a(x)), a=lora(linear()), b=lora(linear()))
    model.b.lora_a = model.a.lora_a
    return model


def inner_twice():
    model: Any = Parts(lambda m, x: m.a(x) + m.b(x), a=lora_linear())
    model.b = model.a.lora
    return model


def around_and_alone():
    base = linear()
    return Parts(lambda m, x: m.a(x) + m.bare(x), a=lora(base), bare=base)


class OwnLoRA(nnx.Module):
    def __init__(self):
        self.down, self.up = nnx.LoRAParam(jnp.ones((4, 1))), nnx.LoRAParam(jnp.ones((1, 4)))

    def __call__(self, x):
        return x @ self.down[...] @ self.up[...]


REFUSED = {
    "no LoRA": (lambda: Chain(linear()), ["no nnx.LoRA", "Chain"]),
    "around a network": (lambda: lora(Chain(linear())), ["around Chain"]),
    "around three axes": (
        lambda: lora(nnx.LinearGeneral(4, (2, 3), rngs=nnx.Rngs(0)), d_out=6),
        ["around LinearGeneral", "(4, 2, 3)"],
    ),
    "two adapters on one base": (lambda: shared(lora), ["'a.base_module'", "'b.base_module'"]),
    "a base that is used without its adapter": (around_and_alone, ["'a.base_module'", "'bare'"]),
    "one lora_a in two adapters": (one_factor, ["'a.lora_a'", "'b.lora_a'"]),
    "the LoRA of a LoRALinear elsewhere": (inner_twice, ["'a.lora'", "'b'"]),
    "LoRALinear with α/r": (lambda: Chain(lora_linear(Scaled)), ["'steps.0' (Scaled)", "lora_b", "s is 1"]),
    "LoRA with α/r": (lambda: lora(linear(), kind=ScaledLoRA), ["'base_module' (ScaledLoRA)", "lora_b"]),
    "nonlinear": (lambda: Chain(lora_linear(Gated)), ["'steps.0' (Gated)", "lora_b"]),
    "magnitude of its own": (lambda: Chain(lora_linear(Normed)), ["'steps.0' (Normed)", "lora_b"]),
    "a base with a scale": (lambda: lora(ScaledBase(4, 4, rngs=nnx.Rngs(0), **D)), ["'base_module' (ScaledBase)"]),
    "parameters of LoRA in another module": (
        lambda: Chain(lora_linear(), OwnLoRA()),
        ["'steps.1.down'", "nnx.LoRAParam outside"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_is_no_own_product_is_named(case):
    make, words = REFUSED[case]
    with rejects("model", *words):
        sd.lora_and_forward(make())


PAST = {
    "the kernel": lambda m, x: m.one(x) @ m.other.kernel[...] + m.other(x),
    "the base": lambda m, x: m.one.base_module(x) + m.one(x) + m.other(x),
    "the factors": lambda m, x: m.one(x) + m.other(x) @ m.other.lora.lora_a[...] @ m.other.lora.lora_b[...],
}


@pytest.mark.parametrize("case", PAST)
def test_a_use_past_the_adapter_is_found_on_an_example(case):
    """The first two of three layers are what they should be; the name is that of the third, or of the base."""
    model = Parts(PAST[case], one=lora(linear()), other=lora_linear())
    sd.lora_and_forward(model)
    wrong, right = ("one.base_module", "other") if case == "the base" else ("other", "one.base_module")
    with rejects("model", "`example`", f"['{wrong}']") as caught:
        sd.lora_and_forward(model, example=X)
    assert repr(right) not in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16], ids=["float64", "bfloat16"])
def test_an_example_that_agrees_is_no_case(dtype):
    """Through a norm, which makes small differences large."""
    options = {"param_dtype": dtype}
    norm = nnx.LayerNorm(4, rngs=nnx.Rngs(0), **options)
    model = Chain(lora(linear(**options), **options), norm, lora_linear(lora_param_dtype=dtype, **options))
    sd.lora_and_forward(model, example=jax.ShapeDtypeStruct((5, 4), dtype))


@pytest.mark.parametrize(("base_dtype", "dtype"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float64)])
def test_a_wider_adapter_keeps_its_numbers(base_dtype, dtype):
    """Its digits beyond the base's dtype are there, and forward keeps those of W₀ + BA as the model does."""
    model = lora_linear(param_dtype=base_dtype, lora_param_dtype=dtype)
    base, adapters, s, forward = sd.lora_and_forward(model)
    A, B = adapters[""]
    np.testing.assert_array_equal(A, np.asarray(model.lora.lora_a[...]).T)
    np.testing.assert_array_equal(B, np.asarray(model.lora.lora_b[...]).T)
    np.testing.assert_array_equal(base[""], np.asarray(model.kernel[...]).T.astype(dtype))
    assert {x.dtype for x in (A, B, base[""])} == {jnp.dtype(dtype)}
    x = X.astype(dtype)
    difference = forward(sd.effective_weights(base, adapters, s), x) - model(x)
    assert np.max(np.abs(difference)) < 100 * float(jnp.finfo(dtype).eps)


def test_a_wider_base_keeps_its_numbers():
    model = lora_linear(lora_param_dtype=jnp.float32)
    base, adapters, *_ = sd.lora_and_forward(model)
    np.testing.assert_array_equal(base[""], model.kernel[...].T)
    np.testing.assert_array_equal(adapters[""].A, np.asarray(model.lora.lora_a[...], np.float64).T)


class Stacked(nnx.Module):
    """Three layers with adapters in a scan: LoRALinear, LoRA around a layer, LoRA alone."""

    def __init__(self):
        def block(key):
            rngs = nnx.Rngs(key)
            options = {"b_initializer": NORMAL, "rngs": rngs}
            inside = nnx.LoRALinear(4, 4, lora_rank=2, lora_param_dtype=jnp.float64, **options, **D)
            around = nnx.LoRA(4, 1, 4, base_module=nnx.Linear(4, 4, rngs=rngs, **D), **options, **D)
            return Chain(inside, around, nnx.LoRA(4, 2, 4, **options, **D))

        self.blocks = nnx.vmap(block)(jax.random.split(jax.random.key(4), 2))

    def __call__(self, x):
        run = nnx.scan(lambda x, block: jnp.tanh(block(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return run(x, self.blocks)


def test_stacked_adapters_are_adapters_layer_by_layer():
    """Names, the model's own output, and nnx.grad in every lora_b."""
    model = Stacked()
    base, adapters, s, forward = sd.lora_and_forward(model)
    names = {f"blocks.steps.{step}.{i}": step for step in ("0", "1.base_module", "2.base_module") for i in range(2)}
    assert base.keys() == adapters.keys() == names.keys()

    @jax.jit
    def ours(theta):
        y = forward(sd.effective_weights(base, theta, s), X)
        return jnp.mean(jnp.sin(y)), y

    gradient, y = jax.grad(ours, has_aux=True)(adapters)

    def loss(model):
        y = model(X)
        return jnp.mean(jnp.sin(y)), y

    theirs, wanted = nnx.jit(nnx.grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam), has_aux=True))(model)
    assert np.max(np.abs(y - wanted)) < 100 * EPS
    for name, step in names.items():
        flax = theirs["blocks"]["steps"][int(step[0])]
        flax = flax["lora"] if step == "0" else flax
        np.testing.assert_allclose(gradient[name].B, flax["lora_b"][...][int(name[-1])].T, rtol=0, atol=1e3 * EPS)
        assert np.max(np.abs(gradient[name].B)) > 1e-4


def test_one_base_for_a_stack_of_adapters_is_refused():
    """A layer that all members of a stack share, each with an adapter of its own."""
    keys = jax.random.split(jax.random.key(5), 2)
    model = nnx.vmap(lambda key: nnx.LoRA(4, 2, 4, b_initializer=NORMAL, rngs=nnx.Rngs(key), **D))(keys)
    model.base_module = nnx.data(linear())
    with rejects("model", "2 layers stacked", "(4, 4)"):
        sd.lora_and_forward(model)
