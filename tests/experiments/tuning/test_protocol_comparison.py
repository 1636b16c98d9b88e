"""The V-protocol at tiny size: what each method runs, and a fraction of a gap that is planted, absent or diverged."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import signal_drift as sd
from experiments.lab.experiment import Row, results, table
from experiments.problems.adaptation import adapters, fft_rate, problem
from experiments.tuning.methods import FULL, PLAIN, TENFOLD, V1, V2, recipes
from experiments.tuning.protocol_comparison import EXPERIMENT, Config, _lora_outcomes, report
from signal_drift.propositions import closed_forms

TINY = replace(EXPERIMENT.quick, tasks=("mlp4",), steps=8, dtype="float64")
SHOWN = Config(tasks=("mlp64",), ranks=(8,), rate_shares=(1.0,))
FAN_IN = {"a": 16, "b": 64}


@pytest.mark.parametrize("rank", [2, 8, 64])
def test_v2_keeps_the_trace_of_the_curvature_in_every_layer(rank: int) -> None:
    methods = recipes(rank, FAN_IN)

    def suppression(method: str, layer: str) -> float:
        return closed_forms.suppression(rank, methods[method].scaling[layer], FAN_IN[layer] ** -0.5)

    for layer, d_in in FAN_IN.items():
        assert suppression(V2, layer) == pytest.approx(1.0, rel=1e-12)
        assert suppression(V1, layer) == pytest.approx(256.0**2 / d_in, rel=1e-12)
        assert suppression(PLAIN, layer) == pytest.approx(rank / d_in, rel=1e-12)  # 1 only at r = d_in


def test_scalings_are_those_of_the_methods() -> None:
    methods = recipes(16, {"a": 64})
    assert [methods[m].scaling["a"] for m in (PLAIN, "LoRA, α = 2r", "rsLoRA, s = √r", V1)] == [1.0, 2.0, 4.0, 64.0]
    assert (methods[TENFOLD].rate, methods["LoRA+, ratio 16"].ratio) == (10.0, 16.0)


def test_methods_run_with_their_own_scaling_and_rates() -> None:
    task = TINY.task("mlp4")
    chosen, start = problem(task, 0), adapters(task, 0, 2, 4)
    scaling = {layer: jnp.array([1.0, 3.0, 1.0]) for layer in chosen.base}
    losses, scores = _lora_outcomes(
        chosen, start, scaling, jnp.array([1e-2, 1e-2, 1e-2]), jnp.array([1e-2, 1e-2, 0.16]), steps=5
    )

    def single(s: float, ratio: float) -> float:
        optimizer = sd.separate_rates(optax.adam(1e-2), optax.adam(1e-2 * ratio))
        return float(sd.train(chosen.loss, chosen.base, adapters(task, 0, 2, 2), s, optimizer, 5).loss[-1])

    expected = [single(1.0, 1.0), single(3.0, 1.0), single(1.0, 16.0)]
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert not np.allclose(losses, np.roll(expected, 1), rtol=1e-3)
    assert np.all(np.isnan(scores))  # the teacher has no held-out classes


def planted(closed: dict[str, float], gap: float = 2.0, noise: float = 0.05) -> xr.Dataset:
    """A store in which each method closes a given fraction of a gap of ln ℓ."""
    methods = [*recipes(8, FAN_IN), FULL]
    share = np.array([closed.get(m, 1.0 if m == FULL else 0.0) for m in methods])
    draws = noise * np.random.default_rng(0).standard_normal((1, 1, 1, 5, len(methods)))
    return xr.Dataset(
        {"log_loss": (("task", "share", "rank", "seed", "recipe"), -gap * share + draws)},
        coords={"task": ["mlp64"], "share": [1.0], "rank": [8], "seed": range(5), "recipe": methods},
    )


def closed_by(method: str, rows: list[Row]) -> Row:
    (found,) = [r for r in rows if r.quantity.startswith(f"V    gap closed by {method},")]
    return found


def test_planted_fraction_is_recovered_and_another_refuted() -> None:
    found = report(SHOWN, planted({V2: 0.8, V1: 0.3}))
    low, high = map(float, closed_by(V2, found.rows).interval.strip("[]").split(", "))
    assert 0.7 < low <= 0.8 <= high + 0.05 < 0.95
    assert float(closed_by(V1, found.rows).measured) == pytest.approx(0.3, abs=0.06)
    assert "LoRA-α, V2 against one half: above: mlp64 r = 8." in found.sentences[1]
    assert "LoRA-α, V1 against one half: below: mlp64 r = 8." in found.sentences[0]


def test_no_fraction_without_a_gap() -> None:
    found = report(SHOWN, planted({V2: 0.8}, gap=0.0))
    assert closed_by(V2, found.rows).measured.startswith("no gap")
    assert "without a gap" in found.sentences[1]


def test_diverged_method_is_counted() -> None:
    data = planted({V2: 0.8})
    data.log_loss.loc[{"recipe": V1, "seed": [1, 3]}] = np.inf
    found = report(SHOWN, data)
    assert closed_by(V1, found.rows).measured == "diverged at 2 of 5 seeds"
    assert closed_by(V2, found.rows).measured[:3] in ("0.8", "0.7")


def test_tiny_comparison_is_stored_and_reported(tmp_path: Path) -> None:
    data = results(EXPERIMENT, TINY, tmp_path)
    assert np.all(np.isfinite(data.log_loss.sel(recipe=[FULL, PLAIN, V2])))
    task = TINY.task("mlp4")
    chosen = problem(task, 1)
    full = sd.train(chosen.loss, chosen.base, None, 1.0, optax.adam(0.1 * fft_rate(task)), task.steps).loss[-1]
    stored = data.log_loss.sel(task="mlp4", share=0.1, rank=2, seed=1, recipe=FULL).item()
    assert stored == pytest.approx(float(jnp.log(full)), rel=1e-9)
    found = report(TINY, data)
    assert list(found.figures) == [
        "protocol_comparison",
        "protocol_comparison_at_0_1",
    ]  # no held-out classes, no accuracy
    assert all(line.count("|") == 5 for line in table(found.rows).splitlines())
