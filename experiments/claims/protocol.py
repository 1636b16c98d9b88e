"""Claims on LoRA-α: its two scaling rules V1 and V2, and V-protocol."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, mean_interval, point
from experiments.claims.claim import Claim, Reading
from experiments.claims.tuning import MODELS, RANKS, TASKS, coefficient, root_of_rank
from experiments.claims.verdict import Finding, above, at_least, magnitude, near, power
from experiments.tuning import magnitudes, protocol_comparison
from experiments.tuning.methods import PLAIN, TENFOLD, V1, V2
from experiments.tuning.protocol_comparison import fraction, gap

NOWHERE = Interval(np.nan, np.nan, np.nan)
FAILED = Interval(-np.inf, -np.inf, -np.inf)


def closes(method: str, share: float, config, data: xr.Dataset, task: str | None = None) -> list[Finding]:
    """The fraction of the gap that a method closes at every task and rank; undecided where there is no gap."""
    most = at_least(0.5, "most of the gap: half or more")
    found = []
    for where in [name for name in config.tasks if task in (None, name)]:
        for rank in config.ranks:
            here = data.sel(task=where, rank=rank, share=share)
            lost = int(np.isinf(here.log_loss.sel(recipe=method)).sum())
            exists = gap(here).low > 0
            note = f" (diverged at {lost} of {here.sizes['seed']} seeds)" if lost else "" if exists else " (no gap)"
            closed = NOWHERE if not exists else FAILED if lost else fraction(here, method)
            found.append(Finding(f"gap closed by {method}, {where}, r = {rank}{note}", most, closed))
    return found


def beats_tenfold(share: float, config, data: xr.Dataset) -> list[Finding]:
    """Ln loss of LoRA at ten times the rate less that of V2, at the highest rank."""
    rank = max(config.ranks)
    found = []
    for task in config.tasks:
        losses = data.sel(task=task, rank=rank, share=share).log_loss
        ahead = mean_interval((losses.sel(recipe=TENFOLD) - losses.sel(recipe=V2)).values)
        found.append(Finding(f"ln loss of 10×η less that of V2, {task}, r = {rank}", above(0.0), ahead))
    return found


def recovers(share: float, config, data: xr.Dataset) -> list[Finding]:
    methods = [*closes(V1, share, config, data), *closes(V2, share, config, data)]
    return [*methods, *beats_tenfold(share, config, data)]


def kaiming(config, data: xr.Dataset) -> list[Finding]:
    """V2/√r as printed for d_in = 4096."""
    r = config.ranks[-1]
    measured = point(float(data.V2.sel(rank=r)) / r**0.5)
    return [
        Finding(f"V2/√r, Kaiming-uniform A, d_in = {config.d_in}", near(111.0, 0.5, "printed to an integer"), measured)
    ]


PROTOCOL, MAGNITUDES = protocol_comparison.EXPERIMENT, magnitudes.EXPERIMENT
RATES = {1.0: "η_FFT", 0.1: "0.1 η_FFT"}

CLAIMS = [
    Claim(
        "V1",
        MODELS,
        "Eq. 5",
        Reading(
            "as the best α",
            "The best α is 256√r in order of magnitude.",
            RANKS,
            partial(coefficient, band=magnitude(256.0)),
        ),
        Reading("control", "The best α is linear in r.", RANKS, partial(root_of_rank, band=power(1.0))),
        (
            Reading(
                "another coefficient",
                "The best α is √r in order of magnitude.",
                RANKS,
                partial(coefficient, band=magnitude(1.0)),
            ),
        ),
        figures=("rank_law",),
    ),
    Claim(
        "V2",
        MODELS,
        "Eq. 5, Cor. 1",
        Reading(
            "as the best α",
            "The best α is √r/σ_A in order of magnitude.",
            RANKS,
            partial(coefficient, band=magnitude(1.0), unit=-1.0),
        ),
        Reading(
            "control",
            "The best α is √r·σ_A in order of magnitude.",
            RANKS,
            partial(coefficient, band=magnitude(1.0), unit=1.0),
        ),
        (
            *(
                Reading(
                    task,
                    f"The best α is √r/σ_A in order of magnitude on {task}.",
                    RANKS,
                    partial(coefficient, band=magnitude(1.0), unit=-1.0, task=task),
                )
                for task in TASKS
            ),
            Reading("as printed", "√r/σ_A ≈ 111√r for Kaiming-uniform A at d_in = 4096.", MAGNITUDES, kaiming),
        ),
        figures=("rank_law", "magnitudes"),
    ),
    Claim(
        "V-protocol",
        MODELS,
        "Eq. 5, Sec. 4",
        Reading(
            "at η_FFT",
            "LoRA-α recovers most of the gap between LoRA (α = r) and full fine-tuning, by V1 and by V2, and beats ten "
            "times the learning rate at high rank.",
            PROTOCOL,
            partial(recovers, 1.0),
        ),
        Reading("control", "LoRA with α = r recovers most of the gap itself.", PROTOCOL, partial(closes, PLAIN, 1.0)),
        (
            Reading("at 0.1 η_FFT", "All of it, at a tenth of η_FFT.", PROTOCOL, partial(recovers, 0.1)),
            *(
                Reading(
                    f"{method} at {rate}",
                    f"{method} recovers most of the gap at {rate}.",
                    PROTOCOL,
                    partial(closes, method, share),
                )
                for share, rate in RATES.items()
                for method in (V1, V2)
            ),
            *(
                Reading(
                    f"{method} at {rate} on {task}",
                    f"{method} recovers most of the gap at {rate} on {task}.",
                    PROTOCOL,
                    partial(closes, method, share, task=task),
                )
                for share, rate in RATES.items()
                for method in (V1, V2)
                for task in PROTOCOL.paper.tasks
            ),
            Reading(
                "against 10×η",
                "V2 beats ten times the learning rate at high rank.",
                PROTOCOL,
                partial(beats_tenfold, 1.0),
            ),
        ),
        figures=("protocol_comparison", "protocol_comparison_at_0_1"),
    ),
]
