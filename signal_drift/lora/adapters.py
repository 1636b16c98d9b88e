"""Computes the LoRA map θ ↦ w(θ) = W₀ + s·BA, its Jacobian and its adjoint, layer by layer and never materialised.

A model is a dict of frozen matrices `base[layer]`, W₀ of shape (d_out, d_in) in y = W x. Every dict of this
package has the same keys. Wherever a dict is flattened, the order is that of `jax.flatten_util.ravel_pytree`:
keys sorted, A before B, each matrix row by row.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer, variance_scaling
from jaxtyping import Array, Float, Key

from signal_drift.display import Table, displayed_as, dtype, norm, shape
from signal_drift.errors import InputError
from signal_drift.errors.arguments import function, is_real, named_layers, random_key, whole
from signal_drift.errors.words import shown

Weights = Mapping[str, Float[Array, "_d_out _d_in"]]
Scaling = float | Array | Mapping[str, float | Array]
T = TypeVar("T")


class Adapter(NamedTuple):
    """Hold the two factors of one layer's update s·BA."""

    A: Float[Array, "r d_in"]
    B: Float[Array, "d_out r"]


Adapters = Mapping[str, Adapter]

normal_fan_in: Initializer = variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)
"""A ~ N(0, 1/d_in), as in App. E."""

kaiming_uniform: Initializer = variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)
"""A ~ U(−1/√d_in, 1/√d_in), variance 1/(3 d_in): the default of PyTorch and PEFT (App. F)."""


def init_adapters(
    key: Key[Array, ""],
    base: Weights,
    rank: int | Mapping[str, int],
    init_A: Initializer = normal_fan_in,
) -> dict[str, Adapter]:
    """Draw A from `init_A` and set B = 0, so that w(θ) = W₀ at the start (Sec. 3).

    `rank` is r for all layers, or r of each layer; it may exceed the layer's own dimensions. The factors take
    the dtype of `base`. Raises `InputError` for a rank below 1, a base weight that is not a matrix, or no key.
    """
    check_matrices(base)
    ranks = {layer: whole("rank", r, 1, f" for layer {layer!r}") for layer, r in per_layer("rank", rank, base).items()}
    function("init_A", init_A)
    keys = dict(zip(sorted(base), jax.random.split(random_key("key", key), len(base)), strict=True))

    def init_layer(layer: str) -> Adapter:
        (d_out, d_in), r, dtype = base[layer].shape, ranks[layer], base[layer].dtype
        return Adapter(A=init_A(keys[layer], (r, d_in), dtype), B=jnp.zeros((d_out, r), dtype))

    return {layer: init_layer(layer) for layer in sorted(base)}


def effective_weights(base: Weights, adapters: Adapters, scaling: Scaling) -> dict[str, Array]:
    """Return W = W₀ + s·BA for every layer (Sec. 2), s = α/r the `scaling`, one number or one per layer."""
    check_fit(base, adapters)
    s = scalings(scaling, base)
    return {layer: base[layer] + s[layer] * (B @ A) for layer, (A, B) in sorted(adapters.items())}


def jacobian_product(adapters: Adapters, delta: Adapters, scaling: Scaling) -> dict[str, Array]:
    """Return J Δθ = s·(B ΔA + ΔB A) for every layer (Eq. 43), without forming J."""
    check_same_shapes(adapters, delta)
    s = scalings(scaling, adapters)
    return {layer: s[layer] * (B @ delta[layer].A + delta[layer].B @ A) for layer, (A, B) in adapters.items()}


def adjoint_product(adapters: Adapters, V: Weights, scaling: Scaling) -> dict[str, Adapter]:
    """Return Jᵀ V = (s·BᵀV, s·V Aᵀ) for every layer: the transpose of Eq. 43; for V = G it is ∇_θ ℓ (Eq. 22)."""
    check_adapters("adapters", adapters)
    for layer, matrix in per_layer("V", V, adapters).items():
        A, B = adapters[layer]
        if np.shape(check_array(f"V[{layer!r}]", matrix)) != (len(B), A.shape[1]):
            raise InputError(f"V[{layer!r}]: shape {np.shape(matrix)} does not fit the weight {(len(B), A.shape[1])}")
    s = scalings(scaling, adapters)
    return {
        layer: Adapter(A=s[layer] * (B.T @ V[layer]), B=s[layer] * (V[layer] @ A.T))
        for layer, (A, B) in adapters.items()
    }


def per_layer(name: str, value: T | Mapping[str, T], layers: Mapping[str, object]) -> dict[str, T]:
    """Spread the argument `name`, given once for all layers or as a dict with exactly these layers, to a dict.

    Raises `InputError` for an unknown or a missing layer.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(sorted(layers), value)
    if value.keys() != layers.keys():
        odd = sorted(value.keys() ^ layers.keys())[0]
        kind = "unknown" if odd in value else "missing"
        raise InputError(f"{name}: {kind} layer {odd!r}; the layers are {sorted(layers)}")
    return {layer: value[layer] for layer in sorted(layers)}


def scalings(scaling: Scaling, layers: Mapping[str, object]) -> dict[str, float | Array]:
    """Spread s = α/r, given once or for each layer, to a dict. Raises `InputError` unless every one is a number."""
    spread = per_layer("scaling", scaling, layers)
    for layer, s in spread.items():
        if not is_real(s):
            raise InputError(f"scaling: must be a real number, got {shown(s)} for layer {layer!r}")
    return {layer: float(s) if isinstance(s, int) else s for layer, s in spread.items()}


def check_matrices(base: Weights) -> None:
    """Raise `InputError` unless every layer of a dict, of which there is one, is a matrix of a floating dtype."""
    for layer, W0 in named_layers("base", base, "matrices, as of base_and_forward(model)").items():
        check_array(f"base[{layer!r}]", W0, "; of an nnx kernel, kernel[...].T")
        if W0.ndim != 2:
            raise InputError(f"base[{layer!r}]: must be a matrix (d_out, d_in), got shape {W0.shape}")


def check_fit(base: Weights, adapters: Adapters) -> None:
    """Raise `InputError` unless every layer has its adapter, A of shape (r, d_in) and B of shape (d_out, r)."""
    check_matrices(base)
    check_adapters("adapters", adapters)
    for layer, (A, B) in per_layer("adapters", adapters, base).items():
        d_out, d_in = base[layer].shape
        if (B.shape[0], A.shape[1]) != (d_out, d_in):
            raise InputError(
                f"adapters[{layer!r}]: A {A.shape} and B {B.shape} do not fit the weight {(d_out, d_in)}; "
                "A must be (r, d_in), B (d_out, r)"
            )


def check_adapters(name: str, adapters: Adapters) -> None:
    """Raise `InputError` unless this is a dict of pairs (A, B)."""
    for layer, adapter in named_layers(name, adapters, "Adapter(A, B)").items():
        if not isinstance(adapter, Adapter):
            raise InputError(f"{name}[{layer!r}]: must be an Adapter(A, B), got {type(adapter).__name__}")
        for factor, x in adapter._asdict().items():
            check_array(f"{name}[{layer!r}].{factor}", x)
        A, B = adapter
        if A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1]:
            raise InputError(f"{name}[{layer!r}]: A {A.shape} and B {B.shape} must be (r, d_in) and (d_out, r)")


def check_array(name: str, x: Any, mend: str = "") -> Array | np.ndarray:
    """Return x. Raises `InputError` unless it is an array of a floating dtype in which JAX computes."""
    if not isinstance(x, jax.Array | np.ndarray):
        raise InputError(f"{name}: must be an array, got {type(x).__name__}{mend}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name}: must be of a floating dtype, got {x.dtype}")
    if jnp.finfo(x.dtype).bits < 16:
        raise InputError(f"{name}: must be of a dtype that JAX computes in, got {x.dtype}; .astype('float32')")
    return x


def check_same_shapes(adapters: Adapters, delta: Adapters) -> None:
    """Raise `InputError` unless both are adapters of the same layers and shapes."""
    check_adapters("adapters", adapters)
    check_adapters("delta", delta)
    for layer, change in per_layer("delta", delta, adapters).items():
        if jax.tree.map(jnp.shape, change) != jax.tree.map(jnp.shape, adapters[layer]):
            raise InputError(
                f"delta[{layer!r}]: A {change.A.shape} and B {change.B.shape} do not fit the adapter's "
                f"A {adapters[layer].A.shape} and B {adapters[layer].B.shape}"
            )


def _table(x: Adapter) -> Table:
    return Table(f"Adapter(A {shape(x.A)}, ‖A‖ {norm(x.A)}; B {shape(x.B)}, ‖B‖ {norm(x.B)}; {dtype(x)})")


displayed_as(_table)(Adapter)
