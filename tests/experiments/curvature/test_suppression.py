"""The trace law on a model whose layers differ in σ_A and whose H_ℓ is indefinite, and where a ratio to it is used."""

import jax.numpy as jnp
import numpy as np
import pytest

import signal_drift as sd
from experiments.claims.lora_alpha import traces as claims
from experiments.curvature import suppression
from signal_drift.propositions import closed_forms


@pytest.fixture(scope="module")
def transformer(tiny):
    return tiny(suppression.EXPERIMENT, "transformer")


def test_trace_follows_the_law_and_refutes_it_without_the_rank(transformer):
    """None of six z-scores exceeds 4 (chance 4·10⁻⁴); without 1/r those at r = 8 are many standard errors off."""
    _, data = transformer
    here = suppression.traces(data)
    assert abs(here.scores.mean()) < 4 / 6**0.5
    assert np.max(np.abs(here.scores)) < 4
    wrong = here._replace(stated=here.stated * data["rank"].values)
    assert np.min(np.abs(wrong.scores[:, -1])) > 4


def test_layers_count_with_their_own_deviation_of_A(transformer):
    """The compressed spectrum has the trace that P3 states at the problem's own rank, and is no multiple of H_ℓ's."""
    config, data = transformer
    assert len(set(config.problem.sigma_a().values())) == 2
    own = data.sel(rank=config.problem.rank)
    assert np.allclose(data.compressed.sum("task_index"), own.predicted, rtol=1e-9)
    ratio = (data.compressed / data.task).isel(task_index=[0, -1]).values
    assert np.max(np.abs(ratio[:, 0] / ratio[:, 1] - 1)) > 0.01


def test_with_one_deviation_the_law_is_one_factor(tiny):
    """α²σ_A²/r times H_ℓ and its trace, as the paper writes it."""
    config, data = tiny(suppression.EXPERIMENT, "mlp")
    sigma = next(iter(config.problem.sigma_a().values()))
    for r in config.ranks:
        wanted = config.alpha**2 * sigma**2 / r * data.task.sum("task_index")
        assert np.allclose(data.predicted.sel(rank=r), wanted, rtol=1e-12)
    factor = closed_forms.suppression(config.problem.rank, config.problem.scaling(config.alpha), sigma)
    assert np.allclose(data.compressed, factor * data.task, rtol=0, atol=1e-12 * float(abs(data.task).max()))
    scale = np.array([sd.alpha_base(r, sigma) / config.alpha for r in config.ranks]) ** 2
    assert np.allclose(data.aligned, data.draws * scale[:, None], rtol=1e-12)
    assert np.allclose(data.aligned_deviation, data.deviation * scale, rtol=1e-12)


def test_where_no_ratio_can_decide_the_reason_is_said(transformer):
    """A law near 0 leaves none; the same draws about one that stands out leave that of all ranks and of each."""
    config, data = transformer
    assert "cannot be held" in claims.stands_out(suppression.traces, config, data.assign(predicted=0 * data.predicted))
    far = data.assign(deviation=data.deviation * 0 + 1e-9, predicted=data.predicted * 0 + 1.0)
    assert claims.stands_out(suppression.traces, config, far) == ""
    assert len(claims.trace_law(config, far)) == 2 + len(config.ranks)


@pytest.mark.parametrize("shrinks", [{"a": 0.3, "b": 0.3}, {"a": 0.3, "b": 0.7}])
def test_compressed_spectrum_is_that_of_the_scaled_matrix(shrinks):
    """NumPy of √c H √c, c of each weight, to n·ε·‖H‖: with one factor, and with one a layer."""
    base = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 2))}
    H = np.random.default_rng(0).standard_normal((10, 10))
    H = H + H.T
    root = np.sqrt(np.repeat([shrinks["a"], shrinks["b"]], [6, 4]))
    wanted = np.linalg.eigvalsh(root[:, None] * H * root)
    found = suppression._compressed(H, np.linalg.eigvalsh(H), base, shrinks)
    assert np.allclose(found, wanted, rtol=0, atol=10 * np.finfo(float).eps * np.max(np.abs(H)) * 10)
