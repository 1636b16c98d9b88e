"""Open this package for *Learning Rate Matters*: variants of LoRA, each at its own best rate (arXiv 2602.04998)."""

from functools import partial

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.ledger.claim import Claim, Evidence, Reading, Source, untestable
from experiments.ledger.verdict import Finding, near
from experiments.tuning import protocol_comparison
from experiments.tuning.protocol_comparison import Config

SOURCE = Source(
    "rate_matters",
    "Learning Rate Matters",
    "Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning",
    "2026-02",
    "https://arxiv.org/abs/2602.04998",
)
LORA, VARIANTS = "LoRA, α = r", ("rsLoRA, s = √r", "LoRA+, ratio 16", "PiSSA", "DoRA")
CLOSE = 0.02
"""Within 1–2%, as they say."""


def peak(data: xr.Dataset, method: str, rank: int, judge: str) -> np.ndarray:
    """Return a method's score of every seed at the η that is best for its mean; empty if that is on the edge."""
    scores = data.score_by_rate.sel(tuned=method, rank=rank, judge=judge).transpose("multiple", "seed").values
    best = int(np.argmax(np.nan_to_num(scores, nan=-np.inf).mean(1)))
    return scores[best] if 0 < best < len(scores) - 1 else np.array([])


def similar(config: Config, data: xr.Dataset, ahead: float = 0.0) -> list[Finding]:
    """Compare every variant's score with LoRA's, each at its own best η, paired by seed."""
    band = near(ahead, CLOSE, "within 1–2%, as stated")
    found = []
    for rank in config.ranks:
        for judge in _judges(data):
            lora = peak(data, LORA, rank, judge)
            for method in VARIANTS:
                other = peak(data, method, rank, judge)
                if lora.size and other.size:
                    name = f"{judge} of {method} less LoRA’s, each at its best η, r = {rank}"
                    found.append(Finding(name, band, mean_of(other - lora)))
    return found


def _judges(data: xr.Dataset) -> list[str]:
    """The scores that are shares."""
    return [str(name) for name in data.judge.values if "accuracy" in str(name)] if "score_by_rate" in data else []


def has_peaks(config: Config, data: xr.Dataset) -> str:
    """Ask for an accuracy, and for a variant whose best η lies inside the sweep beside LoRA's."""
    if not _judges(data):
        return "nothing is scored by an accuracy"
    return "" if similar(config, data) else "no best η lies inside the sweep"


PROTOCOL = protocol_comparison.EXPERIMENT
ON_MODELS = "language models on mathematics, commonsense, code and instructions"
CLAIMS = [
    Claim(
        id="LRM-peak",
        group="tuning",
        assumptions=("each method at the best η of its sweep, where that is inside it",),
        source="abstract",
        evidence=(
            Evidence(
                Reading(
                    "as stated",
                    "Once the learning rate is tuned, variants of LoRA (here those of rsLoRA, LoRA+, PiSSA, DoRA whose "
                    "best η lies inside the sweep) and LoRA reach similar peak performance, within 1–2%.",
                    PROTOCOL,
                    similar,
                    has_peaks,
                ),
                Reading(
                    "control", "The variants are five points ahead.", PROTOCOL, partial(similar, ahead=0.05), has_peaks
                ),
            ),
        ),
        figure="protocol_comparison",
        measured_on=ON_MODELS,
        measurement="ten methods over their own η",
    ),
    Claim(
        id="LRM-sharpness",
        group="tuning",
        assumptions=("each method at the best η of its sweep",),
        source="abstract, the second-order analysis",
        evidence=untestable(
            "The best learning rates of LoRA and its variants differ as 1/λmax of their Hessians at the start.",
            PROTOCOL,
            "λmax at the start is measured over α of LoRA and not of PiSSA, MiLoRA or DoRA; over α it is X20-best-rate",
        ),
        figure="protocol_comparison",
        formula=r"\eta^*\propto 1/\lambda_{\max}",
        measured_on=ON_MODELS,
        measurement="none: λmax of the variants is not measured",
    ),
]
