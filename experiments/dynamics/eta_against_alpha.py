"""Run Adam along (m·η₀, α₀) and along (η₀, m·α₀), and measure these runs (F2)."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

import signal_drift as sd
from experiments.analysis.divergence import final
from experiments.analysis.intervals import Estimate, exponents, geometric_mean_of, mean_of
from experiments.lab.experiment import Row
from experiments.lab.problem import Setting
from experiments.problems.adam_run import adam_run

FAMILIES = ("η", "α")
"""Which of the two is multiplied while the other is held."""
MATCHED = ("64·η₀", "128·α₀")
"""The pair that App. E says to start alike."""
STATED = {"64·η₀": "oscillates", "128·η₀": "diverges", "128·α₀": "stable", "256·α₀": "stable"}
"""How App. E says that its runs end."""


@dataclass(frozen=True)
class Families(Setting):
    """Run ten trajectories: α₀ and η₀, each multiplied with the other held, LoRA at both and full fine-tuning at η₀."""

    learning_rate: float = 1e-4
    """η₀ of Adam."""
    alpha: float = 1.0
    """α₀."""
    eta_multipliers: tuple[float, ...] = (16.0, 32.0, 64.0, 128.0)
    """η/η₀ at α₀."""
    alpha_multipliers: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0)
    """α/α₀ at η₀."""
    steps: int = 100
    """Training steps."""

    def rates(self) -> dict[str, tuple[float, float]]:
        """Return (η, α) of every run in which one of both is multiplied."""
        eta, alpha = self.learning_rate, self.alpha
        return {run_label("η", m): (m * eta, alpha) for m in self.eta_multipliers} | {
            run_label("α", m): (eta, m * alpha) for m in self.alpha_multipliers
        }

    def multipliers(self, family: str) -> np.ndarray:
        return np.array(self.eta_multipliers if family == "η" else self.alpha_multipliers)


def run_label(family: str, multiplier: float) -> str:
    return f"{multiplier:g}·{family}₀"


def run_labels(config: Families, family: str) -> list[str]:
    return [run_label(family, m) for m in config.multipliers(family)]


def trajectories(config: Families, seed: int) -> xr.Dataset:
    """Record loss, ‖Δw_Signal‖ and ‖Δw_Drift‖ of every run of one seed, all from the same W₀, A and data.

    On a problem with minibatches the loss of a step is that of its own batch.
    """
    problem, start = config.problem, config.problem.adapters(seed)
    s, eta = problem.scaling(config.alpha), config.learning_rate

    def run(m_eta: float = 1.0, m_alpha: float = 1.0) -> sd.Run:
        return adam_run(problem, seed, start, m_alpha * s, m_eta * eta, config.steps)

    runs = {"LoRA": run(), "FFT": adam_run(problem, seed, None, 1.0, eta, config.steps)}
    runs |= {run_label("η", m): run(m_eta=m) for m in config.eta_multipliers}
    runs |= {run_label("α", m): run(m_alpha=m) for m in config.alpha_multipliers}
    return xr.Dataset(
        {
            "loss": (("run", "time"), np.array([run.loss for run in runs.values()])),
            "signal": (("run", "step"), np.array([run.signal_norm for run in runs.values()])),
            "drift": (("run", "step"), np.array([run.drift_norm for run in runs.values()])),
        },
        coords={"run": list(runs), "time": np.arange(config.steps + 1), "step": np.arange(1, config.steps + 1)},
    )


def ratio(data: xr.Dataset) -> xr.DataArray:
    """Return ‖Δw_Signal‖/‖Δw_Drift‖ from the second step on, NaN where a run is not finite or has no drift."""
    later = data.isel(step=slice(1, None))
    values = later.signal / later.drift
    return values.where(np.isfinite(values))


def purity(data: xr.Dataset) -> xr.DataArray:
    """Return the geometric mean of ‖Δw_Signal‖/‖Δw_Drift‖ from the second step on: at the first the drift is 0 (X3)."""
    found = ratio(data)
    mean = found.copy(data=np.log(found.values)).mean("step", skipna=False)
    return mean.copy(data=np.exp(mean.values))


def slope(config: Families, values: xr.DataArray, family: str) -> Estimate:
    """Fit the exponent of the multiplier along one family, per seed, then over seeds."""
    y = values.sel(run=run_labels(config, family)).transpose("seed", "run").values
    return mean_of(exponents(config.multipliers(family), y))


def pairs(config: Families, data: xr.Dataset) -> list[tuple[str, str]]:
    """Pair the runs (α-scaled, η-scaled) that are compared: the same multiplier, and the pair that starts alike."""
    same = [(run_label("α", m), run_label("η", m)) for m in config.eta_multipliers if m in config.alpha_multipliers]
    eta, alpha = MATCHED
    return same + [(alpha, eta)] * bool({alpha, eta} <= set(data.run.values))


def deepest_ratio(config: Families, data: xr.Dataset) -> Estimate:
    """Divide the deepest final loss of α-scaling by that of η-scaling."""
    level = final(data.loss)
    eta, alpha = (level.sel(run=run_labels(config, family)).min("run") for family in FAMILIES)
    return geometric_mean_of((alpha / eta).values)


def purity_rows(config: Families, data: xr.Dataset) -> list[Row]:
    second = ratio(data).isel(step=0)
    rows = [
        Row(f"F2c  exponent of the signal-to-drift ratio in {family}, {when}", stated, str(fit), fit.interval())
        for when, values in (("second step", second), ("all steps", purity(data)))
        for family, stated in zip(FAMILIES, ("-1 (P4)", "0 (P4)"), strict=True)
        for fit in [slope(config, values, family)]
    ]
    return [*rows, *(_pair_row(data, alpha, eta) for alpha, eta in pairs(config, data))]


def _pair_row(data: xr.Dataset, alpha: str, eta: str) -> Row:
    """Compare both ratios on average and step by step; what is unknown at a step is left out and counted."""
    mean = purity(data)
    quotient = geometric_mean_of((mean.sel(run=alpha) / mean.sel(run=eta)).values)
    count, known = counterexamples(data, alpha, eta)
    asked = data.sizes["seed"] * (data.sizes["step"] - 1)
    unknown = f", {asked - known} unknown" if known < asked else ""
    share = f"{float(share_above(data, alpha, eta).mean()):.0%} of steps above, {count} of {known} below{unknown}"
    return Row(f"F2c  signal-to-drift ratio, {alpha} over {eta} ({share})", "> 1", str(quotient), quotient.interval())


def share_above(data: xr.Dataset, upper: str, lower: str) -> xr.DataArray:
    """Return, by seed, the share of steps from the second on at which one run has the higher signal-to-drift ratio.

    Steps at which either ratio is unknown are left out; NaN where all are.
    """
    high, low = (ratio(data).sel(run=run) for run in (upper, lower))
    return (high > low).where(high.notnull() & low.notnull()).mean("step")


ROUNDING = 1e-6
"""A relative difference of two ratios beyond rounding: a step's norms err by about 1e-13, and one unit of rounding in
A₀ changes no ratio of a hundred steps by as much (a test does that)."""


def counterexamples(data: xr.Dataset, upper: str, lower: str) -> tuple[int, int]:
    """Count the steps, of all seeds, at which the `upper` run has the lower ratio by more than rounding, and all known.

    One such step refutes that the ratio is higher "at every step". Steps at which either is unknown are left out.
    """
    quotient = ratio(data).sel(run=upper) / ratio(data).sel(run=lower)
    return int((quotient < 1 - ROUNDING).sum()), int(quotient.notnull().sum())


PERSISTENT = 5
"""The first step at which X14 is asked, where it does not ask for more."""


def ratio_over_x14(config: Families, data: xr.Dataset) -> dict[str, np.ndarray]:
    """Divide ‖Δw_Signal‖/‖Δw_Drift‖ by 2(t − 1), what X14 says it tends to, by run: one number a seed.

    It is the geometric mean over the steps t ≥ max(5, σ_A/(3η)), from which X14 is stated, σ_A the largest of all
    layers. Runs that are not as long, and seeds without a finite ratio there, are left out.
    """
    sigma_a, found = max(config.problem.sigma_a().values()), {}
    for run, (eta, _) in config.rates().items():
        first = max(PERSISTENT, sigma_a / (3 * eta))
        here = ratio(data).sel(run=run)
        logs = np.log(here / (2 * (here.step - 1))).where(here.step >= first, drop=True)
        if logs.sizes["step"] and logs.notnull().any():
            found[run] = np.exp(logs.mean("step").dropna("seed")).values
    return found


def exponent_by_step(config: Families, data: xr.Dataset) -> xr.DataArray:
    """Fit, at every step from the second on, the exponent of η and of α in the signal-to-drift ratio, seed by seed.

    P4-update says −1 and 0; by X14 both become 0. NaN where a ratio of the family is unknown.
    """
    values, slopes = ratio(data), []
    for family in FAMILIES:
        y = values.sel(run=run_labels(config, family)).transpose("seed", "step", "run").values
        slopes.append(exponents(config.multipliers(family), y.reshape(-1, y.shape[-1])).reshape(y.shape[:2]))
    return xr.DataArray(
        np.stack(slopes), {"family": list(FAMILIES), "step": values.step.values}, ("family", "seed", "step")
    )
