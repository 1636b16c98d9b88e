"""Checks Tr H_Signal: at B = 0 in expectation over A (P3-trace, K1-alignment), for every A (X2), and any B (X10)."""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from signal_drift.lora.adapters import normal_fan_in
from signal_drift.lora.scaling_rules import alpha_base
from signal_drift.propositions import closed_forms
from signal_drift.propositions.check import Check, rounding, standard_errors
from signal_drift.propositions.subject import Instance, flat

DRAWS = 2000
"""Draws of A. At H_ℓ ⪰ 0 one draw deviates by at most √2 times its mean, so the mean of all by at most 3%."""
ERRORS = 5.0
"""Standard errors between mean and prediction that are no evidence; twice as many separate statement and control."""


def trace_shrinks(x: Instance) -> Check:
    """Check that E[Tr H_Signal] = Σ_l α_l²(σ_l²/r_l) Tr H_ℓ,ll at B = 0, A i.i.d. (P3-trace, Eq. 34–40).

    σ_l is the standard deviation of A in layer l. The mean is taken of `DRAWS` draws.
    """
    ranks, sigma = _ranks(x), _sigma(x)
    layers = [
        closed_forms.suppression(ranks[k], x.s[k], sigma[k]) * float(np.sum(block)) for k, block in _diagonal(x).items()
    ]
    return _expectation(
        "P3-trace", "E[Tr H_Signal] = Σ_l α²(σ_A²/r) Tr H_ℓ,ll", x, sum(layers), control="1/(2r) for 1/r"
    )


def trace_is_preserved(x: Instance) -> Check:
    """Check that E[Tr H_Signal] = Tr H_ℓ at α_l = √r_l/σ_l in every layer (K1-alignment, Cor. 1)."""
    ranks, sigma = _ranks(x), _sigma(x)
    aligned = x.rescaled({k: alpha_base(r, sigma[k]) / r for k, r in ranks.items()})
    predicted = float(np.trace(aligned.dense["task"]))
    return _expectation(
        "K1-alignment", "E[Tr H_Signal] = Tr H_ℓ at α = √r/σ_A", aligned, predicted, control="half of Tr H_ℓ"
    )


def signal_trace_is_quadratic_in_A(x: Instance) -> Check:
    """Check that Tr H_Signal = Σ_l s_l² Tr(A_l M_l A_lᵀ) at B = 0 (X2)."""
    grams = closed_forms.task_grams(jnp.asarray(x.dense["task"]), x.base)
    predicted = float(closed_forms.signal_trace(grams, x.adapters, x.scaling))
    measured, p = float(np.trace(x.dense["signal"])), len(x.dense["signal"])
    return Check.equality(
        "X2",
        "Tr H_Signal = Σ_l s² Tr(A_l M_l A_lᵀ)",
        measured,
        predicted,
        rounding(p, p * x.hessian_scale),
        control=("half of it", predicted / 2),
        assumptions={**x.begins, **x.curved},
    )


def signal_trace_is_quadratic_in_both(x: Instance) -> Check:
    """Check that Tr H_Signal = Σ_l s_l²[Tr(A_l M_l A_lᵀ) + Tr(B_lᵀ N_l B_l)] for any A and B (X10)."""
    task = jnp.asarray(x.dense["task"])
    of_A = float(closed_forms.signal_trace(closed_forms.task_grams(task, x.base), x.adapters, x.scaling))
    rows = closed_forms.row_grams(task, x.base)
    of_B = sum(x.s[k] ** 2 * float(jnp.vdot(N @ x.adapters[k].B, x.adapters[k].B)) for k, N in rows.items())
    p = len(x.dense["signal"])
    return Check.equality(
        "X10",
        "Tr H_Signal = Σ_l s² [Tr(A_l M_l A_lᵀ) + Tr(B_lᵀ N_l B_l)]",
        float(np.trace(x.dense["signal"])),
        of_A + of_B,
        rounding(p, p * x.hessian_scale),
        control=("half of it", (of_A + of_B) / 2),
        assumptions=x.curved,
    )


def _expectation(claim: str, statement: str, x: Instance, predicted: float, control: str) -> Check:
    """The mean of `DRAWS` draws against the prediction and, as control, half of it."""
    grams = closed_forms.task_grams(jnp.asarray(x.dense["task"]), x.base)
    deviation = closed_forms.signal_trace_deviation(grams, _ranks(x), x.s, _sigma(x))
    tolerance = standard_errors(ERRORS, deviation, DRAWS)
    return Check.equality(
        claim,
        statement,
        float(np.mean(_traces(x, grams))),
        predicted,
        tolerance,
        control=(control, predicted / 2),
        assumptions={
            **x.begins,
            "Tr H_ℓ stands out from the noise of the draws": not abs(predicted / 2) <= 2 * tolerance.value,
        },
    )


def _traces(x: Instance, grams: closed_forms.Grams) -> np.ndarray:
    """Tr H_Signal of every draw: its B-block by X2 in the drawn A, its A-block, which A does not enter, from H_Signal.

    The key follows from the instance, so that two instances do not share their luck.
    """
    key = jax.random.key(zlib.crc32(flat(x.adapters).tobytes()))
    own = float(closed_forms.signal_trace(grams, x.adapters, x.scaling))
    total = np.full(DRAWS, np.trace(x.dense["signal"]) - own)
    for i, (k, M) in enumerate(grams.items()):
        r, d_in = x.adapters[k].A.shape
        A = np.asarray(normal_fan_in(jax.random.fold_in(key, i), (DRAWS * r, d_in), jnp.float64))
        total += x.s[k] ** 2 * np.sum((A @ np.asarray(M)) * A, axis=1).reshape(DRAWS, r).sum(1)
    return total


def _ranks(x: Instance) -> dict[str, int]:
    return {k: len(A) for k, (A, _) in x.adapters.items()}


def _sigma(x: Instance) -> dict[str, float]:
    """σ_A of `normal_fan_in`."""
    return {k: W0.shape[1] ** -0.5 for k, W0 in x.base.items()}


def _diagonal(x: Instance) -> Mapping[str, np.ndarray]:
    """The diagonal of H_ℓ, layer by layer."""
    names = sorted(x.base)
    ends = np.cumsum([x.base[k].size for k in names])[:-1]
    return dict(zip(names, np.split(np.diag(x.dense["task"]), ends), strict=True))
