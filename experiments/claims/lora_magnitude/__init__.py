"""Open this package for LoRAM: α, η and the initialisation as one knob of magnitude (arXiv 2507.06558)."""

from experiments.claims.lora_alpha.algebra import checked
from experiments.curvature.checked import factorings
from experiments.ledger.claim import Source

SOURCE = Source(
    "lora_magnitude",
    "LoRAM",
    "The Primacy of Magnitude in Low-Rank Adaptation",
    "2025-07",
    "https://arxiv.org/abs/2507.06558",
)
CLAIMS = [
    checked(
        "LoRAM-scaling",
        "Prop. 1 and its table",
        "A factor ab of α can be moved into the initialisation and the rates: (α, A, B, η_A, η_B) and "
        "(α/(ab), aA, bB) with (a²η_A, b²η_B) under SGD, (aη_A, bη_B) under Adam, have one trajectory of w.",
        r"(\alpha,A,B)\sim\left(\tfrac{\alpha}{ab},\,aA,\,bB\right):\;"
        r" \tilde\eta_A = a^2\eta_A\;(\mathrm{SGD}),\quad \tilde\eta_A = a\,\eta_A\;(\mathrm{Adam})",
        "Adam with ε → 0",
        "no weight decay, no clipping",
        figure="factorings",
        experiment=factorings.EXPERIMENT,
    ),
]
