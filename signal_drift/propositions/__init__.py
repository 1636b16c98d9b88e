"""Open this to ask whether the algebraic statements of the paper hold for a loss, its weights and its adapters.

Every statement is a function that takes an `Instance` and returns a `Check`, in float64. Most build dense matrices and
are meant for models of a few thousand parameters; those in `MATRIX_FREE` need a few vectors of the weights' size and
run on any model. What they compare comes from different definitions, never twice from the same code.

>>> x = random_instance("softmax cross-entropy", seed=0, alpha=16.0, begins=False)  # or an Instance of your own
>>> check = update_has_no_remainder(x)
>>> check.claim, check.holds, check.refutes_control
('P1-update', True, True)
>>> failures([check])  # one line for each that fails where its assumptions are met
[]
"""

from collections.abc import Callable
from functools import partial

from signal_drift.propositions.check import Check, Checks, Tolerance, failures
from signal_drift.propositions.matrices import (
    drift_couples_one_layer,
    drift_is_indefinite,
    drift_spectrum,
    gauge_directions,
    gauss_newton_is_semidefinite,
    hessian_splits,
    jacobian_gram,
    largest_eigenvalue_is_bracketed,
    signal_is_quadratic_in_alpha,
    signal_is_semidefinite,
)
from signal_drift.propositions.optimizers import (
    adam_has_a_gauge,
    alpha_is_the_rate_of_B,
    first_step_has_a_descent,
    first_step_has_a_size,
    first_step_has_no_drift,
    frozen_A_makes_alpha_the_rate,
)
from signal_drift.propositions.random_problems import KINDS, instance_of, random_instance
from signal_drift.propositions.stability import critical_rate_is_two_over_lambda_max
from signal_drift.propositions.subject import Instance
from signal_drift.propositions.traces import (
    signal_trace_is_quadratic_in_A,
    signal_trace_is_quadratic_in_both,
    trace_is_preserved,
    trace_shrinks,
)
from signal_drift.propositions.updates import (
    UPDATE_RULES,
    VANISHING_EPSILON,
    adam_update_scales,
    drift_alignment,
    drift_has_no_sign,
    signal_descends,
    update_has_no_remainder,
)

__all__ = [
    "KINDS",
    "MATRIX_FREE",
    "PROPOSITIONS",
    "UPDATE_RULES",
    "VANISHING_EPSILON",
    "Check",
    "Checks",
    "Instance",
    "Tolerance",
    "adam_has_a_gauge",
    "adam_update_scales",
    "alpha_is_the_rate_of_B",
    "check_all",
    "critical_rate_is_two_over_lambda_max",
    "drift_alignment",
    "drift_couples_one_layer",
    "drift_has_no_sign",
    "drift_is_indefinite",
    "drift_spectrum",
    "failures",
    "first_step_has_a_descent",
    "first_step_has_a_size",
    "first_step_has_no_drift",
    "frozen_A_makes_alpha_the_rate",
    "gauge_directions",
    "gauss_newton_is_semidefinite",
    "hessian_splits",
    "instance_of",
    "jacobian_gram",
    "largest_eigenvalue_is_bracketed",
    "random_instance",
    "signal_descends",
    "signal_is_quadratic_in_alpha",
    "signal_is_semidefinite",
    "signal_trace_is_quadratic_in_A",
    "signal_trace_is_quadratic_in_both",
    "trace_is_preserved",
    "trace_shrinks",
    "update_has_no_remainder",
]

DESCENTS: list[Callable[[Instance], Check]] = [partial(signal_descends, rule=rule) for rule in UPDATE_RULES]

PROPOSITIONS: list[Callable[[Instance], Check]] = [
    update_has_no_remainder,
    hessian_splits,
    *DESCENTS,
    signal_is_semidefinite,
    drift_is_indefinite,
    drift_couples_one_layer,
    drift_alignment,
    drift_has_no_sign,
    trace_shrinks,
    signal_is_quadratic_in_alpha,
    adam_update_scales,
    critical_rate_is_two_over_lambda_max,
    trace_is_preserved,
    drift_spectrum,
    largest_eigenvalue_is_bracketed,
    signal_trace_is_quadratic_in_A,
    first_step_has_no_drift,
    adam_has_a_gauge,
    alpha_is_the_rate_of_B,
    gauge_directions,
    gauss_newton_is_semidefinite,
    jacobian_gram,
    first_step_has_a_size,
    first_step_has_a_descent,
    frozen_A_makes_alpha_the_rate,
    signal_trace_is_quadratic_in_both,
]

MATRIX_FREE: list[Callable[[Instance], Check]] = [
    update_has_no_remainder,
    *DESCENTS,
    drift_has_no_sign,
    adam_update_scales,
    first_step_has_no_drift,
    adam_has_a_gauge,
    alpha_is_the_rate_of_B,
    frozen_A_makes_alpha_the_rate,
]


def check_all(x: Instance) -> Checks:
    """Check every statement on one instance, in the order of the paper."""
    return Checks(proposition(x) for proposition in PROPOSITIONS)
