"""Check P1–P4, L1, K1 and X1–X10, the statements about matrices and updates, on drawn problems, each with its control.

Each statement of `signal_drift.propositions` is held against quadratics, regressions, classifiers and attention with
everything drawn at random, and against a problem itself, over α and at B = 0 and away from it: the MLP of App. E at a
small width, another problem at its own, without matrices where they do not fit. What is stored is the error, the
tolerance and the error of the control, which is wrong on purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.curvature.checked.record import Checked, experiment_of
from signal_drift.propositions import MATRIX_FREE, PROPOSITIONS
from signal_drift.propositions.check import Check
from signal_drift.propositions.subject import Instance


@dataclass(frozen=True)
class Config(Checked):
    """Run every check of the theory over kinds of problems, seeds, α and B."""

    @property
    def statements(self) -> list[Callable[[Instance], Check]]:
        """Return all of them, or those that need no matrix."""
        return PROPOSITIONS if self.problem.dense else MATRIX_FREE


EXPERIMENT = experiment_of(
    "algebra",
    "P1–P4, L1, K1, X1–X7: every algebraic statement on drawn problems, and its control.",
    Config,
    what="Every algebraic statement",
)
