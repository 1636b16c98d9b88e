"""Return the adapters at which curvature is taken: as they are drawn, or after training with Adam."""

from experiments.lab.problem import Dtype, Problem
from experiments.problems.adam_run import adam_run
from signal_drift.lora.adapters import Adapters


def adapters_at(
    state: str, problem: Problem, seed: int, alpha: float, learning_rate: float, steps: int, dtype: Dtype = "float64"
) -> Adapters:
    """Return θ as drawn ("initial"), or after so many steps of Adam at α from there ("trained")."""
    start = problem.adapters(seed, dtype=dtype)
    if state == "initial":
        return start
    return adam_run(problem, seed, start, problem.scaling(alpha), learning_rate, steps, dtype).trained
