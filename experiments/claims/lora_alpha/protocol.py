"""Judge the claims on LoRA-α: its two scaling rules V1 and V2, the values of its table, and V-protocol."""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from experiments.analysis.intervals import exactly_known
from experiments.claims.lora_alpha.tuning import ON_LLAMA, RANKS, SWEEPS, TRAINED, coefficient_of_root, rank_law_applies
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.verdict import FRACTION, MAGNITUDE, Finding, above, at_least, exactly, magnitude, near
from experiments.tuning import magnitudes, protocol_comparison
from experiments.tuning.gap import ahead_of, ahead_of_tenfold, beyond_half, diverged, fraction, rate_name
from experiments.tuning.methods import FULL, V1, V2, methods, namesakes
from experiments.tuning.protocol_comparison import Config


def closes(method: str, share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Ask at every rank where a rule can be told good from bad whether a method closes most of the gap."""
    most = above(0.0, "most of the gap: below its middle in ln loss", margin=float(np.log(1.05)))
    found = []
    for rank in _ranks(share, config, data):
        here = data.sel(rank=rank, share=share)
        lost, seeds = diverged(here, method), here.sizes["seed"]
        closed = (
            f"it diverged at {lost} of {seeds} seeds" if lost else f"it closes {fraction(here, method).value:.0%} of it"
        )
        words = f"{method} does not recover most of the gap at r = {rank}, {rate_name(share)}: {closed}"
        name = f"middle of the gap less ln loss of {method}, r = {rank}, {rate_name(share)}"
        found.append(Finding(name, most, beyond_half(here, method), words))
    return found


def _ranks(share: float, config: Config, data: xr.Dataset) -> list[int]:
    """The ranks at which the conditions of the protocol hold."""
    return [r for r in config.ranks if not protocol_comparison.why_not(config, data.sel(share=share), r)]


def applies(share: float, config: Config, data: xr.Dataset, method: str = V2) -> str:
    """Ask that a rule could be told good from bad at some rank, and for V1 that it was made for such a problem."""
    if share not in config.rate_shares:
        return f"{rate_name(share)} was not run"
    reasons = [protocol_comparison.why_not(config, data.sel(share=share), rank) for rank in config.ranks]
    return "; ".join(reasons) if all(reasons) else fitted_elsewhere(config, data) if method == V1 else ""


def fitted_elsewhere(config: Any, data: xr.Dataset) -> str:
    """Say that 256 in V1 was fitted to models whose 1/σ_A is another, where that is so."""
    unit = 1 / config.problem.typical_sigma()
    if 256 / MAGNITUDE <= unit <= 256 * MAGNITUDE:
        return ""
    return (
        f"256 in V1 was fitted where 1/σ_A is 78 to 111; here it is {unit:.3g}, so that V1 is {256 / unit:.3g} times V2"
    )


def beats_tenfold(share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Compare ln loss of LoRA at ten times the rate with that of V2, at the highest rank where that can be asked."""
    ranks = _ranks(share, config, data)
    if not ranks:
        return []
    ahead = ahead_of_tenfold(data.sel(rank=max(ranks), share=share))
    return [Finding(f"ln loss of 10×η less that of V2, r = {max(ranks)}, {rate_name(share)}", above(0.0), ahead)]


def recovers(share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Take V2 and the comparison with ten times the rate together."""
    return [*closes(V2, share, config, data), *beats_tenfold(share, config, data)]


def matches_every_baseline(share: float, config: Config, data: xr.Dataset) -> list[Finding]:
    """Compare ln loss of every other recipe for an adapter with that of V2, at every rank where that can be asked.

    What is V2 under a second name is no baseline, and V1 is LoRA-α itself.
    """
    matched = at_least(-float(np.log1p(FRACTION)), f"a match: its loss is at most {FRACTION:.0%} higher")
    found = []
    for rank in _ranks(share, config, data):
        here, where = data.sel(rank=rank, share=share), f"r = {rank}, {rate_name(share)}"
        same = namesakes(methods(rank, config.problem.sigma_a(), config.coefficient))
        for other in (str(name) for name in here.method.values):
            if other not in (FULL, V1) and same.get(other, other) != same.get(V2, V2):
                found.append(Finding(f"ln loss of {other} less that of V2, {where}", matched, ahead_of(here, other)))
    return found


def kaiming(config: magnitudes.Config, data: xr.Dataset) -> list[Finding]:
    """Measure V2/√r against what is printed for d_in = 4096."""
    r = config.ranks[-1]
    measured = exactly_known(float(data.V2.sel(rank=r)) / r**0.5)
    return [
        Finding(f"V2/√r, Kaiming-uniform A, d_in = {config.d_in}", near(111.0, 0.5, "printed to an integer"), measured)
    ]


def magnitudes_stated(config: magnitudes.Config, data: xr.Dataset) -> list[Finding]:
    """Measure V1 over α = r against what is printed."""
    return [
        Finding(
            f"V1/(α = r), r = {r}",
            near(stated, 0.05, "printed to one decimal"),
            exactly_known(float(data.V1.sel(rank=r)) / r),
        )
        for r, stated in magnitudes.PRINTED.items()
    ]


def linear_in_rank(config: magnitudes.Config, data: xr.Dataset) -> list[Finding]:
    """Measure V1 over α = r against C at every rank, as if V1 were linear."""
    return [
        Finding(f"V1/(α = r), r = {r}", exactly(config.coefficient), exactly_known(float(data.V1.sel(rank=r)) / r))
        for r in magnitudes.PRINTED
    ]


PROTOCOL, MAGNITUDES = protocol_comparison.EXPERIMENT, magnitudes.EXPERIMENT
SHARES = (1.0, 0.1)
"""Learning rates over η_FFT at which the protocol is read: its own, and one far from where training is unstable."""

CLAIMS = [
    Claim(
        "V1",
        "tuning",
        TRAINED,
        "Eq. 5",
        (
            Evidence(
                Reading(
                    "as the best α",
                    "The best α is 256√r in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(256.0)),
                    lambda config, data: rank_law_applies(config, data) or fitted_elsewhere(config, data),
                ),
                Reading(
                    "control",
                    "The best α is √r/256 in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(1 / 256.0)),
                    rank_law_applies,
                ),
            ),
        ),
        (
            Reading(
                "taken literally",
                "The best α is 256√r in order of magnitude, whatever σ_A is.",
                RANKS,
                partial(coefficient_of_root, band=magnitude(256.0)),
                rank_law_applies,
            ),
        ),
        figure="rank_law",
        formula=r"\alpha_{base}=256\sqrt r",
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
    Claim(
        "V2",
        "tuning",
        TRAINED,
        "Eq. 5, Cor. 1",
        (
            Evidence(
                Reading(
                    "as the best α",
                    "The best α is √r/σ_A in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(1.0), unit=-1.0),
                    rank_law_applies,
                ),
                Reading(
                    "control",
                    "The best α is ten times √r/σ_A in order of magnitude.",
                    RANKS,
                    partial(coefficient_of_root, band=magnitude(10.0), unit=-1.0),
                    rank_law_applies,
                ),
            ),
        ),
        figure="rank_law",
        formula=r"\alpha_{base}=\sqrt r/\sigma_A",
        measured_on=ON_LLAMA,
        measurement=SWEEPS,
    ),
    Claim(
        "T6-magnitudes",
        "algebra",
        (),
        "App. F, Table 6",
        (
            Evidence(
                Reading("as printed", "V1/(α = r) is 90.5 at r = 8 and 16 at r = 256.", MAGNITUDES, magnitudes_stated),
                Reading("control", "V1 is linear in r: V1/(α = r) = C at every rank.", MAGNITUDES, linear_in_rank),
            ),
        ),
        (Reading("V2 as printed", "√r/σ_A ≈ 111√r for Kaiming-uniform A at d_in = 4096.", MAGNITUDES, kaiming),),
        figure="magnitudes",
        formula=r"\frac{256\sqrt r}{r}=90.5\ (r=8),\quad 16\ (r=256)",
        measurement="arithmetic",
    ),
    Claim(
        "V-protocol",
        "tuning",
        (
            *TRAINED,
            "α = r is stable and under-scaled",
            "some α closes half the gap",
            "full fine-tuning is not at its cliff",
        ),
        "Eq. 5, Sec. 4",
        (
            Evidence(
                Reading(
                    "at η_FFT",
                    "LoRA-α recovers most of the gap between LoRA (α = r) and full fine-tuning by V2, and beats ten "
                    "times the learning rate at high rank.",
                    PROTOCOL,
                    partial(recovers, 1.0),
                    partial(applies, 1.0),
                ),
            ),
        ),
        (
            Reading(
                "at 0.1 η_FFT",
                "The same at a tenth of η_FFT, far from where training is unstable.",
                PROTOCOL,
                partial(recovers, 0.1),
                partial(applies, 0.1),
            ),
            *(
                Reading(
                    f"{method} at {rate_name(share)}",
                    f"{method} recovers most of the gap at {rate_name(share)}.",
                    PROTOCOL,
                    partial(closes, method, share),
                    partial(applies, share, method=method),
                )
                for share in SHARES
                for method in (V1, V2)
            ),
            Reading(
                "against 10×η",
                "V2 beats ten times the learning rate at high rank.",
                PROTOCOL,
                partial(beats_tenfold, 1.0),
                partial(applies, 1.0),
            ),
            *(
                Reading(
                    f"against every baseline at {rate_name(share)}",
                    f"V2 beats or matches every baseline at {rate_name(share)}.",
                    PROTOCOL,
                    partial(matches_every_baseline, share),
                    partial(applies, share),
                )
                for share in SHARES
            ),
        ),
        figure="protocol_comparison",
        formula=r"\Delta W=\frac{\alpha\,\alpha_{base}}{r}BA,\qquad \eta=\eta_{FFT}",
        measured_on=ON_LLAMA,
        measurement="methods side by side",
    ),
]
