"""Open this package for μA, how the best learning rate moves with the rank (arXiv 2602.06204)."""

from experiments.claims.lora_alpha.tuning import RANKS, TRAINED
from experiments.ledger.claim import Claim, Source, untestable

SOURCE = Source(
    "mu_a",
    "μA",
    "Learning Rate Scaling across LoRA Ranks and Transfer to Full Finetuning",
    "2026-02",
    "https://arxiv.org/abs/2602.06204",
)
CLAIMS = [
    Claim(
        id="muA-rank",
        group="tuning",
        assumptions=(*TRAINED, "B = 0 at the start", "the limit of a large width and rank"),
        source="abstract",
        evidence=untestable(
            "There are two regimes, by initialisation and s: in one the best η is roughly invariant across "
            "ranks, in the other it is inversely proportional to the rank.",
            RANKS,
            "it is of the limit of a large width and rank, and the grid over α and η goes from rank 1 to the "
            "width itself; the best η over ranks is in LWR-rank",
        ),
        figure="best_rate",
        measured_on="language, vision and image models, Adam",
        measurement="none: the width is fixed",
    ),
]
