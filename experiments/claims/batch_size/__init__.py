"""Open this package for *Beware of the Batch Size*, on comparisons at one size of the batch (arXiv 2602.09492)."""

from experiments.ledger.claim import Claim, Source, untestable
from experiments.tuning import protocol_comparison

SOURCE = Source(
    "batch_size",
    "Beware of the Batch Size",
    "Beware of the Batch Size: Hyperparameter Bias in Evaluating LoRA",
    "2026-02",
    "https://arxiv.org/abs/2602.09492",
)
CLAIMS = [
    Claim(
        id="BBS-batch",
        group="tuning",
        assumptions=("each method at its best size of the batch",),
        source="abstract",
        evidence=untestable(
            "With the size of the batch tuned, LoRA often matches its more complex variants.",
            protocol_comparison.EXPERIMENT,
            "no sweep here is over the size of the batch",
        ),
        figure="protocol_comparison",
        measured_on="language models",
        measurement="none: the size of the batch is fixed",
    ),
]
