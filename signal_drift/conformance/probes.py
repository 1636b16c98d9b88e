"""Asks a forward pass, by factors and inputs of its own, for what shows s, precision and tying of every layer."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from signal_drift.conformance.framework import Factors, Framework, Inputs, Layer, Theta, run
from signal_drift.conformance.scaling import Observation
from signal_drift.errors import InputError

ROWS = 16
"""Inputs of every layer."""
ABOVE = 16.0
"""How many times s·BAx is as large as the rest of the output, whose rounding is then of no account."""

Draw = Callable[[np.random.Generator, Layer], tuple[np.ndarray, Factors]]


class Probes(NamedTuple):
    """Holds two observations of a layer: with full factors and inputs, and with one term in every sum."""

    full: Observation
    single: Observation


def observe(framework: Framework) -> dict[str, Probes]:
    """Ask for every layer at once, each with factors of its own.

    Raises `InputError` for outputs that are not finite or that differ between two calls, and where no layer's output
    changes with B although α was not read as 0.
    """
    full = _observed(framework, _full, repeat=True)
    if not any(np.any(seen.change) for seen in full.values()):
        _check_not_merged(framework, full)
    single = _observed(framework, _single)
    return {k: Probes(full[k], single[k]) for k in full}


def change_at(framework: Framework, theta: Theta) -> dict[str, Observation]:
    """Observe the factors `theta` themselves, as large as they are."""
    inputs = _drawn(framework, _full)[0]
    without, with_b = run(framework, _silent(theta), inputs), run(framework, theta, inputs)
    return {k: Observation(x, theta[k].A, theta[k].B, without[k], with_b[k]) for k, x in inputs.items()}


def _observed(framework: Framework, draw: Draw, *, repeat: bool = False) -> dict[str, Observation]:
    """Scale every B by a power of two such that s·BAx is `ABOVE` times y(A, 0) or somewhat more."""
    inputs, theta = _drawn(framework, draw)
    without, once = run(framework, _silent(theta), inputs), run(framework, theta, inputs)
    if repeat:
        _check_same(once, run(framework, theta, inputs))
    scaled = {}
    for k, (A, B) in theta.items():
        moved, rest = (float(np.linalg.norm(y)) for y in (once[k] - without[k], without[k]))
        power = np.ceil(np.log2(ABOVE * rest / moved)) if moved and rest else 0.0
        scaled[k] = Factors(A, B * 2.0**power)
    with_b = run(framework, scaled, inputs)
    return {k: Observation(x, scaled[k].A, scaled[k].B, without[k], with_b[k]) for k, x in inputs.items()}


def _drawn(framework: Framework, draw: Draw) -> tuple[Inputs, dict[str, Factors]]:
    inputs, theta = {}, {}
    for i, (name, layer) in enumerate(sorted(framework.layers.items())):
        inputs[name], theta[name] = draw(np.random.default_rng(i), layer)
    return inputs, theta


def _full(draws: np.random.Generator, layer: Layer) -> tuple[np.ndarray, Factors]:
    (d_out, d_in), r = layer.shape, layer.r
    A, B = draws.standard_normal((r, d_in)) / d_in**0.5, draws.standard_normal((d_out, r)) / r**0.5
    return draws.standard_normal((ROWS, d_in)), Factors(A, B)


def _single(draws: np.random.Generator, layer: Layer) -> tuple[np.ndarray, Factors]:
    """One input and one direction of the rank at a time, of numbers with all their digits."""
    (d_out, d_in), r = layer.shape, layer.r
    x, A, B = np.zeros((ROWS, d_in)), np.zeros((r, d_in)), np.zeros((d_out, r))
    x[range(ROWS), np.arange(ROWS) % d_in] = _digits(draws, ROWS)
    A[0], B[:, 0] = _digits(draws, d_in), _digits(draws, d_out)
    return x, Factors(A, B)


def _digits(draws: np.random.Generator, n: int) -> Float[np.ndarray, "n"]:
    """Numbers of either sign, spread evenly over a power of two on the logarithmic scale."""
    return 2.0 ** draws.uniform(0, 1, n) * draws.choice([-1, 1], n)


def _silent(theta: Theta) -> dict[str, Factors]:
    return {k: Factors(A, 0 * B) for k, (A, B) in theta.items()}


def _check_same(once: Inputs, again: Inputs) -> None:
    for name, y in once.items():
        if not np.array_equal(y, again[name]):
            off = float(np.max(np.abs(y - again[name])))
            raise InputError(
                f"forward: is not deterministic, two calls differ by {off:.3g} in layer {name!r}; is dropout on?"
            )


def _check_not_merged(framework: Framework, full: dict[str, Observation]) -> None:
    """Where B has no effect, α was read as 0 if what is left is W₀x + b; else the adapters are merged."""
    said = "forward: the output of no layer changes with B: the adapters are merged already or switched off"
    if framework.base is None:
        raise InputError(f"{said}, or α is read as 0; give `base` to tell")
    zero = run(framework, {k: Factors(x.A, 0 * x.B) for k, x in full.items()}, {k: 0 * x.x for k, x in full.items()})
    for name, seen in full.items():
        plain = seen.x @ np.asarray(framework.base[name], float).T
        if np.linalg.norm(seen.without - zero[name] - plain) > 2.0**-5 * np.linalg.norm(plain):
            raise InputError(f"{said}: without the bias that of {name!r} is not W₀x")
