"""Measure the gap between LoRA (α = r) and full fine-tuning, and whether a method closes half of it (Eq. 5).

Fixed before looking: the loss is the training loss after the last step, paired by seed. A method recovers most of the
gap if ln ℓ_method lies below the middle of ln ℓ_LoRA and ln ℓ_FFT: a difference, which exists where the quotient
(ln ℓ_LoRA − ln ℓ_method)/(ln ℓ_LoRA − ln ℓ_FFT) does not. The quotient is reported beside it, with Fieller's interval.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Estimate, difference_of, lead_of, mean_of, quotient_of
from experiments.analysis.sweeps import is_cliff
from experiments.lab.experiment import Row
from experiments.tuning.methods import COMMON, FULL, TENFOLD, V1, V2, methods

RECOVERS = "> 0 (most)"
UNDER_SCALED = 2.0
"""By how much V2 has to exceed α = r for α = r to count as under-scaled, and a rule to differ from another."""


def reductions(data: xr.Dataset) -> xr.DataArray:
    """Subtract the log-loss of every method from that of LoRA with α = r, same rank and seed."""
    return data.log_loss.sel({"method": COMMON}) - data.log_loss


def gap(here: xr.Dataset) -> Estimate:
    """Return the mean of ln ℓ_LoRA − ln ℓ_FFT at one rank and rate."""
    return difference_of(reductions(here).sel({"method": FULL}).values)


def beyond_half(here: xr.Dataset, method: str) -> Estimate:
    """Return (ln ℓ_LoRA + ln ℓ_FFT)/2 − ln ℓ_method at one rank and rate: above 0 it closes most of the gap."""
    return _beyond_half(here, here.log_loss.sel({"method": method}))


def _beyond_half(here: xr.Dataset, log_loss: xr.DataArray) -> Estimate:
    middle = (here.log_loss.sel({"method": COMMON}) + here.log_loss.sel({"method": FULL})) / 2
    return difference_of((middle - log_loss).values)


def fraction(here: xr.Dataset, method: str) -> Estimate:
    """Return mean(ln ℓ_LoRA − ln ℓ_method) / mean(ln ℓ_LoRA − ln ℓ_FFT) at one rank and rate."""
    closed, whole = (reductions(here).sel({"method": name}).values for name in (method, FULL))
    return quotient_of(closed, whole)


def diverged(here: xr.Dataset, method: str) -> int:
    """Count the seeds at which a method diverged."""
    return int(np.isinf(here.log_loss.sel({"method": method})).sum())


def ahead_of(here: xr.Dataset, other: str) -> Estimate:
    """Return ln loss of another method less that of V2."""
    return lead_of(*(here.log_loss.sel({"method": name}).values for name in (V2, other)))


def ahead_of_tenfold(here: xr.Dataset) -> Estimate:
    """Return ln loss of LoRA at ten times the rate less that of V2."""
    return ahead_of(here, TENFOLD)


class Setup(NamedTuple):
    """Hold what the conditions of the protocol depend on beside the runs."""

    rank: int
    sigma_a: Mapping[str, float]
    rates: tuple[float, ...]


def untestable(here: xr.Dataset, setup: Setup) -> str:
    """Say why no rule could be told good from bad at one rank and rate; nothing where one can.

    The conditions, in this order: α = r is stable and under-scaled, full fine-tuning is not at its cliff, there is a
    gap, and some α closes half of it.
    """
    where, seeds = at(here), here.sizes["seed"]
    lost = diverged(here, COMMON)
    if lost:
        return f"LoRA with α = r diverged at {lost} of {seeds} seeds, {where}: a gap there is over-scaling"
    over = over_common(V2, setup)
    if over < UNDER_SCALED:
        return f"V2 is {over:.2g}·r, {where}: α = r is not under-scaled"
    if _at_the_cliff(here, setup.rates):
        return f"full fine-tuning is at its cliff, {where}: twice that rate undoes half of what it learned"
    if not gap(here).at().low > 0:
        return f"there is no gap that {seeds} seeds resolve, {where}"
    best = here.by_alpha.isel(over_v2=int(here.by_alpha.mean("seed").argmin("over_v2")))
    if _beyond_half(here, best).value < 0:
        closed = quotient_of(
            (here.log_loss.sel({"method": COMMON}) - best).values, reductions(here).sel({"method": FULL}).values
        )
        return f"no α closes half of the gap, {where}: the best of the sweep closes {max(closed.value, 0):.0%} of it"
    return ""


def over_common(method: str, setup: Setup) -> float:
    """Return α of a method over r, the geometric mean over layers."""
    scaling = methods(setup.rank, setup.sigma_a)[method].scaling
    return float(np.exp(np.mean(np.log(list(scaling.values())))))


def _at_the_cliff(here: xr.Dataset, rates: tuple[float, ...]) -> bool:
    losses = here.fft.isel({name: 0 for name in here.fft.dims if name != "fft_rate"}).values
    return is_cliff(np.array(rates), losses, float(here.learning_rate.values.flat[0]))


def outcome_rows(here: xr.Dataset) -> list[Row]:
    """Report the gap, what each method closes of it, and LoRA-α against ten times the learning rate."""
    where = at(here)
    rows = [Row(f"V    ln loss LoRA (α = r) − ln loss FFT, {where}", "> 0", *gap(here).cells("diverged"))]
    rows += [_fraction_row(here, method, where) for method in here.method.values if method not in (FULL, COMMON)]
    ahead = ahead_of_tenfold(here).cells("diverged")
    return [*rows, Row(f"V    ln loss 10×η − ln loss V2, {where}", "> 0 at high rank", *ahead)]


def at(here: xr.Dataset) -> str:
    """Name the rank and the rate."""
    return f"r = {here['rank'].item()}, {rate_name(here.share.item())}"


def rate_name(share: float) -> str:
    """Name a learning rate by its share of η_FFT."""
    return "η_FFT" if share == 1 else f"{share:g} η_FFT"


def _fraction_row(here: xr.Dataset, method: str, where: str) -> Row:
    name, stated = f"V    gap closed by {method}, {where}", "> 0.5 (most)" if method in (V1, V2) else "–"
    lost = diverged(here, method)
    if lost:
        return Row(name, stated, f"diverged at {lost} of {here.sizes['seed']} seeds", "–")
    if not gap(here).at().low > 0:
        change = mean_of(-reductions(here).sel({"method": method}).values)
        return Row(name, stated, f"no gap is resolved; change of ln loss {change}", change.interval())
    return Row(name, stated, *fraction(here, method).cells("–"))


def placed(data: xr.Dataset, method: str) -> str:
    """Say at which ranks a method closes more than half of the gap, and less, by its interval."""
    places = {"more": [], "less": [], "undecided": [], "no gap is resolved": []}
    for rank in data["rank"].values:
        places[_place(data.sel(rank=rank), method)].append(f"r = {rank}")
    listed = "; ".join(f"{place}: {', '.join(where)}" for place, where in places.items() if where)
    return f"{method} against half of the gap: {listed}."


def _place(here: xr.Dataset, method: str) -> str:
    if not gap(here).at().low > 0:
        return "no gap is resolved"
    _, low, high = beyond_half(here, method).at()
    return "more" if low > 0 else "less" if high < 0 else "undecided"
