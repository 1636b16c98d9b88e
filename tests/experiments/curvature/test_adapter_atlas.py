"""Starts, ratios and what is trained, against formulas that share no code, and what the report says of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import EPS

import signal_drift as sd
from experiments.curvature import adapter_atlas as atlas
from experiments.curvature.atlas_starts import ALPHA, VERA_D, begun
from experiments.lab.errors import OptionError
from experiments.problems import PROBLEMS
from signal_drift.propositions.adapter_maps import MAPS

PROBLEM = PROBLEMS["mlp"].tiny()


@pytest.fixture
def at(tiny):
    return tiny(atlas.EXPERIMENT, "mlp")


def test_every_map_is_asked():
    assert set(atlas.NAMES) == set(atlas.STRUCTURE) == set(MAPS)


@pytest.mark.parametrize("name", atlas.NAMES)
def test_training_begins_at_the_pretrained_weights(name):
    """W = W₀ to rounding, and one factor is zero where a product has to be; DoRA's m are the lengths of the rows."""
    base, start = PROBLEM.draw(0).base, begun(name, PROBLEM, 0)
    for k, f in start.at(ALPHA).items():
        np.testing.assert_allclose(f(base[k], start.theta[k]), base[k], rtol=4 * EPS)
        zeros = [not np.any(np.asarray(x)) for x in jax.tree.leaves(start.theta[k])]
        assert sum(zeros) == (name != "ia3")
    if name == "vera":
        assert np.all(np.asarray(start.theta["layers.0"].d) == VERA_D)
    assert start.scaled == (name not in {"vera", "mora", "ia3"})


def test_alpha_enters_as_each_method_has_it():
    """α/√r of rsLoRA, and α/r of all others, r the rows of their own A: LoHa's are half; LoRA's by NumPy as well."""
    rows = {"dora": lambda x: x.A, "loha": lambda x: x.first.A, "lokr": lambda x: x.A, "lora": lambda x: x.A}
    for name, of in rows.items():
        start = begun(name, PROBLEM, 0)
        assert start.at(2.0)["layers.0"].args[-1] == 2 / len(of(start.theta["layers.0"]))
    A, s = begun("lora_fa", PROBLEM, 0).at(2.0)["layers.0"].args
    assert s == 2 / len(A)
    loha = begun("loha", PROBLEM, 0).theta["layers.0"]
    assert len(loha.first.A) == len(loha.second.A) == max(1, PROBLEM.rank // 2)
    r = PROBLEM.rank
    base = PROBLEM.draw(0).base["layers.0"]
    for name, s in (("lora", 2 / r), ("rslora", 2 / r**0.5)):
        start = begun(name, PROBLEM, 0)
        A, B = start.theta["layers.0"]
        W = start.at(2.0)["layers.0"](base, sd.Adapter(A, jnp.ones_like(B)))
        expected = np.asarray(base) + s * np.ones(B.shape) @ np.asarray(A)
        np.testing.assert_allclose(W, expected, rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_training_is_adam_on_the_factors(at, name):
    """A run equals optax step after step, by the library's own loss of (A, B) for LoRA and the map of DoRA."""
    config, data = at
    drawn, start = config.problem.draw(0), begun(name, config.problem, 0)
    maps, theta = start.at(ALPHA), start.theta
    optimizer = optax.adam(config.learning_rate)
    state = optimizer.init(theta)

    @jax.jit
    def step(theta, state):
        def value(theta):
            if name == "lora":
                return drawn.loss(sd.effective_weights(drawn.base, theta, ALPHA / config.problem.rank))
            return drawn.loss({k: f(drawn.base[k], theta[k]) for k, f in maps.items()})

        updates, state = optimizer.update(jax.grad(value)(theta), state, theta)
        return optax.apply_updates(theta, updates), state

    for _ in range(config.steps):
        theta, state = step(theta, state)
    W = {k: f(drawn.base[k], theta[k]) for k, f in maps.items()}
    found = float(data.loss.sel(map=name, seed=0, choice="default"))
    assert found == pytest.approx(float(drawn.loss(W)), rel=1e-9)
    assert abs(found - float(drawn.loss(drawn.base))) > 1e-6, "it has moved"


@pytest.mark.parametrize("name", ["lora", "lokr", "lora_fa"])
def test_ratio_is_that_of_the_dense_matrices(at, name):
    config, data = at
    drawn, start = config.problem.draw(0), begun(name, config.problem, 0)
    parts = sd.decompose_map(drawn.loss, drawn.base, start.theta, start.at(ALPHA))
    D, S = (np.asarray(op.dense()) for op in (parts.drift, parts.signal))
    found = data.ratio.sel(map=name, seed=0, choice="default", state="start")
    wanted = {
        "spectral": np.linalg.norm(D, 2) / np.linalg.norm(S, 2),
        "Frobenius": np.linalg.norm(D) / np.linalg.norm(S),
    }
    for norm, ratio in wanted.items():
        assert float(found.sel(norm=norm)) == pytest.approx(ratio, rel=1e-9, abs=0)
        assert (ratio == 0) == (name == "lora_fa")


def test_tuned_is_the_best_that_was_tried(at):
    _, data = at
    assert (data.loss.sel(choice="tuned") <= data.loss.sel(choice="default")).all()
    assert set(data.alpha.dropna("map").values.ravel()) <= {8.0, 32.0}
    assert {name for name in atlas.NAMES if np.isnan(data.alpha.sel(map=name)).all()} == {"vera", "mora", "ia3"}


def test_statements_hold_and_controls_are_noticed(at):
    _, data = at
    for i in range(data.sizes["check"]):
        check = data.isel(check=i)
        met = check.applicable.values.astype(bool)
        assert np.all(check.error.values[met] <= check.tolerance.values[met]), check.statement.item()
        assert np.all(check.control_error.values[met] > check.tolerance.values[met]), check.control.item()


def test_what_is_not_dense_has_ends_alone(at):
    """A problem that is said to be too large has the spectral ratio from searches, and no Frobenius norm."""
    config, data = at

    class Large(type(config.problem)):
        dense = property(lambda _: False)

    large = dataclasses.replace(config, problem=Large(**dataclasses.asdict(config.problem)), tolerance=1e-3)
    drawn, start = config.problem.draw(0), begun("lora", config.problem, 0)
    parts = sd.decompose_map(drawn.loss, drawn.base, start.theta, start.at(ALPHA))
    ratio, kind = atlas.drift_over_signal(large, parts)
    wanted = float(data.ratio.sel(map="lora", seed=0, choice="default", state="start", norm="spectral"))
    assert ratio[0] == pytest.approx(wanted, rel=4e-3)
    assert np.isnan(ratio[1])
    assert kind == ""
    assert atlas.checked(large, drawn, start, 0).sizes["check"] == 0


def test_figure_says_where_there_is_no_drift(at):
    config, data = at
    report = atlas.report(config, data)
    figure = report.figures["adapter_atlas"]()
    words = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert words == ["no drift"] * 6
    assert report.sentences[1] == "There is no drift in LoRA-FA, MoRA, (IA)³."


def test_multiples_ascend(at):
    config, _ = at
    with pytest.raises(OptionError, match="multiples"):
        dataclasses.replace(config, multiples=(4.0, 1.0))
