"""V-protocol: at η_FFT, how much of the gap between LoRA (α = r) and full fine-tuning each method closes (Eq. 5).

Fixed before looking: the loss is the training loss after the last step; a method closes the fraction
mean(ln ℓ_LoRA − ln ℓ_method) / mean(ln ℓ_LoRA − ln ℓ_FFT) of the gap, means over seeds, with a bootstrap interval;
there is a gap only where the 95% t interval of mean(ln ℓ_LoRA − ln ℓ_FFT) lies above 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.tree_util import Partial

import signal_drift as sd
from experiments.analysis.intervals import Interval, mean_interval
from experiments.analysis.sweeps import bootstrap
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Experiment, Report, Row, main
from experiments.problems.adaptation import Adaptations, Problem, Task, adapters, fft_rate, log_loss, problem
from experiments.tuning import protocol_figures
from experiments.tuning.methods import FULL, PLAIN, TENFOLD, V1, V2, Recipe, recipes
from signal_drift.tasks.digits import accuracy

RECOVERS = "> 0.5 (most)"


@dataclass(frozen=True)
class Config(Adaptations):
    """The methods at two ranks on every task, all at η_FFT and, as a second reading, all well below it."""

    ranks: tuple[int, ...] = (8, 64)
    """Ranks r."""
    coefficient: float = 256.0
    """C of V1."""
    rate_shares: tuple[float, ...] = (1.0, 0.1)
    """The learning rate of every method, full fine-tuning included, over η_FFT: the protocol's 1, and a rate far
    from where training becomes unstable, which the best rate of a short run is not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not min(self.rate_shares, default=0) > 0:
            raise OptionError(f"rate_shares: must be positive and not empty, got {self.rate_shares}")
        for rank in self.ranks:
            sd.empirical_alpha_base(rank, self.coefficient)


def points(config: Config) -> list[dict]:
    return [
        {"task": task, "share": share, "rank": rank, "seed": seed}
        for task in config.tasks
        for share in config.rate_shares
        for seed in range(config.seeds)
        for rank in config.ranks
    ]


def measure(config: Config, task: str, share: float, rank: int, seed: int) -> xr.Dataset:
    """Each method's log-loss after training and, on the digits, its accuracy on held-out rotated images."""
    adapted = config.task(task)
    chosen, eta = problem(adapted, seed), share * fft_rate(adapted)
    methods = recipes(rank, {layer: W0.shape[1] for layer, W0 in chosen.base.items()}, config.coefficient)
    start = adapters(adapted, seed, rank, max(config.ranks))
    losses, scores = _lora_outcomes(chosen, start, *_stacked(adapted, eta, methods), steps=adapted.steps)
    full_loss, full_score = _full_outcome(chosen, jnp.asarray(eta, adapted.dtype), steps=adapted.steps)
    return xr.Dataset(
        {
            "log_loss": ("recipe", log_loss(np.append(losses, full_loss))),
            "accuracy": ("recipe", np.append(scores, full_score).astype(float)),
            "start_accuracy": float(_score(chosen, chosen.base)),
            "learning_rate": eta,
        },
        coords={"recipe": [*methods, FULL]},
        attrs={"training_dtype": config.dtype},
    )


def _stacked(task: Task, eta: float, methods: Mapping[str, Recipe]) -> tuple[dict[str, Array], Array, Array]:
    layers = methods[PLAIN].scaling
    scaling = {layer: jnp.array([m.scaling[layer] for m in methods.values()], task.dtype) for layer in layers}
    rates = jnp.array([eta * m.rate for m in methods.values()], task.dtype)
    return scaling, rates, rates * jnp.array([m.ratio for m in methods.values()], task.dtype)


@partial(jax.jit, static_argnames="steps")
def _lora_outcomes(
    chosen: Problem,
    start: dict[str, sd.Adapter],
    scaling: dict[str, Array],
    rate_A: Array,
    rate_B: Array,
    *,
    steps: int,
) -> tuple[Array, Array]:
    def outcome(run: tuple[dict[str, Array], Array, Array]) -> tuple[Array, Array]:
        s, eta_A, eta_B = run
        optimizer = sd.separate_rates(optax.adam(eta_A), optax.adam(eta_B))
        trained = sd.train(chosen.loss, chosen.base, start, s, optimizer, steps)
        return trained.loss[-1], _score(chosen, sd.effective_weights(chosen.base, trained.trained, s))

    return jax.lax.map(outcome, (scaling, rate_A, rate_B))


@partial(jax.jit, static_argnames="steps")
def _full_outcome(chosen: Problem, eta: Array, *, steps: int) -> tuple[Array, Array]:
    run = sd.train(chosen.loss, chosen.base, None, 1.0, optax.adam(eta), steps)
    return run.loss[-1], _score(chosen, run.trained)


def _score(chosen: Problem, weights: dict[str, Array]) -> Array:
    """Held-out accuracy, NaN for a task that has none."""
    if chosen.forward is None or chosen.validation is None:
        return jnp.array(jnp.nan)
    return Partial(accuracy, chosen.forward, chosen.validation)(weights)


def reductions(data: xr.Dataset) -> xr.DataArray:
    """Log-loss of LoRA with α = r minus that of every method, same task, rank and seed."""
    return data.log_loss.sel(recipe=PLAIN) - data.log_loss


def gap(data: xr.Dataset) -> Interval:
    """The mean of ln ℓ_LoRA − ln ℓ_FFT at one task and rank."""
    return mean_interval(reductions(data).sel(recipe=FULL).values)


def fraction(data: xr.Dataset, method: str) -> Interval:
    """mean(ln ℓ_LoRA − ln ℓ_method) / mean(ln ℓ_LoRA − ln ℓ_FFT), at one task and rank."""
    pairs = reductions(data).sel(recipe=[method, FULL]).transpose("seed", "recipe").values
    return bootstrap(lambda x: float(np.divide(*x.mean(0))), pairs)


def report(config: Config, data: xr.Dataset) -> Report:
    rows, sentences, drawn = [], [], {}
    for share in config.rate_shares:
        there = data.sel(share=share)
        for task in config.tasks:
            rows += [row for rank in config.ranks for row in outcome_rows(there.sel(task=task, rank=rank))]
        if "digits" in config.tasks:
            rows += [row for rank in config.ranks for row in _accuracy_rows(there.sel(task="digits", rank=rank))]
        sentences += [f"At {_rate(share)}: {_placed(config, there, method)}" for method in (V1, V2)]
        drawn |= protocol_figures.draw(config, there, reductions(there), _rate(share))
    return Report(rows, sentences + _start(config, data), drawn)


def _rate(share: float) -> str:
    return "η_FFT" if share == 1 else f"{share:g} η_FFT"


def _where(here: xr.Dataset) -> str:
    return f"{here.task.item()}, r = {here['rank'].item()}, {_rate(here.share.item())}"


def outcome_rows(here: xr.Dataset) -> list[Row]:
    """The gap, what each method closes of it, and LoRA-α against ten times the learning rate."""
    where, size = _where(here), gap(here)
    rows = [Row(f"V    ln loss LoRA (α = r) − ln loss FFT, {where}", "> 0", str(size), size.interval())]
    methods = [m for m in here.recipe.values if m not in (FULL, PLAIN)]
    rows += [_fraction_row(here, method, where) for method in methods]
    ahead = mean_interval((here.log_loss.sel(recipe=TENFOLD) - here.log_loss.sel(recipe=V2)).values)
    rows.append(Row(f"V    ln loss 10×η − ln loss V2, {where}", "> 0 at high rank", str(ahead), ahead.interval()))
    return rows


def _fraction_row(here: xr.Dataset, method: str, where: str) -> Row:
    name, stated = f"V    gap closed by {method}, {where}", RECOVERS if method in (V1, V2) else "–"
    diverged = int(np.isinf(here.log_loss.sel(recipe=method)).sum())
    if diverged:
        return Row(name, stated, f"diverged at {diverged} of {here.sizes['seed']} seeds", "–")
    if not gap(here).low > 0:
        change = mean_interval(reductions(here).sel(recipe=method).values)
        return Row(name, stated, f"no gap; ln loss lower by {change}", change.interval())
    closed = fraction(here, method)
    return Row(name, stated, str(closed), closed.interval())


def _accuracy_rows(here: xr.Dataset) -> list[Row]:
    rows = []
    for method in here.recipe.values:
        score = mean_interval(here.accuracy.sel(recipe=method).values)
        rows.append(Row(f"V    held-out accuracy of {method}, {_where(here)}", "–", str(score), score.interval()))
    return rows


def _placed(config: Config, data: xr.Dataset, method: str) -> str:
    """Where the interval of the fraction that a method closes lies wholly above or below one half."""
    places = {"above": [], "below": [], "across": [], "without a gap or diverged": []}
    for task in config.tasks:
        for rank in config.ranks:
            places[_place(data.sel(task=task, rank=rank), method)].append(f"{task} r = {rank}")
    listed = "; ".join(f"{place}: {', '.join(where)}" for place, where in places.items() if where)
    return f"interval of the gap closed by {method} against one half: {listed}."


def _start(config: Config, data: xr.Dataset) -> list[str]:
    if "digits" not in config.tasks:
        return []
    before = mean_interval(data.start_accuracy.sel(task="digits").isel(rank=0, share=0).values)
    return [f"Held-out accuracy on the rotated digits before adaptation: {before} {before.interval()}."]


def _place(here: xr.Dataset, method: str) -> str:
    if not gap(here).low > 0 or not np.all(np.isfinite(here.log_loss.sel(recipe=method))):
        return "without a gap or diverged"
    closed = fraction(here, method)
    return "above" if closed.low > 0.5 else "below" if closed.high < 0.5 else "across"


EXPERIMENT = Experiment(
    name="protocol_comparison",
    title="V-protocol: what fraction of the gap from LoRA to full fine-tuning each method closes at η_FFT.",
    paper=Config(),
    quick=replace(
        Config(),
        tasks=("digits", "mlp8"),
        depth=3,
        samples=20,
        digits_samples=30,
        steps=20,
        seeds=2,
        fft_rates=tuple(10.0 ** (k / 2) for k in range(-10, 1)),
        ranks=(2, 8),
    ),
    points=points,
    measure=measure,
    report=report,
)

if __name__ == "__main__":
    main(EXPERIMENT)
