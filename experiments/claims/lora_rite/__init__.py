"""Open this package for LoRA-RITE: steps that do not depend on how a product is factored (arXiv 2410.20625)."""

from experiments.claims.lora_alpha.algebra import checked
from experiments.curvature.checked import factorings
from experiments.ledger.claim import Source

SOURCE = Source(
    "lora_rite",
    "LoRA-RITE",
    "LoRA Done RITE: Robust Invariant Transformation Equilibration for LoRA Optimization",
    "2024-10",
    "https://arxiv.org/abs/2410.20625",
)
CLAIMS = [
    checked(
        "RITE-scale",
        "Sec. 2.2",
        "Gradient descent and Adam are not scalar scale invariant: from (A, B) to (cA, B/c), which have one product, "
        "ΔB A, B ΔA and ΔB ΔA are multiplied by c², c⁻², 1 and by c, c⁻¹, 1.",
        r"(\Delta B\,A,\;B\,\Delta A,\;\Delta B\,\Delta A)\mapsto(c^2,\,c^{-2},\,1),\;(c,\,c^{-1},\,1)",
        "B ≠ 0",
        "one step, Adam with ε → 0",
        figure="factorings",
        experiment=factorings.EXPERIMENT,
    ),
    checked(
        "RITE-invariance",
        "Sec. 3.2, Eq. 4, 7, 8",
        "The simplified step of LoRA-RITE, by unmagnified gradients, is transformation invariant: ΔB A, B ΔA and ΔB ΔA "
        "are the same from (A, B) and (RA, BR⁻¹), R any invertible matrix.",
        r"\Delta B = -\bar\nabla\,(\bar\nabla^\top\bar\nabla)^{-1/2} R_A^{-\top},\quad"
        r" \bar\nabla = \nabla_B R_A^{-1},\quad A^\top = U_A R_A",
        "A, B, GAᵀ and BᵀG of rank r",
        "one step without moments",
        figure="factorings",
        experiment=factorings.EXPERIMENT,
    ),
]
