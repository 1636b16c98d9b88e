"""Every algebraic statement on drawn problems, its control refuted by the same comparison; counterexamples; mutants."""

from dataclasses import replace
from functools import cache
from importlib import import_module

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from mutants import MUTANTS

import signal_drift as sd
from signal_drift.losses.composite import composite, outputs_and_criterion
from signal_drift.propositions import (
    MATRIX_FREE,
    PROPOSITIONS,
    check_all,
    critical_rate_is_two_over_lambda_max,
    drift_alignment,
    drift_has_no_sign,
    failures,
    gauss_newton_is_semidefinite,
    signal_is_semidefinite,
    trace_is_preserved,
    trace_shrinks,
    update_has_no_remainder,
)
from signal_drift.propositions.random_problems import KINDS, random_instance
from signal_drift.propositions.subject import Instance
from signal_drift.testing import problems

slow = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", KINDS)
def test_every_statement_holds_and_refutes_its_control(kind):
    @slow
    @given(problems([kind]))
    def every(x: Instance) -> None:
        checks = check_all(x)
        assert not failures(checks)
        for check in checks:
            assert check.refutes_control or not check.applicable, f"{check}; the control passes: {check.control}"

    every()


def test_every_statement_is_applicable_somewhere():
    seen = set()
    for kind in KINDS:
        for begins in (False, True):
            seen |= {(c.claim, c.statement) for c in check_all(random_instance(kind, 0, 1.0, begins)) if c.applicable}
    assert len(seen) == len(PROPOSITIONS)


def test_assumption_that_is_not_met_is_reported_beside_the_conclusion():
    """P2-psd says nothing about an indefinite H_ℓ, and there its conclusion is indeed false."""
    check = signal_is_semidefinite(random_instance("indefinite quadratic", 0, 1.0, begins=True))
    assert not check.applicable
    assert not check.holds
    assert "not met: H_ℓ ⪰ 0" in str(check)


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_control_is_near(kind, begins):
    """It is off by two tolerances and the error of the statement, at most one; where none is allowed, by anything."""
    for check in check_all(random_instance(kind, 0, 1.0, begins)):
        if check.applicable and check.tolerance.value > 0:
            assert 1 < check.control_ratio <= 3, check


@slow
@given(problems(), st.floats(0.1, 1.0))
def test_adapter_with_a_nonlinearity_is_a_counterexample_to_the_exact_update(x, sharpness):
    """W₀ + s·tanh(c·BA)/c is not bilinear: P1-update must fail, by far more than rounding."""

    def weights_of(base, adapters, scaling):
        return {k: base[k] + scaling[k] * jnp.tanh(sharpness * (B @ A)) / sharpness for k, (A, B) in adapters.items()}

    bent = Instance(x.loss, x.base, x.adapters, x.scaling, x.delta, weights_of)
    assert update_has_no_remainder(x).holds
    assert not update_has_no_remainder(bent).holds


def test_tolerance_is_rounding_and_no_more():
    """A relative error of 1e-9, harmless to the eye, is refused."""
    x = random_instance("quadratic", 1, 1.0, begins=False)
    moved = {k: s * (1 + 1e-9) for k, s in x.s.items()}

    def weights_of(base, adapters, scaling):
        return {k: base[k] + moved[k] * (B @ A) for k, (A, B) in adapters.items()}

    check = update_has_no_remainder(Instance(x.loss, x.base, x.adapters, x.scaling, x.delta, weights_of))
    assert not check.holds
    assert check.error < 1e-7
    assert np.isfinite(check.tolerance.value)


def test_user_of_a_loss_that_is_not_composite_is_told_what_was_not_computed():
    x = random_instance("MSE of an MLP", 0, 1.0, begins=False)
    plain = replace(x, loss=Partial(x.loss))
    check = gauss_newton_is_semidefinite(plain)
    assert "(not met: the loss is composite); its conclusion was not computed" in str(check)
    assert not failures([check])
    assert gauss_newton_is_semidefinite(x).applicable


def test_semidefiniteness_needs_a_convex_criterion():
    """X6's premise: with the sign of the criterion turned, the conclusion is false and is not claimed."""
    x = random_instance("MSE of an MLP", 0, 1.0, begins=False)
    outputs, criterion = outputs_and_criterion(x.loss) or pytest.fail("not composite")
    check = gauss_newton_is_semidefinite(replace(x, loss=composite(outputs, lambda y: -criterion(y))))
    assert not check.applicable
    assert not check.holds


def test_no_rate_is_critical_where_the_hessian_is_indefinite():
    check = critical_rate_is_two_over_lambda_max(random_instance("indefinite quadratic", 0, 1.0, begins=True))
    assert not check.applicable
    assert np.isnan(check.measured)
    assert "was not computed" in str(check)


def test_critical_rate_of_a_known_hessian():
    """½Σλ_i w_i² with λ = 1, …, 6: η = 2/6, and not 2/5, within what the check says it resolves."""
    base = {"only": jnp.ones((2, 3))}
    loss = composite(lambda weights: weights["only"].ravel(), lambda w: jnp.sum(jnp.arange(1.0, 7.0) * w**2) / 2)
    zero = {"only": sd.Adapter(jnp.ones((1, 3)), jnp.zeros((2, 1)))}
    check = critical_rate_is_two_over_lambda_max(Instance(loss, base, zero, 1.0, zero))
    assert check.applicable
    assert abs(check.measured - 2 / 6) <= check.tolerance.value < 0.002 * 2 / 6


@pytest.mark.parametrize("statement", [trace_shrinks, trace_is_preserved])
def test_standard_errors_are_standard_errors(statement):
    """z over N = 100 seeds: a mean square of 1 within 4 standard errors √(2/N); twice the deviation, ¼, is refuted."""
    checks = [statement(random_instance("quadratic", seed, 1.0, begins=True)) for seed in range(100)]
    z = np.array([(c.measured - c.predicted) / (c.tolerance.value / 5) for c in checks])
    error = np.sqrt(2 / len(z))
    assert abs(np.mean(z**2) - 1) < 4 * error
    assert abs(np.mean((z / 2) ** 2) - 1) > 4 * error
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))


@cache
def failures_of_the_library(kind: str, begins: bool) -> list[str]:
    return failures(check_all(random_instance(kind, 3, 2.0, begins)))


@pytest.mark.parametrize("name", MUTANTS)
def test_mistake_in_the_library_is_noticed_by_the_right_statements(name, monkeypatch):
    mutant = MUTANTS[name]
    assert not failures_of_the_library(mutant.kind, mutant.begins)
    monkeypatch.setattr(import_module(mutant.module), mutant.name, mutant.wrong)
    found = failures(check_all(random_instance(mutant.kind, 3, 2.0, mutant.begins)))
    assert {line.split()[0] for line in found} == mutant.claims


@pytest.mark.parametrize(("name", "sign"), [("Δw_Drift with |ΔB|", False), ("Δw_Drift without its ½", True)])
def test_sign_of_the_drift_is_a_statement_of_its_own(name, sign, monkeypatch):
    """Two statements carry the name P2-drift-alignment: a wrong factor is seen by one of them alone."""
    x, mutant = random_instance("quadratic", 3, 2.0, begins=False), MUTANTS[name]
    monkeypatch.setattr(import_module(mutant.module), mutant.name, mutant.wrong)
    assert not drift_alignment(x).holds
    assert drift_has_no_sign(x).holds == sign


@pytest.mark.parametrize("kind", KINDS)
def test_statements_without_matrices_build_none_and_say_the_same(kind, monkeypatch):
    """They are the checks that stand among all of them, with the dense matrices out of reach."""
    x = random_instance(kind, 1, 2.0, begins=False)
    everything = {(c.claim, c.statement): c for c in check_all(x)}
    monkeypatch.setattr(Instance, "dense", property(lambda _: pytest.fail("a dense matrix")))
    for kind_of in (sd.LinearOperator, sd.SymmetricOperator):
        monkeypatch.setattr(kind_of, "dense", lambda _: pytest.fail("a dense matrix"))
    found = [statement(replace(x)) for statement in MATRIX_FREE]
    assert {(c.claim, c.statement): (c.error, c.control_error) for c in found} == {
        key: (everything[key].error, everything[key].control_error) for key in ((c.claim, c.statement) for c in found)
    }
    assert len(found) == len(MATRIX_FREE) >= 9
