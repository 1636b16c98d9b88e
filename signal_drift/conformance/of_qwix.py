"""Shows the linear layers of a flax model that qwix, or tunix with it, has adapted: s = alpha/rank of the rule."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import jax.numpy as jnp
import numpy as np
from flax import nnx

from signal_drift.conformance.framework import Factors, Framework, Inputs, Layer, SigmaA, Theta, said_sigma
from signal_drift.errors import InputError
from signal_drift.models.layers import modules_of
from signal_drift.peft.export import he_sigma

NAMES = ("kernel_lora_a", "kernel_lora_b")


def is_of_qwix(model: nnx.Module) -> bool:
    """Tell whether a model has factors as qwix adds them."""
    return any(hasattr(module, NAMES[0]) for module in modules_of(model).values())


def of_qwix(
    model: nnx.Module, rules: Sequence[Any], *inputs: Any, trained: bool = False, sigma_a: SigmaA | None = None
) -> Framework:
    """Show a model of `qwix.apply_lora_to_model`, on a copy; `rules` are its LoraRules, `inputs` what the model takes.

    qwix adds the factors only while the whole model runs: so it runs on `inputs`, and every layer is called on the
    side, within it. A layer is under the first rule whose module_path matches its path. A rule's own
    lora_a_initializer is not read: σ_A is said to be he_uniform's, or `sigma_a`, a number or a function of d_in and r.
    Raises `InputError` for a model without factors of qwix, for factors of more than two axes, and for a layer that no
    rule is for or that the model does not call.
    """
    copy = nnx.clone(model)
    modules = {path: m for path, m in modules_of(copy).items() if hasattr(m, NAMES[0])}
    if not modules:
        raise InputError(f"framework: has no {NAMES[0]} of qwix, got {type(model).__name__}")
    factors = {path: tuple(getattr(m, name) for name in NAMES) for path, m in modules.items()}
    for path, pair in factors.items():
        if any(x.ndim != 2 for x in pair):
            shapes = [x.shape for x in pair]
            raise InputError(f"framework: the factors of {path!r} must be matrices, as of nnx.Linear, got {shapes}")

    def forward(theta: Theta, given: Inputs) -> Mapping[str, Any]:
        for path, (A, B) in theta.items():
            for variable, value in zip(factors[path], (A.T, B.T), strict=True):
                variable.set_value(jnp.asarray(value, variable.dtype))
        paths, outputs = {id(m): path for path, m in modules.items()}, {}

        def aside(module: Any, call: Callable) -> None:
            path = paths.get(id(module))
            if path is not None and path not in outputs:
                outputs[path] = call(module, jnp.asarray(given[path], factors[path][0].dtype))

        with _watched({_own_class(m) for m in modules.values()}, aside):
            copy(*inputs)  # pyright: ignore[reportCallIssue]  # a module that is called
        return outputs

    layers = {path: _said(path, _rule(path, rules), factors[path], sigma_a) for path in modules}
    state = {path: Factors(*(np.asarray(x[...], float).T for x in pair)) for path, pair in factors.items()}
    return Framework("qwix", layers, state, forward, trained)


def _rule(path: str, rules: Sequence[Any]) -> Any:
    name = path.replace(".", "/")
    for rule in rules:
        if re.fullmatch(rule.module_path, name):
            return rule
    raise InputError(f"rules: none has a module_path that matches {name!r}")


def _said(path: str, rule: Any, pair: tuple[Any, ...], sigma_a: SigmaA | None) -> Layer:
    for field in ("rank", "alpha"):
        if getattr(rule, field, None) is None:
            raise InputError(f"rules: the rule for {path!r} has no {field}")
    (a, b), d_in = pair, pair[0].shape[0]
    sigma = said_sigma(sigma_a, he_sigma, d_in, a.shape[1])
    return Layer((b.shape[1], d_in), rule.rank, rule.alpha, sigma_a=sigma, dtype=a.dtype.name)


def _own_class(module: Any) -> type:
    """The class whose __call__ runs; of the model itself qwix makes one that would enter it anew."""
    return getattr(type(module), "_unquantized_type", type(module))


@contextmanager
def _watched(classes: set[type], aside: Callable[[Any, Callable], None]) -> Iterator[None]:
    """Let `aside` see every call of a module of these classes, with the method itself."""

    def watched(method: Callable) -> Callable:
        def call(module: Any, *args: Any, **options: Any) -> Any:
            aside(module, method)
            return method(module, *args, **options)

        return call

    methods = {kind: kind.__call__ for kind in classes}
    with ExitStack() as until:
        for kind, method in methods.items():
            until.enter_context(patch.object(kind, "__call__", watched(method)))
        yield
