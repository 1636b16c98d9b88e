"""The trajectories of `benchmark.py`, as JAX computes them."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import signal_drift as sd
from experiments.benchmark.cases import Call
from experiments.problems.mlp import adapters, problem


def grid(config: Any) -> Iterator[tuple[int, float, float]]:
    """(seed, α, η) of the ten runs of F2 for every seed (App. E), η₀ = 1e-4, α₀ = 1."""
    runs = [(1.0, m * 1e-4) for m in (1, 16, 32, 64, 128)] + [(float(m), 1e-4) for m in (16, 32, 64, 128, 256)]
    return ((seed, alpha, eta) for seed in range(config.seeds) for alpha, eta in runs)


def trajectories_ours(config: Any) -> Call:
    """`sd.train`: Adam with everything recorded, float32."""

    @jax.jit
    def run(loss, base, start, s, eta):
        *recorded, _ = sd.train(loss, base, start, s, optax.adam(eta), config.steps)
        return recorded

    return _grid_of_runs(config, run)


def trajectories_bare(config: Any) -> Call:
    """The same with nothing but the loss: `optax.adam` under `lax.scan` on θ ↦ ℓ(w(θ)), float32."""

    @jax.jit
    def run(loss, base, start, s, eta):
        optimizer = optax.adam(eta)

        def step(carry, _):
            theta, state = carry
            value, gradient = jax.value_and_grad(lambda theta: loss(sd.effective_weights(base, theta, s)))(theta)
            delta, state = optimizer.update(gradient, state, theta)
            return (optax.apply_updates(theta, delta), state), value

        return [jax.lax.scan(step, (start, optimizer.init(start)), length=config.steps)[1]]

    return _grid_of_runs(config, run)


def _grid_of_runs(config: Any, run: Callable) -> Call:
    """The losses along every run of the grid, one compilation, as many runs at a time as there are cores."""
    problems = {}
    for seed in range(config.seeds):
        loss, base = problem(config, seed)
        problems[seed] = jax.tree.map(lambda x: x.astype(jnp.float32), (loss, base, adapters(config, base, seed)))

    def one(run_of_grid: tuple[int, float, float]) -> Any:
        seed, alpha, eta = run_of_grid
        recorded = run(*problems[seed], jnp.float32(config.scaling(alpha)), jnp.float32(eta))
        return jax.block_until_ready(recorded)[0][: config.steps]

    def runs() -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(one, grid(config))))

    return runs
