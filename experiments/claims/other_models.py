"""The same claims on a transformer that reads real digits: more readings of each."""

from functools import partial

from experiments.claims.claim import Reading
from experiments.claims.dynamics import purer
from experiments.claims.steps import SCALES, depends_on_alpha, scaling_of
from experiments.dynamics import transformer_dynamics, transformer_updates

NAME = "on a transformer"


ON_TRANSFORMER = {
    "F2c-purity": Reading(
        NAME,
        "On a transformer α-scaling has the higher signal-to-drift ratio in the geometric mean over the steps.",
        transformer_dynamics.EXPERIMENT,
        purer,
    ),
    "P4-update": Reading(
        NAME,
        f"{SCALES}, in one step of Adam on a transformer.",
        transformer_updates.EXPERIMENT,
        partial(scaling_of, "Adam"),
    ),
    "A1-sgd": Reading(
        NAME,
        "Under gradient descent on a transformer the signal-to-drift ratio falls as α grows.",
        transformer_updates.EXPERIMENT,
        depends_on_alpha,
    ),
}


def readings(claim: str) -> list[Reading]:
    return [here[claim] for here in (ON_TRANSFORMER,) if claim in here]
