"""Every algebraic statement on drawn problems, its control refuted by the same comparison, and a counterexample."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signal_drift.instance import Instance
from signal_drift.propositions import PROPOSITIONS, check_all, signal_is_semidefinite, update_has_no_remainder
from signal_drift.testing import KINDS, instance, problems

slow = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", KINDS)
def test_every_statement_holds_and_refutes_its_control(kind):
    @slow
    @given(problems([kind]))
    def every(x: Instance) -> None:
        for check in check_all(x):
            if check.applicable:
                assert check.holds, str(check)
                assert check.refutes_control, f"{check}; the control passes: {check.control}"

    every()


def test_every_statement_is_applicable_somewhere():
    seen = set()
    for kind in KINDS:
        for begins in (False, True):
            seen |= {(c.claim, c.statement) for c in check_all(instance(kind, 0, 1.0, begins)) if c.applicable}
    assert len(seen) == len(PROPOSITIONS)


def test_assumption_that_is_not_met_is_reported_beside_the_conclusion():
    """P2-psd says nothing about an indefinite H_ℓ, and there its conclusion is indeed false."""
    check = signal_is_semidefinite(instance("indefinite quadratic, r > d", 0, 1.0, begins=True))
    assert not check.applicable
    assert not check.holds
    assert "not met: H_ℓ ⪰ 0" in str(check)


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
    x = instance("quadratic", 1, 1.0, begins=False)
    moved = {k: s * (1 + 1e-9) for k, s in x.s.items()}

    def weights_of(base, adapters, scaling):
        return {k: base[k] + moved[k] * (B @ A) for k, (A, B) in adapters.items()}

    check = update_has_no_remainder(Instance(x.loss, x.base, x.adapters, x.scaling, x.delta, weights_of))
    assert not check.holds
    assert check.error < 1e-7
    assert np.isfinite(check.tolerance.value)
