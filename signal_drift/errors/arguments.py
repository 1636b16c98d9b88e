"""Checks the small arguments that many functions take, numbers and keys, and says what is wrong with one."""

import math
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from signal_drift.errors.input_error import InputError
from signal_drift.errors.words import shown

MOST = 2**31 - 1
"""Larger whole numbers than this are a mistake wherever one is asked for."""


def whole(name: str, value: Any, least: int, where: str = "") -> int:
    """Return the argument `name` as an int. Raises `InputError`, ending in `where`, unless it is from `least` on."""
    if not is_real(value) or not math.isfinite(value) or value != int(value):
        raise InputError(f"{name}: must be a whole number of at least {least}, got {shown(value)}{where}")
    if not least <= value <= MOST:
        raise InputError(f"{name}: must be a whole number of at least {least} and below 2³¹, got {value}{where}")
    return int(value)


def positive(name: str, value: Any) -> float:
    """Return the argument `name` as a float. Raises `InputError` unless it is positive and finite."""
    if not is_real(value) or not 0 < value < math.inf:
        raise InputError(f"{name}: must be positive and finite, got {shown(value)}")
    return float(value)


def is_real(value: Any) -> bool:
    """Tell whether a value is one real number, or an array of no axes that holds one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return isinstance(value, float) or abs(value) <= sys.float_info.max
    dtype = getattr(value, "dtype", None)
    if dtype is None or not isinstance(value, jax.Array | np.ndarray | np.generic):
        return False
    return np.shape(value) == () and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def random_key(name: str, key: Any) -> jax.Array:
    """Return the argument `name`. Raises `InputError` unless it is one key of `jax.random`."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.shape == (2,)
    if not (typed or raw):
        raise InputError(f"{name}: must come from jax.random.key(seed), got {shown(key)}")
    return key


def function(name: str, value: Any) -> Any:
    """Return the argument `name`. Raises `InputError` unless it can be called."""
    if not callable(value):
        raise InputError(f"{name}: must be a function, got {type(value).__name__}")
    return value


def named_layers(name: str, tree: Any, kind: str) -> Mapping[str, Any]:
    """Return the argument `name`. Raises `InputError` unless it is a dict from layers to the `kind`."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{name}: must be a dict of {kind}, got {type(tree).__name__}")
    if not tree:
        raise InputError(f"{name}: no layers, got {{}}")
    for layer in tree:
        if not isinstance(layer, str):
            raise InputError(f"{name}: the names of layers must be strings, got {shown(layer)}")
    return tree


def leaves(name: str, tree: Any) -> list[tuple[Any, Any]]:
    """Return the leaves of a tree with their paths. Raises `InputError` for a dict whose keys cannot be sorted."""
    try:
        return jax.tree_util.tree_leaves_with_path(tree)
    except ValueError:
        raise InputError(f"{name}: the keys of a dict must be of one kind, got {shown(tree)}") from None
