"""The V-protocol at tiny size: what each method runs, and a fraction of a gap that is planted, absent or diverged."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import signal_drift as sd
from experiments.lab.experiment import Row, table
from experiments.lab.runner import results
from experiments.problems import PROBLEMS
from experiments.tuning import rates
from experiments.tuning.methods import COMMON, FULL, TENFOLD, V1, V2, methods
from experiments.tuning.protocol_comparison import EXPERIMENT, report
from experiments.tuning.runs import by_method, fft_rate, padded_adapters
from signal_drift.propositions import closed_forms

TINY = replace(EXPERIMENT.at(PROBLEMS["teacher64"], quick=True), steps=8, dtype="float64")
SHOWN = replace(EXPERIMENT.at(PROBLEMS["teacher64"]), ranks=(8,), rate_shares=(1.0,), steps=3)
FAN_IN = {"a": 16, "b": 64}
SIGMA_A = {layer: d_in**-0.5 for layer, d_in in FAN_IN.items()}


@pytest.mark.parametrize("rank", [2, 8, 64])
def test_v2_keeps_the_trace_of_the_curvature_in_every_layer(rank: int) -> None:
    chosen = methods(rank, SIGMA_A)

    def suppression(method: str, layer: str) -> float:
        return closed_forms.suppression(rank, chosen[method].scaling[layer], SIGMA_A[layer])

    for layer, d_in in FAN_IN.items():
        assert suppression(V2, layer) == pytest.approx(1.0, rel=1e-12)
        assert suppression(V1, layer) == pytest.approx(256.0**2 / d_in, rel=1e-12)
        assert suppression(COMMON, layer) == pytest.approx(rank / d_in, rel=1e-12)  # 1 only at r = d_in


def test_scalings_are_those_of_the_methods() -> None:
    chosen = methods(16, {"a": 1 / 8})
    assert [chosen[m].scaling["a"] for m in (COMMON, "LoRA, α = 2r", "rsLoRA, s = √r", V1)] == [1.0, 2.0, 4.0, 64.0]
    assert (chosen[TENFOLD].rate, chosen["LoRA+, ratio 16"].ratio) == (10.0, 16.0)


def test_methods_run_with_their_own_scaling_and_rates() -> None:
    problem = TINY.problem
    base, training, start = problem.draw(0).base, problem.training(0, 5), padded_adapters(problem, 0, 2, 4, "float64")
    scaling = {layer: jnp.array([1.0, 3.0, 1.0]) for layer in base}
    rate_A, rate_B = jnp.array([1e-2, 1e-2, 1e-2]), jnp.array([1e-2, 1e-2, 0.16])
    found = by_method(training, base, start, scaling, rate_A, rate_B, steps=5)

    def single(s: float, ratio: float) -> sd.Run:
        optimizer = sd.separate_rates(optax.adam(1e-2), optax.adam(1e-2 * ratio))
        return sd.train(training.loss, base, problem.adapters(0, 2), s, optimizer, 5)

    runs = [single(1.0, 1.0), single(3.0, 1.0), single(1.0, 16.0)]
    expected = [float(run.loss[-1]) for run in runs]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-9)
    assert not np.allclose(found.loss, np.roll(expected, 1), rtol=1e-3)
    np.testing.assert_allclose(found.signal, [run.signal_norm for run in runs], rtol=1e-9)
    assert found.scores == {}  # the teacher has no held-out texts or images


def planted(closed: dict[str, float], gap: float = 2.0, noise: float = 0.05) -> xr.Dataset:
    """A store in which each method closes a given fraction of a gap of ln ℓ."""
    names = [*methods(8, SIGMA_A), FULL]
    share = np.array([closed.get(m, 1.0 if m == FULL else 0.0) for m in names])
    draws = noise * np.random.default_rng(0).standard_normal((1, 1, 5, len(names)))
    steps = np.broadcast_to([1.0, 2.0, 8.0], (1, 1, 5, len(names), 3))
    dims = ("share", "rank", "seed", "method")
    return xr.Dataset(
        {
            "log_loss": (dims, -gap * share + draws),
            "signal": ((*dims, "step"), steps),
            "drift": ((*dims, "step"), np.ones_like(steps)),
        },
        coords={"share": [1.0], "rank": [8], "seed": range(5), "method": names, "step": [1, 2, 3]},
    )


def closed_by(method: str, rows: list[Row]) -> Row:
    (found,) = [r for r in rows if r.quantity.startswith(f"V    gap closed by {method},")]
    return found


def test_planted_fraction_is_recovered_and_another_refuted() -> None:
    found = report(SHOWN, planted({V2: 0.8, V1: 0.3}))
    low, high = map(float, closed_by(V2, found.rows).interval.strip("[]").split(", "))
    assert 0.7 < low <= 0.8 <= high + 0.05 < 0.95
    assert float(closed_by(V1, found.rows).measured) == pytest.approx(0.3, abs=0.06)
    (pure,) = {r.measured for r in found.rows if r.quantity.startswith("F2c")}
    assert float(pure) == 4.0  # of the ratios 2 and 8; the first step is left out
    assert "LoRA-α, V2 against one half: above: r = 8." in found.sentences[1]
    assert "LoRA-α, V1 against one half: below: r = 8." in found.sentences[0]


def test_no_fraction_without_a_gap() -> None:
    found = report(SHOWN, planted({V2: 0.8}, gap=0.0))
    assert closed_by(V2, found.rows).measured.startswith("no gap")
    assert "without a gap" in found.sentences[1]


def test_diverged_method_is_counted() -> None:
    data = planted({V2: 0.8})
    data.log_loss.loc[{"method": V1, "seed": [1, 3]}] = np.inf
    found = report(SHOWN, data)
    assert closed_by(V1, found.rows).measured == "diverged at 2 of 5 seeds"
    assert closed_by(V2, found.rows).measured[:3] in ("0.8", "0.7")


def test_tiny_comparison_is_stored_and_reported(tmp_path: Path) -> None:
    data = results(EXPERIMENT, TINY, tmp_path)
    assert np.all(np.isfinite(data.log_loss.sel({"method": [FULL, COMMON, V2]})))
    assert np.all(data.drift.sel({"method": FULL}) == 0)
    eta = fft_rate(results(*rates.of(TINY), tmp_path).log_loss)
    training, base = TINY.problem.training(1, TINY.steps), TINY.problem.draw(1).base
    full = sd.train(training.loss, base, None, 1.0, optax.adam(0.1 * eta), TINY.steps).loss[-1]
    stored = data.log_loss.sel({"share": 0.1, "rank": 2, "seed": 1, "method": FULL}).item()
    assert stored == pytest.approx(float(jnp.log(full)), rel=1e-9)
    found = report(TINY, data)
    assert list(found.figures) == [
        "protocol_comparison",
        "protocol_comparison_at_0_1",
    ]  # no held-out classes, no accuracy
    assert all(line.count("|") == 5 for line in table(found.rows).splitlines())


def test_scores_stand_beside_their_judge(tmp_path: Path) -> None:
    """On a problem with several judges each value is that of its own judge, before and after training."""
    config = replace(EXPERIMENT.at(PROBLEMS["minilm"], quick=True), steps=3, ranks=(2,), seeds=1, dtype="float64")
    data = results(EXPERIMENT, config, tmp_path).isel(share=0, rank=0, seed=0)
    base, training = config.problem.draw(0).base, config.problem.training(0, 3)
    eta = float(data.learning_rate)
    trained = sd.train(training.loss, base, None, 1.0, optax.adam(eta), 3, training.batches).trained
    assert len(training.scores) > 1
    for name, judge in training.scores.items():
        assert data.start_score.sel(judge=name).item() == pytest.approx(float(judge(base)), rel=1e-9)
        after = data.score.sel({"judge": name, "method": FULL}).item()
        assert after == pytest.approx(float(judge(trained)), rel=1e-7)
