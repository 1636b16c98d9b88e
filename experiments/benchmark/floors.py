"""Count the least that a kernel must do, in operations and bytes, and the time these take at measured rates.

Only products with matrices count, once each; a product of a×b and b×c takes 2abc operations. What must be moved are
the weights, once for each pass over the layers, and the result. A floor is the longer of the two times.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.config import Config

EXCHANGE = 64 * 2**20
"""Bytes of the array that is copied to measure the rate of the memory: larger than the caches."""
RUNS = 10
"""Of the grid of F2, for each seed."""
WIDTH = 1024
"""Of the square matrices whose product measures the rate of arithmetic."""


def gradient_flops(config: Config) -> float:
    """Count those of ∇_θ ℓ: with factored or with merged weights, whichever is less; the inputs need no derivative."""
    d, n, layers, r = config.problem.width, config.problem.samples, config.problem.depth, config.problem.rank
    whole, factor = 2 * n * d * d, 2 * n * r * d
    factored = layers * (2 * whole + 6 * factor) - whole - factor
    merged = layers * (3 * whole + 6 * d * d * r) - whole
    return min(factored, merged)


def product_flops(config: Config) -> dict[str, float]:
    """Count those of H_LoRA v, the gradient linearised, with factored and with merged weights.

    Each of the gradient's products with a constant has one derivative, each with a factor two; the inputs have none.
    """
    d, n, layers, r = config.problem.width, config.problem.samples, config.problem.depth, config.problem.rank
    whole, factor = 2 * n * d * d, 2 * n * r * d
    return {
        "factored": layers * (2 * whole + 12 * factor) - 2 * whole - 4 * factor,
        "merged": layers * (6 * whole + 12 * d * d * r) - 4 * whole,
    }


def flops(kernel: str, config: Config, products: float) -> float:
    """Count operations; `products` is how many Hessian-vector products an iterative kernel took.

    An iterative kernel does all of the gradient once and its derivative at every product. A column of H_ℓ has four
    products of the samples for each layer, of which half are zero on average, and half of H_ℓ is the transpose of the
    other.
    """
    d, layers, size = config.problem.width, config.problem.depth, config.problem.depth * config.problem.width**2
    dense = size * layers * 2 * config.problem.samples * d * d
    if kernel == "trajectories":
        return config.seeds * RUNS * config.steps * gradient_flops(config)
    if kernel in {"dense", "spectrum"}:
        return dense + (4 / 3 * size**3 if kernel == "spectrum" else 0)  # reduction to tridiagonal form
    along = products * min(product_flops(config).values())
    if kernel == "product":
        return along
    return gradient_flops(config) + (0 if kernel == "gradient" else along)


def moved_bytes(kernel: str, config: Config, products: float) -> float:
    """Count bytes: the weights for every pass, forward or back, over the layers, and what is returned."""
    size, p = (
        config.problem.depth * config.problem.width**2,
        2 * config.problem.depth * config.problem.width * config.problem.rank,
    )
    passes = {"gradient": 2, "product": 2, "extremes": 2 + 2 * products, "trace": 2 + 2 * products}
    if kernel == "trajectories":
        return 4 * config.seeds * RUNS * config.steps * (2 * size + 7 * p)  # Adam reads four vectors and writes three
    if kernel in passes:
        return 8 * passes[kernel] * (size + p)
    return 8 * size**2


def floor_seconds(kernel: str, config: Config, products: float, rates: dict[str, float]) -> float:
    """Return max(operations/rate, bytes/rate)."""
    arithmetic = rates["float32" if kernel == "trajectories" else "float64"]
    return max(flops(kernel, config, products) / arithmetic, moved_bytes(kernel, config, products) / rates["bytes"])


def measured_rates() -> dict[str, float]:
    """Measure operations per second of a large matrix product in both precisions, bytes per second of a large copy."""
    rates = {}
    for dtype in (jnp.float64, jnp.float32):
        x = jax.random.normal(jax.random.key(0), (WIDTH, WIDTH), dtype)
        product = jax.jit(jnp.matmul)
        rates[np.dtype(dtype).name] = 2 * WIDTH**3 / _seconds(lambda x=x, f=product: f(x, x))
    source = np.ones(EXCHANGE // 8)
    target = np.zeros_like(source)
    return rates | {"bytes": 2 * EXCHANGE / _seconds(lambda: np.copyto(target, source))}


def _seconds(call: Callable[[], Any]) -> float:
    """Time the fastest of five, after one that is not counted."""
    jax.block_until_ready(call())
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)
