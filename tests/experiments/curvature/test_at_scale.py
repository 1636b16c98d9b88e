"""Both ends by search against dense matrices, and what follows from them and from what the searches leave open."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import signal_drift as sd
from experiments.analysis.ends import OPERATORS, STATES
from experiments.claims.lora_alpha import powers, premise, spectra
from experiments.curvature import at_scale
from experiments.curvature.states import adapters_at
from experiments.ledger.verdict import decide
from experiments.problems import PROBLEMS
from experiments.problems.mlp import MLP


@pytest.fixture(scope="module", params=["mlp", pytest.param("minilm", marks=pytest.mark.slow)])
def searched(tiny, request):
    return tiny(at_scale.EXPERIMENT, request.param)


@pytest.mark.parametrize("state", STATES)
def test_ends_are_those_of_the_dense_matrices(searched, state):
    """The ends of all four operators agree to the tolerance of the search, at B = 0 and after training."""
    config, data = searched
    problem, drawn = config.problem, config.problem.draw(0)
    theta = adapters_at(state, problem, 0, config.alpha, config.learning_rate, config.steps)
    for alpha in config.alphas if state == "initial" else (config.alpha,):
        parts = sd.decompose(drawn.loss, drawn.base, theta, problem.scaling(alpha))
        for operator in OPERATORS:
            dense = sd.eigenvalues(getattr(parts, operator))
            here = data.isel(seed=0).sel(operator=operator, alpha=alpha, state=state)
            size = np.max(np.abs(dense))
            assert np.allclose(here.ends, dense[[0, -1]], rtol=0, atol=config.tolerance * size)
            assert np.all(np.abs(here.ends - dense[[0, -1]]) <= here.reach + 1e-12 * size)
            bound = at_scale.lowest(data, operator, alpha, state)
            assert bound.low - 1e-12 <= dense[0] / dense[-1] <= bound.high + 1e-12


def test_after_training_there_is_one_alpha(searched):
    config, data = searched
    measured = data.ends.sel(state="trained").notnull().all(["operator", "end", "seed"])
    assert [float(alpha) for alpha in data.alpha[measured]] == [config.alpha]
    assert bool(data.ends.sel(state="initial").notnull().all())


def _wide(values: dict[str, list[float]], reach: float) -> xr.Dataset:
    """One seed, ends of H_Signal and H_LoRA over α = 1, 16 at B = 0, each found to `reach`."""
    ends = np.array([values["signal"], values["lora"]], float).reshape(2, 2, 2)
    dims = ("operator", "alpha", "end")
    coords = {"operator": ["signal", "lora"], "alpha": [1.0, 16.0], "end": ["min", "max"]}
    data = xr.Dataset({"ends": (dims, ends), "reach": (dims, np.full_like(ends, reach))}, coords)
    return data.expand_dims(seed=[0], state=["initial"])


def test_intervals_hold_what_the_searches_leave_open():
    """The quotients are those by hand: λmin in [−1.1, −1] and λmax in [2, 2.1]; |4 − 2| over 2, ± the two reaches."""
    data = _wide({"signal": [-1, 2, -1, 2], "lora": [-1, 4, -1, 2]}, 0.1)
    assert at_scale.lowest(data, "signal", 1.0) == pytest.approx((-0.5, -0.55, -1 / 2.1))
    assert at_scale.end_distance(data, "max", 1.0) == pytest.approx((1.0, 0.9, 1.1))
    fit = at_scale.exponent(_wide({"signal": [0, 2, 0, 512], "lora": [0, 2, 0, 512]}, 1.0), "signal", "max")
    assert fit == pytest.approx((2.0, np.log(512 / 3) / np.log(16), np.log(513 / 2) / np.log(16)))


def test_without_a_certificate_nothing_is_decided():
    data = _wide({"signal": [-1, 2, -1, 2], "lora": [-1, 4, -1, np.nan]}, 0.1)
    assert np.isnan(at_scale.end_distance(data, "max", 16.0)).all()
    assert np.isnan(at_scale.lowest(data, "lora", 16.0)).all()


def test_negative_share_weighs_squares():
    """Nodes −1 and 2 at equal weights: 1/5."""
    nodes = xr.DataArray([[[-1.0, 2.0]]], dims=("probe", "operator", "node"), coords={"operator": ["task"]})
    data = xr.Dataset({"nodes": nodes, "weights": 0 * nodes + 0.5}).expand_dims(state=["initial"], seed=[0])
    assert at_scale.negative_square_share(data, "initial") == pytest.approx((0.2, 0.2, 0.2))


def test_claims_judge_what_was_stored(searched):
    """Those that hold of any network are supported, the controls refuted, and so are ends that were moved."""
    config, data = searched

    def judged(claim, data: xr.Dataset = data) -> str:
        return decide(claim(config, data)).verdict

    assert [judged(x) for x in (powers.ends_asymmetric, spectra.ends_converge)] == ["supported"] * 2
    assert [judged(x) for x in (powers.ends_asymmetric_control, spectra.ends_leave)] == ["refuted"] * 2
    assert [judged(x) for x in (premise.premise_by_ends, spectra.ends_purified)] == ["refuted"] * 2
    assert judged(premise.premise_by_ends_control) == "refuted"
    moved = data.assign(ends=data.ends * xr.where(data.operator == "lora", data.alpha, 1.0))
    assert [judged(x, moved) for x in (powers.ends_asymmetric, spectra.ends_converge)] == ["refuted"] * 2


@pytest.mark.parametrize("name", ["minilm", "mlp"])
def test_both_states_start_from_the_same_adapters(name):
    """Training by no step worth the name leaves θ where it was."""
    problem = PROBLEMS[name].tiny()
    before, after = (adapters_at(state, problem, 0, 16.0, 1e-30, 3) for state in STATES)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert one.dtype == other.dtype == jnp.float64
        assert np.allclose(one, other, rtol=0, atol=1e-20)


def test_sizes_are_the_papers_and_looser_for_the_pretrained_encoder():
    mlp, encoder = (at_scale.EXPERIMENT.at(PROBLEMS[name]) for name in ("mlp", "minilm"))
    assert mlp.problem == MLP(width=256)
    assert (mlp.seeds, mlp.tolerance) == (2, 1e-6)
    assert (encoder.alphas, encoder.tolerance, encoder.seeds) == ((1.0, 16.0, 256.0), 1e-2, 1)


def test_density_of_the_signal_is_without_its_known_zeros():
    """Nodes 0 and 1 of weight ½, half of H_Signal exactly 0: ½ of a Gaussian at 1 is left, and of H_ℓ nothing goes."""
    dims, coords = ("operator", "probe", "node"), {"operator": ["task", "signal"]}
    nodes = np.tile([0.0, 1.0], (2, 3, 1))
    sampled = xr.Dataset({"nodes": (dims, nodes), "weights": (dims, 0 * nodes + 0.5)}, coords)
    data = sampled.expand_dims(state=["initial"], seed=[0]).assign(
        weights_of_A=(("state", "seed"), [[5]]), weights_of_theta=(("state", "seed"), [[10]])
    )
    peak = 1 / (0.01 * np.sqrt(2 * np.pi))
    density, error = at_scale.smoothed(data, "signal", np.array([0.0, 1.0]), 0.01)
    assert np.allclose(density, [0, peak / 2], rtol=0, atol=1e-12 * peak)
    assert np.allclose(error, 0, rtol=0, atol=1e-12 * peak)
    whole, _ = at_scale.smoothed(data, "task", np.array([0.0, 1.0]), 0.01)
    assert np.allclose(whole, peak / 2, rtol=0, atol=1e-12 * peak)
