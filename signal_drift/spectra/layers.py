"""Looks at the decomposition layer by layer: each layer's own curvature, and its share of the whole."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from signal_drift.display import Table, displayed_as, number
from signal_drift.errors import InputError
from signal_drift.errors.words import shown
from signal_drift.hessians.decomposition import Decomposition
from signal_drift.lora.adapters import Adapters, check_adapters, per_layer
from signal_drift.lora.scaling_rules import alpha_base
from signal_drift.operators.operator import SymmetricOperator
from signal_drift.operators.scale import restored
from signal_drift.spectra.exact import dense_in_range, eigenvalues, symmetrised

OPERATORS = ("task", "signal", "drift", "lora")


class Block(NamedTuple):
    """Describe one layer's diagonal block of an operator H: the ends of its spectrum, trace, shares of the whole.

    `trace_share` is Tr H_ll / Tr H, NaN where Tr H = 0 (the drift); `norm_share` is ‖H_ll‖_F² / ‖H‖_F², of which the
    blocks between layers have the rest.
    """

    largest: float
    smallest: float
    trace: float
    trace_share: float
    norm_share: float


class LayerView(NamedTuple):
    """Describe one layer. V2's α = √r/σ_A is given for σ_A as it was set and as it is in A, its root mean square."""

    layer: str
    shape: tuple[int, int]
    rank: int
    task: Block
    signal: Block
    drift: Block
    lora: Block
    alpha_set: float
    alpha_measured: float


class LayerViews(tuple[LayerView, ...]):
    """List every layer, in the order of their names."""

    __slots__ = ()


def layer_views(
    parts: Decomposition | Mapping[str, SymmetricOperator | Array],
    adapters: Adapters,
    sigma_a: float | Mapping[str, float] | None = None,
) -> LayerViews:
    """Describe every layer's block of H_ℓ, H_Signal, H_Drift and H_LoRA, and its own V2 α = √r/σ_A (Cor. 1).

    `sigma_a` is the standard deviation that A was drawn with, by default 1/√d_in as in `init_adapters`. From the dense
    matrices, which may stand in the place of the operators in a dict of what `decompose` returns.
    """
    operators = parts._asdict() if isinstance(parts, Decomposition) else parts
    if not isinstance(operators, Mapping) or not operators.keys() >= set(OPERATORS):
        raise InputError(f"parts: must be those of decompose, or a dict of {OPERATORS}, got {shown(parts)}")
    check_adapters("adapters", adapters)
    fan_in = {k: A.shape[1] ** -0.5 for k, (A, _) in sorted(adapters.items())}
    sigma = fan_in if sigma_a is None else per_layer("sigma_a", sigma_a, adapters)
    weights = [len(adapters[k].B) * adapters[k].A.shape[1] for k in fan_in]
    theta = [sum(x.size for x in adapters[k]) for k in fan_in]
    blocks = {k: _blocks(operators[k], weights if k == "task" else theta) for k in OPERATORS}
    return LayerViews(
        LayerView(
            layer=k,
            shape=(len(B), A.shape[1]),
            rank=len(A),
            **{name: blocks[name][i] for name in OPERATORS},
            alpha_set=alpha_base(len(A), sigma[k]),
            alpha_measured=alpha_base(len(A), float(jnp.sqrt(jnp.mean(A**2)))),
        )
        for i, (k, (A, B)) in enumerate(sorted(adapters.items()))
    )


def _blocks(op: SymmetricOperator | Array, sizes: list[int]) -> list[Block]:
    H, exponent = symmetrised(*dense_in_range(op))
    ends = np.cumsum([0, *sizes])
    trace, norm = np.trace(H), np.sum(H**2)
    return [_block(H[i:j, i:j], exponent, float(trace), float(norm)) for i, j in pairwise(ends)]


def _block(H: Float[np.ndarray, "n n"], exponent: int, trace: float, norm: float) -> Block:
    """Describe a block of 2^−e·H from that of H."""
    spectrum = eigenvalues(H)
    ends = np.array([spectrum[-1], spectrum[0], np.trace(H)])
    largest, smallest, own = (float(x) for x in restored(ends, exponent, 1.0))
    return Block(
        largest=largest,
        smallest=smallest,
        trace=own,
        trace_share=float(np.trace(H)) / trace if trace else np.nan,
        norm_share=float(np.sum(H**2)) / norm if norm else np.nan,
    )


def _table(views: LayerViews) -> Table:
    ends = [f"{end} {name}" for name in ("H_ℓ", "H_Signal", "H_Drift", "H_LoRA") for end in ("λmin", "λmax")]
    rows = [(v.layer, "×".join(map(str, v.shape)), str(v.rank), *map(number, _numbers(v))) for v in views]
    return Table(f"{len(rows)} layers, the block of each", ("layer", "W", "r", *ends, "Tr H_Signal", "V2: α"), rows)


def _numbers(view: LayerView) -> list[float]:
    blocks: list[Block] = [getattr(view, name) for name in OPERATORS]
    return [*(end for block in blocks for end in (block.smallest, block.largest)), view.signal.trace, view.alpha_set]


displayed_as(_table)(LayerViews)
