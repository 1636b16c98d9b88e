"""What `benchmark.py` times: each case a function of the configuration that sets up and returns the call to time."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import signal_drift as sd
from experiments.setting import Setting, adapters, problem

Call = Callable[[], Any]
Spectra = dict[str, np.ndarray]


def task_ours(config: Any) -> Call:
    """The dense H_ℓ."""
    loss, base = problem(config, 0)
    return sd.decompose(loss, base, adapters(config, base, 0), config.scaling(1.0)).task.dense


def task_straightforward(config: Any) -> Call:
    """`jax.hessian` of the loss of the flat weights, compiled."""
    loss, base = problem(config, 0)
    w, unravel = ravel_pytree(base)
    hessian = jax.jit(jax.hessian(lambda w: loss(unravel(w))))
    return lambda: hessian(w)


def pipeline_ours(config: Any) -> Call:
    """One H_ℓ, one H_Signal and one H_Drift, scaled by α² and α (exact at B = 0), and H_LoRA itself at every α."""

    def spectra() -> Spectra:
        loss, base = problem(config, 0)
        start = adapters(config, base, 0)
        unit = sd.decompose(loss, base, start, config.scaling(1.0))
        task, signal, drift = (sd.eigenvalues(op) for op in (unit.task, unit.signal, unit.drift))
        found = {}
        for alpha in config.alphas:
            lora = sd.decompose(loss, base, start, config.scaling(alpha)).lora
            found |= {f"task {alpha}": task, f"signal {alpha}": alpha**2 * signal, f"drift {alpha}": alpha * drift}
            found[f"lora {alpha}"] = sd.eigenvalues(lora)
        return found

    return spectra


def pipeline_straightforward(config: Any) -> Call:
    """`jax.hessian` of both losses, a dense J and `jnp.linalg.eigvalsh` of the four matrices at every α."""

    def spectra() -> Spectra:
        loss, base = problem(config, 0)
        theta, unravel = ravel_pytree(adapters(config, base, 0))
        unravel_w = ravel_pytree(base)[1]

        def weights(theta: jax.Array, s: float) -> jax.Array:
            return ravel_pytree(sd.effective_weights(base, unravel(theta), s))[0]

        task_hessian = jax.jit(jax.hessian(lambda w: loss(unravel_w(w))))
        lora_hessian = jax.jit(jax.hessian(lambda theta, s: loss(unravel_w(weights(theta, s)))))
        jacobian = jax.jit(jax.jacobian(weights))
        found = {}
        for alpha in config.alphas:
            s = config.scaling(alpha)
            task, lora, J = task_hessian(weights(theta, s)), lora_hessian(theta, s), jacobian(theta, s)
            signal = J.T @ task @ J
            matrices = {"task": task, "signal": signal, "drift": lora - signal, "lora": lora}
            found |= {f"{name} {alpha}": np.asarray(jnp.linalg.eigvalsh(H)) for name, H in matrices.items()}
        return found

    return spectra


def grid(config: Any) -> Iterator[tuple[int, float, float]]:
    """(seed, α, η) of the ten runs of F2 for every seed (App. E), η₀ = 1e-4, α₀ = 1."""
    runs = [(1.0, m * 1e-4) for m in (1, 16, 32, 64, 128)] + [(float(m), 1e-4) for m in (16, 32, 64, 128, 256)]
    return ((seed, alpha, eta) for seed in range(config.seeds) for alpha, eta in runs)


def trajectories_ours(config: Any) -> Call:
    """`sd.train`: Adam with everything recorded, float32."""
    run = jax.jit(lambda loss, base, start, s, eta: sd.train(loss, base, start, s, optax.adam(eta), config.steps)[:-1])
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

        return jax.lax.scan(step, (start, optimizer.init(start)), length=config.steps)[1]

    return _grid_of_runs(config, run)


def _grid_of_runs(config: Any, run: Callable) -> Call:
    """Every run of the grid, one compilation, as many at a time as there are cores."""
    setting = _wide(config)
    problems = {}
    for seed in range(config.seeds):
        loss, base = problem(setting, seed)
        problems[seed] = jax.tree.map(lambda x: x.astype(jnp.float32), (loss, base, adapters(setting, base, seed)))

    def one(point: tuple[int, float, float]) -> Any:
        seed, alpha, eta = point
        return jax.block_until_ready(run(*problems[seed], jnp.float32(setting.scaling(alpha)), jnp.float32(eta)))

    def runs() -> list:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(one, grid(config)))

    return runs


def trajectories_peft(config: Any) -> Call:
    """The same runs in a training loop of PyTorch and PEFT, float32, the loss alone recorded.

    Exits with one line where they are not installed (the `peers` extra).
    """
    try:
        import peft  # pyright: ignore[reportMissingImports]
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        sys.exit(f"not measured: {missing.name} is not installed (pip install '.[peers]')")
    setting = _wide(config)

    def prepared(seed: int, alpha: float, eta: float) -> tuple:
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(setting.width, setting.width, bias=False) for _ in range(setting.depth)]
        modules = [m for layer in layers for m in (layer, torch.nn.SiLU())][:-1]
        names = [str(2 * i) for i in range(setting.depth)]
        lora = peft.LoraConfig(r=setting.rank, lora_alpha=alpha, target_modules=names)  # pyright: ignore[reportArgumentType]
        model = peft.get_peft_model(torch.nn.Sequential(*modules), lora)  # pyright: ignore[reportArgumentType]
        X, Y = torch.randn(setting.samples, setting.width), torch.randn(setting.samples, setting.width)
        return model, torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=eta), X, Y

    def run(model: Any, optimizer: Any, X: Any, Y: Any) -> list[float]:
        losses = []
        for _ in range(config.steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(X), Y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    models = [prepared(*point) for point in grid(config)]
    return lambda: [run(*model) for model in models]


def _wide(config: Any) -> Setting:
    """The setting of F2."""
    return Setting(width=config.trajectory_width, depth=config.depth, samples=config.samples, rank=config.rank)
