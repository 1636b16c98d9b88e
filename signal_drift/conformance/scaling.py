"""Recovers s, the multiplier before BA, from outputs with and without B, and what a framework may have made of α."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from signal_drift.conformance.framework import Layer


class Observation(NamedTuple):
    """Holds what one layer gave for the inputs x: its outputs `without` B, which is then 0, and with it."""

    x: Float[np.ndarray, "n d_in"]
    A: Float[np.ndarray, "r d_in"]
    B: Float[np.ndarray, "d_out r"]
    without: Float[np.ndarray, "n d_out"]
    with_b: Float[np.ndarray, "n d_out"]

    @property
    def change(self) -> Float[np.ndarray, "n d_out"]:
        """Return y(A, B) − y(A, 0)."""
        return np.asarray(self.with_b, float) - np.asarray(self.without, float)

    @property
    def product(self) -> Float[np.ndarray, "n d_out"]:
        """Return BAx."""
        x, A, B = (np.asarray(z, float) for z in (self.x, self.A, self.B))
        return x @ A.T @ B.T


class Fit(NamedTuple):
    """Holds s and the part of the change, from 0 to 1, that s·BAx leaves over."""

    s: float
    residual: float


def fitted_scaling(seen: Observation) -> Fit:
    """Fit s in y(A, B) − y(A, 0) = s·BAx, which is exact for every linear layer with LoRA, by least squares.

    s = ⟨BAx, Δy⟩/‖BAx‖², and what is left over is ‖Δy − s·BAx‖/‖Δy‖: the error of s is at most that, relative to it.

    >>> x, A, B = np.eye(2), np.array([[1.0, 2.0]]), np.array([[1.0], [3.0]])
    >>> fitted_scaling(Observation(x, A, B, without=x, with_b=x + 0.5 * x @ A.T @ B.T))
    Fit(s=0.5, residual=0.0)
    """
    P, change = seen.product, seen.change
    size, moved = np.vdot(P, P), float(np.linalg.norm(change))
    if not moved or not size:
        return Fit(0.0, float(bool(moved)))
    s = float(np.vdot(P, change) / size)
    return Fit(s, float(np.linalg.norm(change - s * P)) / moved)


class Reading(NamedTuple):
    """Holds what a framework may make of α and r, and in words why."""

    s: Callable[[float, int], float]
    why: str


READINGS = {
    "α/r": Reading(lambda alpha, r: alpha / r, "LoRA"),
    "α/√r": Reading(lambda alpha, r: alpha / math.sqrt(r), "rsLoRA"),
    "α": Reading(lambda alpha, r: alpha, "not divided by r"),
    "1": Reading(lambda alpha, r: 1.0, "α is not read"),
    "0": Reading(lambda alpha, r: 0.0, "α is read as 0"),
    "1/r": Reading(lambda alpha, r: 1 / r, "α is read as 1"),
    "1/√r": Reading(lambda alpha, r: 1 / math.sqrt(r), "rsLoRA, α is read as 1"),
    "α²/r²": Reading(lambda alpha, r: (alpha / r) ** 2, "α/r twice"),
    "α²/r": Reading(lambda alpha, r: alpha**2 / r, "rsLoRA twice"),
    "α/r²": Reading(lambda alpha, r: alpha / r**2, "divided by r twice"),
    "α/⁴√r": Reading(lambda alpha, r: alpha / r**0.25, "the root taken twice"),
}
"""What s is by a configuration's α and r, rightly or wrongly read."""


def readings(s: float, layer: Layer, tolerance: float) -> tuple[str, ...]:
    """List the readings of α and r that give s, to a relative tolerance: they cannot be told apart at this α and r."""
    values = {name: reading.s(layer.alpha, layer.r) for name, reading in READINGS.items()}
    return tuple(name for name, value in values.items() if abs(s - value) <= tolerance * max(abs(s), abs(value)))
