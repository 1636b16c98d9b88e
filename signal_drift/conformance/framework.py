"""States what is asked of a framework: what its configuration says of every layer, its factors, and a forward pass."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function, is_real, named_layers, positive, whole
from signal_drift.errors.words import shown

DTYPES = ("float64", "float32", "float16", "bfloat16")
"""The precisions that are told apart, the finest first."""


class Layer(NamedTuple):
    """Holds what a configuration says of one layer, y = W₀x + b + s·BAx with s = α/r, or α/√r with `rslora`.

    `shape` is (d_out, d_in). `sigma_a` is σ_A as A is drawn, NaN where it is not, and `b_is_zero` how B begins; `dtype`
    is that of the product, and `tied_to` the layer whose factors are this one's too: each is empty where nothing is
    said.
    """

    shape: tuple[int, int]
    r: int
    alpha: float
    rslora: bool = False
    sigma_a: float = math.nan
    b_is_zero: bool = True
    dtype: str = ""
    tied_to: str = ""

    @property
    def s(self) -> float:
        """Return α/r, or α/√r."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


class Factors(NamedTuple):
    """Holds A (r, d_in) and B (d_out, r) of a layer as NumPy has them."""

    A: Float[np.ndarray, "r d_in"]
    B: Float[np.ndarray, "d_out r"]


SigmaA = float | Callable[[int, int], float]
"""What is said of σ_A: a number, or a function of d_in and r."""
Theta = Mapping[str, Factors]
Inputs = Mapping[str, Float[np.ndarray, "_n _d_in"]]
Forward = Callable[[Theta, Inputs], Mapping[str, Any]]


class Framework(NamedTuple):
    """Shows a framework from the outside.

    `forward(theta, inputs)` puts these factors into the layers and returns the output (n, d_out) of every layer on its
    own input (n, d_in), as the framework computes it. `state` are the factors as they are, at the start unless
    `trained`. With `base`, the frozen W₀ (d_out, d_in) of every layer, y(A, 0) = W₀x + b is asked too, and an α that is
    read as 0 is told from adapters that are merged.
    """

    name: str
    layers: Mapping[str, Layer]
    state: Theta
    forward: Forward
    trained: bool = False
    base: Mapping[str, Any] | None = None


def check_layers(layers: Any) -> None:
    """Raise `InputError` for a layer without α or r, or of a shape that is none."""
    for name, layer in named_layers("layers", layers, "Layer").items():
        if not isinstance(layer, Layer):
            raise InputError(f"layers[{name!r}]: must be a Layer, got {shown(layer)}")
        for field in ("r", "alpha"):
            if getattr(layer, field) is None:
                raise InputError(f"{field}: is missing in what is said of layer {name!r}")
        where = f" for layer {name!r}"
        whole("r", layer.r, 1, where)
        if not is_real(layer.alpha) or not 0 < layer.alpha < math.inf:
            raise InputError(f"alpha: must be positive and finite, got {shown(layer.alpha)}{where}")
        if not math.isnan(layer.sigma_a):
            positive("sigma_a", layer.sigma_a)
        for size in layer.shape:
            whole("shape", size, 1, where)
        if layer.dtype and layer.dtype not in DTYPES:
            raise InputError(f"dtype: must be one of {', '.join(DTYPES)}, or empty, got {shown(layer.dtype)}{where}")
        if layer.tied_to and layer.tied_to not in layers:
            raise InputError(f"tied_to: unknown layer {layer.tied_to!r}{where}; the layers are {sorted(layers)}")


def check_state(layers: Mapping[str, Layer], state: Any) -> None:
    """Raise `InputError` unless there are finite factors of the shapes and ranks that are said."""
    if not isinstance(state, Mapping) or state.keys() != layers.keys():
        raise InputError(f"state: must have the factors of the layers {sorted(layers)}, got {shown(state)}")
    for name, layer in layers.items():
        A, B = state[name]
        (d_out, d_in), r = layer.shape, layer.r
        if (np.shape(A), np.shape(B)) != ((r, d_in), (d_out, r)):
            raise InputError(
                f"state[{name!r}]: A {np.shape(A)} and B {np.shape(B)} must be {(r, d_in)} and {(d_out, r)}, "
                f"by the r = {r} that is said"
            )
        for factor, x in (("A", A), ("B", B)):
            if not np.isfinite(x).all():
                raise InputError(f"state[{name!r}].{factor}: must be finite, got {x[~np.isfinite(x)][0]}")


def check_base(layers: Mapping[str, Layer], base: Any) -> None:
    """Raise `InputError` unless W₀ of every layer is there, or none is."""
    if base is None:
        return
    if not isinstance(base, Mapping) or not layers.keys() <= base.keys():
        raise InputError(f"base: must have W₀ of the layers {sorted(layers)}, got {shown(base)}")
    for name, layer in layers.items():
        if np.shape(base[name]) != tuple(layer.shape):
            raise InputError(f"base[{name!r}]: must have the shape {tuple(layer.shape)}, got {np.shape(base[name])}")


def said_sigma(sigma_a: SigmaA | None, default: Callable[[int], float], d_in: int, r: int) -> float:
    """Return what is said of σ_A of one layer, `default` of d_in for nothing. Raises `InputError` for no number."""
    if sigma_a is None:
        return default(d_in)
    said = sigma_a(d_in, r) if callable(sigma_a) else sigma_a
    if not is_real(said):
        raise InputError(f"sigma_a: must be a number, or a function of d_in and r that gives one, got {shown(said)}")
    return float(said)


def run(framework: Framework, theta: Theta, inputs: Inputs) -> dict[str, Float[np.ndarray, "_n _d_out"]]:
    """Compute the outputs in float64; raise `InputError` for one that is missing, of another shape, or not finite."""
    outputs = function("forward", framework.forward)(theta, inputs)
    if not isinstance(outputs, Mapping):
        raise InputError(f"forward: must return a dict from layers to outputs, got {shown(outputs)}")
    found = {}
    for name, layer in framework.layers.items():
        if name not in outputs:
            raise InputError(f"forward: gives no output of layer {name!r}")
        y, shape = _real(name, outputs[name]), (len(inputs[name]), layer.shape[0])
        if y.shape != shape:
            raise InputError(f"forward: the output of layer {name!r} must have the shape {shape}, got {y.shape}")
        if not np.isfinite(y).all():
            raise InputError(f"forward: the output of layer {name!r} must be finite, got {y[~np.isfinite(y)][0]}")
        found[name] = y
    return found


def _real(name: str, y: Any) -> np.ndarray:
    try:
        given = np.asarray(y)
        if not np.iscomplexobj(given):
            return np.asarray(given, float)
    except (TypeError, ValueError):
        given = y
    raise InputError(f"forward: the output of layer {name!r} must be of real numbers, got {shown(given)}")
