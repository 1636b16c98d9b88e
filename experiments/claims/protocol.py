"""Judge the claims on LoRA-α: its two scaling rules V1 and V2, the values of its table, and V-protocol."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import Interval, point
from experiments.claims.tuning import RANKS, TRAINED, coefficient_of_root, root_of_rank
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import Finding, above, at_least, exactly, magnitude, near, power
from experiments.tuning import magnitudes, protocol_comparison
from experiments.tuning.gap import ahead_of_tenfold, diverged, fraction, gap, rate_name
from experiments.tuning.methods import COMMON, V1, V2
from experiments.tuning.protocol_comparison import Config

NOWHERE = Interval(np.nan, np.nan, np.nan)
FAILED = Interval(-np.inf, -np.inf, -np.inf)


def closes(method: str, share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Measure the fraction of the gap that a method closes at every rank; undecided where there is no gap."""
    if share not in config.rate_shares:
        return []
    most = at_least(0.5, "most of the gap: half or more")
    found = []
    for rank in config.ranks:
        here = data.sel(rank=rank, share=share)
        lost, exists = diverged(here, method), gap(here).low > 0
        note = f" (diverged at {lost} of {here.sizes['seed']} seeds)" if lost else "" if exists else " (no gap)"
        closed = NOWHERE if not exists else FAILED if lost else fraction(here, method)
        found.append(Finding(f"gap closed by {method}, r = {rank}{note}", most, closed))
    return found


def beats_tenfold(share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Compare ln loss of LoRA at ten times the rate with that of V2, at the highest rank."""
    if share not in config.rate_shares:
        return []
    rank = max(config.ranks)
    ahead = ahead_of_tenfold(data.sel(rank=rank, share=share))
    return [Finding(f"ln loss of 10×η less that of V2, r = {rank}", above(0.0), ahead)]


def recovers(share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Take both rules and the comparison with ten times the rate together."""
    methods = [*closes(V1, share, config, data), *closes(V2, share, config, data)]
    return [*methods, *beats_tenfold(share, config, data)]


def kaiming(config: magnitudes.Config, data: xr.Dataset) -> list[Finding]:
    """Measure V2/√r against what is printed for d_in = 4096."""
    r = config.ranks[-1]
    measured = point(float(data.V2.sel(rank=r)) / r**0.5)
    return [
        Finding(f"V2/√r, Kaiming-uniform A, d_in = {config.d_in}", near(111.0, 0.5, "printed to an integer"), measured)
    ]


def magnitudes_stated(config: magnitudes.Config, data: xr.Dataset) -> list[Finding]:
    """Measure V1 over α = r against what is printed."""
    return [
        Finding(
            f"V1/(α = r), r = {r}",
            near(stated, 0.05, "printed to one decimal"),
            point(float(data.V1.sel(rank=r)) / r),
        )
        for r, stated in magnitudes.PRINTED.items()
    ]


def linear_in_rank(config: magnitudes.Config, data: xr.Dataset) -> list[Finding]:
    """Measure V1 over α = r against C at every rank, as if V1 were linear."""
    return [
        Finding(f"V1/(α = r), r = {r}", exactly(config.coefficient), point(float(data.V1.sel(rank=r)) / r))
        for r in magnitudes.PRINTED
    ]


PROTOCOL, MAGNITUDES = protocol_comparison.EXPERIMENT, magnitudes.EXPERIMENT
SHARES = (1.0, 0.1)
"""Learning rates over η_FFT at which the protocol is read: its own, and one far from where training is unstable."""

CLAIMS = [
    Claim(
        "V1",
        TRAINED,
        "Eq. 5",
        (
            Evidence(
                Reading(
                    "as the best α",
                    "The best α is 256√r in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(256.0)),
                ),
                Reading("control", "The best α is linear in r.", RANKS, partial(root_of_rank, band=power(1.0))),
            ),
        ),
        (
            Reading(
                "another coefficient",
                "The best α is √r in order of magnitude.",
                RANKS,
                partial(coefficient_of_root, band=magnitude(1.0)),
            ),
        ),
        figures=("rank_law",),
    ),
    Claim(
        "V2",
        TRAINED,
        "Eq. 5, Cor. 1",
        (
            Evidence(
                Reading(
                    "as the best α",
                    "The best α is √r/σ_A in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(1.0), unit=-1.0),
                ),
                Reading(
                    "control",
                    "The best α is √r·σ_A in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(1.0), unit=1.0),
                ),
            ),
        ),
        figures=("rank_law",),
    ),
    Claim(
        "T6-magnitudes",
        (),
        "App. F, Table 6",
        (
            Evidence(
                Reading("as printed", "V1/(α = r) is 90.5 at r = 8 and 16 at r = 256.", MAGNITUDES, magnitudes_stated),
                Reading("control", "V1 is linear in r: V1/(α = r) = C at every rank.", MAGNITUDES, linear_in_rank),
            ),
        ),
        (Reading("V2 as printed", "√r/σ_A ≈ 111√r for Kaiming-uniform A at d_in = 4096.", MAGNITUDES, kaiming),),
        figures=("magnitudes",),
    ),
    Claim(
        "V-protocol",
        TRAINED,
        "Eq. 5, Sec. 4",
        (
            Evidence(
                Reading(
                    "at η_FFT",
                    "LoRA-α recovers most of the gap between LoRA (α = r) and full fine-tuning, by V1 and by V2, and "
                    "beats ten times the learning rate at high rank.",
                    PROTOCOL,
                    partial(recovers, 1.0),
                ),
                Reading(
                    "control",
                    "LoRA with α = r recovers most of the gap itself.",
                    PROTOCOL,
                    partial(closes, COMMON, 1.0),
                ),
            ),
        ),
        (
            Reading("at 0.1 η_FFT", "All of it, at a tenth of η_FFT.", PROTOCOL, partial(recovers, 0.1)),
            *(
                Reading(
                    f"{method} at {rate_name(share)}",
                    f"{method} recovers most of the gap at {rate_name(share)}.",
                    PROTOCOL,
                    partial(closes, method, share),
                )
                for share in SHARES
                for method in (V1, V2)
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
