"""Set up the kernels as PyTorch's tools compute them, on the weights and data of `cases`.

Needs the `peers` extra: torch, curvlinops and hessian-eigenthings.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

from experiments.benchmark.config import Config
from experiments.benchmark.ways.cases import Call, Case, in_turn, point
from signal_drift.lora.adapters import effective_weights

CHUNK = 128
"""Columns of H_ℓ at a time, fed by hand to `torch.func`."""


def tensor(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x))


class SiLU(torch.nn.Module):
    """Compute x·σ(x), written out: forward-mode differentiation of PyTorch's own SiLU stops at its derivative."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class Linear(torch.nn.Module):
    """Compute y = W x."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.W = torch.nn.Parameter(tensor(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.W.T


class LoRALinear(torch.nn.Module):
    """Compute y = (W₀ + BA) x; the parameters in the order of θ."""

    W0: torch.Tensor

    def __init__(self, base: Any, adapter: Any) -> None:
        super().__init__()
        self.register_buffer("W0", tensor(base))
        self.A, self.B = (torch.nn.Parameter(tensor(x)) for x in adapter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.W0 + self.B @ self.A).T


class Stack(torch.nn.Module):
    """Compute the layers in turn with SiLU between them; the parameters in the order of θ."""

    def __init__(self, layers: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        names = sorted(layers)
        self.layers = torch.nn.ModuleList([layers[name] for name in names])
        self.places, self.between = [names.index(name) for name in in_turn(names)], SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = (self.layers[place] for place in self.places)
        x = first(x)
        for layer in others:
            x = layer(self.between(x))
        return x


class Peer(NamedTuple):
    """Hold a module with its data, and its loss as a function of the flat vector of its parameters."""

    model: torch.nn.Module
    data: tuple[torch.Tensor, torch.Tensor]
    loss: Callable[[torch.Tensor], torch.Tensor]
    theta: torch.Tensor
    direction: torch.Tensor


def _peer(config: Config, *, whole: bool) -> Peer:
    """Take the adapters of the point as parameters, or the `whole` of its effective weights."""
    at = point(config)
    merged = effective_weights(at.base, at.adapters, at.scaling)
    model = Stack({k: Linear(merged[k]) if whole else LoRALinear(at.base[k], at.adapters[k]) for k in at.base})
    X, Y = (tensor(x) for x in config.problem.regression(0)[2])
    parameters = dict(model.named_parameters())
    sizes, shapes = [p.numel() for p in parameters.values()], [p.shape for p in parameters.values()]

    def loss(theta: torch.Tensor) -> torch.Tensor:
        pieces = [x.view(shape) for x, shape in zip(theta.split(sizes), shapes, strict=True)]
        output = torch.func.functional_call(model, dict(zip(parameters, pieces, strict=True)), (X,))
        return torch.mean((output - Y) ** 2)

    theta = tensor(ravel_pytree(merged if whole else at.adapters)[0])
    return Peer(model, (X, Y), loss, theta, tensor(at.direction))


def gradient_torch(config: Config) -> Call:
    """Compute the gradient by `torch.func.grad`."""
    peer = _peer(config, whole=False)
    gradient = torch.func.grad(peer.loss)
    return lambda: gradient(peer.theta)


def product_torch(config: Config) -> Call:
    """Compute `torch.func.jvp` of `torch.func.grad`."""
    peer = _peer(config, whole=False)
    gradient = torch.func.grad(peer.loss)
    return lambda: torch.func.jvp(gradient, (peer.theta,), (peer.direction,))[1]


def product_curvlinops(config: Config) -> Call:
    """Compute `HessianLinearOperator @ v`."""
    peer = _peer(config, whole=False)
    hessian = _curvlinops(peer)
    return lambda: hessian @ peer.direction


def product_eigenthings(config: Config) -> Call:
    """Compute `HessianOperator.matvec`."""
    peer = _peer(config, whole=False)
    hessian = _eigenthings(peer)
    return lambda: hessian.matvec(peer.direction)


def dense_torch(config: Config) -> Call:
    """Compute `torch.func.hessian`."""
    peer = _peer(config, whole=True)
    hessian = torch.func.hessian(peer.loss)
    return lambda: hessian(peer.theta)


def dense_chunked(config: Config) -> Call:
    """Compute `torch.func`'s Hessian-vector product under vmap over chunks of basis vectors."""
    peer = _peer(config, whole=True)
    gradient, n = torch.func.grad(peer.loss), len(peer.theta)
    columns = torch.func.vmap(lambda v: torch.func.jvp(gradient, (peer.theta,), (v,))[1])

    def dense() -> torch.Tensor:
        starts = range(0, n, CHUNK)
        return torch.cat([columns(torch.eye(min(CHUNK, n - i), n, dtype=torch.float64).roll(i, 1)) for i in starts])

    return dense


def spectrum_linalg(config: Config) -> Call:
    """Compute `torch.linalg.eigvalsh`, on a CPU that of MKL, of the matrix in chunks."""
    hessian = dense_chunked(config)
    return lambda: torch.linalg.eigvalsh(hessian())


def dense_curvlinops(config: Config) -> Call:
    """Compute `HessianLinearOperator @ eye`."""
    peer = _peer(config, whole=True)
    hessian = _curvlinops(peer)
    return lambda: hessian @ torch.eye(len(peer.theta), dtype=torch.float64)


def extremes_curvlinops(config: Config) -> Call:
    """Find the ends by SciPy's `eigsh` on curvlinops' operator, one call for each end."""
    peer = _peer(config, whole=False)
    hessian, count = _curvlinops(peer), [0]
    options: dict[str, Any] = {"tol": config.tolerance}

    def product(v: np.ndarray) -> np.ndarray:
        count[0] += 1
        return (hessian @ tensor(v.ravel())).numpy(force=True)

    def extremes() -> dict[str, Any]:
        count[0] = 0
        op = LinearOperator(hessian.shape, matvec=product, dtype=float)  # pyright: ignore[reportCallIssue]
        ends = [eigsh(op, 1, which=end, return_eigenvectors=False, **options) for end in ("SA", "LA")]
        return {"answer": np.concatenate(ends), "products": count[0]}

    return extremes


def extremes_eigenthings(config: Config) -> Call:
    """Find each end by `lanczos`, by its own rule for the number of steps: twice as many until it says converged."""
    from hessian_eigenthings import lanczos

    operator = _eigenthings(_peer(config, whole=False))

    def end(which: str) -> tuple[float, int]:
        steps, total = 16, 0
        while True:
            steps = min(2 * steps, operator.size)
            found = lanczos(operator, k=1, max_iter=steps, tol=config.tolerance, reorthogonalize=True, which=which)  # pyright: ignore[reportArgumentType]
            total += found.iterations
            if bool(found.converged.all()) or steps == operator.size:
                return float(found.eigenvalues[0]), total

    def extremes() -> dict[str, Any]:
        values, products = zip(*(end(which) for which in ("SA", "LA")), strict=True)
        return {"answer": np.array(values), "products": sum(products)}

    return extremes


def trace_curvlinops(config: Config) -> Call:
    """Estimate the trace by `hutchpp_trace`."""
    from curvlinops import hutchpp_trace

    hessian = _curvlinops(_peer(config, whole=False))

    def trace() -> dict[str, Any]:
        return {"answer": float(hutchpp_trace(hessian, config.probes)), "products": config.probes}

    return trace


def trace_eigenthings(config: Config) -> Call:
    """Estimate the trace by `trace`, Hutch++ as well."""
    import hessian_eigenthings as eigenthings

    operator = _eigenthings(_peer(config, whole=False))

    def trace() -> dict[str, Any]:
        found = eigenthings.trace(operator, num_matvecs=config.probes, seed=0)
        return {"answer": float(found.estimate), "products": config.probes}

    return trace


def _curvlinops(peer: Peer) -> Any:
    from curvlinops import HessianLinearOperator

    parameters: Iterable = list(peer.model.parameters())
    return HessianLinearOperator(peer.model, torch.nn.MSELoss(), parameters, [peer.data], check_deterministic=False)  # pyright: ignore


def _eigenthings(peer: Peer) -> Any:
    from hessian_eigenthings import HessianOperator, supervised_loss

    return HessianOperator(peer.model, [peer.data], supervised_loss(torch.nn.MSELoss()))


KERNELS: dict[tuple[str, str], Case] = {
    ("gradient", "torch"): gradient_torch,
    ("product", "torch"): product_torch,
    ("product", "curvlinops"): product_curvlinops,
    ("product", "eigenthings"): product_eigenthings,
    ("dense", "torch"): dense_torch,
    ("dense", "chunked"): dense_chunked,
    ("dense", "curvlinops"): dense_curvlinops,
    ("spectrum", "linalg"): spectrum_linalg,
    ("extremes", "curvlinops"): extremes_curvlinops,
    ("extremes", "eigenthings"): extremes_eigenthings,
    ("trace", "curvlinops"): trace_curvlinops,
    ("trace", "eigenthings"): trace_eigenthings,
}
"""What sets up the call, by kernel and way."""
