"""Checks what P1-update leaves: the remainder Δw − JΔθ − ½∇²w[Δθ, Δθ] of a map that need not be bilinear (X19).

A map linear in k factors is a polynomial of degree k in the step. So there is none for LoRA, rsLoRA, LoRA-FA, VeRA,
MoRA and (IA)³; LoKr's is s·ΔC ⊗ (ΔB ΔA), of order 3 and no more; LoHa's has the orders 3 and 4. DoRA divides by a
norm: its series begins at order 3 and does not end.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array

from signal_drift.propositions.adapter_maps.subject import Layer, MapInstance
from signal_drift.propositions.check import Check, Tolerance, largest, rounding
from signal_drift.propositions.subject import flat

STEP = 2.0**-4
"""The largest of the three steps, each half of the one before, over which an order is read."""

RULE = "|e(h) − e(h/2)| and the rounding of R"
"""What the error of a fitted order is bounded by."""


def remainder_is_its_terms(x: MapInstance) -> Check:
    """Check that Δw = JΔθ + ½∇²w[Δθ, Δθ] + what the formula of the map says of the orders 3 and 4 (X19)."""
    known = x.kind != "dora"
    series = [flat(t) for t in taylor(x.maps, x.base, x.theta, x.delta)] if known else [np.full(1, np.nan)] * 4
    before, after, first, second = series
    third, fourth = higher_terms(x) if known else (series[0], series[0])
    last = next((t for t in (fourth, third, second, first) if t.any()), first)
    return Check.equality(
        "X19",
        "Δw − JΔθ − ½∇²w[Δθ, Δθ] is 0, or the terms of order 3 and 4",
        after - before - first - second,
        third + fourth,
        rounding(_additions(x), 4 * largest(_bounding(x)) if known else np.nan),
        control=("the highest of all terms is left out", third + fourth - last),
        assumptions={"the map is linear in every factor": known},
    )


def remainder_is_cubic(x: MapInstance) -> Check:
    """Check that the odd part of the remainder, (R(Δθ) − R(−Δθ))/2, is of order 3 (X19)."""
    return _order(x, 3, {"loha", "lokr", "dora"})


def remainder_is_quartic(x: MapInstance) -> Check:
    """Check that the even part of the remainder, (R(Δθ) + R(−Δθ))/2, is of order 4 where there is one (X19)."""
    return _order(x, 4, {"loha", "dora"})


def _order(x: MapInstance, order: int, kinds: set[str]) -> Check:
    here = x.kind in kinds
    measured, tolerance = exponent(x, order % 2 == 1) if here else (np.nan, Tolerance(np.nan, RULE, ""))
    return Check.equality(
        "X19",
        f"the {'odd' if order % 2 else 'even'} part of the remainder is of order {order}",
        measured,
        float(order),
        tolerance,
        control=(f"of order {order - 2}", float(order - 2)),
        assumptions={"there is such a part": here, "its order is known to a half": tolerance.value < 0.5},
    )


def exponent(x: MapInstance, odd: bool) -> tuple[float, Tolerance]:
    """Fit the exponent of the odd or even part of the remainder over h, h/2 and h/4, and bound its error.

    e(h) = log₂ R(h)/R(h/2) is the order up to κh², so that |e(h) − e(h/2)| = ¾κh² bounds the κh²/4 of e(h/2) three
    times over; the rounding of both R is added.
    """
    sizes = []
    for h in (STEP, STEP / 2, STEP / 4):
        plus, minus = (
            [flat(t) for t in taylor(x.maps, x.base, x.theta, jax.tree.map(lambda d, c=c: c * d, x.delta))]
            for c in (h, -h)
        )
        rest = [w - w0 - first - second for w0, w, first, second in (plus, minus)]
        sizes.append(float(np.linalg.norm(rest[0] - rest[1] if odd else rest[0] + rest[1]) / 2))
    coarse, fine = (float(np.log2(a / b)) for a, b in pairwise(sizes))
    unit = rounding(_additions(x), 4 * float(np.linalg.norm(_bounding(x)))).value / sizes[-1]
    error = float(abs(coarse - fine) + 2 * unit / np.log(2))
    return fine, Tolerance(error, RULE, f"h = {STEP:g}, e(h) = {coarse:.8g}")


def higher_terms(x: MapInstance) -> tuple[np.ndarray, np.ndarray]:
    """Return the terms of order 3 and of order 4 of w(θ + Δθ), flat."""
    deltas = [tuple(np.asarray(f) for f in jax.tree.leaves(x.delta[k])) for k in sorted(x.base)]
    found = [TERMS.get(x.kind, _none)(y, d) for y, d in zip(x.layers, deltas, strict=True)]
    third, fourth = (np.concatenate([t.ravel() for t in terms]) for terms in zip(*found, strict=True))
    return third, fourth


def _none(layer: Layer, delta: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    return 0 * layer.W0, 0 * layer.W0


def _lokr(layer: Layer, delta: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    dC, dA, dB = delta
    return layer.s * np.kron(dC, dB @ dA), 0 * layer.W0


def _loha(layer: Layer, delta: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Each product BA moves by N + Q, N = BΔA + ΔB A and Q = ΔB ΔA: N₁ ⊙ Q₂ + Q₁ ⊙ N₂, then Q₁ ⊙ Q₂."""
    (A1, B1, A2, B2), (dA1, dB1, dA2, dB2) = layer.factors, delta
    N1, N2, Q1, Q2 = B1 @ dA1 + dB1 @ A1, B2 @ dA2 + dB2 @ A2, dB1 @ dA1, dB2 @ dA2
    return layer.s * (N1 * Q2 + Q1 * N2), layer.s * Q1 * Q2


TERMS: Mapping[str, Callable[[Layer, tuple[np.ndarray, ...]], tuple[np.ndarray, np.ndarray]]] = {
    "lokr": _lokr,
    "loha": _loha,
}
"""The terms of order 3 and 4 of the maps that have some and end there."""


@jax.jit
def taylor(
    maps: dict[str, Partial], base: dict[str, Array], theta: dict, delta: dict
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Return w(θ), w(θ + Δθ), JΔθ and ½∇²w[Δθ, Δθ]."""
    x, unravel = ravel_pytree(theta)
    d = ravel_pytree(delta)[0]

    def w(x: Array) -> dict[str, Array]:
        return {k: f(base[k], unravel(x)[k]) for k, f in maps.items()}

    def push(x: Array) -> dict[str, Array]:
        return jax.jvp(w, (x,), (d,))[1]

    first, second = jax.jvp(push, (x,), (d,))
    return w(x), w(x + d), first, jax.tree.map(lambda t: t / 2, second)


def _additions(x: MapInstance) -> int:
    """Count the additions that make one number of w: the ranks of its products."""
    return 4 + sum(max(len(f) for f in y.factors) for y in x.layers)


def _bounding(x: MapInstance) -> np.ndarray:
    """Every w with all signs +, at |θ| + |Δθ|: no term of the expansion is larger.

    Of DoRA it is |m_o|·(‖V_o‖ with all signs +)/‖V_o‖, what division makes of the same.
    """
    size = partial(jax.tree.map, jnp.abs)
    theta = jax.tree.map(lambda t, d: jnp.abs(t) + jnp.abs(d), dict(x.theta), dict(x.delta))
    if x.kind != "dora":
        return flat({k: f(jnp.abs(x.base[k]), theta[k]) for k, f in size(x.maps).items()})
    largest_rows = []
    for y, d in zip(x.layers, (theta[k] for k in sorted(theta)), strict=True):
        A, B, m = (np.asarray(f) for f in d)
        V = y.W0 + y.s * y.factors[1] @ y.factors[0]
        ratio = np.linalg.norm(np.abs(y.W0) + abs(y.s) * B @ A, axis=1) / np.linalg.norm(V, axis=1)
        largest_rows.append(np.repeat(m * ratio, V.shape[1]))
    return np.concatenate(largest_rows)
