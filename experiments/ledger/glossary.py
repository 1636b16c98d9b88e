"""Explain symbols where they stand: a card of a page names those that its own words use."""

import re

from experiments.analysis.divergence import LAST, RISE
from experiments.ledger.table import Entry

GLOSSARY = {
    "α": ("the scaling factor of LoRA: the weights are W₀ + (α/r)·BA", r"α(?![₀*_])"),
    "α₀": ("the value that multiples of α count from", r"α₀"),
    "α*": ("the best α of a sweep", r"α\*"),
    "η": ("the learning rate", r"η(?![₀*_])"),
    "η₀": ("the learning rate that multiples count from, 10⁻⁴", r"η₀"),
    "η*": ("the best learning rate of a sweep", r"η\*"),
    "η_FFT": ("the best learning rate of full fine-tuning", r"η_FFT"),
    "C": ("the constant of α* = C√r", r"(?<!\w)C(?=√|[·/]| ≫| of α)"),
    "FFT": ("full fine-tuning: all entries of W are trained", r"(?<![\w_])FFT"),
    "r": ("the rank of BA", r"(?<![\w'’])r(?!\w)"),
    "s": ("the multiplier of BA, α/r", r"(?<![\w'’])s(?=[\s²⁴=·σ(Σ,])"),
    "A, B": ("the two trained factors; at the start B = 0", r"(?<!\w)(?:B|A_ij|A(?= forgets| frozen|ᵀ))(?!\w)"),
    "σ_A": ("the standard deviation of the entries of A at the start", r"σ_A"),
    "w, W": ("the weights that the model runs with, as a vector and as a matrix", r"(?<![\w])(?:Δ?w|W|W₀)(?![\w])"),
    "θ": ("the entries of A and B", r"θ"),
    "ℓ": ("the loss as a function of w", r"(?<![_\w])ℓ"),
    "g, G": ("the gradient of the loss in w, and in the matrix of one layer", r"(?<!\w)(?:g|G|G_l|Gᵀ|g_k)(?!\w)"),
    "J": ("the Jacobian ∂w/∂θ of the map from A and B to the weights", r"(?<!\w)Jᵀ?(?![a-z])"),
    "H_ℓ": ("the Hessian of the loss in w", r"H_ℓ"),
    "H_LoRA": ("the Hessian of the loss in A and B: H_Signal + H_Drift", r"H_LoRA"),
    "H_Signal": ("JᵀH_ℓJ: the part of H_LoRA that comes from the curvature of the loss", r"H_Signal"),
    "H_Drift": ("the part of H_LoRA that comes from the product BA; it needs a gradient only", r"H_Drift"),
    "Δw_Signal": ("the part of an update that is linear in the step: s(BΔA + ΔB A)", r"Δ[wW]_Signal"),
    "Δw_Drift": ("the part of an update that is quadratic in the step: s ΔB ΔA", r"Δ[wW]_Drift"),
    "⪰ 0": ("has no negative eigenvalue", r"⪰"),
    "λmax, λmin": ("the largest and the smallest eigenvalue", r"λ_?(?:max|min)"),
    "Tr": ("the trace, the sum of all eigenvalues", r"(?<!\w)Tr(?!\w)"),
    "Θ(·)": ("grows in proportion to", r"Θ\("),
    "E": ("the mean over draws of A", r"(?<!\w)E\["),
    "σᵢ": ("the singular values, the largest first", r"σᵢ|σ_i|σ₁"),
    "z": ("the distance from the prediction in standard errors", r"(?<!\w)z(?!\w)"),
    "‖·‖_F": ("the root of the sum of squares of all entries", r"‖_F"),
    "ε": ("the small number that Adam adds to its denominator, or the rounding of the format", r"(?<!\w)ε(?!\w)"),
    "V1": ("the rule α = 256√r", r"(?<!\w)V1(?!\w)"),
    "V2": ("the rule α = √r/σ_A, layer by layer", r"(?<!\w)V2(?!\w)"),
    "diverges": (f"the loss is not finite, or the median of its last {LAST} values exceeds its first", r"η₀ diverge"),
    "oscillates": (f"somewhere the loss climbs more than {RISE - 1:.0%} above its lowest value so far", "oscillate"),
    "stable": ("neither diverges nor oscillates", r"α₀ (?:is|are) stable"),
    "jitter": ("the distance of a logarithm from the mean of its neighbours in time, root mean square", "jitter"),
    "first": ("unstable: the first step raises the loss", r"^first$|, first$"),
    "climbs": ("unstable: some step raises the loss", r"^climbs$|, climbs$"),
    "exceeds": ("unstable: the loss passes its first value", r"^exceeds$|, exceeds$"),
}
"""By the symbol or word what it means, and where a text has it."""


def symbols(entry: Entry) -> dict[str, str]:
    """Return the symbols of an entry's words with what they mean; what the entry itself says of one comes first."""
    findings = [found["quantity"] for found in entry["findings"] or []]
    readings = [reading["name"] for reading in entry["readings"] or []]
    parts = (entry["statement"], entry["sentence"], entry["setting"], entry["evidence_wanted"], *findings, *readings)
    text = "\n".join(part for part in parts if part)
    own = dict(entry.get("symbols") or {})
    told = {part.strip() for symbol in own for part in symbol.split(",")}
    found = {
        symbol: words
        for symbol, (words, pattern) in GLOSSARY.items()
        if not told & set(symbol.split(", ")) and re.search(pattern, text, re.MULTILINE)
    }
    return own | found
