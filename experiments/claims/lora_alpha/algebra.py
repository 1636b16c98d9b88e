"""Judge the claims that are algebra: P1, P2, P4-landscape, X1, X2, X5–X10, wherever their assumptions are met."""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, exactly_known
from experiments.claims.lora_alpha.powers import POWERS_OF_ALPHA, asymmetric, positive
from experiments.claims.lora_alpha.premise import GAUSS_NEWTON, definite, ends_named
from experiments.claims.lora_alpha.steps import ascends_never
from experiments.curvature import algebra, asymmetric_scaling, residual_curvature
from experiments.curvature.checked.record import margin
from experiments.dynamics import signal_descent
from experiments.lab.experiment import Experiment
from experiments.lab.problem import Setting
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import Band, Finding, at_most

ALGEBRA, DESCENT = algebra.EXPERIMENT, signal_descent.EXPERIMENT


def holds(claim: str, config: Setting, data: xr.Dataset) -> list[Finding]:
    """Hold the largest error over tolerance against 1 for every check of the claim, where its assumptions are met."""
    found = []
    for i in np.flatnonzero(data.claim.values == claim):
        check = data.isel(check=i)
        here = margin(check)
        if here.instances:
            name = f"{check.statement.item()}: largest error / tolerance of {here.instances} instances"
            found.append(Finding(name, _tolerance(check), _missing_is(np.inf, here.statement)))
    return found


def control_holds(claim: str, config: Setting, data: xr.Dataset) -> list[Finding]:
    """Hold the smallest error over tolerance of all its controls against 1: each must be noticed everywhere."""
    checks = data.isel(check=data.claim.values == claim)
    here = margin(checks)
    names = "; ".join(dict.fromkeys(checks.control.values))
    name = f"{names}: smallest error / tolerance of {here.instances} instances"
    estimate = _missing_is(0.0, here.control)
    return [Finding(name, _tolerance(checks.isel(check=0)), estimate)] if here.instances else []


def applies(claim: str, config: Setting, data: xr.Dataset) -> str:
    """Say that no instance meets the assumptions."""
    met = int(data.applicable.isel(check=data.claim.values == claim).sum())
    return "" if met else f"none of {data.applicable.isel(check=0).size} instances meets its assumptions"


def _missing_is(otherwise: float, ratio: float) -> Estimate:
    """A ratio without sampling error; one that is missing where the assumptions are met is no excuse."""
    return exactly_known(otherwise if np.isnan(ratio) else ratio)


def _tolerance(check: xr.Dataset) -> Band:
    return at_most(1.0, f"in units of the tolerance, {check.rule.item()}", margin=0.5)


def on_drawn_problems(claim: str, statement: str, experiment: Experiment[Any] = ALGEBRA) -> Reading:
    """Hold a claim against every problem and instance that an experiment of checks tries."""
    return Reading("on drawn problems", statement, experiment, partial(holds, claim), partial(applies, claim))


def checked(
    name: str,
    source: str,
    statement: str,
    formula: str,
    *assumptions: str,
    readings: tuple[Reading, ...] = (),
    figure: str = "algebra",
    measurement: str = "",
    experiment: Experiment[Any] = ALGEBRA,
) -> Claim:
    """Make a claim that the checks named after it decide, with the same two tolerances off as its control."""
    near = Reading(
        "control", "The same, two tolerances off.", experiment, partial(control_holds, name), partial(applies, name)
    )
    return Claim(
        id=name,
        group="algebra",
        assumptions=assumptions,
        source=source,
        evidence=(Evidence(on_drawn_problems(name, statement, experiment), near),),
        readings=readings,
        figure=figure,
        formula=formula,
        measurement=measurement or f"checks of {name}",
    )


CLAIMS = [
    checked(
        "P1-update",
        "Eq. 4, 11, 18–21",
        "Δw = JΔθ + ½∇²w[Δθ, Δθ] with no remainder: ΔW_Signal = s(BΔA + ΔB A), ΔW_Drift = s ΔB ΔA.",
        r"\Delta w = J\Delta\theta + \tfrac12\nabla^2 w[\Delta\theta,\Delta\theta]",
    ),
    checked(
        "P1-hessian",
        "Eq. 4, 12–17",
        "H_LoRA = H_Signal + H_Drift, exactly.",
        r"H_{\mathrm{LoRA}} = H_{\mathrm{Signal}} + H_{\mathrm{Drift}}",
        "g ≠ 0",
    ),
    checked(
        "P2-descent",
        "Eq. 22–28",
        "⟨Δw_Signal, −g⟩ = ⟨Δθ, −∇_θ ℓ⟩ ≥ 0 for gradient descent, sign descent and Muon: η‖∇‖₂², η‖∇‖₁ and "
        "η(‖G_A‖_* + ‖G_B‖_*).",
        r"\langle \Delta w_{\mathrm{Signal}}, -g\rangle = \langle\Delta\theta, -\nabla_\theta\ell\rangle \ge 0",
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
        figure="signal_descent",
    ),
    checked(
        "P2-psd",
        "Eq. 29",
        "If H_ℓ ⪰ 0 then H_Signal ⪰ 0.",
        r"H_\ell \succeq 0 \;\Rightarrow\; H_{\mathrm{Signal}} \succeq 0",
        "H_ℓ ⪰ 0",
        "g ≠ 0",
    ),
    checked(
        "P2-drift-indefinite",
        "Eq. 30",
        "H_Drift is zero but for the blocks between A and B of one layer; its non-zero eigenvalues come in pairs ±λ, "
        "and there are some unless g = 0: it is strictly indefinite.",
        r"\operatorname{spec}(H_{\mathrm{Drift}}) = -\operatorname{spec}(H_{\mathrm{Drift}}) \ne \{0\}",
        "g ≠ 0",
    ),
    checked(
        "P2-drift-alignment",
        "Eq. 31–33",
        "⟨Δw_Drift, −g⟩ = −½ΔθᵀH_DriftΔθ, of no fixed sign.",
        r"\langle\Delta w_{\mathrm{Drift}}, -g\rangle"
        r" = -\tfrac12 \Delta\theta^\top H_{\mathrm{Drift}} \Delta\theta",
        "g ≠ 0",
    ),
    checked(
        "P4-landscape",
        "Eq. 43–47",
        "At fixed W₀ and A, B = 0: H_Signal(cα) = c²·H_Signal(α) and H_Drift(cα) = c·H_Drift(α).",
        r"H_{\mathrm{Signal}} = \Theta(\alpha^2),\; H_{\mathrm{Drift}} = \Theta(\alpha)",
        "B = 0",
        "H_ℓ ≠ 0",
        readings=(
            Reading(
                "after training",
                "The exponents of the largest eigenvalues are 2 and 1 after training at each α.",
                asymmetric_scaling.EXPERIMENT,
                partial(asymmetric, state="trained"),
                partial(positive, state="trained"),
            ),
        ),
        figure="asymmetric_scaling",
        measurement=POWERS_OF_ALPHA,
    ),
    checked(
        "X1",
        OWN,
        "The eigenvalues of H_Drift are ±s·σ_i(G_l), each r times, and zeros.",
        r"\operatorname{spec}(H_{\mathrm{Drift}}) = \{\pm s\,\sigma_i(G_l)\}^{\times r} \cup \{0\}",
        "g ≠ 0",
    ),
    checked(
        "X2",
        OWN,
        "Tr H_Signal = s² Σ_l Tr(A_l M_l A_lᵀ), M_l = Σ_o H_ℓ[(o,·), (o,·)].",
        r"\operatorname{Tr} H_{\mathrm{Signal}} = s^2 \sum_l \operatorname{Tr}(A_l M_l A_l^\top)",
        "B = 0",
        "H_ℓ ≠ 0",
        "for the variance 2rs⁴σ_A⁴Σ_l‖M_l‖_F², which the standard errors of P3 are: the entries of A Gaussian",
    ),
    checked(
        "X5",
        OWN,
        "The directions (−X A, B X) leave w unchanged: J v = 0, H_Signal v = 0 and H_LoRA v = H_Drift v.",
        r"v = (-XA, BX):\; Jv = 0,\; H_{\mathrm{Signal}}v = 0,\; H_{\mathrm{LoRA}}v = H_{\mathrm{Drift}}v",
        "B ≠ 0",
    ),
    checked(
        "X6",
        OWN,
        "With the Gauss–Newton matrix G of a loss convex in the outputs in place of H_ℓ, JᵀGJ ⪰ 0, whatever the model.",
        r"G \succeq 0 \;\Rightarrow\; J^\top G J \succeq 0",
        "the loss is split into outputs and a convex criterion",
        readings=(
            Reading(
                "at initialisation",
                "G ⪰ 0 and JᵀGJ ⪰ 0 at initialisation.",
                residual_curvature.EXPERIMENT,
                partial(definite, names=GAUSS_NEWTON, state="initial"),
                partial(ends_named, GAUSS_NEWTON, "initial"),
            ),
        ),
        figure="residual_curvature",
    ),
    checked(
        "X7",
        OWN,
        "J Jᵀ = s²(AᵀA ⊗ I + I ⊗ BBᵀ), columns stacked.",
        r"J J^\top = s^2 (A^\top A \otimes I + I \otimes B B^\top)",
    ),
    checked(
        "X8",
        OWN,
        "From B = 0 the first step of Adam or sign descent has, over Gaussian A, E‖ΔW₁‖_F² = "
        "α²(σ_A²/r)[1 + 2(r − 1)/(π d_in)]·‖ΔW_FFT‖_F², and E⟨ΔW₁, −G⟩ = α σ_A √(2/π) η Σ_o ‖g_o‖₂, in which r is not.",
        r"E\|\Delta W_1\|_F^2 = \alpha^2\tfrac{\sigma_A^2}{r}"
        r"\left[1 + \tfrac{2(r-1)}{\pi d_{in}}\right] \|\Delta W_{FFT}\|_F^2",
        "B = 0",
        "no entry of G is 0",
        "Gaussian A",
    ),
    checked(
        "X9",
        OWN,
        "With A frozen (LoRA-FA) w is linear in B, there is no drift, and from B = 0 α×c is η×c under Adam with ε → 0.",
        r"\Delta A = 0:\; H_{\mathrm{Drift}} = 0,\; (c\alpha, \eta) \sim (\alpha, c\eta)",
        "B = 0 at the start",
        "Adam with ε → 0",
    ),
    checked(
        "X10",
        OWN,
        "Tr H_Signal = s² Σ_l [Tr(A_l M_l A_lᵀ) + Tr(B_lᵀ N_l B_l)] for any B, N_l = Σ_i H_ℓ[(·,i), (·,i)].",
        r"\operatorname{Tr} H_{\mathrm{Signal}} = s^2 \sum_l"
        r" [\operatorname{Tr}(A_l M_l A_l^\top) + \operatorname{Tr}(B_l^\top N_l B_l)]",
        "H_ℓ ≠ 0",
    ),
]
