"""Judge the claims on signs and powers of exact spectra: P2-premise, F8c, F8d, X13 and X16.

On a problem whose matrices are not affordable both ends of every spectrum decide, each with a certificate
(`at_scale`). A statement on every draw is judged by the draw that is worst for it, between bounds that hold for
certain: one counterexample refutes it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments.analysis.ends import PLAIN, STATES
from experiments.analysis.intervals import Estimate, certified_between, exponents, geometric_mean_of, mean_of
from experiments.claims.controls import weakest
from experiments.curvature import asymmetric_scaling, at_scale, purification, residual_curvature
from experiments.curvature.residual_curvature import LABEL
from experiments.lab.problem import Problem
from experiments.ledger.claim import OWN, Claim, Evidence, Reading
from experiments.ledger.verdict import (
    EXPONENT,
    FRACTION,
    Band,
    Finding,
    at_least,
    at_most,
    below,
    equal,
    power,
)

EPS = float(np.finfo(float).eps)
LARGE = 1e8
"""A number of rows that no model here reaches."""
SEARCH = 1e-9
"""What a search to 100·√n·ε of the norm leaves open, at any n below 10⁸."""
DEFINITE = 2 * FRACTION
"""λmin/λmax of a wrong law that is two margins off one of 0."""


class Bounds(NamedTuple):
    """Hold a quantity at every seed, and bounds that hold for certain."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def lowest(self) -> Estimate:
        """Bound the least over seeds: below 0 for certain where that of one seed is."""
        return self._over(np.min, "the lowest of")

    @property
    def highest(self) -> Estimate:
        """Bound the greatest over seeds."""
        return self._over(np.max, "the highest of")

    @property
    def each(self) -> Iterator[Estimate]:
        """Bound it at every seed."""
        return (certified_between(float(x), float(low), float(high)) for x, low, high in zip(*self, strict=True))

    def _over(self, end: Callable[[np.ndarray], Any], which: str) -> Estimate:
        value, low, high = (float(end(x)) for x in self)
        return certified_between(value, low, high, f"certified bounds, {which} {len(self.value)} draws")


def quotient(low: np.ndarray, high: np.ndarray, below: np.ndarray | float, above: np.ndarray | float) -> Bounds:
    """Bound λmin/λmax from what was found of both, λmin from above and λmax > 0 from below, and what it may be off."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    tops = (high, high + above)
    least = np.min([(low - below) / top for top in tops], axis=0)
    most = np.max([low / top for top in tops], axis=0)
    return Bounds(low / high, least, most)


def dense(spectrum: xr.DataArray) -> Bounds:
    """Bound λmin/λmax of spectra that were computed in full, to the rounding n·ε·‖H‖."""
    x = spectrum.transpose("seed", "theta_index").values
    rounding = x.shape[1] * EPS * np.max(np.abs(x), axis=1)
    low, high = x.min(1) + rounding, x.max(1) - rounding
    return quotient(low, high, 2 * rounding, 2 * rounding)._replace(value=x.min(1) / x.max(1))


def searched(data: xr.Dataset, operator: str, state: str, alpha: float) -> Bounds:
    """Bound λmin/λmax of an operator by its certified ends."""
    here = data[["ends", "reach"]].sel(operator=operator, alpha=alpha, state=state).transpose("seed", "end")
    ends, reach = here.ends, here.reach
    return quotient(*(x.sel(end=end).values for x in (ends, reach) for end in ("min", "max")))


def uncertified(ends: xr.DataArray, what: str) -> str:
    """Say that a search ended without a certificate, and at how many draws."""
    missing = int(ends.isnull().any([x for x in ends.dims if x != "seed"]).sum())
    return f"the search for the ends of {what} ended without a certificate at {missing} draws" if missing else ""


def task_ends(config: purification.Config, data: xr.Dataset) -> str:
    """Say why the sign of H_ℓ is not known."""
    return uncertified(data.task_extremes, "H_ℓ")


def ends_of(operators: Sequence[str], states: Sequence[str], config: at_scale.Config, data: xr.Dataset) -> str:
    """Say which end of an operator is not known in these states."""
    reasons = []
    for operator in operators:
        for state in states:
            alphas = list(config.alphas) if state == "initial" else [config.alpha]
            here = data.ends.sel(operator=operator, state=state, alpha=alphas)
            reasons.append(uncertified(here, f"{PLAIN[operator]}, {state},"))
    return "; ".join(filter(None, reasons))


def ends_named(names: Sequence[str], state: str, config: residual_curvature.Config, data: xr.Dataset) -> str:
    """Say which of the named matrices has an end that is not known."""
    return "; ".join(filter(None, (uncertified(data[name].sel(state=state), LABEL[name]) for name in names)))


def premise(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against 0 at the draw where it is lowest, at B = 0."""
    return [_sign("λmin/λmax of H_ℓ", data.sizes["theta_index"] * EPS, _task(data).lowest)]


def premise_control(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against λmax/10 at the draw where it is highest."""
    return weakest([Finding("λmin/λmax of H_ℓ", _definite(), x) for x in _task(data).each])


def _task(data: xr.Dataset) -> Bounds:
    here = data[["task_extremes", "task_residuals"]].isel(alpha=0).transpose("seed", "end")
    ends, slack = here.task_extremes.values, here.task_residuals.values
    return quotient(ends[:, 0], ends[:, 1], slack[:, 0], slack[:, 1])


def _definite() -> Band:
    return at_least(DEFINITE, f"two margins above 0: a condition number of {1 / DEFINITE:g}")


def _sign(quantity: str, slack: float, estimate: Estimate, what: str = "n·ε of rounding") -> Finding:
    words = f"{quantity} is at most {estimate.ends(1.0)[1]:.3g} at one of the draws, where the paper states at least 0"
    return Finding(f"{quantity}, {estimate.method}", at_least(-slack, f"0, less {what}"), estimate, words)


def definite(config: residual_curvature.Config, data: xr.Dataset, names: tuple[str, ...], state: str) -> list[Finding]:
    """Hold λmin/λmax of the named matrices against 0, at the draw where it is lowest."""
    found, slack = [], 2 * config.tolerance
    for name in names:
        ends = data[name].sel(state=state).transpose("seed", "end").values
        reach = config.tolerance * np.max(np.abs(ends), axis=1)
        bounds = quotient(ends[:, 0], ends[:, 1], reach, reach)
        what = "the tolerance of the search, twice"
        found.append(_sign(f"λmin/λmax of {LABEL[name]}, {state}", slack, bounds.lowest, what))
    return found


def premise_by_ends(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against 0, at B = 0 and after training."""
    return [_sign_by_ends(config, data, "task", state) for state in STATES]


def premise_by_ends_control(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Hold λmin of H_ℓ against λmax/10 in both states."""
    every = [
        Finding(f"λmin/λmax of H_ℓ, {state}", _definite(), x)
        for state in STATES
        for x in searched(data, "task", state, config.alpha).each
    ]
    return weakest(every)


def _sign_by_ends(config: at_scale.Config, data: xr.Dataset, operator: str, state: str) -> Finding:
    bounds, slack = searched(data, operator, state, config.alpha), 2 * config.tolerance + LARGE * EPS
    return _sign(f"λmin/λmax of {PLAIN[operator]}, {state}", slack, bounds.lowest, "the tolerance of the search, twice")


def indefinite(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether H_LoRA has a negative eigenvalue at every α and draw."""
    return [
        Finding(f"λmin/λmax of H_LoRA, α = {a:g}, the highest of the draws", below(0.0), x.highest)
        for a, x in ((a, dense(data.lora.sel(alpha=a))) for a in config.alphas)
    ]


def approach(config: purification.Config, data: xr.Dataset, band: Band, *, absolute: bool = False) -> Finding:
    """Judge the exponent of α in the mean distance of the spectra of H_LoRA and H_Signal, over λmax or not."""
    gap = purification.distances(data)["mean"]
    gap = (gap * data.signal.max("theta_index") if absolute else gap).transpose("seed", "alpha").values
    name = f"exponent of α in the mean distance of the two spectra{'' if absolute else ' / λmax'}"
    return Finding(name, band, mean_of(exponents(np.array(config.alphas), gap)))


def converges(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether H_LoRA is indefinite at every α, and its spectrum nears H_Signal's as α grows."""
    return [*indefinite(config, data), approach(config, data, below(0.0))]


def leaves(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the distance grows, as α^0.1 or faster."""
    return [approach(config, data, at_least(2 * FRACTION, "two margins above 0"))]


def relative_distance(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the mean distance over λmax falls."""
    return [approach(config, data, below(0.0))]


def absolute_distance(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the mean distance itself falls."""
    return [approach(config, data, below(0.0), absolute=True)]


def purified(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether it converges, and whether what it converges to is positive semi-definite."""
    limit = dense(data.signal.isel(alpha=-1)).lowest
    slack = 2 * data.sizes["theta_index"] * EPS
    return [*converges(config, data), _sign("λmin/λmax of H_Signal, the limit", slack, limit)]


@cache
def coupled(problem: Problem, seed: int) -> int:
    """Compute r·Σ_l rank G_l at B = 0."""
    drawn = problem.draw(seed)
    gradient = jax.jit(jax.grad(drawn.loss))(drawn.base)
    return problem.rank * sum(int(np.linalg.matrix_rank(np.asarray(G))) for G in gradient.values())


Ranks = Callable[[Problem, int], int]
"""From a problem and a seed to r·Σ_l rank G_l."""


def both_signs(config: purification.Config, data: xr.Dataset, *, ranks: Ranks = coupled) -> list[Finding]:
    """Judge the number of eigenvalues of either sign over r·Σ_l rank G_l, at every draw (X13).

    At the smallest α, where rounding blurs the fewest: with D = diag(I, αI) on (A, B), H_LoRA(α) = D H_LoRA(1) D at
    B = 0, and by Sylvester's law of inertia no α changes a sign.
    """
    words = (f"{sign} eigenvalues less r·Σ_l rank G_l, the lowest of the draws" for sign in ("negative", "positive"))
    found = _excess(config, data, ranks)
    return [Finding(name, _enough(0), x.lowest) for name, x in zip(words, found, strict=True)]


def both_signs_control(config: purification.Config, data: xr.Dataset, *, ranks: Ranks = coupled) -> list[Finding]:
    """Judge whether there is one more of each sign: of the rarer one there is not, at any draw."""
    rarer = Bounds(*map(np.minimum, *_excess(config, data, ranks)))
    name = "eigenvalues of the rarer sign less r·Σ_l rank G_l"
    return weakest([Finding(name, _enough(1), x) for x in rarer.each])


def _enough(more: int) -> Band:
    return at_least(float(more), "a number of eigenvalues is whole", margin=0.5)


def _excess(config: purification.Config, data: xr.Dataset, ranks: Ranks) -> list[Bounds]:
    """Eigenvalues below and above 0, less what X13 says: certain beyond n·ε·‖H‖, possible within."""
    needed = np.array([ranks(config.problem, int(seed)) for seed in data.seed.values])
    x = data.lora.sel(alpha=config.alphas[0]).transpose("seed", "theta_index").values
    rounding = x.shape[1] * EPS * np.max(np.abs(x), axis=1, keepdims=True)
    counts = [[np.sum(sign * x > edge, axis=1) - needed for edge in (0.0, rounding, -rounding)] for sign in (-1, 1)]
    return [Bounds(*(c * 1.0 for c in each)) for each in counts]


def _bracket(config: purification.Config, data: xr.Dataset) -> list[tuple[float, xr.DataArray, xr.DataArray]]:
    """α, λmax[H_LoRA] − s·σ₁(G) and the spectrum of H_Signal."""
    return [
        (alpha, here.lora.max("theta_index") - here.drift_max, here.signal)
        for alpha, here in ((a, data.sel(alpha=a)) for a in config.alphas)
    ]


def bracketed(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge λmin[H_Signal] ≤ λmax[H_LoRA] − s·σ₁(G) ≤ λmax[H_Signal] at every α and draw, over λmax[H_LoRA] (X16)."""
    found = []
    for alpha, rest, signal in _bracket(config, data):
        scale = data.lora.sel(alpha=alpha).max("theta_index")
        for end, excess in (("lower", rest - signal.min("theta_index")), ("upper", signal.max("theta_index") - rest)):
            room = (excess / scale).values
            bounds = Bounds(room, room - SEARCH, room + SEARCH)
            name = f"room of λmax[H_LoRA] to the {end} end over its size, α = {alpha:g}, the lowest of the draws"
            found.append(Finding(name, at_least(-2 * SEARCH, "0, less what a search leaves open"), bounds.lowest))
    return found


def not_added(config: purification.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether λmax[H_LoRA] is the larger of s·σ₁(G) and λmax[H_Signal], where it exceeds both."""
    found = []
    for alpha in config.alphas:
        here = data.sel(alpha=alpha)
        larger = np.maximum(here.drift_max, here.signal.max("theta_index"))
        room = (here.lora.max("theta_index") / larger - 1).values
        bounds = Bounds(room, room - SEARCH, room + SEARCH)
        band = at_most(2 * SEARCH, "0, and what a search leaves open")
        name = f"λmax[H_LoRA] over the larger of s·σ₁(G) and λmax[H_Signal], less 1, α = {alpha:g}"
        found += [Finding(name, band, x) for x in bounds.each]
    return weakest(found)


def _distance(data: xr.Dataset, end: str, alpha: float) -> Bounds:
    """Bound |λ[H_LoRA] − λ[H_Signal]|/λmax[H_Signal] of one end at every seed, B = 0."""
    here = data[["ends", "reach"]].sel(state="initial", alpha=alpha).transpose("seed", "operator", "end")
    top = here.ends.sel(operator="signal", end="max").values
    (signal, lora), (slack, more) = (
        [x.sel(operator=o, end=end).values for o in ("signal", "lora")] for x in here.values()
    )
    apart, error = np.abs(lora - signal), slack + more
    most = here.reach.sel(operator="signal", end="max").values
    return Bounds(apart / top, np.maximum(apart - error, 0.0) / (top + most), (apart + error) / top)


def ends_approach(config: at_scale.Config, data: xr.Dataset) -> dict[str, Bounds]:
    """Bound by how much the distance of either end changes from the first α to the last."""
    changes, (first, *_, last) = {}, config.alphas
    for end in ("min", "max"):
        far, near = (_distance(data, end, alpha) for alpha in (first, last))
        name = f"distance of λ{end} to H_Signal's over λmax, α = {last:g} less α = {first:g}"
        changes[name] = Bounds(near.value - far.value, near.low - far.high, near.high - far.low)
    return changes


def ends_converge(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether H_LoRA is indefinite at every α, and its ends end up nearer to H_Signal's, at every draw."""
    found = [
        Finding(f"λmin/λmax of H_LoRA, α = {a:g}", below(0.0), searched(data, "lora", "initial", a).highest)
        for a in config.alphas
    ]
    return found + [Finding(name, below(0.0), x.highest) for name, x in ends_approach(config, data).items()]


def ends_leave(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether an end ends up farther by a tenth of λmax, at the draw and end where that fails least."""
    band = at_least(2 * FRACTION, "two margins above 0")
    return weakest([Finding(name, band, x) for name, y in ends_approach(config, data).items() for x in y.each])


def ends_purified(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge whether the ends converge, and whether what they converge to is positive semi-definite."""
    return [*ends_converge(config, data), _sign_by_ends(config, data, "signal", "initial")]


STATED = {"signal": 2.0, "drift": 1.0}
"""The exponents of α that the paper states."""
SHIFTED = {"signal": 2.0 - 2 * EXPONENT, "drift": 1.0 + 2 * EXPONENT}
"""Those of a wrong law, two margins off."""
NAMES = {"signal": "exponent of α in λmax[H_Signal]", "drift": "exponent of α in |λmin[H_Drift]|"}


def _powers(found: dict[str, Estimate], stated: dict[str, float]) -> list[Finding]:
    return [Finding(NAMES[k], power(stated[k]), x) for k, x in found.items()]


def _fitted(config: asymmetric_scaling.Config, data: xr.Dataset, state: str) -> dict[str, Estimate]:
    """The exponent of α in both extremes, the mean over seeds."""
    here, columns = (
        data.sel(state=state).transpose("seed", "alpha", ...),
        {"signal": "signal_max", "drift": "drift_min"},
    )
    return {k: mean_of(exponents(np.array(config.alphas), here[column].values)) for k, column in columns.items()}


def asymmetric(config: asymmetric_scaling.Config, data: xr.Dataset, state: str = "initial") -> list[Finding]:
    """Judge the exponents 2 and 1 of α, and the alignment of the largest eigenvalues."""
    last = data.sel(state=state).isel(alpha=-1)
    ratio = geometric_mean_of((last.lora_max / last.signal_max).values)
    aligned = Finding(f"λmax[H_LoRA]/λmax[H_Signal], α = {config.alphas[-1]:g}", equal(1.0), ratio)
    return [*_powers(_fitted(config, data, state), STATED), aligned]


def asymmetric_control(config: asymmetric_scaling.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the exponents 1.8 and 1.2 by the weaker of both."""
    return weakest(_powers(_fitted(config, data, "initial"), SHIFTED))


def positive(config: asymmetric_scaling.Config, data: xr.Dataset, state: str = "initial") -> str:
    """Say why there is no power of α: an extreme eigenvalue that is not known or has the other sign."""
    here = data.sel(state=state)
    missing = [k for k in ("signal_max", "drift_min", "lora_max") if not (here[k] > 0).all()]
    plain = ", ".join(asymmetric_scaling.PLAIN[k] for k in missing)
    return f"{plain} is not known to be above 0 at every α and draw: it has no power of α" if missing else ""


def _exponents_by_ends(config: at_scale.Config, data: xr.Dataset) -> dict[str, Estimate]:
    """The exponents of α in these ends at B = 0, between bounds that hold at every draw."""
    ends = {"signal": "max", "drift": "min"}
    return {k: certified_between(*at_scale.exponent(data, k, end), "certified bounds") for k, end in ends.items()}


def ends_asymmetric(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge these exponents and this alignment by certified ends at B = 0."""
    name = f"|λmax[H_LoRA]/λmax[H_Signal] − 1|, α = {config.alphas[-1]:g}, the highest of the draws"
    apart = _distance(data, "max", config.alphas[-1]).highest
    aligned = Finding(name, at_most(FRACTION, f"an equality of averages: ±{FRACTION:.0%}"), apart)
    return [*_powers(_exponents_by_ends(config, data), STATED), aligned]


def ends_asymmetric_control(config: at_scale.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the exponents 1.8 and 1.2 by the weaker of both."""
    return weakest(_powers(_exponents_by_ends(config, data), SHIFTED))


PURIFICATION, RESIDUAL = purification.EXPERIMENT, residual_curvature.EXPERIMENT
SCALING, SCALE = asymmetric_scaling.EXPERIMENT, at_scale.EXPERIMENT
MLP = "the MLP of App. E"
AS_DRAWN = "a problem as it is at initialisation"
TASK_ENDS = partial(ends_of, ("task",), STATES)
SIGNAL_ENDS = partial(ends_of, ("signal", "lora"), ("initial",))
POWER_ENDS = partial(ends_of, ("signal", "drift", "lora"), ("initial",))
GAUSS_NEWTON = ("G", "G_signal")
SPECTRA = "spectra of H_LoRA and H_Signal over α, B = 0"
POWERS_OF_ALPHA = "powers of α in H_Signal and H_Drift, B = 0"
FAR_FROM_ZERO = "Every eigenvalue of H_ℓ is at least λmax/10."
FARTHER = "As α grows the spectrum of H_LoRA leaves that of H_Signal: its distance over λmax grows as α^0.1 or faster."
ENDS_FARTHER = "As α grows the ends of H_LoRA leave those of H_Signal, by a tenth of λmax or more."
SHIFTED_LAW = "λmax[H_Signal] = Θ(α^1.8) and |λmin[H_Drift]| = Θ(α^1.2)."

CLAIMS = [
    Claim(
        id="P2-premise",
        group="fixed weights",
        assumptions=(AS_DRAWN,),
        source="the premise of Eq. 29",
        formula=r"H_\ell \succeq 0",
        measured_on=MLP,
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
    Claim(
        id="F8c-purification",
        group="fixed weights",
        assumptions=(AS_DRAWN,),
        source="Fig. 8c",
        formula=r"\operatorname{spec}(H_{\mathrm{LoRA}}) \to \operatorname{spec}(H_{\mathrm{Signal}}) \ge 0"
        r" \quad\text{as}\quad \alpha \to \infty",
        measured_on=MLP,
        measurement=SPECTRA,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, which is positive "
                    "semi-definite.",
                    PURIFICATION,
                    purified,
                ),
                Reading("control", FARTHER, PURIFICATION, leaves),
            ),
            Evidence(
                Reading(
                    "by both ends",
                    "H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, which is positive "
                    "semi-definite.",
                    SCALE,
                    ends_purified,
                    SIGNAL_ENDS,
                ),
                Reading("control", ENDS_FARTHER, SCALE, ends_leave, SIGNAL_ENDS),
            ),
        ),
        readings=(
            Reading(
                "without the sign",
                "H_LoRA is indefinite; as α grows its spectrum converges to that of H_Signal, definite or not, "
                "relative to λmax.",
                PURIFICATION,
                converges,
            ),
            Reading(
                "by both ends, without the sign",
                "H_LoRA is indefinite; as α grows its ends converge to those of H_Signal, definite or not, relative "
                "to λmax.",
                SCALE,
                ends_converge,
                SIGNAL_ENDS,
            ),
            Reading(
                "relative distance",
                "Relative to λmax the mean distance of the spectra of H_LoRA and H_Signal falls as α grows.",
                PURIFICATION,
                relative_distance,
            ),
            Reading(
                "absolute distance",
                "The mean distance of the spectra of H_LoRA and H_Signal itself falls as α grows.",
                PURIFICATION,
                absolute_distance,
            ),
            Reading(
                "both signs at every α",
                "H_LoRA has at least r·Σ_l rank G_l eigenvalues of each sign at every α (X13).",
                PURIFICATION,
                both_signs,
            ),
        ),
        figure="purification",
    ),
    Claim(
        id="F8d-asymmetry",
        group="fixed weights",
        assumptions=("fixed W₀ and A, B = 0",),
        source="Eq. 6–7, Fig. 8d",
        formula=r"\lambda_{\max}[H_{\mathrm{Signal}}] = \Theta(\alpha^2),\;"
        r" |\lambda_{\min}[H_{\mathrm{Drift}}]| = \Theta(\alpha),\;"
        r" \lambda_{\max}[H_{\mathrm{LoRA}}] / \lambda_{\max}[H_{\mathrm{Signal}}] \to 1",
        measured_on=MLP,
        measurement=POWERS_OF_ALPHA,
        evidence=(
            Evidence(
                Reading(
                    "at initialisation",
                    "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
                    SCALING,
                    asymmetric,
                    positive,
                ),
                Reading("control", SHIFTED_LAW, SCALING, asymmetric_control, positive),
            ),
            Evidence(
                Reading(
                    "by certified ends",
                    "λmax[H_Signal] = Θ(α²), |λmin[H_Drift]| = Θ(α), and λmax[H_LoRA]/λmax[H_Signal] → 1.",
                    SCALE,
                    ends_asymmetric,
                    POWER_ENDS,
                ),
                Reading("control", SHIFTED_LAW, SCALE, ends_asymmetric_control, POWER_ENDS),
            ),
        ),
        readings=(
            Reading(
                "after training",
                "The same after training at each α, where g and H_ℓ have moved with it.",
                SCALING,
                partial(asymmetric, state="trained"),
                partial(positive, state="trained"),
            ),
        ),
        figure="asymmetric_scaling",
    ),
    Claim(
        id="X13",
        group="fixed weights",
        assumptions=("B = 0", "g ≠ 0", "every A of full row rank"),
        source=OWN,
        formula=r"n_\pm(H_{\mathrm{LoRA}}) \ge r \sum_l \operatorname{rank} G_l",
        measurement=SPECTRA,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "At B = 0 H_LoRA has at least r·Σ_l rank G_l eigenvalues of each sign, for every H_ℓ and α "
                    "(counted at the smallest α: no α changes a sign, by Sylvester's law).",
                    PURIFICATION,
                    both_signs,
                ),
                Reading("control", "It has one more of each sign.", PURIFICATION, both_signs_control),
            ),
        ),
        figure="purification",
    ),
    Claim(
        id="X16",
        group="fixed weights",
        assumptions=("B = 0",),
        source=OWN,
        formula=r"s\,\sigma_1(G) + \lambda_{\min}[H_{\mathrm{Signal}}] \le \lambda_{\max}[H_{\mathrm{LoRA}}]"
        r" \le s\,\sigma_1(G) + \lambda_{\max}[H_{\mathrm{Signal}}]",
        measurement=SPECTRA,
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "At B = 0 s·σ₁(G) + λmin[H_Signal] ≤ λmax[H_LoRA] ≤ s·σ₁(G) + λmax[H_Signal], σ₁(G) the largest "
                    "over layers.",
                    PURIFICATION,
                    bracketed,
                ),
                Reading(
                    "control",
                    "λmax[H_LoRA] is the larger of s·σ₁(G) and λmax[H_Signal].",
                    PURIFICATION,
                    not_added,
                ),
            ),
        ),
        figure="purification",
    ),
]
