"""Bound a quantity at every draw, for certain: what is said of all is judged by the draw that is worst for it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.analysis.ends import PLAIN
from experiments.analysis.intervals import Estimate, certified_between
from experiments.curvature import at_scale
from experiments.ledger.verdict import Finding, at_least

EPS = float(np.finfo(float).eps)
LARGE = 1e8
"""A number of rows that no model here reaches."""


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


def ends_of(operators: Sequence[str], states: Sequence[str], config: at_scale.Config, data: xr.Dataset) -> str:
    """Say which end of an operator is not known in these states."""
    reasons = []
    for operator in operators:
        for state in states:
            alphas = list(config.alphas) if state == "initial" else [config.alpha]
            here = data.ends.sel(operator=operator, state=state, alpha=alphas)
            reasons.append(uncertified(here, f"{PLAIN[operator]}, {state},"))
    return "; ".join(filter(None, reasons))


def not_negative(quantity: str, slack: float, estimate: Estimate, what: str = "n·ε of rounding") -> Finding:
    """Hold λmin/λmax against 0, less what rounding or a search leaves open."""
    words = f"{quantity} is at most {estimate.ends(1.0)[1]:.3g} at one of the draws, where the paper states at least 0"
    return Finding(f"{quantity}, {estimate.method}", at_least(-slack, f"0, less {what}"), estimate, words)


def not_negative_by_ends(config: at_scale.Config, data: xr.Dataset, operator: str, state: str) -> Finding:
    """Hold λmin/λmax of an operator, by its certified ends, against 0 at the draw where it is lowest."""
    bounds, slack = searched(data, operator, state, config.alpha), 2 * config.tolerance + LARGE * EPS
    return not_negative(
        f"λmin/λmax of {PLAIN[operator]}, {state}", slack, bounds.lowest, "the tolerance of the search, twice"
    )


def distance(data: xr.Dataset, end: str, alpha: float) -> Bounds:
    """Bound |λ[H_LoRA] − λ[H_Signal]|/λmax[H_Signal] of one end at every seed, B = 0."""
    here = data[["ends", "reach"]].sel(state="initial", alpha=alpha).transpose("seed", "operator", "end")
    top = here.ends.sel(operator="signal", end="max").values
    (signal, lora), (slack, more) = (
        [x.sel(operator=o, end=end).values for o in ("signal", "lora")] for x in here.values()
    )
    apart, error = np.abs(lora - signal), slack + more
    most = here.reach.sel(operator="signal", end="max").values
    return Bounds(apart / top, np.maximum(apart - error, 0.0) / (top + most), (apart + error) / top)
