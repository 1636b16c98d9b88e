"""Judge the claims that are algebra: P1, P2, P4-landscape, X1, X2, X5–X7, wherever their assumptions are met."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import point
from experiments.claims.curvature import asymmetric, definite
from experiments.claims.steps import ascends_never
from experiments.curvature import algebra, asymmetric_scaling, residual_curvature
from experiments.dynamics import signal_descent
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import Band, Finding

ALGEBRA, DESCENT = algebra.EXPERIMENT, signal_descent.EXPERIMENT


def holds(claim: str, config: algebra.Config, data: xr.Dataset) -> list[Finding]:
    """Hold the largest error over tolerance against 1 for every check of the claim, where its assumptions are met."""
    found = []
    for i in np.flatnonzero(data.claim.values == claim):
        check = data.isel(check=i)
        here = algebra.margin(check)
        if here.instances:
            name = f"{check.statement.item()}: largest error / tolerance of {here.instances} instances"
            found.append(Finding(name, _tolerance(check), point(here.statement)))
    return found


def control_holds(claim: str, config: algebra.Config, data: xr.Dataset) -> list[Finding]:
    """Hold the smallest error over tolerance of all its controls against 1: each must be noticed everywhere."""
    checks = data.isel(check=data.claim.values == claim)
    here = algebra.margin(checks)
    names = "; ".join(dict.fromkeys(checks.control.values))
    name = f"{names}: smallest error / tolerance of {here.instances} instances"
    return [Finding(name, _tolerance(checks.isel(check=0)), point(here.control))] if here.instances else []


def _tolerance(check: xr.Dataset) -> Band:
    return Band(0.0, 1.0, f"in units of the tolerance, {check.rule.item()}")


def on_drawn_problems(claim: str, statement: str) -> Reading:
    """Hold a claim against every problem and instance that `algebra` tries."""
    return Reading("on drawn problems", statement, ALGEBRA, partial(holds, claim))


def _claim(
    name: str,
    source: str,
    statement: str,
    *assumptions: str,
    readings: tuple[Reading, ...] = (),
    figures: tuple[str, ...] = (),
) -> Claim:
    control = Reading("control", "The same, spoiled on purpose.", ALGEBRA, partial(control_holds, name))
    evidence = (Evidence(on_drawn_problems(name, statement), control),)
    return Claim(name, assumptions, source, evidence, readings, ("algebra", *figures))


CLAIMS = [
    _claim(
        "P1-update",
        "Eq. 4, 11, 18–21",
        "Δw = JΔθ + ½∇²w[Δθ, Δθ] with no remainder: ΔW_Signal = s(BΔA + ΔB A), ΔW_Drift = s ΔB ΔA.",
    ),
    _claim("P1-hessian", "Eq. 4, 12–17", "H_LoRA = H_Signal + H_Drift, exactly.", "g ≠ 0"),
    _claim(
        "P2-descent",
        "Eq. 22–28",
        "⟨Δw_Signal, −g⟩ = ⟨Δθ, −∇_θ ℓ⟩ ≥ 0 for gradient descent, sign descent and Muon: η‖∇‖₂², η‖∇‖₁ and "
        "η(‖G_A‖_* + ‖G_B‖_*).",
        "∇_θ ℓ ≠ 0",
        readings=(
            Reading(
                "Adam with momentum",
                "The signal of Adam with β₁ = 0.9 descends at every step of training.",
                DESCENT,
                partial(ascends_never, momentum=0),
            ),
            Reading(
                "Adam without momentum",
                "The signal of Adam with β₁ = 0 descends at every step of training.",
                DESCENT,
                partial(ascends_never, momentum=-1),
            ),
        ),
        figures=("signal_descent",),
    ),
    _claim("P2-psd", "Eq. 29", "If H_ℓ ⪰ 0 then H_Signal ⪰ 0.", "H_ℓ ⪰ 0", "g ≠ 0"),
    _claim(
        "P2-drift-indefinite",
        "Eq. 30",
        "H_Drift is zero but for the blocks between A and B of one layer; its non-zero eigenvalues come in pairs ±λ, "
        "and there are some unless g = 0: it is strictly indefinite.",
        "g ≠ 0",
    ),
    _claim(
        "P2-drift-alignment",
        "Eq. 31–33",
        "⟨Δw_Drift, −g⟩ = −½ΔθᵀH_DriftΔθ, of no fixed sign.",
        "g ≠ 0",
    ),
    _claim(
        "P4-landscape",
        "Eq. 43–47",
        "At fixed W₀ and A, B = 0: H_Signal(cα) = c²·H_Signal(α) and H_Drift(cα) = c·H_Drift(α).",
        "B = 0",
        "H_ℓ ≠ 0",
        readings=(
            Reading(
                "after training",
                "The exponents of the largest eigenvalues are 2 and 1 after training at each α.",
                asymmetric_scaling.EXPERIMENT,
                partial(asymmetric, state="trained"),
            ),
        ),
        figures=("asymmetric_scaling",),
    ),
    _claim("X1", "our own", "spec(H_Drift) = {±s·σ_i(G_l), each r times} and zeros.", "g ≠ 0"),
    _claim("X2", "our own", "Tr H_Signal = s² Σ_l Tr(A_l M_l A_lᵀ), M_l = Σ_o H_ℓ[(o,·), (o,·)].", "B = 0", "H_ℓ ≠ 0"),
    _claim(
        "X5",
        "our own",
        "The directions (−X A, B X) leave w unchanged: J v = 0, H_Signal v = 0 and H_LoRA v = H_Drift v.",
        "B ≠ 0",
    ),
    _claim(
        "X6",
        "our own",
        "With the Gauss–Newton matrix G of a loss convex in the outputs in place of H_ℓ, JᵀGJ ⪰ 0, whatever the model.",
        "the loss is split into outputs and a convex criterion",
        readings=(
            Reading(
                "at initialisation",
                "G ⪰ 0 and JᵀGJ ⪰ 0 at initialisation.",
                residual_curvature.EXPERIMENT,
                partial(definite, names=("G", "G_signal"), state="initial"),
            ),
        ),
        figures=("residual_curvature",),
    ),
    _claim("X7", "our own", "J Jᵀ = s²(AᵀA ⊗ I + I ⊗ BBᵀ), columns stacked."),
]
