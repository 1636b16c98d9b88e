"""Judge P2-premise: whether H_ℓ has a negative eigenvalue, by the draw where it is lowest."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.ends import STATES
from experiments.claims.lora_alpha.bounds import (
    EPS,
    Bounds,
    ends_of,
    not_negative,
    not_negative_by_ends,
    quotient,
    searched,
    uncertified,
)
from experiments.curvature import at_scale, purification, residual_curvature
from experiments.curvature.residual_curvature import LABEL
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import FRACTION, Band, Finding, at_least, weakest

DEFINITE = 2 * FRACTION
"""λmin/λmax of a wrong law that is two margins off one of 0."""


def task_ends(config: purification.Config, data: xr.Dataset) -> str:
    """Say why the sign of H_ℓ is not known."""
    return uncertified(data.task_extremes, "H_ℓ")


def ends_named(names: Sequence[str], state: str, config: residual_curvature.Config, data: xr.Dataset) -> str:
    """Say which of the named matrices has an end that is not known."""
    return "; ".join(filter(None, (uncertified(data[name].sel(state=state), LABEL[name]) for name in names)))


def premise(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against 0 at the draw where it is lowest, at B = 0."""
    return [not_negative("λmin/λmax of H_ℓ", data.sizes["theta_index"] * EPS, _task(data).lowest)]


def premise_control(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against λmax/10 at the draw where it is highest."""
    return weakest([Finding("λmin/λmax of H_ℓ", _definite(), x) for x in _task(data).each])


def _task(data: xr.Dataset) -> Bounds:
    here = data[["task_extremes", "task_residuals"]].isel(alpha=0).transpose("seed", "end")
    ends, slack = here.task_extremes.values, here.task_residuals.values
    return quotient(ends[:, 0], ends[:, 1], slack[:, 0], slack[:, 1])


def _definite() -> Band:
    return at_least(DEFINITE, f"two margins above 0: a condition number of {1 / DEFINITE:g}")


def definite(config: residual_curvature.Config, data: xr.Dataset, names: tuple[str, ...], state: str) -> list[Finding]:
    """Hold λmin/λmax of the named matrices against 0, at the draw where it is lowest."""
    found, slack = [], 2 * config.tolerance
    for name in names:
        ends = data[name].sel(state=state).transpose("seed", "end").values
        reach = config.tolerance * np.max(np.abs(ends), axis=1)
        bounds = quotient(ends[:, 0], ends[:, 1], reach, reach)
        what = "the tolerance of the search, twice"
        found.append(not_negative(f"λmin/λmax of {LABEL[name]}, {state}", slack, bounds.lowest, what))
    return found


def premise_by_ends(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against 0, at B = 0 and after training."""
    return [not_negative_by_ends(config, data, "task", state) for state in STATES]


def premise_by_ends_control(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against λmax/10 in both states."""
    every = [
        Finding(f"λmin/λmax of H_ℓ, {state}", _definite(), x)
        for state in STATES
        for x in searched(data, "task", state, config.alpha).each
    ]
    return weakest(every)


PURIFICATION, RESIDUAL, SCALE = purification.EXPERIMENT, residual_curvature.EXPERIMENT, at_scale.EXPERIMENT
TASK_ENDS = partial(ends_of, ("task",), STATES)
GAUSS_NEWTON = ("G", "G_signal")
FAR_FROM_ZERO = "Every eigenvalue of H_ℓ is at least λmax/10."

CLAIMS = [
    Claim(
        id="P2-premise",
        group="fixed weights",
        assumptions=("a problem as it is at initialisation",),
        source="the premise of Eq. 29",
        formula=r"H_\ell \succeq 0",
        measured_on="the MLP of App. E",
        measurement="ends of H_ℓ",
        evidence=(
            Evidence(
                Reading("as used", "H_ℓ ⪰ 0 on the paper's own MLP.", PURIFICATION, premise, task_ends),
                Reading("control", FAR_FROM_ZERO, PURIFICATION, premise_control, task_ends),
            ),
            Evidence(
                Reading("by both ends", "H_ℓ ⪰ 0, before and after training.", SCALE, premise_by_ends, TASK_ENDS),
                Reading("control", FAR_FROM_ZERO, SCALE, premise_by_ends_control, TASK_ENDS),
            ),
        ),
        readings=(
            Reading(
                "after training",
                "H_ℓ ⪰ 0 after 100 steps of Adam at α = 256.",
                RESIDUAL,
                partial(definite, names=("task",), state="trained"),
                partial(ends_named, ("task",), "trained"),
            ),
            Reading(
                "Gauss–Newton",
                "G ⪰ 0 and JᵀGJ ⪰ 0 with the Gauss–Newton matrix G in place of H_ℓ.",
                RESIDUAL,
                partial(definite, names=GAUSS_NEWTON, state="initial"),
                partial(ends_named, GAUSS_NEWTON, "initial"),
            ),
        ),
        figure="residual_curvature",
    ),
]
