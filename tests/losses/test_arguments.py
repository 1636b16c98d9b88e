"""Mistakes that a first notebook makes: each is one line that names the argument and what to do instead."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.core import Tracer
from problems import rejects

import signal_drift as sd
from signal_drift import InputError
from signal_drift.losses.arguments import check_loss, check_value
from signal_drift.propositions import Instance

BASE = {"in": jnp.ones((4, 3)), "out": jnp.ones((2, 4))}
THETA = sd.init_adapters(jax.random.key(0), BASE, 2)
X = jnp.ones((5, 3))


def outputs(weights: Any) -> jax.Array:
    return X @ weights["in"].T @ weights["out"].T


def loss(weights: Any) -> jax.Array:
    return jnp.mean(outputs(weights) ** 2)


LOSSES: dict[str, tuple[Any, str]] = {
    "vector": (outputs, r"loss: must return a scalar, got the shape \(5, 2\); take the mean or the sum"),
    "several": (lambda w: (loss(w), outputs(w)), "loss: must return a scalar, got a tuple; is it the first of several"),
    "nothing": (lambda w: None, "loss: must return a scalar, got None; is a return missing"),
    "integer": (lambda w: jnp.sum(outputs(w) > 0), "loss: must return a real number to differentiate, got int"),
    "complex": (lambda w: loss(w) + 0j, "loss: must return a real number to differentiate, got complex"),
    "unknown layer": (lambda w: jnp.sum(w["mid"]), r"loss: asks for 'mid', but the layers are \['in', 'out'\]"),
    "unknown layer within jit": (jax.jit(lambda w: jnp.sum(w["mid"])), r"loss: asks for 'mid', but the layers are"),
    "unknown layer within map": (
        lambda w: jnp.sum(jax.tree.map(jnp.sin, w)["mid"]),
        r"loss: asks for 'mid', but the layers are",
    ),
    "numpy": (lambda w: np.sum(np.asarray(w["in"])), "loss: must be traceable: jax.numpy instead of numpy"),
    "float": (lambda w: jnp.float64(float(loss(w))), "loss: must be traceable: jax.numpy instead of numpy, float"),
    "if": (lambda w: loss(w) if loss(w) > 0 else -loss(w), "loss: must be traceable"),
    "transposes": (
        lambda w: jnp.mean(X @ w["in"] @ w["out"]),
        r"loss: takes only the transposes of the weights \{'in': \(4, 3\), 'out': .*\}; a weight is \(d_out, d_in\)",
    ),
}


@pytest.mark.parametrize(("wrong", "message"), LOSSES.values(), ids=LOSSES)
def test_a_loss_that_is_none_is_refused_with_the_mend(wrong: Any, message: str) -> None:
    for call in (
        lambda: check_loss(wrong, BASE),
        lambda: sd.decompose(wrong, BASE, THETA, 1.0),
        lambda: sd.train(wrong, BASE, THETA, 1.0, optax.sgd(0.1), 2),
    ):
        with rejects("loss: ") as caught:
            call()
        assert re.match(message, str(caught.value))


def test_a_loss_must_be_a_function() -> None:
    nothing: Any = 3.0
    with rejects("loss: must be a function", "got float"):
        sd.decompose(nothing, BASE, THETA, 1.0)
    with rejects("criterion: must be a function", "got float"):
        sd.composite(outputs, nothing)


def test_a_loss_that_is_not_finite_is_refused_but_not_under_jit() -> None:
    with pytest.raises(InputError, match="loss: must be finite at the effective weights, got nan"):
        check_value(lambda w: loss(w) * jnp.nan, BASE)
    jax.jit(lambda W: [check_value(lambda w: loss(w) * jnp.nan, W), W][1])(BASE)


class Shuffled:
    """Batches of fresh random numbers, as augmentation draws them."""

    rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> np.ndarray:
        return self.rng.standard_normal((5, 3))


def noisy(w: Any) -> jax.Array:
    return loss(w) + float(Shuffled.rng.standard_normal())


def undefined_at_times(w: Any) -> jax.Array:
    CALLED.append(1)
    return loss(w) * (jnp.nan if len(CALLED) % 2 else 1.0)


CALLED: list[int] = []
RANDOM: dict[str, tuple[Any, str]] = {
    "augmentation": (sd.mean_over_batches(lambda w, x: jnp.mean(x @ w["in"].T), Shuffled()), "lambda"),
    "noise": (noisy, "noisy"),
    "noise within composite": (sd.composite(noisy, lambda y: y**2), "noisy"),
    "noise in numpy": (
        lambda w: loss(w) * jax.pure_callback(Shuffled.rng.random, jax.ShapeDtypeStruct((), np.float64)),
        "lambda",
    ),
    "NaN at one of two calls": (undefined_at_times, "undefined_at_times"),
}


@pytest.mark.parametrize(("wrong", "name"), RANDOM.values(), ids=RANDOM)
def test_a_loss_that_differs_between_two_calls_is_refused(wrong: Any, name: str) -> None:
    s: Any = 1.0
    for call in (
        lambda: sd.decompose(wrong, BASE, THETA, s),
        lambda: Instance(wrong, BASE, THETA, s, THETA).parts,
        lambda: sd.decompose_layer(wrong, BASE, THETA, s, "in"),
    ):
        with rejects("loss: must be a function of the weights, but two calls", name) as caught:
            call()
        numbers = re.findall(r"gave (\S+) and (\S+);", str(caught.value))[0]
        assert numbers[0] != numbers[1]


def test_a_loss_is_called_twice_and_may_add_in_another_order() -> None:
    """The roundings of another order of addition are allowed, a change in the tenth digit is not."""
    for change, refused in ((1e-14, False), (1e-10, True)):
        calls: list[int] = []

        def reordered(w: Any, calls: list[int] = calls, change: float = change) -> jax.Array:
            if not isinstance(w["in"], Tracer):
                calls.append(1)
            return loss(w) * (1 + change * len(calls))

        if refused:
            with rejects("loss: must be a function of the weights"):
                check_value(reordered, BASE)
        else:
            check_value(reordered, BASE)
        assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "function"),
    [
        (KeyError, lambda w: {}["in"]),
        (KeyError, lambda w: jnp.sum(X @ w["in"].T) + {"image": 1.0}["img"]),
        (KeyError, jax.jit(lambda w: jnp.sum(X @ w["in"].T) + {"image": 1.0}["img"])),
        (KeyError, lambda w: w.get("mid", 0.0) + {"image": 1.0}["mid"]),
        (KeyError, lambda w: w["in"] + {"mid": 2}["in"]),
        (TypeError, lambda w: X @ jnp.ones((7, 7))),
        (ZeroDivisionError, lambda w: 1 / 0),
    ],
)
def test_an_error_of_the_loss_itself_is_passed_on(error: type[Exception], function: Callable) -> None:
    with pytest.raises(error) as caught:
        check_loss(function, BASE)
    assert not isinstance(caught.value, InputError)


def test_square_weights_cannot_tell_an_orientation() -> None:
    """Both fit; nothing is refused that can be evaluated."""
    check_loss(lambda w: jnp.sum(X @ w["W"]), {"W": jnp.ones((3, 3))})


UNTYPED: Any = sd
MODEL: Any = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a seed for a key": (
        lambda: UNTYPED.init_adapters(0, BASE, 2),
        r"key: must come from jax.random.key\(seed\), got 0",
    ),
    "a model for its weights": (
        lambda: UNTYPED.init_adapters(jax.random.key(0), MODEL, 2),
        r"base: must be a dict of matrices, as of base_and_forward\(model\), got Linear",
    ),
    "a Param for its value": (
        lambda: UNTYPED.init_adapters(jax.random.key(0), {"W": MODEL.kernel}, 2),
        r"base\['W'\]: must be an array, got Param; of an nnx kernel, kernel\[...\].T",
    ),
    "integers": (
        lambda: UNTYPED.init_adapters(jax.random.key(0), {"W": jnp.ones((2, 2), int)}, 2),
        r"base\['W'\]: must be of a floating dtype, got int",
    ),
    "arguments exchanged": (
        lambda: UNTYPED.decompose(loss, THETA, BASE, 1.0),
        r"base\['in'\]: must be an array, got Adapter",
    ),
    "no adapters": (
        lambda: UNTYPED.decompose(loss, BASE, None, 1.0),
        r"adapters: must be a dict of Adapter\(A, B\), got None",
    ),
    "matrices for adapters": (
        lambda: UNTYPED.decompose_update(THETA, BASE, 1.0),
        r"delta\['in'\]: must be an Adapter\(A, B\), got Array",
    ),
    "a rate for an optimizer": (
        lambda: UNTYPED.train(loss, BASE, THETA, 1.0, 1e-3, 2),
        r"optimizer: must be one of optax, as optax.adam\(1e-3\), got 0.001",
    ),
    "half a step": (
        lambda: UNTYPED.train(loss, BASE, THETA, 1.0, optax.sgd(0.1), 2.5),
        "steps: must be a whole number",
    ),
    "weights for a model": (lambda: UNTYPED.base_and_forward(BASE), "model: must be a flax.nnx module, got dict"),
    "all operators for one": (
        lambda: UNTYPED.eigenvalues(sd.decompose(loss, BASE, THETA, 1.0)),
        r"op: must be a symmetric operator of decompose \(parts.lora for one\) or a matrix, got Decomposition",
    ),
    "the Jacobian": (
        lambda: UNTYPED.trace(sd.decompose(loss, BASE, THETA, 1.0).jacobian),
        r"op: must be a symmetric operator .* got LinearOperator of shape \(20, 26\)",
    ),
    "a matrix for an operator": (
        lambda: UNTYPED.extreme_eigenvalues(jnp.eye(3)),
        "op: must be a symmetric operator of decompose, got Array.*sd.eigenvalues takes a matrix",
    ),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_early_mistakes_name_the_argument_and_the_mend(call: Callable[[], Any], message: str) -> None:
    with rejects(message[:3]) as caught:
        call()
    assert re.match(message, str(caught.value))


def test_forgetting_float64_is_told_with_the_command() -> None:
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (BASE, THETA))
    with pytest.raises(TypeError, match=r"float32, .* needs float64; call jax.config.update\('jax_enable_x64', True\)"):
        UNTYPED.eigenvalues(UNTYPED.decompose(loss, *single, 1.0).lora)
