"""Measure the gap between LoRA (α = r) and full fine-tuning, and the fraction of it that a method closes (Eq. 5).

Fixed before looking: the loss is the training loss after the last step; a method closes the fraction
mean(ln ℓ_LoRA − ln ℓ_method) / mean(ln ℓ_LoRA − ln ℓ_FFT) of the gap, means over seeds, with a bootstrap interval;
there is a gap only where the 95% t interval of mean(ln ℓ_LoRA − ln ℓ_FFT) lies above 0.
"""

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, bootstrap, mean_interval
from experiments.lab.experiment import Row
from experiments.tuning.methods import COMMON, FULL, TENFOLD, V1, V2

RECOVERS = "> 0.5 (most)"


def reductions(data: xr.Dataset) -> xr.DataArray:
    """Subtract the log-loss of every method from that of LoRA with α = r, same rank and seed."""
    return data.log_loss.sel({"method": COMMON}) - data.log_loss


def gap(here: xr.Dataset) -> Interval:
    """Return the mean of ln ℓ_LoRA − ln ℓ_FFT at one rank and rate."""
    return mean_interval(reductions(here).sel({"method": FULL}).values)


def fraction(here: xr.Dataset, method: str) -> Interval:
    """Return mean(ln ℓ_LoRA − ln ℓ_method) / mean(ln ℓ_LoRA − ln ℓ_FFT) at one rank and rate."""
    pairs = reductions(here).sel({"method": [method, FULL]}).transpose("seed", "method").values
    return bootstrap(lambda x: float(np.divide(*x.mean(0))), pairs)


def diverged(here: xr.Dataset, method: str) -> int:
    """Count the seeds at which a method diverged."""
    return int(np.isinf(here.log_loss.sel({"method": method})).sum())


def ahead_of_tenfold(here: xr.Dataset) -> Interval:
    """Return ln loss of LoRA at ten times the rate less that of V2."""
    return mean_interval((here.log_loss.sel({"method": TENFOLD}) - here.log_loss.sel({"method": V2})).values)


def outcome_rows(here: xr.Dataset) -> list[Row]:
    """Report the gap, what each method closes of it, and LoRA-α against ten times the learning rate."""
    where, size = at(here), gap(here)
    rows = [Row(f"V    ln loss LoRA (α = r) − ln loss FFT, {where}", "> 0", str(size), size.interval())]
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
    name, stated = f"V    gap closed by {method}, {where}", RECOVERS if method in (V1, V2) else "–"
    lost = diverged(here, method)
    if lost:
        return Row(name, stated, f"diverged at {lost} of {here.sizes['seed']} seeds", "–")
    if not gap(here).low > 0:
        change = mean_interval(reductions(here).sel({"method": method}).values)
        return Row(name, stated, f"no gap; ln loss lower by {change}", change.interval())
    closed = fraction(here, method)
    return Row(name, stated, str(closed), closed.interval())


def placed(data: xr.Dataset, method: str) -> str:
    """Say at which ranks the interval of the fraction that a method closes lies wholly above or below one half."""
    places = {"above": [], "below": [], "across": [], "without a gap or diverged": []}
    for rank in data["rank"].values:
        places[_place(data.sel(rank=rank), method)].append(f"r = {rank}")
    listed = "; ".join(f"{place}: {', '.join(where)}" for place, where in places.items() if where)
    return f"interval of the gap closed by {method} against one half: {listed}."


def _place(here: xr.Dataset, method: str) -> str:
    if not gap(here).low > 0 or not np.all(np.isfinite(here.log_loss.sel({"method": method}))):
        return "without a gap or diverged"
    closed = fraction(here, method)
    return "above" if closed.low > 0.5 else "below" if closed.high < 0.5 else "across"
