"""Judge X17 to X19, what is special about the map of every adapter: H_Drift, its gauge, the remainder of an update.

They are algebra: a statement holds if its largest error over tolerance, over maps, seeds and places, is at most 1; its
control has to be noticed at every one of them. The control is the same two tolerances off, and where the statement is
exact, of entries that are 0 and of a count, one that is wrong.
"""

from collections.abc import Callable
from functools import partial

import xarray as xr

from experiments.analysis.intervals import exactly_known
from experiments.claims.lora_alpha.algebra import applies, control_holds, holds
from experiments.curvature import adapter_atlas
from experiments.curvature.adapter_atlas import NAMES, STRUCTURE, Config
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import Finding, exactly

ATLAS = adapter_atlas.EXPERIMENT
EVERY_PAIRED = dict.fromkeys(STRUCTURE, "paired")
"""What LoRA alone would have one think of all maps."""


def dense(claim: str, config: Config, data: xr.Dataset) -> str:
    """Say that nothing was checked, for want of matrices."""
    return applies(claim, config, data) if data.sizes.get("check") else "its matrices are not affordable"


def has_structure(config: Config, data: xr.Dataset, stated: dict[str, str] = STRUCTURE) -> list[Finding]:
    """Judge the sign structure of H_Drift after training, map by map: the share of draws that have the one stated."""
    trained = data.structure.sel(state="trained")
    return [
        Finding(
            f"{NAMES[name]}: share of draws in which H_Drift is {stated[name]} after training",
            exactly(1.0),
            exactly_known(float((trained.sel(map=name) == stated[name]).mean())),
        )
        for name in NAMES
    ]


def drift(config: Config, data: xr.Dataset) -> list[Finding]:
    """Judge the form of H_Drift by its checks, and its sign structure."""
    return [*holds("X17", config, data), *has_structure(config, data)]


def _claim(
    name: str, statement: str, formula: str, findings: Callable[[Config, xr.Dataset], list[Finding]], *assumptions: str
) -> Claim:
    """Make a claim that the checks named after it decide."""
    return Claim(
        id=name,
        group="algebra",
        assumptions=assumptions,
        source=OWN,
        formula=formula,
        evidence=(
            Evidence(
                Reading("as stated", statement, ATLAS, findings, partial(dense, name)),
                Reading(
                    "control",
                    "The same, two tolerances off, or off by one where the statement is a count.",
                    ATLAS,
                    partial(control_holds, name),
                    partial(dense, name),
                ),
            ),
        ),
        readings=READINGS.get(name, ()),
        figure="adapter_atlas",
        measurement=f"checks of {name}",
    )


READINGS = {
    "X17": (
        Reading(
            "every map as LoRA",
            "After training H_Drift has pairs ±λ for every map, as LoRA's has.",
            ATLAS,
            partial(has_structure, stated=EVERY_PAIRED),
            partial(dense, "X17"),
        ),
    )
}

CLAIMS = [
    _claim(
        "X17",
        "H_Drift is zero for LoRA-FA, MoRA and (IA)³. Its eigenvalues are ±σ_i(K) and zeros for LoRA and rsLoRA "
        "(K = s·G, r times), for VeRA (K = B ⊙ (GAᵀ)), and while one factor is 0 for LoHa and LoKr (K couples that one "
        "with the others). No factor in which w is linear is coupled to itself: every one of LoHa and LoKr, whose "
        "eigenvalues are not paired elsewhere, and m of DoRA.",
        r"\partial^2\langle G, w\rangle/\partial\theta_i\partial\theta_i = 0,\quad"
        r" \operatorname{spec}(H_{\mathrm{Drift}}) = \{\pm\sigma_i(K)\}\cup\{0\}",
        drift,
        "g ≠ 0",
    ),
    _claim(
        "X18",
        "Null directions of J: r² in a layer for LoRA, rsLoRA and DoRA, 1 for VeRA, r² + 1 for LoKr, "
        "r₁² + r₂² + d_out + d_in − 1 for LoHa, none for maps linear in θ. There J v = 0, H_Signal v = 0 and "
        "vᵀH_LoRA v = −⟨∇_θ ℓ, γ''(0)⟩ for the curve γ of the gauge with γ'(0) = v.",
        r"Jv = 0,\quad H_{\mathrm{Signal}}v = 0,\quad v^\top H_{\mathrm{LoRA}}v"
        r" = -\langle\nabla_\theta\ell, \gamma''(0)\rangle",
        partial(holds, "X18"),
        "no factor is 0",
        "ranks at most those of the layer, and p − dim ≤ D",
    ),
    _claim(
        "X19",
        "Δw = JΔθ + ½∇²w[Δθ, Δθ] has no remainder for LoRA, rsLoRA, LoRA-FA, VeRA, MoRA and (IA)³; LoKr's is "
        "s·ΔC ⊗ (ΔB ΔA), of order 3 alone; LoHa's has the orders 3 and 4 and no other; DoRA's begins at order 3, its "
        "even part at 4.",
        r"\Delta w - J\Delta\theta - \tfrac12\nabla^2w[\Delta\theta,\Delta\theta] = O(\|\Delta\theta\|^3)",
        partial(holds, "X19"),
    ),
]
