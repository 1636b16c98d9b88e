"""Statements of other papers on steps from another factoring: they hold, their controls fall, and one does not hold."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from signal_drift.propositions import factorings, failures
from signal_drift.propositions.factorings import OF_OTHERS, adam, descent, inverse_root, lora_muon, lora_rite
from signal_drift.propositions.random_problems import random_instance

KINDS = ("softmax cross-entropy", "attention")
WRONG_AS_NOTED = "LWR-epsilon"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begins", [True, False])
def test_every_statement_but_one_holds_and_refutes_its_control(kind: str, begins: bool) -> None:
    """A note of *LoRA Without Regret* scales one ε by 1/q; A needs ε/p, so that it fails where p ≠ q."""
    checks = [statement(random_instance(kind, 3, 2.0, begins)) for statement in OF_OTHERS]
    assert not failures(check for check in checks if check.claim != WRONG_AS_NOTED)
    (noted,) = [check for check in checks if check.claim == WRONG_AS_NOTED]
    assert noted.applicable
    assert not noted.holds


def test_every_statement_applies_away_from_the_start() -> None:
    checks = [statement(random_instance("attention", 0, 1.0, False)) for statement in OF_OTHERS]
    assert all(check.applicable for check in checks)


def drawn(r: int, d_out: int, d_in: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(r)
    A, B, G = rng.standard_normal((r, d_in)), rng.standard_normal((d_out, r)), rng.standard_normal((d_out, d_in))
    return A, B, B.T @ G, G @ A.T, G


def test_the_spectral_steps_are_polar_factors_in_the_spaces_of_the_factors() -> None:
    """ΔB A = −polar(G Q)Qᵀ with Q any orthonormal basis of A's rows: scipy's polar, and its orth for a basis."""
    A, B, gA, gB, G = drawn(3, 7, 5)
    Q, P = scipy.linalg.orth(A.T), scipy.linalg.orth(B)
    for rule in (lora_rite, lora_muon):
        dA, dB = rule(A, B, gA, gB)
        np.testing.assert_allclose(dB @ A, -scipy.linalg.polar(G @ Q)[0] @ Q.T, atol=1e-12)
        np.testing.assert_allclose(B @ dA, -P @ scipy.linalg.polar(G.T @ P)[0].T, atol=1e-12)


def test_the_steps_of_others_are_told_apart() -> None:
    A, B, gA, gB, _ = drawn(2, 6, 4)
    steps = [np.concatenate([x.ravel() for x in rule(A, B, gA, gB)]) for rule in (descent, adam, lora_muon)]
    assert all(np.max(np.abs(x - y)) > 0.1 for i, x in enumerate(steps) for y in steps[:i])
    np.testing.assert_allclose(adam(A, B, gA, gB)[0], -np.sign(gA), rtol=1e-12)


def test_inverse_root() -> None:
    X = np.random.default_rng(1).standard_normal((6, 3))
    R = inverse_root(X.T @ X)
    np.testing.assert_allclose(R @ (X.T @ X) @ R, np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "wrong", "claim"),
    [
        ("lora_rite", lambda A, B, gA, gB: (lora_rite(A, B, gA, gB)[0], -np.sign(gB)), "RITE-invariance"),
        (
            "lora_muon",
            lambda *x, **how: (lora_muon(*x, **how)[0], 1.000001 * lora_muon(*x, **how)[1]),
            "LoRAMuon-core",
        ),
        (
            "lora_rite",
            lambda A, B, gA, gB: (lora_rite(A, B, gA, gB)[0], lora_rite(A, B, gA, gB)[1].mean() * B),
            "RITE-invariance",
        ),
    ],
)
def test_a_step_with_a_mistake_is_noticed(name: str, wrong, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factorings, name, wrong)
    x = random_instance("softmax cross-entropy", 0, 1.0, False)
    statement = factorings.spectral_step_is_invariant if "RITE" in claim else factorings.spectral_steps_agree
    check = statement(x)
    assert (check.claim, check.applicable, check.holds) == (claim, True, False)


def test_without_full_rank_nothing_is_said() -> None:
    """At B = 0, and where two rows of A are one."""
    x = random_instance("softmax cross-entropy", 0, 1.0, False)
    A, _ = x.adapters["1"]
    twice = replace(x, adapters={**x.adapters, "1": x.adapters["1"]._replace(A=jnp.stack([A[0], A[0]]))})
    for here in (random_instance("attention", 0, 1.0, True), twice):
        check = factorings.spectral_step_is_invariant(here)
        assert not check.applicable
        assert np.isnan(check.error)
        assert not failures([check])
