"""Run F2 as JAX computes it, by `sd.train` and by a bare scan of optax."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.benchmark.config import Config
from experiments.benchmark.ways.cases import Call, Case
from signal_drift.lora.adapters import Adapters


def grid(config: Config) -> Iterator[tuple[int, float, float]]:
    """Yield (seed, α, η) of the ten runs of F2 for every seed (App. E), η₀ = 1e-4, α₀ = 1."""
    runs = [(1.0, m * 1e-4) for m in (1, 16, 32, 64, 128)] + [(float(m), 1e-4) for m in (16, 32, 64, 128, 256)]
    return ((seed, alpha, eta) for seed in range(config.seeds) for alpha, eta in runs)


def trajectories_ours(config: Config) -> Call:
    """Run `sd.train`: Adam with everything recorded, float32."""

    @jax.jit
    def run(loss: Partial, base: dict[str, Array], start: Adapters, s: Array, eta: Array) -> list[Any]:
        *recorded, _ = sd.train(loss, base, start, s, optax.adam(eta), config.steps)
        return recorded

    return _grid_of_runs(config, run)


def trajectories_bare(config: Config) -> Call:
    """Run `optax.adam` under `lax.scan` on θ ↦ ℓ(w(θ)) and record nothing but the loss, float32."""

    @jax.jit
    def run(loss: Partial, base: dict[str, Array], start: Adapters, s: Array, eta: Array) -> list[Any]:
        optimizer = optax.adam(eta)

        def step(carry: tuple[Any, optax.OptState], _: None) -> tuple[tuple[Any, optax.OptState], Array]:
            theta, state = carry
            value, gradient = jax.value_and_grad(lambda theta: loss(sd.effective_weights(base, theta, s)))(theta)
            delta, state = optimizer.update(gradient, state, theta)
            return (optax.apply_updates(theta, delta), state), value

        return [jax.lax.scan(step, (start, optimizer.init(start)), length=config.steps)[1]]

    return _grid_of_runs(config, run)


def _grid_of_runs(config: Config, run: Callable[..., list[Any]]) -> Call:
    """Take the losses along every run of the grid, one compilation, as many runs at a time as there are cores."""
    problems = {}
    for seed in range(config.seeds):
        (base, loss), start = config.problem.draw(seed), config.problem.adapters(seed)
        problems[seed] = jax.tree.map(lambda x: x.astype(jnp.float32), (loss, base, start))

    def one(run_of_grid: tuple[int, float, float]) -> Any:
        seed, alpha, eta = run_of_grid
        recorded = run(*problems[seed], jnp.float32(config.problem.scaling(alpha)), jnp.float32(eta))
        return jax.block_until_ready(recorded)[0][: config.steps]

    def runs() -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(one, grid(config))))

    return runs


KERNELS: dict[tuple[str, str], Case] = {
    ("trajectories", "ours"): trajectories_ours,
    ("trajectories", "bare"): trajectories_bare,
}
"""What sets up the call, by kernel and way."""
