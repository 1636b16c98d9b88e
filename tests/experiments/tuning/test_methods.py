"""Every method against formulas written by hand: where it starts, what a step of it does, and which are one run."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from peft_weights import ALPHA, RANK, STORED
from problems import rounding

import signal_drift as sd
from experiments.lab.problem import Tuning
from experiments.problems import PROBLEMS
from experiments.tuning.methods import COMMON, DORA, PISSA, TENFOLD, V1, V2, methods, namesakes, swept, tuned
from experiments.tuning.methods.kinds import principal, with_lengths
from experiments.tuning.methods.recipes import recipe
from experiments.tuning.methods.training import method_runs
from experiments.tuning.protocol_comparison import EXPERIMENT
from experiments.tuning.runs import log_loss
from signal_drift import maps

SHAPES = [(6, 6), (9, 4), (3, 8)]
OVER_V2 = Tuning.over_v2


def matrix(shape: tuple[int, int], seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def begun(W0: jax.Array, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The base, A and B of PiSSA's start in one layer."""
    rest, start = principal({"layer": W0}, {"layer": sd.Adapter(jnp.ones((r, W0.shape[1])), jnp.ones((len(W0), r)))})
    return np.asarray(rest["layer"]), np.asarray(start["layer"].A), np.asarray(start["layer"].B)


# PiSSA


@pytest.mark.parametrize("r", [2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_pissa_starts_at_the_weights_and_freezes_the_least_that_rank_r_can_leave(
    shape: tuple[int, int], r: int
) -> None:
    """Eckart–Young, by singular values from another routine; near it, the (r+1)-th direction in place of the r-th."""
    W0 = matrix(shape)
    rest, A, B = begun(W0, r)
    assert (A.shape, B.shape) == ((r, shape[1]), (shape[0], r))
    assert np.linalg.norm(rest + B @ A - W0) <= rounding(r, W0)
    values = np.asarray(scipy.linalg.svdvals(np.asarray(W0)))
    left = np.sum(values[r:] ** 2)
    assert abs(np.sum(rest**2) - left) <= rounding(10, W0, W0)
    whole = np.pad(values, (0, r))[:r]
    for product in (A @ A.T, B.T @ B):  # the size is shared: √S in both factors
        assert np.linalg.norm(product - np.diag(whole)) <= rounding(10, W0)
    if r < min(shape):
        U, S, Vt = np.linalg.svd(np.asarray(W0), full_matrices=False)
        near = np.delete(np.arange(r + 1), r - 1)
        worse = W0 - (U[:, near] * S[near]) @ Vt[near]
        assert np.sum(np.asarray(worse) ** 2) - left > 1e3 * rounding(10, W0, W0)


# DoRA


def test_dora_is_peft_s_weight() -> None:
    """Against the numbers that PEFT merged."""
    example = json.loads(STORED.read_text(encoding="utf-8"))["dora"]
    t = {k.split(".")[0]: jnp.asarray(x) for k, x in example["tensors"].items()}
    theta = maps.Dora(t["lora_A"], t["lora_B"], t["lora_magnitude_vector"])
    W = with_lengths(ALPHA / RANK, jnp.asarray(example["W0"]), theta)
    assert np.max(np.abs(np.asarray(W) - example["W"])) <= rounding(20, example["W"])


def test_dora_holds_the_lengths_of_its_directions_fixed_in_the_gradient() -> None:
    """Against the formula with c = m/‖V‖ a constant; the gradient of the map itself is another."""
    W0, s, shape = matrix((5, 4)), 0.7, (5, 4)
    theta = maps.Dora(matrix((2, 4), 1), matrix((5, 2), 2), matrix((1, 5), 3)[0])
    G = np.asarray(matrix(shape, 4))
    found = jax.grad(lambda theta: jnp.vdot(G, with_lengths(s, W0, theta)))(theta)
    expected = dora_by_hand(G, np.asarray(W0), [np.asarray(x) for x in theta], s)
    size = rounding(10, W0, G, theta.A, theta.B, theta.m)
    for x, y in zip(found, expected, strict=True):
        assert np.max(np.abs(np.asarray(x) - y)) <= size
    whole = jax.grad(lambda theta: jnp.vdot(G, maps.dora(s)(W0, theta)))(theta)
    assert np.max(np.abs(np.asarray(whole.A) - expected[0])) > 1e3 * size


# Every method, step by step

CONFIG = replace(EXPERIMENT.at(PROBLEMS["teacher64"], quick=True), steps=3, dtype="float64")
ETA, R = 1e-2, 3

Parts = list[np.ndarray]


def lora_by_hand(G: np.ndarray, W0: np.ndarray, theta: Parts, s: float) -> Parts:
    A, B = theta
    return [s * B.T @ G, s * G @ A.T]


def dora_by_hand(G: np.ndarray, W0: np.ndarray, theta: Parts, s: float) -> Parts:
    A, B, m = theta
    V = W0 + s * B @ A
    length = np.sqrt(np.sum(V**2, axis=1))
    along, scaled = np.sum(G * V, axis=1) / length, (m / length)[:, None] * G
    return [*lora_by_hand(scaled, W0, [A, B], s), along]


def low_rank(W0: np.ndarray, theta: Parts, s: float) -> np.ndarray:
    A, B = theta
    return W0 + s * B @ A


def rescaled(W0: np.ndarray, theta: Parts, s: float) -> np.ndarray:
    *factors, m = theta
    V = low_rank(W0, factors, s)
    return V * (m / np.sqrt(np.sum(V**2, axis=1)))[:, None]


class ByHand(NamedTuple):
    """Where a layer starts, (W₀, A) ↦ (base, θ), its W and its gradient."""

    start: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Parts]]
    weight: Callable[[np.ndarray, Parts, float], np.ndarray]
    gradient: Callable[[np.ndarray, np.ndarray, Parts, float], Parts]


def at_zero(W0: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, Parts]:
    return W0, [A, np.zeros((len(W0), len(A)))]


def at_principal(W0: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, Parts]:
    U, S, Vt = scipy.linalg.svd(W0, full_matrices=False)
    B, A = U[:, :R] * S[:R] ** 0.5, S[:R, None] ** 0.5 * Vt[:R]
    return W0 - B @ A, [A, B]


def with_own_lengths(W0: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, Parts]:
    return W0, [*at_zero(W0, A)[1], np.sqrt(np.sum(W0**2, axis=1))]


KINDS = {
    PISSA: ByHand(at_principal, low_rank, lora_by_hand),
    DORA: ByHand(with_own_lengths, rescaled, dora_by_hand),
}
LORA = ByHand(at_zero, low_rank, lora_by_hand)


def by_hand(name: str, s: dict[str, float], rates: tuple[float, ...]) -> float:
    """ln ℓ after three steps of optax's Adam, one optimizer for every array, on gradients written by hand."""
    kind, problem = KINDS.get(name, LORA), CONFIG.problem
    base, loss, adapters = problem.draw(0).base, problem.training(0, 3).fit, problem.adapters(0, R)
    parts = {k: kind.start(np.asarray(base[k]), np.asarray(adapters[k].A)) for k in base}
    frozen, theta = {k: x for k, (x, _) in parts.items()}, {k: x for k, (_, x) in parts.items()}
    adams = {k: [optax.adam(rate) for rate in rates[: len(x)]] for k, x in theta.items()}
    states: Any = {k: [adam.init(jnp.asarray(x)) for adam, x in zip(adams[k], theta[k], strict=True)] for k in theta}

    def weights() -> dict[str, jax.Array]:
        return {k: jnp.asarray(kind.weight(frozen[k], theta[k], s[k])) for k in theta}

    for _ in range(3):
        G = jax.grad(loss)(weights())
        for k, x in theta.items():
            for i, g in enumerate(kind.gradient(np.asarray(G[k]), frozen[k], x, s[k])):
                step, states[k][i] = adams[k][i].update(jnp.asarray(g), states[k][i])
                x[i] = x[i] + np.asarray(step)
    return float(jnp.log(loss(weights())))


def test_every_method_takes_the_steps_that_are_written_by_hand() -> None:
    """PiSSA's and DoRA's end elsewhere than LoRA's, by much more than the tolerance; so does a rate of another's."""
    sigma = CONFIG.problem.sigma_a()
    chosen = methods(R, sigma)
    requests = [([ETA], chosen), ([ETA], swept(R, sigma, OVER_V2)), ([0.1 * ETA, ETA], tuned(chosen))]
    runs = method_runs(CONFIG, 0, R, 4, requests)
    found = dict(zip(chosen, log_loss(np.asarray(runs.at(requests[0]).loss))[0], strict=True))
    s = {name: dict(method.scaling) for name, method in chosen.items()}
    rates = dict.fromkeys(chosen, (ETA, ETA, ETA)) | {
        TENFOLD: (10 * ETA, 10 * ETA),
        "LoRA+, ratio 16": (ETA, 16 * ETA),
    }
    for name in chosen:
        assert found[name] == pytest.approx(by_hand(name, s[name], rates[name]), rel=1e-9), name
    assert len({round(x, 4) for x in found.values()}) == len(chosen)
    over = runs.at(requests[1]).log_loss[0]
    assert over[OVER_V2.index(1.0)] == found[V2]
    twice = {layer: 2 * x for layer, x in s[V2].items()}
    assert over[OVER_V2.index(2.0)] == pytest.approx(by_hand(COMMON, twice, (ETA, ETA)), rel=1e-9)
    own = runs.at(requests[2]).log_loss
    assert own[1].tolist() == [found[name] for name in tuned(chosen)]
    slow = by_hand(DORA, s[DORA], (0.1 * ETA,) * 3)
    assert own[0, list(tuned(chosen)).index(DORA)] == pytest.approx(slow, rel=1e-9)
    asked = 9 + len(OVER_V2) + 2 * 8
    assert len(runs.places) == asked - 1 - 8  # V2 among the α, and every method at η_FFT: each is run once
    dora = runs.places[recipe(chosen[DORA], ETA)]
    assert np.isnan(np.asarray(runs.outcomes.signal)[dora]).all()
    assert np.isfinite(np.asarray(runs.outcomes.signal)[runs.places[recipe(chosen[PISSA], ETA)]]).all()


# One run under two names


@pytest.mark.parametrize(
    ("rank", "d_in", "same"),
    [
        (4, 256, {"rsLoRA, s = √r": "LoRA, α = 2r"}),
        (64, 64, {V2: COMMON}),
        (16, 64, {V2: "LoRA, α = 2r"}),
        (8, 8, {V2: COMMON}),
        (8, 64, {V2: "rsLoRA, s = √r"}),
        (1, 256, {"rsLoRA, s = √r": COMMON}),
        (16, 256, {V2: "rsLoRA, s = √r"}),
        (16, 257, {}),
        (63, 64, {}),
    ],
)
def test_recipes_that_coincide_are_named(rank: int, d_in: int, same: dict[str, str]) -> None:
    """V2 is s = √(d_in/r): α = r at r = d_in, α = 2r at r = d_in/4, rsLoRA at r² = d_in; one off, none."""
    assert namesakes(methods(rank, {"layer": d_in**-0.5})) == same


def test_what_coincides_in_one_layer_alone_is_another_run() -> None:
    assert namesakes(methods(64, {"one": 1 / 8, "other": 1 / 9})) == {}
    assert V1 not in namesakes(methods(4, {"one": 1 / 8}))


def test_ten_times_the_rate_at_a_tenth_is_lora_itself() -> None:
    chosen = methods(4, {"layer": 1 / 8})
    assert recipe(chosen[TENFOLD], 0.1 * 1.3e-3) == recipe(chosen[COMMON], 1.3e-3)
    assert recipe(chosen[TENFOLD], 0.11 * 1.3e-3) != recipe(chosen[COMMON], 1.3e-3)
    assert recipe(chosen[PISSA], 1e-3) != recipe(chosen[COMMON], 1e-3) != recipe(chosen[DORA], 1e-3)
