"""The knockout on synthetic results whose truth is known, and on a tiny problem against the library's own loop."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
import xarray as xr

import signal_drift as sd
from experiments.analysis.divergence import classify
from experiments.claims.lora_alpha import drift
from experiments.dynamics import drift_arms, drift_knockout
from experiments.dynamics.drift_arms import ARMS, LIMITS, ORDINARY, PATHS, REMOVED
from experiments.lab.errors import OptionError
from experiments.ledger.verdict import decide
from experiments.problems import PROBLEMS

TINY = drift_knockout.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
SEEDS, STEPS, MULTIPLIERS = 20, 40, [32.0, 128.0, 512.0]


def verdict(findings):
    return decide(findings).verdict


def synthetic(limits, jitters, descents, alphas):
    """Runs whose limits, jitter, descents and depth over α are these numbers by arm, with a little spread by seed."""
    rng = np.random.default_rng(0)
    spread = np.exp(0.02 * rng.standard_normal((SEEDS, len(ARMS))))
    time, count = np.arange(STEPS + 1), len(MULTIPLIERS)
    loss = np.exp(-0.05 * time + (jitters * spread)[:, :, None] * (-1.0) ** time)
    limit = np.stack([limits * spread, 8 * limits * spread], axis=-1)
    descends = rng.random((SEEDS, len(ARMS), count, STEPS)) < descents[:, None, None]
    depth = np.where(time > 0, (alphas * spread[:, : len(PATHS)])[:, :, None], 1.0)
    over_alpha = loss[:, [ARMS.index(path) for path in PATHS]] * depth
    every = "seed", "arm", "multiplier"
    return xr.Dataset(
        {
            "loss": ((*every, "time"), np.repeat(loss[:, :, None], count, axis=2)),
            "alpha_loss": (("seed", "path", "multiplier", "time"), np.repeat(over_alpha[:, :, None], count, axis=2)),
            "limit": (("seed", "arm", "meaning"), limit),
            "drift": ((*every, "step"), np.where(descends, 1.0, -1.0)),
        },
        {"arm": list(ARMS), "path": list(PATHS), "multiplier": MULTIPLIERS, "meaning": list(LIMITS)},
    )


def by_arm(rest, **special):
    return np.array([special.get(arm.replace(" ", "_"), rest) for arm in ARMS])


@pytest.mark.parametrize(("removed", "wanted"), [(1.3, "supported"), (1.0, "refuted"), (1.02, "refuted")])
def test_a_limit_is_raised_or_it_is_not(removed, wanted):
    data = synthetic(by_arm(100.0, removed=100 * removed), by_arm(0.1), by_arm(0.5), np.ones(3))
    assert verdict(drift.raises_limit(TINY, data)) == wanted
    assert verdict(drift.raises_limit(TINY, data, meaning="diverges")) == wanted


@pytest.mark.parametrize(("removed", "wanted"), [(0.08, "supported"), (0.1, "refuted"), (0.098, "refuted")])
def test_a_loss_is_calmer_or_it_is_not(removed, wanted):
    data = synthetic(by_arm(1.0), by_arm(0.1, removed=removed), by_arm(0.5), np.ones(3))
    assert verdict(drift.calms(TINY, data)) == wanted


@pytest.mark.parametrize(("share", "wanted"), [(0.5, "supported"), (0.7, "refuted"), (0.35, "refuted")])
def test_an_alignment_has_a_side_or_it_has_none(share, wanted):
    data = synthetic(by_arm(1.0), by_arm(0.1), by_arm(0.5, as_it_is=share), np.ones(3))
    assert verdict(drift.has_no_side(TINY, data)) == wanted
    assert verdict(drift.has_a_side(TINY, data)) == ("supported" if share > 0.6 else "refuted")
    assert verdict(drift.has_a_side(TINY, data, "noise")) == "refuted"


@pytest.mark.parametrize(("left", "wanted"), [(0.0, "supported"), (0.9, "refuted"), (0.65, "refuted")])
def test_an_asymmetry_vanishes_or_it_stays(left, wanted):
    data = synthetic(by_arm(1.0), by_arm(0.0), by_arm(0.5), np.exp([1.0, left, 0.0]))
    assert drift.asymmetric(TINY, data) == ""
    assert verdict(drift.vanishes(TINY, data)) == wanted
    assert verdict(drift.stays_with_frozen_A(TINY, data)) == "refuted"


def test_without_an_asymmetry_there_is_none_to_explain():
    data = synthetic(by_arm(1.0), by_arm(0.0), by_arm(0.5), np.ones(3))
    assert "not known to differ" in drift.asymmetric(TINY, data)


@pytest.fixture(scope="module")
def measured():
    return drift_arms.measure(TINY, 0)


def test_the_mirrored_run_is_the_ordinary_one_bit_for_bit(measured):
    """The placebo of C1 and C2: signs commute with rounding."""
    for name in ("loss", "drift", "limit"):
        assert np.array_equal(measured[name].sel(arm="mirrored"), measured[name].sel(arm=ORDINARY), equal_nan=True)
    assert not np.array_equal(measured.loss.sel(arm=REMOVED), measured.loss.sel(arm=ORDINARY))


def test_arms_have_the_drift_that_they_are_named_after(measured):
    """At the second step all arms are still in one state, and what is in the place of the drift is c times the drift.

    In float32, where ⟨·, −g⟩ is a difference of two sums. With one factor at a time, or A frozen, there is none.
    """
    second = measured.drift.sel(step=2)
    ordinary = second.sel(arm=ORDINARY)
    assert np.all(ordinary > 0)
    for arm, c in drift_arms.MULTIPLES.items():
        np.testing.assert_allclose(second.sel(arm=arm), c * ordinary, rtol=0, atol=1e-4 * float(ordinary.max()))
    for arm in ("one factor at a time", "A frozen"):
        assert not measured.drift.sel(arm=arm).any()


def test_with_a_frozen_A_both_paths_are_one(measured):
    """X9 with Adam's ε = 1e-8 and in float32: to 1e-4; with A trained they are not."""
    over_alpha, over_eta = measured.alpha_loss.sel(path="A frozen"), measured.loss.sel(arm="A frozen")
    np.testing.assert_allclose(over_alpha, over_eta, rtol=1e-4)
    assert abs(float(drift_arms.asymmetry(measured.expand_dims("seed"), ORDINARY)[0])) > 0.01


def test_a_limit_is_bracketed_by_a_run_on_either_side(measured):
    """One bisection of an octave leaves half an octave, whose ends are a factor 2^¼ from its middle."""
    problem, limit = TINY.problem, float(measured.limit.sel(arm=ORDINARY, meaning="stable"))
    base, start = problem.draw(0, "float32").base, problem.adapters(0, dtype="float32")
    loss = problem.training(0, TINY.steps, "float32").loss

    @jax.jit
    def losses(eta):
        return sd.train(loss, base, start, problem.scaling(1.0), optax.adam(eta), TINY.steps).loss

    words = [classify(np.asarray(losses(f * limit * TINY.learning_rate), float)) for f in (2**-0.25, 2**0.25)]
    assert words[0] == "stable" != words[1]


def test_probes_from_one_state_differ_by_the_drift_alone(measured):
    """The loss is smooth: ℓ(w + signal + c·drift) is quadratic in c to third order, so that c = 1, 0, −1, 4 lie on one
    parabola to a hundredth of the spread; one with c = 3 in the place of 4 does not."""
    values = measured.after.sel(multiplier=32.0).isel(step=slice(1, None))
    own, none, turned, fourfold = (values.sel(probe=p).values.astype(float) for p in drift_arms.PROBES[:4])

    def parabola(c):
        return none + c * (own - turned) / 2 + c**2 * ((own + turned) / 2 - none)

    size = np.abs(fourfold - none)
    assert np.all(np.abs(parabola(4) - fourfold) <= 0.05 * size + 4 * np.finfo(np.float32).eps * none * 16)
    assert np.mean(np.abs(parabola(3) - fourfold) > 0.05 * size + 4 * np.finfo(np.float32).eps * none * 16) > 0.9


def test_report_speaks_of_every_arm(measured):
    data = measured.expand_dims(seed=[0])
    text = "\n".join(map(str, drift_knockout.report(TINY, data).rows))
    assert all(drift_arms.WORDS.get(arm, arm) in text for arm in ARMS)


@pytest.mark.parametrize("arms", [("as it is", "removed"), (*ARMS, "halved")])
def test_arms_that_are_unknown_or_missing_are_named(arms):
    with pytest.raises(OptionError, match=rf"^arms: .* got .*{arms[-1]}$"):
        replace(TINY, arms=arms)


@pytest.mark.parametrize("limit", [0.7, 5.0, 40.0, 3000.0, 0.0, np.inf])
def test_a_limit_is_found_below_and_above_the_multipliers_or_said_to_be_out_of_reach(limit):
    """A loss that falls below the limit, and beyond it rises to twice its start: it oscillates, and it diverges."""
    falls, rises = np.linspace(1.0, 0.1, 20), np.linspace(1.0, 2.0, 20)
    for meaning in LIMITS:
        found = drift_arms.limit_of(TINY, lambda m: rises if m > limit else falls, meaning)
        if 0 < limit < np.inf:
            assert 2**-0.25 <= found / limit <= 2**0.25
        else:
            assert found == limit
