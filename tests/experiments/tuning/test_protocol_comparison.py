"""The V-protocol at tiny size: what each method runs, and a fraction of a gap that is planted, absent or diverged."""

import re
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import signal_drift as sd
from experiments.lab.errors import OptionError
from experiments.lab.experiment import Row, table
from experiments.lab.problem import Tuning
from experiments.lab.runner import results
from experiments.lab.side_by_side import as_markdown
from experiments.problems import PROBLEMS
from experiments.tuning import rates
from experiments.tuning.gap import Setup, untestable
from experiments.tuning.methods import COMMON, DORA, FULL, TENFOLD, V1, V2, methods, swept, tuned
from experiments.tuning.protocol_comparison import EXPERIMENT, report
from experiments.tuning.runs import fft_rate
from signal_drift.propositions import closed_forms

TINY = replace(EXPERIMENT.at(PROBLEMS["teacher64"], quick=True), steps=8, dtype="float64")
OVER_V2 = Tuning.over_v2
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


def planted(closed: dict[str, float], gap: float = 2.0, noise: float = 0.05, best: float = 0.9) -> xr.Dataset:
    """A store in which each method closes a given fraction of a gap of ln ℓ, and the best α of the sweep `best`."""
    names = [*methods(8, SIGMA_A), FULL]
    share = np.array([closed.get(m, 1.0 if m == FULL else 0.0) for m in names])
    draws = noise * np.random.default_rng(0).standard_normal((1, 1, 5, len(names)))
    steps = np.broadcast_to([1.0, 2.0, 8.0], (1, 1, 5, len(names), 3))
    dims = ("share", "rank", "seed", "method")
    alphas = -gap * (best - 0.1 * np.log2(OVER_V2) ** 2)
    full, own = np.log(SHOWN.fft_rates) - np.log(1e-3), [*tuned(methods(8, SIGMA_A)), FULL]
    losses = -gap * share + draws
    by_rate = losses[0][..., None, [names.index(name) for name in own]]
    by_rate = by_rate + 0.1 * np.log(np.array(SHOWN.own_rates) / 2)[:, None] ** 2
    recorded = np.where(np.array(names)[:, None] == DORA, np.nan, steps)
    return xr.Dataset(
        {
            "log_loss": (dims, losses),
            "by_rate": (("rank", "seed", "multiple", "tuned"), by_rate),
            "by_alpha": (("share", "rank", "seed", "over_v2"), np.broadcast_to(alphas, (1, 1, 5, len(alphas)))),
            "signal": ((*dims, "step"), recorded),
            "drift": ((*dims, "step"), np.ones_like(steps)),
            "fft": ("fft_rate", full**2),
            "learning_rate": 1e-3,
        },
        coords={
            "share": [1.0],
            "rank": [8],
            "seed": range(5),
            "method": names,
            "step": [1, 2, 3],
            "over_v2": list(OVER_V2),
            "multiple": list(SHOWN.own_rates),
            "tuned": own,
        },
    )


SETUP = Setup(8, {"a": 1 / 16}, SHOWN.fft_rates)


def why_not(data: xr.Dataset, setup: Setup = SETUP) -> str:
    return untestable(data.isel(share=0, rank=0), setup)


def test_a_setting_in_which_rules_can_be_told_apart_is_testable() -> None:
    assert why_not(planted({V2: 0.8})) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rank": 64}, "V2 is 2·r"),  # √64·16 = 128
        ({"rank": 128}, "V2 is 1.4·r"),
    ],
)
def test_v2_that_is_nearly_the_baseline_says_nothing(change: dict, reason: str) -> None:
    found = why_not(planted({V2: 0.8}), SETUP._replace(**change))
    assert found.startswith(reason) or (reason == "V2 is 2·r" and found == "")


def test_a_baseline_that_diverged_has_no_gap() -> None:
    data = planted({V2: 0.8})
    data.log_loss.loc[{"method": COMMON, "seed": [1, 3]}] = np.inf
    assert why_not(data).startswith("LoRA with α = r diverged at 2 of 5 seeds")


def test_full_fine_tuning_at_its_cliff_says_nothing() -> None:
    data = planted({V2: 0.8})
    rates = np.array(SHOWN.fft_rates)
    data["fft"] = ("fft_rate", np.where(rates > 1.1e-3, 20.0, (np.log(rates) - np.log(1e-3)) ** 2))
    assert "at its cliff" in why_not(data)


def test_a_gap_that_is_not_resolved_or_that_no_alpha_closes_says_nothing() -> None:
    assert why_not(planted({V2: 0.8}, gap=0.0)).startswith("there is no gap that 5 seeds resolve")
    assert "the best of the sweep closes 40% of it" in why_not(planted({V2: 0.3}, noise=1e-6, best=0.4))


def test_the_sweep_over_alpha_passes_through_v2() -> None:
    assert swept(8, SIGMA_A, OVER_V2)["1"].scaling == pytest.approx(methods(8, SIGMA_A)[V2].scaling)
    assert swept(8, SIGMA_A, OVER_V2)["4"].scaling["a"] == pytest.approx(4 * methods(8, SIGMA_A)[V2].scaling["a"])


def closed_by(method: str, rows: list[Row]) -> Row:
    (found,) = [r for r in rows if r.quantity.startswith(f"V    gap closed by {method},")]
    return found


def test_planted_fraction_is_recovered_and_another_refuted() -> None:
    found = report(SHOWN, planted({V2: 0.8, V1: 0.3}))
    low, high = map(float, closed_by(V2, found.rows).interval.strip("[]").split(", "))
    assert 0.7 < low <= 0.8 <= high + 0.05 < 0.95
    assert float(closed_by(V1, found.rows).measured) == pytest.approx(0.3, abs=0.06)
    pure = {r.quantity.split(", r =")[0].split("drift, ")[1]: r.measured for r in found.rows if r.quantity[:3] == "F2c"}
    assert pure.pop(DORA) == "–"  # it records none
    assert {float(x) for x in pure.values()} == {4.0}  # of the ratios 2 and 8; the first step is left out
    assert "LoRA-α, V2 against half of the gap: more: r = 8." in found.sentences[1]
    assert "LoRA-α, V1 against half of the gap: less: r = 8." in found.sentences[0]


def test_the_table_has_every_method_at_every_rate_and_at_its_own_best() -> None:
    """V2 closes most; it and V1 are LoRA-α, and FFT is no adapter. Planted: every method is best at 2 η_FFT."""
    (shown,) = report(SHOWN, planted({V2: 0.8, V1: 0.3})).tables
    parts = [shown.groups[name] for name in ("at η_FFT", "each at its own best")]
    assert shown.columns == ["r = 8: ln loss"]
    assert list(parts[0]) == [*methods(8, SIGMA_A), FULL]
    assert len(parts[1]) == len(parts[0])  # without 10×η, which is LoRA at another rate, and with the best α
    places = [{cell.place: name for name, (cell,) in part.items()} for part in parts]
    assert [found["best"] for found in places] == [FULL, f"{FULL} *"]
    assert places[0]["second"] == V2
    assert parts[1][f"{COMMON} *"][0].text.endswith(" (2×)")
    verdicts = {name: cell.text for name, (cell,) in shown.groups["is it ahead of every other adapter?"].items()}
    assert verdicts[f"{V2}, at η_FFT"] == "holds, 7 ahead"
    assert verdicts[f"{V1}, at η_FFT"] == "fails, 7 ahead, 1 behind"
    assert f"At r = 8 {V2} is rsLoRA, s = √r: one run." in shown.notes  # at d = 64
    assert any(note.endswith(f"behind {V2} (r = 8: ln loss).") for note in shown.notes)


def test_without_sweeps_of_their_own_the_table_has_one_rate() -> None:
    (shown,) = report(replace(SHOWN, own_rates=(1.0,)), planted({V2: 0.8})).tables
    assert list(shown.groups) == ["at η_FFT", "is it ahead of every other adapter?"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("own_rates", (), "own_rates: must be positive and not empty, got ()"),
        ("own_rates", (0.0, 1.0), "own_rates: must be positive and not empty, got (0.0, 1.0)"),
        ("own_rates", (2.0, 1.0), "own_rates: must ascend, got (2.0, 1.0)"),
        ("rate_shares", (-1.0,), "rate_shares: must be positive and not empty, got (-1.0,)"),
    ],
)
def test_rates_that_make_no_sweep(field: str, value: tuple[float, ...], words: str) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        replace(SHOWN, **{field: value})


def test_no_fraction_without_a_gap() -> None:
    found = report(SHOWN, planted({V2: 0.8}, gap=0.0))
    assert closed_by(V2, found.rows).measured.startswith("no gap is resolved")
    assert "no gap is resolved" in found.sentences[1]


def test_diverged_method_is_counted() -> None:
    data = planted({V2: 0.8})
    data.log_loss.loc[{"method": V1, "seed": [1, 3]}] = np.inf
    found = report(SHOWN, data)
    assert closed_by(V1, found.rows).measured == "diverged at 2 of 5 seeds"
    assert closed_by(V2, found.rows).measured[:3] in ("0.8", "0.7")


@pytest.mark.parametrize(("seeds", "words"), [(1, "accuracy 0.5."), (2, "accuracy 0.55 [-0.08531, 1.185].")])
def test_the_score_before_training_has_an_interval_where_there_are_seeds(seeds: int, words: str) -> None:
    """The half-width over 0.5 and 0.6 is t₀.₉₇₅(1)·s/√2 = 12.706·0.05."""
    data = planted({V2: 0.8}).isel(seed=slice(seeds))
    scores = {
        name: 0.5 + 0 * data[of].expand_dims(judge=["accuracy"])
        for name, of in {"score": "log_loss", "score_by_rate": "by_rate", "score_by_alpha": "by_alpha"}.items()
    }
    start = xr.DataArray([[[0.5, 0.6][:seeds]]], dims=("rank", "judge", "seed"), coords={"judge": ["accuracy"]})
    found = report(replace(SHOWN, seeds=seeds), data.assign(scores | {"start_score": start}))
    assert found.sentences[-1] == f"Before adaptation on {SHOWN.problem.label}: {words}"


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
    drawn = ["protocol_comparison", "protocol_purity"]
    assert list(found.figures) == [*drawn, *(f"{name}_at_0_1" for name in drawn)]  # no held-out classes, no accuracy
    assert set(found.figures) < set(EXPERIMENT.captions)
    v2 = data.log_loss.sel({"method": V2})
    np.testing.assert_array_equal(data.by_alpha.sel(over_v2=1.0).values, v2.values)  # one run
    for name in data.tuned.values:
        own, share = data.by_rate.sel(tuned=name, multiple=0.1), data.log_loss.sel({"method": name, "share": 0.1})
        np.testing.assert_array_equal(own.transpose(*share.dims).values, share.values)
    tenfold = data.by_rate.sel(tuned=COMMON, multiple=10.0)
    np.testing.assert_array_equal(
        tenfold, data.log_loss.sel({"method": TENFOLD, "share": 1.0}).transpose(*tenfold.dims)
    )
    assert not np.isclose(tenfold, data.by_rate.sel(tuned=COMMON, multiple=1.0), rtol=1e-3).any()
    assert len(as_markdown(found.tables[0]).splitlines()) > 30
    assert all(line.count("|") == 5 for line in table(found.rows).splitlines())


def test_scores_stand_beside_their_judge(tmp_path: Path) -> None:
    """On a problem with several judges each value is that of its own judge, before and after training."""
    config = replace(EXPERIMENT.at(PROBLEMS["minilm"], quick=True), steps=3, ranks=(2,), seeds=1, dtype="float64")
    data = results(EXPERIMENT, config, tmp_path).isel(rank=0, seed=0)
    own = data.score_by_rate.sel(multiple=1.0, tuned=FULL).values
    data = data.isel(share=0)
    np.testing.assert_array_equal(own, data.score.sel({"method": FULL}).values)
    base, training = config.problem.draw(0).base, config.problem.training(0, 3)
    eta = float(data.learning_rate)
    trained = sd.train(training.loss, base, None, 1.0, optax.adam(eta), 3, training.batches).trained
    assert len(training.scores) > 1
    for name, judge in training.scores.items():
        assert data.start_score.sel(judge=name).item() == pytest.approx(float(judge(base)), rel=1e-9)
        after = data.score.sel({"judge": name, "method": FULL}).item()
        assert after == pytest.approx(float(judge(trained)), rel=1e-7)
