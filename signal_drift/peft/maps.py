"""Makes the factors of ΔW = s·BA from what is stored: plain ones, and those of QALoRA, BD-LoRA and experts."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.peft.config import LoraConfig, initial_sigma
from signal_drift.peft.settings import CONFIG

LARGEST = 2**25
"""Entries that a factor may have which is larger than what is stored of it."""

LARGEST_SCALING = 1e30
"""With it, and 1/s no larger, no square of a singular value of s·BA overflows in float64."""


class Place(NamedTuple):
    """Says where the factors of a layer are: the file, the keys of A and B, the rank and scaling, and the settings."""

    file: str
    layer: str
    A: str
    B: str
    rank: int
    scaling: float
    config: LoraConfig
    embedding: bool = False


class StoredLayer(NamedTuple):
    """Holds one layer's factors in float32, with W = W₀ + s·BA and s = `scaling`; a convolution is flattened.

    `sigma_set` is σ_A as the initialiser draws it, NaN where it does not, or where A or B is not full; `sigma_measured`
    is the root mean square of what is stored of A, and `stored` the number of its entries.
    """

    layer: str
    A: Float[np.ndarray, "r d_in"]
    B: Float[np.ndarray, "d_out r"]
    embedding: bool
    scaling: float
    config: LoraConfig
    sigma_set: float
    sigma_measured: float
    stored: int
    notes: tuple[str, ...]


def factors(place: Place, A: np.ndarray, B: np.ndarray) -> Iterator[StoredLayer]:
    """Yield the layer that two stored tensors are, or the layer of each expert.

    QALoRA: y = s·B A (d_in/g)·m, with m the means over groups of g = `qalora_group_size` inputs. BD-LoRA: A or B has
    its blocks, stored one above the other, on the diagonal. Experts: rows e·r to (e + 1)·r of A, columns e, e + E, … of
    B, or two tensors with a leading axis. Raises `InputError` for shapes that do not fit.
    """
    check_scaling(place.file, place.layer, place.scaling)
    for name, x in (("A", A), ("B", B)):
        if not np.isfinite(x).all():
            odd = float(x[~np.isfinite(x)][0])
            raise InputError(f"{place.file}: lora_{name} of {shown(place.layer)} must be finite, got {odd}")
    if place.config.qalora_group_size is not None:
        yield _qalora(place, A, B)
    elif place.config.blocks is not None:
        yield _block_diagonal(place, A, B)
    elif B.ndim == 3 or _is_parameter(place):
        yield from _experts(place, A, B)
    else:
        yield _layer(place, A, B)


def check_scaling(where: str, layer: str, scaling: float) -> None:
    """Raise `InputError`, which begins with `where`, for an s or a 1/s above `LARGEST_SCALING`."""
    if not 1 / LARGEST_SCALING <= scaling <= LARGEST_SCALING:
        raise InputError(f"{where}: the scaling of {shown(layer)} is out of range, got {scaling}")


def _layer(place: Place, A: np.ndarray, B: np.ndarray, why: str = "") -> StoredLayer:
    A2, B2 = (x.reshape(len(x), -1) if x.ndim > 1 else x for x in (A, B))
    if A2.ndim < 2 or B2.ndim < 2 or (len(A2), B2.shape[1]) != (place.rank, place.rank):
        raise _misfit(place, A2, B2, why)
    init = place.config.init_lora_weights
    sigma = math.nan if place.embedding else initial_sigma(init, A2.shape[1], place.rank)
    return StoredLayer(
        place.layer, A2, B2, place.embedding, place.scaling, place.config, sigma, _rms(A2), A2.size, place.config.notes
    )


def _qalora(place: Place, A: np.ndarray, B: np.ndarray) -> StoredLayer:
    g = place.config.qalora_group_size
    assert g is not None
    _small_enough(place, "qalora_group_size", A.size * g)
    plain = _layer(place, A, B)
    note = f"QALoRA: A acts on means over {g} inputs, as for a quantised layer; V2 is not derived for it"
    return plain._replace(
        A=np.repeat(plain.A, g, axis=1) * np.float32(plain.A.shape[1] / g),
        sigma_set=math.nan,
        notes=(*plain.notes, note),
    )


def _block_diagonal(place: Place, A: np.ndarray, B: np.ndarray) -> StoredLayer:
    blocks = place.config.blocks
    assert blocks is not None
    in_A, in_B = (any(x in place.layer for x in names) for names in (blocks.of_a, blocks.of_b))
    if in_A and in_B:
        raise InputError(f"{CONFIG}: use_bdlora names {shown(place.layer)} both in target_modules_bd_a and in …_bd_b")
    if not (in_A or in_B):
        return _layer(place, A, B, ", and use_bdlora names it in no list")
    blocked = A if in_A else B
    if blocked.ndim != 2 or len(blocked) % blocks.n:
        raise InputError(
            f"{place.file}: use_bdlora says {blocks.n} blocks in lora_{'A' if in_A else 'B'} of "
            f"{shown(place.layer)}, whose shape is {blocked.shape}"
        )
    _small_enough(place, "use_bdlora", blocked.size * blocks.n)
    whole = _on_diagonal(blocked, blocks.n)
    plain = _layer(place, *((whole, B) if in_A else (A, whole)))
    note = "BD-LoRA: A or B is block-diagonal, V2 is derived for full ones"
    return plain._replace(sigma_set=math.nan, sigma_measured=_rms(A), stored=A.size, notes=(*plain.notes, note))


def _on_diagonal(x: Float[np.ndarray, "m k"], n: int) -> Float[np.ndarray, "m nk"]:
    """Put the n blocks of m/n rows, which lie one above the other, beside each other."""
    m, k = x.shape
    whole = np.zeros((n, m // n, n, k), x.dtype)
    whole[range(n), :, range(n), :] = x.reshape(n, m // n, k)
    return whole.reshape(m, n * k)


def _is_parameter(place: Place) -> bool:
    """Whether PEFT's `target_parameters` names a parameter of this module; it nests those of one module."""
    module = place.layer
    while module.endswith(".base_layer"):
        module = module.removesuffix(".base_layer")
    owners = {name.rpartition(".")[0] for name in place.config.target_parameters}
    return any(module == owner or module.endswith(f".{owner}") for owner in owners)


def _experts(place: Place, A: np.ndarray, B: np.ndarray) -> Iterator[StoredLayer]:
    r, config = place.rank, place.config
    if _is_parameter(place) and (config.rank_pattern or config.alpha_pattern):
        raise InputError(
            f"{CONFIG}: target_parameters with rank_pattern or alpha_pattern: which parameter of {shown(place.layer)} "
            "its tensors are for is not stored"
        )
    if B.ndim == 3:
        E, rows = len(B), A.reshape(-1, A.shape[-1])
        columns = np.moveaxis(B, 0, 2)
    else:
        E, rows = len(A) // r, A
        columns = B.reshape(len(B), r, E) if B.ndim == 2 and B.shape[1] == E * r else B[..., None]
    if rows.ndim != 2 or len(rows) != E * r or columns.shape[1:] != (r, E):
        raise _misfit(place, A, B, " for each expert")
    for e in range(E):
        name = place.layer if E == 1 else f"{place.layer}[{e}]"
        yield _layer(
            place._replace(layer=name),
            np.ascontiguousarray(rows[e * r : (e + 1) * r]),
            np.ascontiguousarray(columns[:, :, e]),
        )


def _small_enough(place: Place, setting: str, entries: int) -> None:
    if entries > LARGEST:
        raise InputError(f"{CONFIG}: {setting} would make a factor of {shown(place.layer)} have {entries} entries")


def _misfit(place: Place, A: np.ndarray, B: np.ndarray, why: str) -> InputError:
    return InputError(
        f"{place.file}: {shown(place.layer)} has A {A.shape} and B {B.shape}, but its rank is {place.rank}{why}: "
        "A must be (r, d_in), B (d_out, r)"
    )


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=float))))
