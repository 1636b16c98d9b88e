"""Check what other papers state of a step when the same w is factored otherwise, on drawn problems, with controls.

The statements are those of `signal_drift.propositions.factorings`: Proposition 1 of LoRAM, the invariances of *LoRA
Without Regret* and its note on ε, LoRA-RITE's invariance, and that LoRA-Muon has the same core.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.curvature.checked.record import Checked, experiment_of
from signal_drift.propositions.check import Check
from signal_drift.propositions.factorings import OF_OTHERS
from signal_drift.propositions.subject import Instance


@dataclass(frozen=True)
class Config(Checked):
    """Run every check of other papers' statements over kinds of problems, seeds, α and B."""

    seeds: int = 3
    """Independent draws of all that is random."""

    @property
    def statements(self) -> list[Callable[[Instance], Check]]:
        """Return all of them: none needs a matrix larger than a layer."""
        return OF_OTHERS


EXPERIMENT = experiment_of(
    "factorings",
    "What a step does to w when the same w is factored otherwise: LoRAM, LoRA Without Regret, LoRA-RITE.",
    Config,
    what="What other papers state of a step",
)
