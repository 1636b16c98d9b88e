"""No public function answers a wrong argument with an error that is not meant for its reader.

Each is called as it should be, but for one argument that hypothesis replaces: by what is wrong everywhere (None, a
string, an object, NaN, …) or by a right one that was spoiled (a layer too few, another's name, another shape or
dtype). What may come back is a result, an `InputError` of one line that names an argument, or a `TypeError`.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import signal_drift as sd
from signal_drift import maps
from signal_drift.hessians import composed_loss, criterion_curvature
from signal_drift.lora import lora_ga_adapters, milora_adapters, olora_adapters, pissa_adapters
from signal_drift.losses import outputs_and_criterion
from signal_drift.propositions import Instance
from signal_drift.spectra import structure

KEY = jax.random.key(0)
BASE = {"a": jnp.eye(2, 3), "b": jnp.ones((2, 2))}
THETA = {k: sd.Adapter(jnp.ones((1, W.shape[1])) / 2, jnp.ones((2, 1)) / 3) for k, W in BASE.items()}
X, SCALES = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), {"a": 0.5, "b": 2.0}


def outputs(weights: Any) -> jax.Array:
    return X @ weights["a"].T @ weights["b"].T


def square(y: Any) -> jax.Array:
    return jnp.sum(y**2)


LOSS = sd.composite(outputs, square)
POINT = {"loss": LOSS, "base": BASE, "adapters": THETA, "scaling": 0.5}
PARTS = sd.decompose(**POINT)
MESH = jax.make_mesh((1,), ("x",))
MAP = {"adapters": THETA, "scaling": SCALES}

CALLS: dict[str, tuple[Callable, dict[str, Any]]] = {
    "MLP": (sd.MLP, {"widths": (3, 2), "rngs": nnx.Rngs(0)}),
    "adjoint_product": (sd.adjoint_product, MAP | {"V": BASE}),
    "alignment": (sd.alignment, {"update": BASE, "gradient": BASE}),
    "alpha_base": (sd.alpha_base, {"rank": 2, "sigma_a": 0.5}),
    "composite": (sd.composite, {"outputs": outputs, "criterion": square}),
    "critical_sharpness": (
        sd.critical_sharpness,
        {"loss": LOSS, "point": BASE, "update": jax.tree.map(jnp.negative, BASE), "tolerance": 1e-3},
    ),
    "decompose": (sd.decompose, POINT),
    "decompose_layer": (sd.decompose_layer, POINT | {"layer": "a"}),
    "decompose_map": (
        sd.decompose_map,
        {"loss": LOSS, "base": BASE, "theta": THETA, "adapter_map": {k: maps.lora(s) for k, s in SCALES.items()}},
    ),
    "decompose_update": (sd.decompose_update, MAP | {"delta": THETA}),
    "effective_weights": (sd.effective_weights, MAP | {"base": BASE}),
    "eigenvalues": (sd.eigenvalues, {"op": np.eye(3)}),
    "empirical_alpha_base": (sd.empirical_alpha_base, {"rank": 2, "coefficient": 256.0}),
    "estimate_trace": (sd.estimate_trace, {"op": PARTS.drift, "probes": 6, "key": KEY}),
    "exact_attention": (sd.exact_attention, dict.fromkeys(("query", "key", "value"), jnp.ones((2, 1, 3)))),
    "extreme_eigenvalues": (
        sd.extreme_eigenvalues,
        {"op": PARTS.drift, "k": 1, "which": "both", "key": KEY, "tolerance": 1e-9, "max_products": 50},
    ),
    "gauss_newton": (sd.gauss_newton, POINT),
    "init_adapters": (sd.init_adapters, {"key": KEY, "base": BASE, "rank": {"a": 1, "b": 2}}),
    "jacobian_product": (sd.jacobian_product, MAP | {"delta": THETA}),
    "kaiming_sigma": (sd.kaiming_sigma, {"d_in": 3}),
    "layer_views": (sd.layer_views, {"parts": PARTS, "adapters": THETA, "sigma_a": SCALES}),
    "mean_over_batches": (sd.mean_over_batches, {"loss_on_batch": lambda w, x: square(x), "batches": [X, X]}),
    "frozen_A": (sd.frozen_A, {"optimizer": optax.sgd(0.1)}),
    "one_factor_at_a_time": (sd.one_factor_at_a_time, {"optimizer": optax.sgd(0.1)}),
    "pad_rank": (sd.pad_rank, {"adapters": THETA, "rank": 2}),
    "separate_rates": (sd.separate_rates, {"for_A": optax.sgd(0.1), "for_B": optax.sgd(0.2)}),
    "shard_columns": (sd.shard_columns, {"operators": PARTS, "mesh": MESH, "axis": "x"}),
    "shard_data": (sd.shard_data, {"data": {"X": X}, "mesh": MESH, "axis": "x"}),
    "spectral_density": (sd.spectral_density, {"op": PARTS.drift, "probes": 2, "steps": 2, "key": KEY}),
    "trace": (sd.trace, {"op": np.eye(3)}),
    "train": (
        sd.train,
        POINT
        | {"optimizer": optax.sgd(0.1), "steps": 2, "batches": None, "drift": 0.5, "record": lambda step: step.loss},
    ),
    "train in full": (sd.train, POINT | {"adapters": None, "optimizer": optax.sgd(0.1), "steps": 2}),
    "composed_loss": (composed_loss, POINT | {"scaling": SCALES}),
    "criterion_curvature": (criterion_curvature, POINT),
    "outputs_and_criterion": (outputs_and_criterion, {"loss": LOSS}),
    "@": (PARTS.drift.__matmul__, {"v": jnp.ones(9)}),
    "lora_ga_adapters": (
        lora_ga_adapters,
        {"base": BASE, "gradient": BASE, "rank": 1, "scaling": SCALES, "gamma": 16.0},
    ),
    "milora_adapters": (milora_adapters, {"base": BASE, "rank": 2, "scaling": SCALES}),
    "olora_adapters": (olora_adapters, {"base": BASE, "rank": 2, "scaling": SCALES}),
    "pissa_adapters": (pissa_adapters, {"base": BASE, "rank": 2, "scaling": SCALES}),
    **{f.__name__: (f, {"scaling": 0.5}) for f in (maps.dora, maps.loha, maps.lokr, maps.lora)},
    "rslora": (maps.rslora, {"alpha": 0.5}),
    "lora_fa": (maps.lora_fa, {"A": THETA["a"].A, "scaling": 0.5}),
    "vera": (maps.vera, THETA["a"]._asdict()),
    "structure": (structure, {"drift": np.eye(3)}),
    "Instance": (lambda **x: Instance(**x).parts, POINT | {"delta": THETA}),
}
ELSEWHERE = {"base_and_forward", "lora_and_forward", "kaiming_uniform", "normal_fan_in", "ia3", "mora"}
"""Functions of a model, tested with them; initialisers, which are JAX's own; and maps, which `decompose_map` calls."""

NOTHING: Any = None
WRONG: list[Any] = [
    *(None, "", "a", "both", b"\0", "\x1b[31m", -1, 0, 0.5, -0.0, True, 1j, 10**30, -(10**30), 2**70),
    *(
        float("inf"),
        float("-inf"),
        float("nan"),
        np.float32(2),
        np.int8(-3),
        jnp.zeros(()),
        KEY,
        jnp.zeros(2, jnp.uint32),
    ),
    *(
        (),
        [],
        {},
        set(),
        frozenset({"a"}),
        range(3),
        iter([1]),
        [[1, 2], [3, 4]],
        [X, None],
        [X, {"x": X}],
        slice(None),
    ),
    *(object(), object, Ellipsis, Exception("x"), len, lambda *x: None, lambda x: jnp.zeros((2, 2))),
    *(optax.sgd, optax.sgd(0.1), MESH, PARTS, PARTS.jacobian),
    *(np.array("x"), np.array([None]), np.eye(3, dtype=complex), np.zeros((0, 0)), np.full((3, 3), np.nan)),
    *(np.ones((2, 3)), jnp.ones((3, 3), jnp.bfloat16), jnp.ones((3, 3), int), jnp.ones((1, 2, 2))),
    *({"a": 1.0}, {"a": None, "b": "x"}, {"a": float("nan"), "b": -1.0}, {1: 2.0, "a": 1.0}, {"typo": 1.0}),
    *(BASE, THETA, {"a": THETA["a"]}, {**BASE, "c": jnp.ones((2, 2))}, {k: tuple(v) for k, v in THETA.items()}),
    {k: sd.Adapter(*[NOTHING] * 2) for k in THETA},
]


def spoiled(right: Any) -> list[Any]:
    """A right argument with a mistake in it."""
    if isinstance(right, Mapping):
        layer, *_ = right
        inner = [
            {**right, layer: wrong} for wrong in (None, "x", -1, float("nan"), jnp.ones(3), *spoiled(right[layer]))
        ]
        return [*inner, {k: v for k, v in right.items() if k != layer}, {**right, 0: right[layer]}, list(right.items())]
    if isinstance(right, sd.Adapter):
        changed = [f(x) for x in right for f in (jnp.transpose, jnp.ravel, lambda x: x.astype(int), lambda x: x[:0])]
        return [
            *(right._replace(A=x) for x in changed),
            *(right._replace(B=x) for x in changed),
            right._replace(A=None),
        ]
    if isinstance(right, jax.Array | np.ndarray) and right.dtype != KEY.dtype:
        dtypes = (int, jnp.float16, jnp.float32, complex, bool)
        return [right.T, right[:0], right.ravel(), right[None], right * np.nan, *(right.astype(x) for x in dtypes)]
    if isinstance(right, int | float):
        return [-right, right + 0.5, str(right), [right], np.full(2, right), right * 10**40, right * np.nan, 0 * right]
    if isinstance(right, tuple | list):
        return [right[:0], right[:1], [*right, None], tuple(map(str, right))]
    return []


CASES = {
    (name, argument): [*WRONG, *spoiled(right)]
    for name, (_, arguments) in CALLS.items()
    for argument, right in arguments.items()
}


@st.composite
def wrong_calls(draw: st.DrawFn) -> tuple[str, str, Any]:
    name, argument = draw(st.sampled_from(sorted(CASES)))
    return name, argument, draw(st.sampled_from(CASES[name, argument]))


ARGUMENTS = {argument for _, arguments in CALLS.values() for argument in arguments}


def complaint(name: str, argument: str, wrong: Any) -> str:
    """Return what `InputError` says of the call, nothing where it returns or raises `TypeError`; others pass."""
    function, arguments = CALLS[name]
    said = ""
    with suppress(TypeError):
        try:
            function(**arguments | {argument: wrong})
        except sd.InputError as error:
            said = str(error)
    return said


def is_of_use(said: str) -> bool:
    """Tell whether it is nothing, or one line that begins with the name of an argument."""
    return not said or ("\n" not in said and re.split(r"[:\[.]", said)[0] in ARGUMENTS)


EXAMPLES = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, **EXAMPLES)
@given(wrong_calls())
def test_a_wrong_argument_is_answered_or_named(case):
    assert is_of_use(complaint(*case))


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=2000, **EXAMPLES)
@given(wrong_calls())
def test_two_thousand_wrong_arguments_are_answered_or_named(case):
    assert is_of_use(complaint(*case))


@pytest.mark.parametrize("name", CALLS)
def test_the_right_arguments_are_answered(name):
    """The calls of the table are right ones, so that one wrong argument is all that is wrong."""
    if name not in {"spectral_density", "estimate_trace", "extreme_eigenvalues", "train", "layer_views"}:
        function, arguments = CALLS[name]
        assert function(**arguments) is not None


def test_an_error_of_another_kind_is_found(monkeypatch):
    """The control: Python's own error passes through, and a line that names no argument is of no use."""

    def raises(v: Exception) -> None:
        raise v

    monkeypatch.setitem(CALLS, "@", (raises, {"v": 1}))
    with pytest.raises(KeyError):
        complaint("@", "v", KeyError("a"))
    assert not is_of_use(complaint("@", "v", sd.InputError("something is wrong")))
    assert not is_of_use("v: must be\nanother")
    assert is_of_use(complaint("@", "v", sd.InputError("v: must be another")))


@pytest.mark.parametrize("room", ["", ".lora", ".losses", ".hessians", ".operators", ".spectra", ".maps"])
def test_every_public_function_is_in_the_table(room):
    module = importlib.import_module(f"signal_drift{room}")
    public = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert public <= CALLS.keys() | ELSEWHERE
