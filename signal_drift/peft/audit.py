"""Audits a stored adapter: how each layer is scaled, beside the α of the paper's two rules (Eq. 5)."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from signal_drift.display import Table, displayed_as, number
from signal_drift.errors.words import printable
from signal_drift.lora.scaling_rules import alpha_base, empirical_alpha_base
from signal_drift.peft.config import start_notes
from signal_drift.peft.files import open_adapter
from signal_drift.peft.maps import StoredLayer

FAR = 5.0
"""Standard errors of a root mean square beyond which A is said not to be as it was drawn."""


class LayerAudit(NamedTuple):
    """Describes one layer, with W = W₀ + s·BA and α = s·r whatever the file calls it.

    `sigma_set` is σ_A as the initialiser draws it (NaN where it does not), `sigma_measured` the root mean square of A
    as stored. V2 = √r/σ_A is for `sigma_set`; `under_scaled` is V2/α, the factor by which α is below it. The singular
    values are those of s·BA, descending.
    """

    layer: str
    shape: tuple[int, int]
    rank: int
    scaling: float
    alpha: float
    sigma_set: float
    sigma_measured: float
    v1: float
    v2: float
    under_scaled: float
    singular_values: Float[np.ndarray, "_r"]
    notes: tuple[str, ...]

    @property
    def norm(self) -> float:
        """Compute ‖s·BA‖_F."""
        return float(np.linalg.norm(self.singular_values))

    @property
    def stable_rank(self) -> float:
        """Compute ‖s·BA‖_F² / ‖s·BA‖₂², how many directions the update has; NaN if it has none."""
        top = float(self.singular_values[0]) if len(self.singular_values) else 0.0
        return (self.norm / top) ** 2 if top else math.nan


class Audit(tuple[LayerAudit, ...]):
    """Holds every layer of an adapter, in the order of their names."""

    __slots__ = ()

    def notes(self) -> dict[str, int]:
        """List what has to be known to read the table, and of how many layers it is true."""
        every = [note for layer in self for note in layer.notes]
        return {note: every.count(note) for note in dict.fromkeys(every)}


def audit_adapter(folder: str | Path) -> Audit:
    """Compute s, σ_A, V1 = 256√r, V2 = √r/σ_A and the spectrum of s·BA for every layer of an adapter.

    It takes the memory of the largest layer. Raises `InputError` where `open_adapter` does.
    """
    files = open_adapter(folder)
    return Audit(_layer(stored, files.notes) for stored in files.layers())


def _layer(stored: StoredLayer, beside: tuple[str, ...]) -> LayerAudit:
    (r, d_in), s, drawn = stored.A.shape, stored.scaling, stored.sigma_set
    v2 = math.nan if math.isnan(drawn) else alpha_base(r, drawn)
    return LayerAudit(
        layer=stored.layer,
        shape=(len(stored.B), d_in),
        rank=r,
        scaling=s,
        alpha=s * r,
        sigma_set=drawn,
        sigma_measured=stored.sigma_measured,
        v1=empirical_alpha_base(r),
        v2=v2,
        under_scaled=v2 / (s * r),
        singular_values=singular_values(stored.A, stored.B, s),
        notes=(*_notes(stored), *stored.notes, *beside),
    )


def singular_values(
    A: Float[np.ndarray, "r d_in"], B: Float[np.ndarray, "d_out r"], s: float
) -> Float[np.ndarray, "_k"]:
    """Compute the min(r, d_in, d_out) singular values of s·BA from R_B R_Aᵀ, where R_BᵀR_B = BᵀB and R_AᵀR_A = AAᵀ.

    Gram matrices in float64 give them to √ε = 1.5e-8 of the largest: below the rounding of float32 factors.
    """
    R_A, R_B = (_root(x) for x in (A.T.astype(float), B.astype(float)))
    return abs(s) * np.linalg.svd(R_B @ R_A.T, compute_uv=False)[: min(*A.shape, len(B))]


def _root(x: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "_k r"]:
    """R with RᵀR = xᵀx and min(d, r) rows."""
    if len(x) < x.shape[1]:
        return x
    values, V = np.linalg.eigh(x.T @ x)
    return np.sqrt(np.maximum(values, 0))[:, None] * V.T


def _notes(stored: StoredLayer) -> tuple[str, ...]:
    """Where a formula does not apply, or what the table does not show."""
    trained, drawn = bool(stored.B.any()), stored.sigma_set
    # the scatter of a root mean square is at most 1/√(2n) of it, for normal entries; less for uniform ones
    moved = drawn > 0 and abs(stored.sigma_measured / drawn - 1) > FAR / math.sqrt(2 * stored.stored)
    notes = {
        "an embedding starts at A = 0 with B random: σ_A and V2 do not apply": stored.embedding,
        **dict.fromkeys(start_notes(stored.config.init_lora_weights), not stored.embedding),
        "B ≠ 0: the adapter is trained, and A is no longer as it was drawn": trained and not math.isnan(drawn),
        "B = 0: the adapter is as it was made": not trained,
        "σ_A as stored differs from the initialiser's by more than chance": moved,
    }
    return tuple(note for note, true in notes.items() if true)


def _table(layers: Audit) -> Table:
    header = (
        "layer",
        "W",
        "r",
        "s",
        "α = s·r",
        "σ_A set",
        "σ_A stored",
        "V1: α",
        "V2: α",
        "V2/α",
        "‖sBA‖₂",
        "stable rank",
    )
    rows = [
        (printable(x.layer), "×".join(map(str, x.shape)), str(x.rank), *map(number, _numbers(x)), number(x.stable_rank))
        for x in layers
    ]
    return Table(f"{len(rows)} layers", header, rows)


def _numbers(x: LayerAudit) -> tuple[float, ...]:
    top = float(np.max(x.singular_values, initial=0.0))
    return (x.scaling, x.alpha, x.sigma_set, x.sigma_measured, x.v1, x.v2, x.under_scaled, top)


displayed_as(_table)(Audit)
