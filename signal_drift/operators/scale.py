"""Works near 1 in whatever unit a loss is measured: a power of two changes no digit, and squares stay in range."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, overload

import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.operators.operator import AnyPoint, LinearMap, SymmetricOperator


def exponent_of(x: Array | np.ndarray) -> int:
    """Return e with ½ ≤ 2^e·max|x| < 1, at most 1000 (2^e is a number); 0 where max|x| is 0 or not finite."""
    return min(1000, -int(np.frexp(_extreme(x))[1]))


@overload
def restored(x: float, exponent: int, size: float) -> float: ...
@overload
def restored(x: np.ndarray, exponent: int, size: float) -> np.ndarray: ...
def restored(x: float | np.ndarray, exponent: int, size: float) -> float | np.ndarray:
    """Return 2^−e·x, what was computed of 2^e·H with ‖H‖ about 2^−e·`size`.

    Raises `InputError` where that leaves the range of float64, in which a certificate has no meaning.
    """
    with np.errstate(over="ignore"):
        there, unit = np.ldexp(x, -exponent), np.ldexp(size, -exponent)
    if np.any(np.isinf(there) & np.isfinite(x)) or not (size == 0 or np.finfo(float).tiny <= unit < np.inf):
        about = round(np.log10(size) - exponent * np.log10(2))
        raise InputError(f"op: its size of about 1e{about} leaves the range of float64; scale the loss")
    return there if isinstance(x, np.ndarray) else float(there)


def in_range(op: SymmetricOperator, sample: Callable[[SymmetricOperator], Any]) -> tuple[Any, int]:
    """Return (sample(2^e·H), e), e = 0 unless some entry of sample(H) or of what it comes from may leave the range.

    `sample` is linear in H: a product, the matrix, its diagonal. Where it is zero or not finite at every scale it is
    returned as it is for e = 0.
    """
    far = int(jnp.finfo(op.dtype).maxexp) // 2
    first = sample(op)
    size = _extreme(first)
    exponent = exponent_of(first)
    if size != 0 and np.isfinite(size) and abs(exponent) <= far // 2:
        return first, 0
    exponent = (far if size == 0 else exponent) if np.isfinite(size) else -far
    again = sample(times_power(op, exponent))
    size = _extreme(again)
    return (again, exponent) if size != 0 and np.isfinite(size) else (first, 0)


def times_power(op: SymmetricOperator, exponent: int) -> SymmetricOperator:
    """Return 2^e·H, half of the power taken before the product and half after, so that neither leaves the range."""
    into, out = (jnp.asarray(np.ldexp(1.0, e), op.dtype) for e in (exponent // 2, exponent - exponent // 2))
    point = _ScaledPoint(op.point.plain, linearise=op.linearise, into=into, out=out)
    formula = f"2^{exponent}·({op.formula})"
    return replace(op, linearise=_scaled, point=point, formula=formula)


@register_dataclass
@dataclass(frozen=True)
class _ScaledPoint:
    """A point, the map that is taken there, and the factors before and after it."""

    plain: AnyPoint
    linearise: Callable[[Any], LinearMap] = field(metadata={"static": True})
    into: Array
    out: Array


def _scaled(point: _ScaledPoint) -> LinearMap:
    apply = point.linearise(point.plain)
    return lambda v: point.out * apply(point.into * v)


def _extreme(x: Array | np.ndarray) -> float:
    """max|x|, NaN if there is one, without a copy of x."""
    return float(np.maximum(np.max(x, initial=0.0), -np.min(x, initial=0.0)))
