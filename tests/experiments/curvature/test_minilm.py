"""The experiments on MiniLM with a tiny encoder in its place: their parts against dense matrices and other records."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import published
import pytest
import xarray as xr
from problems import problem, rounding

import signal_drift as sd
from experiments import reproduce_minilm as minilm
from experiments.claims import minilm as claims
from experiments.curvature import layers as minilm_layers
from experiments.curvature import minilm_curvature
from experiments.lab import store
from experiments.lab.experiment import Experiment, main, results
from experiments.ledger.verdict import verdict
from experiments.problems.minilm import HELD_OUT, SETS, TINY, TRAINING, Setting
from experiments.tuning import minilm_paths, minilm_protocol
from experiments.tuning import rates as minilm_rates
from experiments.tuning.methods import FULL, PLAIN, Recipe, recipes
from experiments.tuning.runs import outcome
from signal_drift.models.bert import mean_pooled
from signal_drift.tasks.rating_head import batch_error, rating_error

QUICK = {module: module.EXPERIMENT.quick for module in (minilm_rates, minilm_protocol, minilm_paths)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("minilm")


@pytest.fixture(scope="module")
def rates(folder):
    return results(minilm_rates.EXPERIMENT, QUICK[minilm_rates], folder)


def stored(module, folder):
    return results(module.EXPERIMENT, module.EXPERIMENT.quick, folder)


@pytest.mark.parametrize("experiment", minilm.EXPERIMENTS, ids=lambda e: e.name)
def test_script_reports_and_the_second_time_from_the_store_alone(
    experiment: Experiment, folder, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    arguments = ["--quick", "--out", str(folder)]
    main(experiment, arguments)
    first = capsys.readouterr().out
    monkeypatch.setattr(store, "write", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr("experiments.lab.experiment.save_figure", lambda *_: pytest.fail("drawn again"))
    main(experiment, arguments)
    assert capsys.readouterr().out == first
    assert first.startswith("| quantity")
    assert (folder / "figures" / f"{experiment.name}.png").stat().st_size > 5000


def test_full_fine_tuning_is_the_best_run_of_the_sweep(folder, rates):
    """Its lowest mean log-loss, and the same numbers at every rank."""
    data, losses = stored(minilm_protocol, folder), np.log(rates.error.sel(set=TRAINING)).mean("seed")
    best = float(rates.rate[int(np.argmin(losses.values))])
    assert minilm_rates.fft_rate(rates) == best == float(data.learning_rate.max())
    for rank in QUICK[minilm_protocol].ranks:
        same = data.sel(recipe=FULL, rank=rank)
        assert np.array_equal(same.error.transpose("seed", "set"), rates.error.sel(rate=best).transpose("seed", "set"))


def test_plain_run_equals_adam_written_out(folder, rates):
    """The first batches' losses of LoRA with α = r, by one step of `optax`-free Adam: Δ = −η·sign(∇) from rest."""
    config, data = QUICK[minilm_protocol], stored(minilm_protocol, folder)
    encoder = config.encoder("float32")
    batches = config.batches(encoder.training, 0)
    A, B = (jax.tree.map(lambda x: x, {k: v[i] for k, v in encoder.adapters(0, 4).items()}) for i in (0, 1))
    eta = minilm_rates.fft_rate(rates)

    def loss(W, k):
        texts = jax.tree.map(lambda x: x[k], batches)
        states = encoder.forward(W, texts.ids, texts.mask)
        means = jnp.sum(states * texts.mask[..., None], 1) / jnp.sum(texts.mask, 1, keepdims=True)
        return jnp.mean((means @ encoder.head.weight + encoder.head.bias - texts.ratings) ** 2)

    G = jax.grad(loss)(encoder.base, 0)
    moved = {k: B[k] - eta * jnp.sign(G[k] @ A[k].T) for k in A}
    second = loss({k: W + moved[k] @ A[k] for k, W in encoder.base.items()}, 1)
    found = data.sel(recipe=PLAIN, rank=4, seed=0).loss
    assert float(found[0]) == pytest.approx(float(loss(encoder.base, 0)), rel=1e-5)
    assert float(found[1]) == pytest.approx(float(second), rel=1e-3)
    assert float(data.sel(recipe=PLAIN, rank=4, seed=0).drift[0]) == 0  # X3


def test_a_recipe_is_run_and_judged_as_it_says(folder, rates):
    """LoRA+ with s = √r at η_A and 16 η_A, and its error and correlation on two sets, from `sd.train` by hand."""
    config, seed, rank = QUICK[minilm_protocol], 1, 4
    encoder, eta = config.encoder("float32"), minilm_rates.fft_rate(rates)
    layers = encoder.base
    found = outcome(config, seed, eta, Recipe(dict.fromkeys(layers, 2.0), rate=0.5, ratio=16.0), rank)
    optimizer = sd.separate_rates(optax.adam(eta / 2), optax.adam(8 * eta))
    batches = config.batches(encoder.training, seed)
    loss = batch_error(encoder.forward, encoder.head)
    run = sd.train(loss, layers, encoder.adapters(seed, rank), 2.0, optimizer, config.steps, batches)
    assert np.allclose(found.loss, run.loss, rtol=1e-4)
    weights = sd.effective_weights(layers, run.trained, 2.0)
    own = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:: 32 // config.judged], batches)
    for name, texts in ((TRAINING, own), (HELD_OUT, encoder.judged[HELD_OUT])):
        means = [
            mean_pooled(encoder.forward(weights, i[None], m[None]), m[None])[0]
            for i, m in zip(texts.ids, texts.mask, strict=True)
        ]
        rated = np.array(means) @ np.asarray(encoder.head.weight) + float(encoder.head.bias)
        here = found.sel(set=name)
        assert float(here.error) == pytest.approx(np.mean((rated - np.asarray(texts.ratings)) ** 2), rel=1e-3)
        assert float(here.correlation) == pytest.approx(np.corrcoef(rated, texts.ratings)[0, 1], rel=1e-3)


def test_no_text_is_trained_on_twice_and_all_methods_see_the_same():
    config = replace(QUICK[minilm_rates], steps=6)
    encoder = config.encoder("float32")
    numbered = encoder.training._replace(ratings=jnp.arange(len(encoder.training.ratings)))
    one, again, other = (np.asarray(config.batches(numbered, seed).ratings) for seed in (0, 0, 1))
    assert len(np.unique(one)) == one.size == 6 * config.batch
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_more_steps_than_texts_end_in_one_line(capsys: pytest.CaptureFixture, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(minilm_rates.EXPERIMENT, ["--quick", "--steps", "9", "--out", str(tmp_path)])
    assert (
        capsys.readouterr().err.splitlines()[-1] == "error: steps: 9 batches of 8 texts are more than the 64 there are"
    )


def test_model_that_is_not_there_ends_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path / "empty"))
    with pytest.raises(SystemExit, match="2"):
        main(minilm_rates.EXPERIMENT, ["--out", str(tmp_path)])
    assert "run: make minilm" in capsys.readouterr().err.splitlines()[-1]


def test_another_encoder_is_read_with_its_tokenizer(tmp_path, monkeypatch):
    """Texts are shuffled alike everywhere; one that is trained on is judged nowhere else, whatever its spaces."""
    pytest.importorskip("tokenizers", reason="needs the extra minilm")
    published.tokenizer(published.encoder(tmp_path / "model"), list("abcdefgh"))
    rows = {
        name: "".join(f"{i}\t{i / 10}\t{a} {b}\r\n" for i, (a, b) in enumerate(pairs)) for name, pairs in PAIRS.items()
    }
    published.published(tmp_path / "vaderSentiment.tar.gz", rows)
    monkeypatch.setenv("SIGNAL_DRIFT_CACHE", str(tmp_path))
    found = Setting(model=str(tmp_path / "model"), length=4, head_texts=20, judged=100).encoder("float64")
    texts = {
        name: {tuple(ids) for ids in np.asarray(x.ids)}
        for name, x in {TRAINING: found.training, **found.judged}.items()
    }
    assert len(texts[TRAINING]) + len(texts[HELD_OUT]) == len(PAIRS["movies"])
    assert all(not texts[TRAINING] & others for name, others in texts.items() if name != TRAINING)
    assert texts["tweets"] == texts[HELD_OUT]  # the tweets are all of the movies' texts, with other spaces
    assert len(found.base) == 12
    assert found.training.ratings.dtype == jnp.float64


PAIRS = {
    "movies": [(a, b) for a in "abcdefgh" for b in "abcdefgh"],
    "tweets": [(a, f" {b}") for a in "abcdefgh" for b in "abcdefgh"],
    "products": [("h", "zz")],
    "editorials": [("a", "zz")],
}


def test_paths_start_from_one_run(folder):
    data = stored(minilm_paths, folder)
    sweep = minilm_paths.as_sweep(data)
    assert np.array_equal(sweep.by_alpha.sel(alpha=16.0), sweep.by_rate.sel(alpha=16.0))
    assert not np.array_equal(sweep.by_alpha.sel(alpha=64.0), sweep.by_rate.sel(alpha=64.0))


def test_ratio_of_the_paths_follows_the_rate_and_not_alpha(folder):
    """At the second step signal to drift is Θ(1/η): along η it falls with m, along α it does not (P4-update)."""
    data = stored(minilm_paths, folder)
    ratio = (data.signal / data.drift).isel(step=1).mean("seed")
    change = np.log(ratio.sel(alpha=16.0) / ratio.sel(alpha=4.0)) / np.log(4)
    assert abs(float(change.sel(path="α"))) < 0.15 < abs(float(change.sel(path="α")) + 1)
    assert abs(float(change.sel(path="η")) + 1) < 0.15
    assert minilm_paths.purer(QUICK[minilm_paths], data)[4.0].mean > 1


@pytest.fixture(scope="module")
def point():
    config = replace(minilm_layers.EXPERIMENT.quick, probes=200)
    return config, config.point(xr.Dataset(), 0, "initial", "float64")


@pytest.mark.parametrize("name", ["mlp", "indefinite"])
def test_block_of_a_layer_is_that_of_the_whole(name):
    """Non-square layers, B ≠ 0."""
    P, start = problem(name), 0
    whole = np.asarray(sd.decompose(P.loss, P.base, P.adapters, P.scaling).task.dense())
    for layer, W0 in sorted(P.base.items()):
        block = whole[start : start + W0.size, start : start + W0.size]
        found = minilm_layers.block(P.loss, P.base, P.adapters, P.s, layer).task.dense()
        assert np.allclose(found, block, rtol=0, atol=rounding(P.D, whole))
        start += W0.size


def test_tops_of_the_blocks_are_those_of_the_dense_matrices(folder):
    """Task, signal and drift of every layer, to the tolerance of the search; V2 with σ_A as set and as in A."""
    config, data = minilm_layers.EXPERIMENT.quick, stored(minilm_layers, folder)
    encoder, loss, theta = config.point(xr.Dataset(), 0, "initial", "float64")
    parts, s = sd.decompose(loss, encoder.base, theta, config.scaling(config.alpha)), config.scaling(config.alpha)
    views = sd.layer_views(parts, theta)
    for view in views:
        here = data.sel(layer=view.layer, state="initial", seed=0)
        for operator, tolerance in (("task", config.tolerance), ("signal", config.tolerance), ("drift", 1e-4)):
            wanted = getattr(view, operator)
            size = max(wanted.largest, -wanted.smallest)
            assert abs(float(here.top.sel(operator=operator)) - wanted.largest) <= tolerance * size
        assert float(here.alpha_v2.sel(sigma="set")) == pytest.approx(view.alpha_set, rel=1e-6)
        assert float(here.alpha_v2.sel(sigma="measured")) == pytest.approx(view.alpha_measured, rel=1e-5)
    assert s == 8.0


def test_samples_have_the_exact_traces_as_their_means(point):
    """By layer, H_ℓ dense: of 12 z-scores none exceeds 4.5 (chance 10⁻⁴); without the rank the largest does."""
    config, (encoder, loss, theta) = point
    s, task, start = config.scaling(config.alpha), sd.decompose(loss, encoder.base, theta, 1.0).task.dense(), 0
    samples = minilm_layers._samples(config, (encoder, loss, theta), 0)
    exact = []
    for layer, W0 in sorted(encoder.base.items()):
        trace = np.trace(task[start : start + W0.size, start : start + W0.size])
        exact.append(config.rank * s**2 * encoder.sigma_a()[layer] ** 2 * trace)
        start += W0.size
    error = samples.std(1, ddof=1) / np.sqrt(config.probes)
    assert np.max(np.abs(samples.mean(1) - exact) / error) < 4.5
    assert np.max(np.abs(samples.mean(1) - config.rank * np.array(exact)) / error) > 4.5


def test_trace_scores_refute_a_wrong_factor(point):
    """The largest z over layers and the whole, of the same samples as above; four times the law is noticed."""
    config, given = point
    samples = minilm_layers._samples(config, given, 0)
    data = xr.Dataset(
        {"trace": (("side", "probe", "layer"), samples)},
        {"side": ["measured", "predicted"], "layer": sorted(given[0].base)},
    ).expand_dims(state=["initial"], seed=[0])
    assert float(abs(minilm_layers.trace_scores(data)).max()) < 4.5
    assert float(abs(minilm_layers.trace_scores(data, 4.0)).max()) > 4.5


def test_ends_and_alpha_follow_the_dense_matrices(folder):
    """At B = 0, to the stated tolerance of the search; λmax[H_Signal] goes as α²."""
    config, data = minilm_curvature.EXPERIMENT.quick, stored(minilm_curvature, folder)
    encoder, loss, theta = config.point(xr.Dataset(), 0, "initial", "float64")
    start = data.sel(state="initial").isel(seed=0)
    for alpha in config.alphas:
        dense = sd.decompose(loss, encoder.base, theta, config.scaling(alpha))
        lora, signal = sd.eigenvalues(dense.lora), sd.eigenvalues(dense.signal)
        found = start.over_alpha.sel(alpha=alpha)
        assert np.allclose(found, lora[[0, -1]], rtol=0, atol=config.tolerance * np.max(np.abs(lora)))
        top = float(minilm_curvature.signal_top(config, data).sel(alpha=alpha)[0])
        assert top == pytest.approx(signal[-1], rel=config.tolerance)
    assert bool(np.isfinite(data.ends).all())
    for operator in ("task", "signal"):
        here = data.sel(state="initial", operator=operator)
        dense = sd.eigenvalues(getattr(sd.decompose(loss, encoder.base, theta, config.scaling(config.alpha)), operator))
        bound = minilm_curvature.lowest(here, "ends", "reach")
        assert bound.low <= dense[0] / dense[-1] <= bound.high + 1e-9


def judged(reading, folder):
    config = reading.experiment.quick
    return reading.findings(config, results(reading.experiment, config, folder))


def test_readings_judge_what_was_stored(folder):
    """Every reading finds its quantities; those that hold of any encoder are supported, and swapped ones refuted."""
    found = {
        (claim, reading.name): judged(reading, folder)
        for claim, readings in claims.READINGS.items()
        for reading in readings
    }
    assert all(found.values())
    assert verdict(found["F8d-asymmetry", "on MiniLM, alignment"]) == "supported"
    assert verdict(found["F8c-purification", "on MiniLM, without the sign"]) == "supported"
    assert verdict(found["P2-premise", "on MiniLM"]) == "refuted"
    config, data = minilm_curvature.EXPERIMENT.quick, stored(minilm_curvature, folder)
    wrong = data.assign(over_alpha=data.over_alpha * data.alpha)
    assert verdict(claims.aligned(config, wrong)) == "refuted"
    assert verdict(claims.ends_converge(config, wrong)) == "refuted"


def test_head_starts_from_what_the_encoder_knows(rates):
    """The ridge head is better than the mean rating on its own texts, and every set is judged."""
    assert list(rates.set.values) == list(SETS)
    encoder = Setting(**TINY).encoder("float64")
    first = jax.tree.map(lambda x: x[:40], encoder.training)
    loss = float(rating_error(encoder.forward, encoder.head, first)(encoder.base))
    assert loss < float(jnp.var(first.ratings))
    assert not np.array_equal(encoder.judged[HELD_OUT].ids[:20], encoder.training.ids[:20])


def test_both_states_start_from_the_same_adapters_and_weights():
    """In either precision: with no step worth the name, θ after training is θ before it."""
    config = minilm_curvature.EXPERIMENT.quick
    (first, _, before), (second, _, after) = (
        config.point(rates_of(1e-30), 0, state, "float64") for state in ("initial", "trained")
    )
    for one, other in zip(jax.tree.leaves((first.base, before)), jax.tree.leaves((second.base, after)), strict=True):
        assert one.dtype == other.dtype == jnp.float64
        assert np.allclose(one, other, rtol=0, atol=1e-20)


def rates_of(rate):
    """A sweep that knows one rate."""
    coords = {"seed": [0], "rate": [rate], "set": [TRAINING]}
    return xr.Dataset({"error": (("seed", "rate", "set"), np.ones((1, 1, 1)))}, coords)


def test_every_recipe_is_run(folder):
    data = stored(minilm_protocol, folder)
    assert set(data.recipe.values) == {*recipes(1, {}), FULL}
    assert np.all(np.isfinite(minilm_protocol.as_comparison(QUICK[minilm_protocol], data).log_loss))


def test_page_has_every_experiment_and_every_reading(folder, capsys):
    minilm.main(minilm.Options(quick=True, out=folder))
    page = (folder / "minilm.md").read_text(encoding="utf-8")
    assert page.startswith("**Tiny size")
    assert all(f"## {e.title}" in page and f"figures/{e.name}.png" in page for e in minilm.EXPERIMENTS)
    table = page.split("## What the ledger makes of it\n\n")[1]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [row[1] for row in rows] == [r.statement for readings in claims.READINGS.values() for r in readings]
    assert {row[2] for row in rows} <= {"supported", "refuted", "inconclusive"}
    assert table.strip() in capsys.readouterr().out
    assert len(minilm.reports(folder, quick=True)) == len(minilm.EXPERIMENTS)
    assert not minilm.reports(folder / "elsewhere", quick=True)
