"""Small frameworks that say one thing of themselves and do it, or something else, for the tests of the kit."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from signal_drift.conformance import Factors, Framework, Layer

SHAPES = {"up": (24, 64), "down": (16, 96), "up2": (24, 64)}
RANK, ALPHA = 4, 12.0
"""Of which all readings of s are different numbers: 3, 6, 12, 1, 0, …"""
KAIMING = {name: 1 / (3 * d_in) ** 0.5 for name, (_, d_in) in SHAPES.items()}

Multiplier = Callable[[str], float]
Dtype = Callable[[np.ndarray], np.ndarray]


def said(**settings: Any) -> dict[str, Layer]:
    return {k: Layer(shape, RANK, ALPHA, sigma_a=KAIMING[k], **settings) for k, shape in SHAPES.items()}


def uniform(draws: np.random.Generator, r: int, d_in: int) -> np.ndarray:
    """PEFT's draw."""
    return draws.uniform(-1, 1, (r, d_in)) / d_in**0.5


def start(draw: Callable = uniform, seed: int = 0) -> dict[str, Factors]:
    draws = np.random.default_rng(seed)
    return {k: Factors(draw(draws, RANK, d_in), np.zeros((d_out, RANK))) for k, (d_out, d_in) in SHAPES.items()}


def fake(
    s: float | Multiplier = ALPHA / RANK,
    *,
    layers: Mapping[str, Layer] | None = None,
    state: Mapping[str, Factors] | None = None,
    dtype: Dtype = np.asarray,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda name, y: y,
    shared: Mapping[str, str] | None = None,
    base: bool = False,
    **settings: Any,
) -> Framework:
    """A framework with y = W₀x + b + s·BAx whose every result is rounded by `dtype`.

    `change` is made to s·BAx, and a layer of `shared` reads the factors of another.
    """
    draws = np.random.default_rng(7)
    W0 = {k: draws.standard_normal(shape) / shape[1] ** 0.5 for k, shape in SHAPES.items()}
    bias = {k: draws.standard_normal(d_out) for k, (d_out, _) in SHAPES.items()}
    layers = said() if layers is None else layers

    def layer(name: str, factors: Factors, x: np.ndarray) -> np.ndarray:
        A, B, x = (dtype(z) for z in (*factors, x))
        multiplier = s(name) if callable(s) else s
        moved = dtype(dtype(dtype(x @ A.T) @ B.T) * dtype(np.array(multiplier)))
        return dtype(dtype(x @ dtype(W0[name]).T + dtype(bias[name])) + change(name, moved))

    def forward(theta: Mapping[str, Factors], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: layer(k, theta[(shared or {}).get(k, k)], inputs[k]) for k in layers}

    begins = start() if state is None else state
    return Framework("fake", layers, begins, forward, base=W0 if base else None, **settings)
