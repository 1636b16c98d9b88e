"""Check what other papers state of a step when the same w is factored otherwise, on drawn problems, with controls.

The statements are those of `signal_drift.propositions.factorings`: Proposition 1 of LoRAM, the invariances of *LoRA
Without Regret* and its note on ε, LoRA-RITE's invariance, and that LoRA-Muon has the same core.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from experiments.curvature.checked.record import CAPTION, OWN, Checked, measure, points, report
from experiments.lab.experiment import Experiment
from experiments.lab.problem import Problem
from signal_drift.propositions.check import Check
from signal_drift.propositions.factorings import OF_OTHERS
from signal_drift.propositions.random_problems import KINDS
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


def configure(problem: Problem) -> Config:
    """Take the paper's model at a small width beside all drawn problems; any other alone."""
    if problem.paper:
        return Config(replace(problem.resized(6), samples=20), kinds=(*KINDS, OWN))
    return Config(problem, seeds=1, alphas=(1.0,))


EXPERIMENT = Experiment(
    name="factorings",
    title="What a step does to w when the same w is factored otherwise: LoRAM, LoRA Without Regret, LoRA-RITE.",
    configure=configure,
    points=points,
    measure=measure,
    report=partial(report, figure="factorings"),
    tiny={"seeds": 1, "alphas": (1.0,), "kinds": ("quadratic", OWN)},
    captions={"factorings": CAPTION},
)
