"""Open this package for LoRA-Muon: spectral steepest descent for a product of factors (arXiv 2606.12921)."""

from experiments.claims.lora_alpha.algebra import checked
from experiments.curvature.checked import factorings
from experiments.ledger.claim import Source

SOURCE = Source(
    "lora_muon",
    "LoRA-Muon",
    "LoRA-Muon: Spectral Steepest Descent on the Low-Rank Manifold",
    "2026-06",
    "https://arxiv.org/abs/2606.12921",
)
CLAIMS = [
    checked(
        "LoRAMuon-core",
        "abstract, on LoRA-RITE",
        "LoRA-RITE’s simplified core in QR coordinates implements the spectral update of LoRA-Muon: both move w alike.",
        r"-\bar\nabla(\bar\nabla^\top\bar\nabla)^{-1/2}R_A^{-\top}"
        r" = -\operatorname{msign}(\nabla_B S^{-1/2})\,S^{-1/2},\quad S = AA^\top",
        "A, B, GAᵀ and BᵀG of rank r",
        "one step without moments and weight decay",
        figure="factorings",
        experiment=factorings.EXPERIMENT,
    ),
]
