"""Asks a forward pass, by factors and inputs of its own, for what shows s, precision and tying of every layer."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from signal_drift.conformance.framework import Factors, Framework, Inputs, Layer, Theta, run
from signal_drift.conformance.rounding import EPSILON, rounding_bound
from signal_drift.conformance.scaling import Observation
from signal_drift.errors import InputError

ROWS = 16
"""Inputs of every layer."""
ABOVE = 16.0
"""How many times s·BAx is as large as the rest of the output, whose rounding is then of no account."""

SMALL = 2.0**-7
"""How many times smaller than that of a probe is B once training has begun."""
VISIBLE, HALF_RANGE = 2.0**40, 2.0**14
"""The largest numbers in B and BAx that are tried where nothing is seen: any, or those well within float16."""

Draw = Callable[[np.random.Generator, Layer], tuple[np.ndarray, Factors]]


class Probes(NamedTuple):
    """Holds two observations of a layer: with full factors and inputs, and with one term in every sum.

    `unscaled` are those with B of the sizes that it has in use, and s·BAx not above W₀x.
    """

    full: Observation
    single: Observation
    unscaled: tuple[Observation, ...] = ()

    @property
    def all(self) -> tuple[Observation, ...]:
        """Return every observation, the first two first."""
        return (self.full, self.single, *self.unscaled)


def observe(framework: Framework) -> dict[str, Probes]:
    """Ask for every layer at once, each with factors of its own.

    Raises `InputError` for outputs that are not finite or that differ between two calls, where no layer's output
    changes with B although α was not read as 0, and where s·BAx is lost in rounding however large B is.
    """
    full, once = _observed(framework, _full, repeat=True)
    _check_not_lost(framework, full)
    if not any(np.any(seen.change) for seen in full.values()):
        _check_not_merged(framework, full)
    single, one = _observed(framework, _single)
    theta = {k: Factors(x.A, SMALL * x.B) for k, x in once.items()}
    with_b = run(framework, theta, {k: x.x for k, x in once.items()})
    small = {k: x._replace(B=theta[k].B, with_b=with_b[k]) for k, x in once.items()}
    return {k: Probes(full[k], single[k], (once[k], small[k], one[k])) for k in full}


def without_b(framework: Framework) -> dict[str, tuple[np.ndarray, ...]]:
    """Return x, y(A, 0) of it, y(0, 0) of it, and y(A, 0) of x = 0, which is the bias."""
    inputs, theta = _drawn(framework, _full)
    silent, nothing = _silent(theta), {k: Factors(0 * A, 0 * B) for k, (A, B) in theta.items()}
    zero = {k: 0 * x for k, x in inputs.items()}
    asked = [run(framework, *x) for x in ((silent, inputs), (nothing, inputs), (silent, zero))]
    return {k: (x, *(y[k] for y in asked)) for k, x in inputs.items()}


def change_at(framework: Framework, theta: Theta) -> dict[str, Observation]:
    """Observe the factors `theta` themselves, as large as they are."""
    inputs = _drawn(framework, _full)[0]
    without, with_b = run(framework, _silent(theta), inputs), run(framework, theta, inputs)
    return {k: Observation(x, theta[k].A, theta[k].B, without[k], with_b[k]) for k, x in inputs.items()}


def _observed(framework: Framework, draw: Draw, *, repeat: bool = False) -> tuple[dict[str, Observation], ...]:
    """Scale every B by a power of two such that s·BAx is `ABOVE` times y(A, 0) or somewhat more; and as it is drawn.

    Where that is not finite, no number in B, BAx and s·BAx is to be above `HALF_RANGE`.
    """
    inputs, theta = _drawn(framework, draw)
    without, once = run(framework, _silent(theta), inputs), run(framework, theta, inputs)
    if repeat:
        _check_same(once, run(framework, theta, inputs))

    def observations(theta: Theta, with_b: Inputs) -> dict[str, Observation]:
        return {k: Observation(x, *theta[k], without[k], with_b[k]) for k, x in inputs.items()}

    drawn = begun = observations(theta, once)
    if not all(np.any(seen.change) for seen in drawn.values()):
        begun = observations(*_first_finite(framework, inputs, lambda most: _made_visible(drawn, most)))
    return observations(*_first_finite(framework, inputs, lambda most: _above_the_rest(begun, most))), drawn


def _first_finite(framework: Framework, inputs: Inputs, make: Callable[[float], Theta]) -> tuple[Theta, Inputs]:
    """Run the factors made without a limit, or within half precision where they give no finite outputs."""
    theta = make(np.inf)
    try:
        return theta, run(framework, theta, inputs)
    except InputError:
        theta = make(HALF_RANGE)
        return theta, run(framework, theta, inputs)


def _made_visible(drawn: dict[str, Observation], most: float) -> dict[str, Factors]:
    """Leave factors as they are, but make a B that changes nothing as large as may be."""
    return {
        k: Factors(x.A, x.B if np.any(x.change) else x.B * 2.0 ** _room(min(most, VISIBLE), x.B, x.product))
        for k, x in drawn.items()
    }


def _above_the_rest(seen: dict[str, Observation], most: float) -> dict[str, Factors]:
    scaled = {}
    for k, x in seen.items():
        moved, rest = (float(np.linalg.norm(y)) for y in (x.change, x.without))
        power = np.ceil(np.log2(ABOVE * rest / moved)) if moved and rest else 0.0
        scaled[k] = Factors(x.A, x.B * 2.0 ** min(power, _room(most, x.B, x.product, x.change)))
    return scaled


def _room(most: float, *arrays: np.ndarray) -> float:
    """The power of two up to which no number is above `most`."""
    return float(np.floor(np.log2(most / max(float(np.max(np.abs(x))) for x in arrays))))


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


def _check_not_lost(framework: Framework, full: dict[str, Observation]) -> None:
    """Where B has no effect, whether that which is said would have one."""
    for name, seen in full.items():
        said = framework.layers[name]
        if not np.any(seen.change) and rounding_bound(seen, EPSILON[said.dtype or "bfloat16"], said.s) >= 1:
            raise InputError(f"forward: s·BAx of layer {name!r} is lost in the rounding of W₀x, so that s is not seen")


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
