"""One test of the interface serves every problem, at the size used in tests."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import signal_drift as sd
from experiments.lab.errors import OptionError
from experiments.lab.problem import Dtype
from experiments.problems import PROBLEMS, Problem, find
from experiments.problems.adam_run import adam_run
from experiments.problems.minilm import MiniLM
from experiments.problems.mlp import MLP

STEPS = 4


@pytest.fixture(params=list(PROBLEMS))
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param].tiny()


def _same(a: object, b: object) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), a, b))


def test_names_and_sizes(problem: Problem) -> None:
    assert find(problem.name).name == problem.name
    assert problem.label
    assert problem.rank < PROBLEMS[problem.name].rank or problem.rank == 2
    assert sum(W0.size for W0 in problem.draw(0).base.values()) < 10_000
    wider = problem.resized(9)
    assert wider == (replace(problem, width=9) if type(problem) is MLP else problem)


def test_draws_are_drawn_from_the_seed(problem: Problem) -> None:
    """Twice the same from one seed; another seed gives other adapters, and another loss at the same weights."""
    first, again, other = problem.draw(0), problem.draw(0), problem.draw(1)
    assert _same(first.base, again.base)
    assert first.loss(first.base) == again.loss(first.base)
    assert first.loss(first.base) != other.loss(first.base)
    assert _same(problem.adapters(0), problem.adapters(0))
    assert not _same(problem.adapters(0), problem.adapters(1))


def test_shapes_agree(problem: Problem) -> None:
    base = problem.draw(0).base
    assert problem.fan_in() == {layer: W0.shape[1] for layer, W0 in base.items()}
    for rank in (problem.rank, 1, 3):
        adapters = problem.adapters(0, rank)
        assert adapters.keys() == base.keys()
        for layer, (A, B) in adapters.items():
            assert (A.shape, B.shape) == ((rank, base[layer].shape[1]), (base[layer].shape[0], rank))


def test_at_the_start_the_weights_are_those_given(problem: Problem) -> None:
    """B = 0: w = W₀, and there is a gradient to follow."""
    drawn, adapters = problem.draw(0), problem.adapters(0)
    assert all(not np.any(B) for _, B in adapters.values())
    assert _same(sd.effective_weights(drawn.base, adapters, problem.scaling(2.0)), drawn.base)
    value, gradient = jax.value_and_grad(drawn.loss)(drawn.base)
    assert value.shape == ()
    assert np.isfinite(value)
    assert float(sum(jnp.sum(g**2) for g in gradient.values())) > 0


def test_entries_of_A_have_the_deviation_that_is_stated(problem: Problem) -> None:
    """Their mean square over σ_A² is 1 ± √(2/n) in every layer; of PEFT's Kaiming A, a third, it would not be."""
    stated, draws = problem.sigma_a(), [problem.adapters(seed, 16) for seed in range(4)]
    assert stated.keys() == draws[0].keys()
    for layer, sigma in stated.items():
        squares = np.concatenate([np.ravel(draw[layer].A) ** 2 for draw in draws]) / sigma**2
        error = np.sqrt(2 / squares.size)
        assert abs(squares.mean() - 1) < 4 * error
        assert abs(squares.mean() - 1 / 3) > 4 * error


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_is_the_one_asked_for(problem: Problem, dtype: Dtype) -> None:
    drawn, training = problem.draw(0, dtype), problem.training(0, STEPS, dtype)
    leaves = jax.tree.leaves((drawn, training, problem.adapters(0, dtype=dtype)))
    floating = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {jnp.dtype(dtype)}
    exact = problem.draw(0)
    assert drawn.loss(drawn.base) == pytest.approx(float(exact.loss(exact.base)), rel=1e-4)


def test_training_stream(problem: Problem) -> None:
    """A batch for every step, the loss of the first of them, and judges that give finite numbers."""
    base, training = problem.draw(0).base, problem.training(0, STEPS)
    assert _same(training, problem.training(0, STEPS))
    if training.batches is None:
        first = training.loss(base)
        assert first == training.fit(base)
    else:
        assert {len(leaf) for leaf in jax.tree.leaves(training.batches)} == {STEPS}
        first = training.loss(base, jax.tree.map(lambda x: x[0], training.batches))
    assert first == pytest.approx(float(problem.draw(0).loss(base)), rel=1e-12)  # what its curvature is taken of
    assert np.isfinite(training.fit(base))
    assert all(-1 <= float(judge(base)) <= 1 for judge in training.scores.values())


def test_a_run_fits_what_it_is_trained_on(problem: Problem) -> None:
    start, s = problem.adapters(0), 1.0
    base, training = problem.draw(0).base, problem.training(0, 20)
    run = adam_run(problem, 0, start, s, 1e-3, 20)
    assert run.loss.shape == (21,)
    assert training.fit(sd.effective_weights(base, run.trained, s)) < training.fit(base)


def test_tuning_is_affordable_and_consistent(problem: Problem) -> None:
    full = PROBLEMS[problem.name]
    if full.tuning is None:
        return
    sizes = full.tuning
    assert set(sizes.grid_ranks) <= set(sizes.ranks)
    for name in ("fft_rates", "ranks", "grid_ranks", "protocol_ranks", "alphas", "grid_alphas", "grid_rates"):
        values = getattr(sizes, name)
        assert list(values) == sorted(set(values))
    assert 1.0 in sizes.rate_shares


def test_scaling_is_alpha_over_rank(problem: Problem) -> None:
    assert problem.scaling(3.0) == 3.0 / problem.rank
    assert problem.scaling(3.0, 5) == 0.6


def test_a_size_that_makes_no_sense_is_named(problem: Problem) -> None:
    with pytest.raises(OptionError, match="rank: must be at least 1, got 0"):
        replace(problem, rank=0)


def test_the_other_reading_of_s() -> None:
    assert replace(MLP(), scaling_rule="alpha").scaling(3.0, 5) == 3.0


def test_too_few_texts_for_a_run_are_named() -> None:
    with pytest.raises(OptionError, match="steps: 40 batches of 8 texts are more than the 256 there are"):
        MiniLM().tiny().training(0, 40)


def test_what_has_to_be_fetched_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    with pytest.raises(OptionError, match=r"needs .*config.json, which is not there; run: make minilm"):
        MiniLM(length=7).draw(0)


def test_unknown_problem_is_named() -> None:
    with pytest.raises(OptionError, match=r"problem: unknown 'cifar'; there are mlp, contrastive, digits"):
        find("cifar")
