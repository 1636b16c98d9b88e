"""Take one update of every optimizer over η and over α: who steps how, what is derived of it, the norms measured.

With G = ∇_W ℓ, ∇_A ℓ = s BᵀG and ∇_B ℓ = s G Aᵀ. An optimizer that forgets the gradient's size (sign, Muon, Adam with
ε → 0) has ΔA, ΔB = Θ(η): signal αη, drift αη². Gradient descent at B ≠ 0 has ΔA, ΔB = Θ(sη): signal α²η, drift α³η².
From B = 0 its first step leaves B = Θ(sη) and so its second has ΔA = Θ(s²η²): signal α²η, drift α⁴η³ (Eq. 48–50).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

import signal_drift as sd
from experiments.dynamics.eta_against_alpha import FAMILIES
from experiments.lab.problem import Problem
from signal_drift.lora.adapters import Adapters
from signal_drift.propositions import VANISHING_EPSILON


def polar_descent(learning_rate: float | Array) -> optax.GradientTransformation:
    """Build Muon as P2-descent states it, without momentum: Δ = −η U Vᵀ from the compact SVD of each gradient."""

    def polar(gradient: ArrayLike) -> Array:
        G = jnp.asarray(gradient)
        U, sigma, Vt = jnp.linalg.svd(G, full_matrices=False)
        kept = sigma > max(G.shape) * jnp.finfo(G.dtype).eps * sigma[0]
        return (U * kept) @ Vt

    return optax.chain(
        optax.stateless_with_tree_map(lambda G, _: polar(G)), optax.scale_by_learning_rate(learning_rate)
    )


FORGETFUL = {"signal": (1, 1), "drift": (2, 1), "ratio": (-1, 0)}
"""(exponent of η, exponent of α) that P4-update states of signal, drift and their ratio."""
OPTIMIZERS = {
    "Adam": partial(optax.adam, eps=VANISHING_EPSILON),
    "sign": optax.sign_sgd,
    "Muon": polar_descent,
    "optax-Muon": optax.contrib.muon,
    "GD": optax.sgd,
    "Adam-1e-8": optax.adam,
}
"""Muon is the exact UVᵀ; optax-Muon has Newton–Schulz, Nesterov momentum and a factor for the shape. Adam has a
vanishing ε, Adam-1e-8 the default one."""
READ_OFF = {"second": (2, "second step from B = 0"), "generic": (1, "first step from B ≠ 0")}
"""Which step is read off from where; from B = 0 the first has no drift (X3)."""


def expected(optimizer: str, state: str) -> dict[str, tuple[int, int]]:
    """Return (exponent of η, exponent of α) of signal, drift and ratio, as derived above to leading order in η."""
    if optimizer != "GD":
        return FORGETFUL
    drift = (3, 4) if state == "second" else (2, 3)
    return {"signal": (1, 2), "drift": drift, "ratio": (1 - drift[0], 2 - drift[1])}


@dataclass(frozen=True)
class Grid:
    """Set α and η of the steps."""

    learning_rate: float = 1e-4
    """η₀."""
    alpha: float = 1.0
    """α₀."""
    multipliers: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """η/η₀ at α₀ and α/α₀ at η₀."""

    def along(self, family: str) -> list[tuple[float, float]]:
        """Return (η, α) at every multiplier of one of the two."""
        eta, alpha = self.learning_rate, self.alpha
        return [(m * eta, alpha) if family == "η" else (eta, m * alpha) for m in self.multipliers]


def step_norms(grid: Grid, problem: Problem, seed: int) -> xr.Dataset:
    """Measure ‖Δw_Signal‖ and ‖Δw_Drift‖ of two steps from B = 0 and from B ≠ 0, on the loss of a fixed sample."""
    (base, loss), start = problem.draw(seed), problem.adapters(seed)
    generic = _away_from_zero(start, jax.random.fold_in(jax.random.key(seed), 5))
    pairs = [grid.along(family) for family in FAMILIES]
    values = [
        [
            [[_steps(loss, base, theta, problem.scaling(a), e, name) for e, a in along] for along in pairs]
            for theta in (start, generic)
        ]
        for name in OPTIMIZERS
    ]
    return xr.Dataset(
        {"norm": (("optimizer", "state", "family", "multiplier", "part", "step"), np.array(values))},
        coords={
            "optimizer": list(OPTIMIZERS),
            "state": list(READ_OFF),
            "family": list(FAMILIES),
            "multiplier": list(grid.multipliers),
            "part": ["signal", "drift"],
            "step": [1, 2],
        },
    )


def _away_from_zero(start: Adapters, key: Array) -> dict[str, sd.Adapter]:
    """Draw B anew, of the size of A."""
    keys = jax.random.split(key, len(start))
    return {
        layer: sd.Adapter(A, A.std() * jax.random.normal(k, B.shape, B.dtype))
        for k, (layer, (A, B)) in zip(keys, sorted(start.items()), strict=True)
    }


@partial(jax.jit, static_argnames="optimizer")
def _steps(
    loss: Partial, base: dict[str, Array], theta: Adapters, s: float, learning_rate: float, optimizer: str
) -> Array:
    shifted = sd.effective_weights(base, theta, -s)  # so that w(θ) = W₀ whatever α is
    run = sd.train(loss, shifted, theta, s, OPTIMIZERS[optimizer](learning_rate), 2)
    return jnp.stack([run.signal_norm, run.drift_norm])
