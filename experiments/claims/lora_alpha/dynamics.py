"""Judge the claims on training trajectories: F2a, F2b and F2c."""

from dataclasses import replace
from functools import partial

import xarray as xr

from experiments.analysis.divergence import classify, final, jitter, per_run
from experiments.analysis.intervals import exactly_known, exponents, geometric_mean_of, mean_of, share_of
from experiments.dynamics import readings
from experiments.dynamics import trajectories as dynamics
from experiments.dynamics.eta_against_alpha import (
    FAMILIES,
    MATCHED,
    STATED,
    Families,
    counterexamples,
    deepest_ratio,
    pairs,
    purity,
    run_labels,
    slope,
)
from experiments.dynamics.trajectories import EARLY, early_ratio
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import EXPONENT, MOST, Finding, above, at_most, below, exactly, near
from experiments.tuning import rank_law, rank_sweeps

ETA, ALPHA = FAMILIES


def does(data: xr.Dataset, run: str, word: str) -> Finding:
    """Say at how many seeds the run does what the word says."""
    hits = per_run(classify, data.loss.sel(run=run)).values == word
    be = "is " if word == "stable" else ""
    words = f"{run} {be}{_past(word)} at {int(hits.sum())} of {hits.size} seeds; the paper says that it {be}{word}"
    return Finding(f"share of seeds at which {run} {be}{word}", MOST, share_of(hits), words)


def _past(word: str) -> str:
    return {"diverges": "diverged", "oscillates": "oscillated"}.get(word, word)


def reported(config: Families, data: xr.Dataset) -> list[Finding]:
    """Judge what the four runs do, the common start, and the deeper fit of α."""
    runs = [does(data, run, word) for run, word in STATED.items() if run in data.run.values]
    return [*runs, *start_alike(config, data), deeper(config, data)]


def start_alike(config: Families, data: xr.Dataset) -> list[Finding]:
    if not set(MATCHED) <= set(data.run.values):
        return []
    band = near(1.0, 0.1, "alike on the eye: the losses within 10%")
    name = f"loss of {MATCHED[0]} over loss of {MATCHED[1]}, mean of the first {EARLY} steps"
    return [Finding(name, band, early_ratio(data))]


def deeper(config: Families, data: xr.Dataset) -> Finding:
    return Finding("deepest final loss, α-scaling over η-scaling", below(1.0), deepest_ratio(config, data))


def calm(config: Families, data: xr.Dataset, word: str = "stable") -> list[Finding]:
    """Judge the α-scaled runs of which App. E speaks."""
    runs = [run for run, stated in STATED.items() if stated == "stable" and run in data.run.values]
    return [replace(does(data, run, word), words="") for run in runs]


def under(rule: str, variant: str, config: readings.Config, data: xr.Dataset) -> list[Finding]:
    """Judge what is reported of the three runs, under one reading of App. E."""
    here = data.sel(rule=rule, variant=variant)
    level = final(here.loss)
    ratio = geometric_mean_of((level.sel(run="256·α₀") / level.sel(run="128·η₀")).values)
    depth = Finding("final loss of 256·α₀ over that of 128·η₀", below(1.0), ratio)
    return [*(does(here, run, STATED[run]) for run in readings.RUNS), depth]


def noise(config: Families, data: xr.Dataset, *, swapped: bool = False) -> list[Finding]:
    """Judge whether the jitter of ‖Δw_Drift‖ grows with η and not with α (or the other way round)."""
    grows = above(0.0, margin=EXPONENT), at_most(EXPONENT, f"0, up to the {EXPONENT:g} to which exponents are stated")
    bands = dict(zip((ALPHA, ETA) if swapped else (ETA, ALPHA), grows, strict=True))
    values = per_run(jitter, data.drop_sel(run="FFT").drift)
    return [
        Finding(f"exponent of {family} in the jitter of ‖Δw_Drift‖", bands[family], slope(config, values, family))
        for family in FAMILIES
    ]


def noisier(config: Families, data: xr.Dataset) -> list[Finding]:
    """Judge the exponent of η in the jitter less that of α, seed by seed."""
    values = per_run(jitter, data.drop_sel(run="FFT").drift)
    per_seed = [
        exponents(
            config.multipliers(family), values.sel(run=run_labels(config, family)).transpose("seed", "run").values
        )
        for family in FAMILIES
    ]
    name = "exponent of η less that of α in the jitter of ‖Δw_Drift‖"
    return [Finding(name, above(0.0, margin=EXPONENT), mean_of(per_seed[0] - per_seed[1]))]


def purer_at_every_step(config: Families, data: xr.Dataset) -> list[Finding]:
    """Count the steps at which α has the lower ratio by more than rounding: one is enough to refute "throughout"."""
    found = []
    for upper, lower in pairs(config, data):
        count, steps = counterexamples(data, upper, lower)
        name = f"steps at which {upper} has a lower signal-to-drift ratio than {lower}"
        words = f"{upper} has a lower signal-to-drift ratio than {lower} at {count} of {steps} steps, over all seeds"
        found.append(Finding(name, exactly(0.0), exactly_known(count), words))
    return found


def purer(config: Families, data: xr.Dataset, *, swapped: bool = False) -> list[Finding]:
    """Judge the quotient of the geometric means over all steps."""
    ratio, band = purity(data), below(1.0) if swapped else above(1.0)
    return [
        Finding(
            f"signal-to-drift ratio, {a} over {e}",
            band,
            geometric_mean_of((ratio.sel(run=a) / ratio.sel(run=e)).values),
        )
        for a, e in pairs(config, data)
    ]


def purer_path(config: rank_sweeps.Config, data: xr.Dataset) -> list[Finding]:
    """Judge the same of the two paths of Eq. 2 from the paper's place, at every rank that has both."""
    start = config.starts[-1]
    return [
        Finding(f"signal-to-drift ratio, {m:.3g}·α₀ over {m:.3g}·η_FFT, r = {rank}", above(1.0), ratio)
        for rank in config.path_ranks
        for m, ratio in rank_sweeps.purity_over_paths(config, data.sel(rank=rank), start).items()
    ]


DYNAMICS, READINGS = dynamics.EXPERIMENT, readings.EXPERIMENT
SETTING = ("Adam, full batch, 100 steps",)
APP_E = "the MLP of App. E"
TRAJECTORIES = "ten trajectories of Adam"
REPORTED = (
    "64·η₀ and 128·α₀ start alike, 64·η₀ oscillates, 128·η₀ diverges, 128·α₀ and 256·α₀ are stable, and α-scaling fits "
    "deeper than η-scaling."
)

CLAIMS = [
    Claim(
        "F2a-trajectories",
        "training",
        SETTING,
        "App. E, Fig. 2a",
        (
            Evidence(
                Reading("plainest", REPORTED, DYNAMICS, reported),
                Reading("control", "The α-scaled runs diverge.", DYNAMICS, partial(calm, word="diverges")),
            ),
        ),
        (
            *(
                Reading(
                    f"{rule}, {words}",
                    f"64·η₀ oscillates, 128·η₀ diverges, 256·α₀ is stable and ends below it, with {rule}, {words}.",
                    READINGS,
                    partial(under, rule, variant),
                )
                for rule in readings.RULES
                for variant, words in readings.WORDS.items()
            ),
            Reading(
                "what holds of it",
                "128·α₀ and 256·α₀ are stable, and 64·η₀ and 128·α₀ start alike.",
                DYNAMICS,
                lambda config, data: [*calm(config, data), *start_alike(config, data)],
            ),
        ),
        figure="trajectories",
        measured_on=APP_E,
        measurement=TRAJECTORIES,
    ),
    Claim(
        "F2b-drift-noise",
        "training",
        SETTING,
        "App. E, Fig. 2b",
        (
            Evidence(
                Reading(
                    "as stated",
                    "η amplifies the fluctuations of the drift norm along training, α does not.",
                    DYNAMICS,
                    noise,
                ),
                Reading("control", "α amplifies them, η does not.", DYNAMICS, partial(noise, swapped=True)),
            ),
        ),
        (Reading("compared", "η amplifies the fluctuations of the drift norm more than α.", DYNAMICS, noisier),),
        figure="drift_noise",
        measured_on=APP_E,
        measurement=TRAJECTORIES,
    ),
    Claim(
        "F2c-purity",
        "training",
        ("Adam, 100 steps",),
        "App. E, Fig. 2c",
        (
            Evidence(
                Reading(
                    "throughout",
                    "α-scaling keeps a higher signal-to-drift ratio than η-scaling at every step after the first.",
                    DYNAMICS,
                    purer_at_every_step,
                ),
                Reading(
                    "control",
                    "η-scaling has the higher signal-to-drift ratio.",
                    DYNAMICS,
                    partial(purer, swapped=True),
                ),
            ),
        ),
        (
            Reading(
                "on average",
                "α-scaling has the higher signal-to-drift ratio in the geometric mean over the steps.",
                DYNAMICS,
                purer,
            ),
            Reading(
                "on average, from the tuned rate",
                "The path of α from (η_FFT, α₀) has the higher signal-to-drift ratio in the geometric mean.",
                rank_law.EXPERIMENT,
                purer_path,
            ),
        ),
        figure="purity",
        formula=(
            r"\frac{\|\Delta w_{Signal}\|}{\|\Delta w_{Drift}\|}\Big|_{m\alpha_0}"
            r">\frac{\|\Delta w_{Signal}\|}{\|\Delta w_{Drift}\|}\Big|_{m\eta_0}"
        ),
        measured_on=APP_E,
        measurement=TRAJECTORIES,
    ),
]
