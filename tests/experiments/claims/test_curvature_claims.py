"""Claims on curvature on synthetic results of which the truth is known: true laws are supported, false ones refuted.

Every control is a law two margins off. It is refuted where the statement is true, and no longer where one of the
quantities that it changes does not tell the two apart.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import xarray as xr

from experiments.claims.lora_alpha import compression, powers, premise, spectra, traces
from experiments.curvature import (
    asymmetric_scaling,
    at_scale,
    is_it_curvature,
    layers,
    purification,
    residual_curvature,
    suppression,
)
from experiments.ledger.claim import Claim
from experiments.ledger.verdict import Finding, Verdict, decide
from experiments.problems import PROBLEMS

AT_FIXED_WEIGHTS = [c for module in (traces, compression, premise, spectra, powers) for c in module.CLAIMS]
SEEDS = range(5)
MLP = PROBLEMS["mlp"]


def verdict(findings: Sequence[Finding]) -> Verdict:
    return decide(findings).verdict


def _powers(signal: float, drift: float, limit: float, noise: float) -> xr.Dataset:
    """Extremes with known exponents and log-normal noise over seeds and α."""
    alpha, rng = np.array(asymmetric_scaling.Config(MLP).alphas), np.random.default_rng(0)

    def law(exponent: float) -> tuple[tuple[str, ...], np.ndarray]:
        wiggle = np.exp(noise * rng.standard_normal((1, len(SEEDS), len(alpha))))
        return ("state", "seed", "alpha"), alpha**exponent * wiggle

    coords = {"alpha": alpha, "seed": SEEDS, "state": ["initial"]}
    data = xr.Dataset({"signal_max": law(signal), "drift_min": law(drift)}, coords)
    return data.assign(lora_max=limit * data.signal_max)


@pytest.mark.parametrize(
    ("truth", "wanted"),
    [
        ((2.0, 1.0, 1.0, 0.01), "supported"),
        ((1.8, 1.0, 1.0, 0.01), "refuted"),
        ((2.0, 1.2, 1.0, 0.01), "refuted"),
        ((2.0, 1.0, 1.2, 0.01), "refuted"),
        ((2.0, 1.0, 1.0, 2.0), "inconclusive"),
    ],
)
def test_asymmetry(truth: tuple[float, ...], wanted: str) -> None:
    assert verdict(powers.asymmetric(asymmetric_scaling.Config(MLP), _powers(*truth))) == wanted


@pytest.mark.parametrize(
    ("signal", "drift", "wanted"),
    [(2.0, 1.0, "refuted"), (1.8, 1.0, "supported"), (2.0, 1.2, "supported"), (1.8, 1.2, "supported")],
)
def test_control_of_the_asymmetry_falls_only_in_both_exponents(signal: float, drift: float, wanted: str) -> None:
    """The control says 1.8 and 1.2, each two margins off: where one of them is so, the other alone is not enough."""
    found = powers.asymmetric_control(asymmetric_scaling.Config(MLP), _powers(signal, drift, 1.0, 0.01))
    assert len(found) == 1
    assert verdict(found) == wanted


def test_an_eigenvalue_of_the_other_sign_has_no_power_of_alpha() -> None:
    config, data = asymmetric_scaling.Config(MLP), _powers(2.0, 1.0, 1.0, 0.01)
    assert powers.positive(config, data) == ""
    reason = powers.positive(config, data.assign(lora_max=-data.lora_max))
    assert reason.startswith("λmax[H_LoRA] is not known to be above 0")
    assert "λmax[H_Signal]" in powers.positive(config, data.assign(signal_max=data.signal_max * np.nan))


def _draws(config: suppression.Config, law: np.ndarray, bias: float, deviation: np.ndarray) -> xr.Dataset:
    """Normal draws around `bias` times the law, of the deviation that is stored beside them, at any α."""
    noise = np.random.default_rng(1).standard_normal((*law.shape, config.draws))
    draws, dims = bias * law[..., None] + deviation[..., None] * noise, ("seed", "rank")
    shrinks = _law(config)  # at α = √r/σ_A the trace is not shrunk
    return xr.Dataset(
        {
            "draws": ((*dims, "draw"), draws),
            "predicted": (dims, law),
            "deviation": (dims, deviation),
            "aligned": ((*dims, "draw"), draws / shrinks[..., None]),
            "aligned_deviation": (dims, deviation / shrinks),
            "task": (("seed", "task_index"), np.full((len(SEEDS), 2), 0.5)),
            "signal": (("seed", "theta_index"), np.tile([-1.0, 2.0, 3.0], (len(SEEDS), 1))),
            "closed_trace": ("seed", np.full(len(SEEDS), 4.0)),
        },
        {"rank": list(config.ranks)},
    )


def _law(config: suppression.Config) -> np.ndarray:
    """The trace of H_ℓ is 1, α²σ_A² is 50."""
    return np.tile(50 / np.array(config.ranks), (len(SEEDS), 1))


TRACES = [
    (traces.trace_law, traces.trace_law_control),
    (traces.traces_follow, traces.traces_follow_control),
    (traces.preserved, traces.preserved_control),
]


@pytest.mark.parametrize(("plain", "control"), TRACES)
@pytest.mark.parametrize(("bias", "wanted"), [(1.0, "supported"), (1.1, "refuted"), (0.9, "refuted")])
def test_traces(plain, control, bias: float, wanted: str) -> None:
    """The deviation of a draw is a tenth of the law: every rank has a ratio."""
    config = suppression.Config(MLP)
    law = _law(config)
    data = _draws(config, law, bias, 0.1 * law)
    names = [x.quantity for x in plain(config, data)]
    assert [name for name in names if ", r = " in name] == [f"{names[-1].split(',')[0]}, r = {r}" for r in config.ranks]
    assert verdict(plain(config, data)) == wanted
    assert len(control(config, data)) == 1
    if bias == 1.0:
        assert verdict(control(config, data)) == "refuted"


def test_control_of_the_trace_law_is_what_holds_at_a_tenth_more() -> None:
    config = suppression.Config(MLP)
    data = _draws(config, _law(config), 1.1, 0.1 * _law(config))
    assert verdict(traces.trace_law_control(config, data)) == "supported"
    assert verdict(traces.preserved_control(config, data)) == "supported"


@pytest.mark.parametrize("rank", [0, 3, 6])
def test_control_of_the_trace_law_falls_only_at_every_rank(rank: int) -> None:
    """The control is not refuted, and the law is, where one rank alone has the trace of the wrong law."""
    config = suppression.Config(MLP)
    law = _law(config)
    data = _draws(config, law * np.where(np.arange(len(config.ranks)) == rank, 1.1, 1.0), 1.0, 0.1 * law)
    data = data.assign(predicted=(("seed", "rank"), law))
    assert verdict(traces.trace_law(config, data)) == "refuted"
    assert verdict(traces.trace_law_control(config, data)) == "supported"


def test_a_flatter_law_of_the_rank_is_told_from_one_over_r() -> None:
    config = suppression.Config(MLP)
    law = _law(config)
    data = _draws(config, traces.flatter(config, law), 1.0, 0.1 * law).assign(predicted=(("seed", "rank"), law))
    found = traces.traces_follow(config, data)
    (exponent,) = (x for x in found if x.quantity.startswith("exponent"))
    assert exponent.estimate.value == pytest.approx(-0.8, abs=0.02)
    assert verdict([exponent]) == verdict(found) == "refuted"
    assert verdict(traces.traces_follow_control(config, data)) == "supported"


def test_the_formula_of_the_traces_is_held_against_the_matrix_itself() -> None:
    """One seed at which X2's formula is 10⁻⁹ off the sum of the eigenvalues refutes all claims that rest on it."""
    config = suppression.Config(MLP)
    data = _draws(config, _law(config), 1.0, 0.1 * _law(config))
    off = data.assign(closed_trace=data.closed_trace * (1 + 1e-9 * (np.arange(5) == 3)))
    for plain, _ in TRACES:
        assert verdict(plain(config, off)) == "refuted"
        assert verdict([plain(config, data)[0]]) == "supported"
        assert verdict(plain(config, data.assign(closed_trace=data.closed_trace * np.nan))) == "refuted"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trace_within_its_noise_is_not_testable(sign: float) -> None:
    """The law is 1% to 60% of a draw's deviation at 200 draws."""
    config = suppression.Config(MLP)
    data = _draws(config, sign * _law(config), 1.0, np.full_like(_law(config), 80.0))
    reason = traces.ON_DRAWS(config, data)
    assert reason.startswith("Tr H_ℓ is within its noise of 0 at r = 1, 2, 4")
    assert "cannot be held to 5%" in reason
    assert traces.ON_DRAWS(config, _draws(config, sign * _law(config), 1.0, 0.1 * _law(config))) == ""


def test_a_negative_trace_is_judged_like_any_other() -> None:
    config = suppression.Config(MLP)
    data = _draws(config, -_law(config), 1.0, 0.1 * _law(config))
    assert verdict(traces.trace_law(config, data)) == "supported"
    assert verdict(traces.trace_law_control(config, data)) == "refuted"


def test_a_seed_whose_trace_is_near_zero_weighs_little() -> None:
    """Raw ratios would be led by it: its trace is a thousandth of the others', its noise is theirs."""
    config = suppression.Config(MLP)
    law, factor = _law(config), np.array([1, 1, 1, 1, 1e-3])[:, None]
    data = _draws(config, law * factor, 1.0, 0.1 * law)
    assert verdict(traces.trace_law(config, data)[1:2]) == "supported"
    raw = (data.draws.mean("draw") / data.predicted).mean("seed")
    assert float(abs(raw - 1).max()) > 0.05


def test_one_seed_alone_decides_nothing() -> None:
    config = suppression.Config(MLP, seeds=1)
    data = _draws(config, _law(config), 1.0, 0.1 * _law(config)).isel(seed=[0])
    ranks = [x.quantity for x in traces.trace_law(config, data) if ", r = " in x.quantity]
    assert ranks == []


def _compressed(top: float, trace: float) -> xr.Dataset:
    """λmax and the trace of H_Signal at so many times their predictions."""
    task = np.tile([3.0, 1.0, -1.0], (len(SEEDS), 1)) * (1 + 0.01 * np.arange(5))[:, None]
    signal = task * np.array([top, 1.0, 1.0])
    signal[:, 1] += trace * task.sum(1) - signal.sum(1)
    return xr.Dataset(
        {
            "compressed": (("seed", "task_index"), task),
            "signal": (("seed", "theta_index"), signal),
            "own_deviation": ("seed", 0.3 * task.sum(1)),
        }
    )


@pytest.mark.parametrize(
    ("top", "trace", "wanted"), [(1.2, 1.02, "supported"), (4.0, 1.02, "refuted"), (1.2, 1.5, "refuted")]
)
def test_suppression(top: float, trace: float, wanted: str) -> None:
    """λmax in order of magnitude, the trace more tightly; the trace is asked only if away from 0."""
    config, data = suppression.Config(MLP), _compressed(top, trace)
    assert verdict(compression.suppressed(config, data)) == wanted
    noisy = data.assign(own_deviation=2 * data.own_deviation)
    assert [finding.quantity[:4] for finding in compression.suppressed(config, noisy)] == ["λmax"]


@pytest.mark.parametrize(
    ("top", "trace", "wanted"), [(1.2, 1.02, "refuted"), (10.0, 10.0, "supported"), (1.2, 10.0, "supported")]
)
def test_control_of_suppression_falls_only_in_both_ratios(top: float, trace: float, wanted: str) -> None:
    assert verdict(compression.suppressed_control(suppression.Config(MLP), _compressed(top, trace))) == wanted


def _samples(bias: float, noise: float) -> xr.Dataset:
    """Samples of both traces of two layers, of mean 2 and 3, the measured ones at `bias` times that."""
    rng, probes = np.random.default_rng(4), 400
    mean = np.array([2.0, 3.0]) * np.array([bias, 1.0])[:, None, None, None, None]
    trace = mean * (1 + noise * rng.standard_normal((2, 2, 1, probes, 2)))
    dims = ("side", "seed", "state", "probe", "layer")
    coords = {"side": ["measured", "predicted"], "seed": [0, 1], "state": ["initial"], "layer": ["a", "b"]}
    return xr.Dataset({"trace": (dims, trace)}, coords)


@pytest.mark.parametrize(("bias", "wanted"), [(1.0, "supported"), (1.1, "refuted"), (0.9, "refuted")])
def test_trace_law_by_layer(bias: float, wanted: str) -> None:
    config, data = layers.Config(MLP), _samples(bias, 0.05)
    found = traces.trace_law_by_layer(config, data)
    assert [x.quantity.rsplit(", ", 1)[1] for x in found] == ["a", "b", "all layers"]
    assert verdict(found) == wanted
    (control,) = traces.trace_law_by_layer_control(config, data)
    assert verdict([control]) == {1.0: "refuted", 1.1: "supported", 0.9: "refuted"}[bias]


def test_samples_that_scatter_too_much_are_not_testable() -> None:
    """At 800 samples of relative deviation 1 a ratio is known to 5%, which holds it to a magnitude and no more."""
    config, data = layers.Config(MLP), _samples(1.0, 1.0)
    assert traces.trace_law_by_layer(config, data) == []
    assert "cannot" not in traces.layers_stand_out(traces.COARSE, config, data)
    assert traces.layers_stand_out(traces.FRACTION, config, data).endswith("no ratio can be held to 5%")
    assert verdict(traces.trace_order_by_layer(config, data)) == "supported"


def _blocks(*ratios: float) -> tuple[layers.Config, xr.Dataset]:
    config = layers.Config(MLP)
    factor = config.problem.rank * config.problem.scaling(config.alpha) ** 2
    top = np.stack([np.ones(len(ratios)), factor * np.array(ratios)], 1)[None, None, :, :, None]
    coords = {"operator": ["task", "signal"], "field": ["largest"], "state": ["initial"], "seed": [0]}
    names = [f"layer {i}" for i in range(len(ratios))]
    data = xr.Dataset({"block": (("seed", "state", "layer", "operator", "field"), top)}, {**coords, "layer": names})
    return config, data.assign(sigma_a=(("seed", "state", "layer"), np.ones((1, 1, len(ratios)))))


@pytest.mark.parametrize(
    ("ratios", "plain", "control"),
    [
        ((1.0, 2.0, 0.5), "supported", "refuted"),
        ((1.0, 2.0, 9.0), "inconclusive", "supported"),
        ((9.0, 10.0, 11.0), "refuted", "supported"),
    ],
)
def test_suppression_by_layer(ratios: tuple[float, ...], plain: str, control: str) -> None:
    config, data = _blocks(*ratios)
    assert verdict(compression.suppressed_by_layer(config, data)) == plain
    assert verdict(compression.suppressed_by_layer_control(config, data)) == control
    assert compression.layers_certified(config, data) == ""


def test_a_layer_without_a_certificate_is_named() -> None:
    assert compression.layers_certified(*_blocks(1.0, np.nan)).endswith("in layer 1")


def _spectra(lowest: float, approach: float, absolute: float = 0.0) -> tuple[purification.Config, xr.Dataset]:
    """λ[H_LoRA] = λ[H_Signal] ∓ c·α^approach at both ends, all times α^absolute."""
    config, rng = purification.Config(MLP), np.random.default_rng(2)
    alpha = np.array(config.alphas)
    signal = np.tile(np.linspace(lowest, 1.0, 9), (len(SEEDS), len(alpha), 1))
    gap = (0.2 + 0.01 * rng.random((len(SEEDS), 1))) * alpha**approach
    scale = alpha[:, None] ** absolute
    lora = signal - gap[..., None] * np.linspace(1, -1, 9)
    dims = ("seed", "alpha", "theta_index")
    data = {"signal": (dims, signal * scale), "lora": (dims, lora * scale), "drift_max": (dims[:2], gap)}
    return config, xr.Dataset(data, {"alpha": alpha, "seed": SEEDS})


@pytest.mark.parametrize(
    ("lowest", "approach", "wanted"), [(-0.1, -1.0, "refuted"), (0.0, -1.0, "supported"), (0.0, 0.2, "refuted")]
)
def test_purification(lowest: float, approach: float, wanted: str) -> None:
    config, data = _spectra(lowest, approach)
    assert verdict(spectra.purified(config, data)) == wanted
    assert verdict(spectra.leaves(config, data)) == ("refuted" if approach < 0 else "supported")


def test_purification_is_relative_to_the_largest_eigenvalue() -> None:
    """The distance over λmax ∝ α² falls as 1/α, and so the distance itself grows as α."""
    config, data = _spectra(0.0, -1.0, 2.0)
    assert verdict(spectra.relative_distance(config, data)) == "supported"
    (found,) = spectra.absolute_distance(config, data)
    assert found.estimate.value == pytest.approx(1.0, abs=1e-9)
    assert verdict([found]) == "refuted"


def test_one_draw_that_is_definite_refutes_that_H_LoRA_is_indefinite() -> None:
    config, data = _spectra(-0.1, -1.0)
    assert verdict(spectra.indefinite(config, data)) == "supported"
    one = data.lora.copy()
    one[2, -1] = abs(one[2, -1])
    assert verdict(spectra.indefinite(config, data.assign(lora=one))) == "refuted"


def _counted(negative: Sequence[int], zero: float = 0.5, pairs: int = 6) -> tuple[purification.Config, xr.Dataset]:
    """Spectra of ten eigenvalues ±1, so many of them negative at each seed, and ±`zero`."""
    config = purification.Config(MLP, seeds=len(negative))
    lora = np.array([[-1.0] * n + [-zero, zero] + [1.0] * (10 - n) for n in negative])
    alphas = np.array(config.alphas)
    dims = ("seed", "alpha", "theta_index")
    data = xr.Dataset(
        {
            "lora": (dims, lora[:, None] * alphas[:, None]),
            "pairs": (dims[:2], np.full((len(negative), len(alphas)), pairs)),
        },
        {"alpha": alphas, "seed": range(len(negative))},
    )
    return config, data


@pytest.mark.parametrize(
    ("negative", "plain", "control"),
    [
        ((5, 5, 5), "supported", "refuted"),
        ((5, 4, 5), "refuted", "refuted"),
        ((5, 6, 5), "refuted", "refuted"),
    ],
)
def test_X13_counts_both_signs_at_every_draw(negative: tuple[int, ...], plain: str, control: str) -> None:
    """Five of one sign and one of the other are just enough where r·Σ rank G = 6; six and none are not."""
    config, data = _counted(negative)
    assert verdict(spectra.both_signs(config, data)) == plain
    assert verdict(spectra.both_signs_control(config, data)) == control


def test_X13_control_is_supported_where_there_is_one_more_of_each_sign() -> None:
    config, data = _counted((5, 5), pairs=5)
    assert verdict(spectra.both_signs_control(config, data)) == "supported"


def test_X13_leaves_open_what_rounding_blurs() -> None:
    assert verdict(spectra.both_signs(*_counted((5, 5), zero=1e-16, pairs=6))) == "inconclusive"
    assert verdict(spectra.both_signs(*_counted((5, 5), zero=1e-16, pairs=5))) == "supported"


def test_X13_needs_the_rank_of_every_gradient() -> None:
    """The MLP's gradients are of full rank, with more inputs than d: r·Σ_l rank G_l = 16·5·4 at d = 4."""
    small = MLP.resized(4)
    stored = purification.measure(purification.Config(small, seeds=1), 0, 1.0)
    assert int(stored.pairs) == small.rank * 5 * 4


def _blocks_of(signal: float, drift: float, lora: float) -> tuple[purification.Config, xr.Dataset]:
    """λmax of the three matrices at one draw and α; λmin[H_Signal] is 0."""
    config = purification.Config(MLP, seeds=1, alphas=(1.0,))
    dims = ("seed", "alpha", "theta_index")
    data = {"signal": (dims, [[[0.0, signal]]]), "lora": (dims, [[[-1.0, lora]]]), "drift_max": (dims[:2], [[drift]])}
    return config, xr.Dataset(data, {"alpha": [1.0], "seed": [0]})


@pytest.mark.parametrize(
    ("lora", "plain", "control"),
    [
        (0.99, "refuted", "supported"),
        (2.0, "supported", "supported"),
        (2.01, "supported", "refuted"),
        (2.99, "supported", "refuted"),
        (3.01, "refuted", "refuted"),
    ],
)
def test_X16_brackets_the_largest_eigenvalue(lora: float, plain: str, control: str) -> None:
    """s·σ₁ = 1 and λmax[H_Signal] = 2 leave 1 to 3; the control says 2."""
    config, data = _blocks_of(2.0, 1.0, lora)
    assert verdict(spectra.bracketed(config, data)) == plain
    assert verdict(spectra.not_added(config, data)) == control


@pytest.mark.parametrize(
    ("lora", "plain", "control"),
    [
        (0.5, "refuted", "refuted"),
        (1.5, "supported", "refuted"),
        (2.99, "supported", "refuted"),
        (4.6, "refuted", "supported"),
    ],
)
def test_X16_is_judged_by_searched_ends_as_well(lora: float, plain: str, control: str) -> None:
    """It takes the same numbers, with ½% that the searches leave open; the control asks for 4.5."""
    config = is_it_curvature.Config(MLP, seeds=1, alphas=(16.0,))
    ends = np.array([[0.0, 2.0], [-1.0, lora]])[:, :, None, None, None]
    dims = ("operator", "end", "start", "seed", "alpha")
    data = xr.Dataset(
        {"whole": (dims, ends), "whole_reach": (dims, 0.005 * np.abs(ends)), "whole_drift": (dims[2:], [[[1.0]]])},
        {"operator": ["signal", "lora"], "end": ["min", "max"], "start": ["LoRA"], "alpha": [16.0], "seed": [0]},
    )
    assert verdict(spectra.bracketed_by_search(config, data)) == plain
    assert verdict(spectra.larger_by_search(config, data)) == control


def _task(*ratios: float) -> tuple[purification.Config, xr.Dataset]:
    """Ends of H_ℓ, λmin at so many times λmax at each seed."""
    tops = 1.0 + np.arange(len(ratios))
    ends = np.stack([np.array(ratios) * tops, tops], 1)[:, None]
    dims = ("seed", "alpha", "end")
    data = {
        "task_extremes": (dims, ends),
        "task_residuals": (dims, 1e-13 + 0 * ends),
        "lora": ("theta_index", np.zeros(9)),
    }
    return purification.Config(MLP, seeds=len(ratios)), xr.Dataset(data)


@pytest.mark.parametrize(
    ("ratios", "plain", "control"),
    [
        ((0.0, 0.05, 0.0), "inconclusive", "refuted"),
        ((0.05, 0.05, 0.05), "supported", "refuted"),
        ((0.05, -0.001, 0.05), "refuted", "refuted"),
        ((-0.3, -0.3, 0.2), "refuted", "supported"),
    ],
)
def test_premise_falls_by_one_draw_and_its_control_has_to_fall_at_every_one(
    ratios: tuple[float, ...], plain: str, control: str
) -> None:
    """A λmin of 0 that is known to 10⁻¹³ only is not known to be above −n·ε = −2·10⁻¹⁵."""
    config, data = _task(*ratios)
    assert verdict(premise.premise(config, data)) == plain
    assert verdict(premise.premise_control(config, data)) == control


def test_a_search_without_a_certificate_is_said_and_not_judged() -> None:
    config, data = _task(0.1, np.nan, np.nan)
    assert premise.task_ends(*_task(0.1, 0.2)) == ""
    assert premise.task_ends(config, data) == "the search for the ends of H_ℓ ended without a certificate at 2 draws"


@pytest.mark.parametrize(
    ("ratios", "wanted"), [((0.0, -2e-16), "supported"), ((0.0, -1e-5), "refuted"), ((0.0, -1.5e-6), "inconclusive")]
)
def test_gauss_newton_to_the_tolerance_of_the_search(ratios: tuple[float, ...], wanted: str) -> None:
    """A λmin that was found is an upper bound and may be 10⁻⁶ too high."""
    ends = np.stack([np.array(ratios), np.ones(len(ratios))], 1)[:, None]
    coords = {"end": ["min", "max"], "state": ["initial"]}
    data = xr.Dataset({"G": (("seed", "state", "end"), ends)}, coords)
    config = residual_curvature.Config(MLP)
    assert verdict(premise.definite(config, data, ("G",), "initial")) == wanted
    assert premise.ends_named(("G",), "initial", config, data) == ""
    assert "ends of G ended" in premise.ends_named(("G",), "initial", config, data * np.nan)


def _ends(lowest: Sequence[float], near: float, error: float = 0.0) -> tuple[at_scale.Config, xr.Dataset]:
    """Ends at scale: λmin/λmax of H_ℓ and H_Signal at each seed, and how near H_LoRA's come at the last α."""
    config = at_scale.Config(MLP, seeds=len(lowest))
    alpha = np.array(config.alphas)
    low, one = np.array(lowest)[:, None], np.ones((len(lowest), 1))
    gap = 0.5 * alpha ** (np.log(near / 0.5) / np.log(alpha[-1] / alpha[0]))
    ends = {
        "task": (low + 0 * alpha, one + 0 * alpha),
        "signal": (low * alpha**2, one * alpha**2),
        "drift": (-one * alpha, one * alpha),
        "lora": ((low - gap) * alpha**2, (one + gap) * alpha**2),
    }
    values = np.array([[np.array(x), np.array(x)] for x in ends.values()])  # operator, state, end, seed, alpha
    dims = ("operator", "state", "end", "seed", "alpha")
    coords = {"operator": list(ends), "state": ["initial", "trained"], "end": ["min", "max"], "alpha": alpha}
    data = xr.Dataset({"ends": (dims, values), "reach": (dims, error * abs(values))}, coords)
    return config, data.assign_coords(seed=range(len(lowest)))


def test_ends_of_a_problem_without_matrices() -> None:
    config, data = _ends((0.0, 0.0), 0.01)
    assert verdict(premise.premise_by_ends(config, data)) == "supported"
    assert verdict(premise.premise_by_ends_control(config, data)) == "refuted"
    assert verdict(spectra.ends_purified(config, data)) == "supported"
    assert verdict(spectra.ends_leave(config, data)) == "refuted"
    assert verdict(powers.ends_asymmetric(config, data)) == "supported"
    assert verdict(powers.ends_asymmetric_control(config, data)) == "refuted"


def test_one_draw_decides_at_scale() -> None:
    config, data = _ends((0.2, -0.001), 0.01)
    assert verdict(premise.premise_by_ends(config, data)) == "refuted"
    assert verdict(premise.premise_by_ends_control(config, data)) == "supported"
    assert verdict(spectra.ends_purified(config, data)) == "refuted"


def test_ends_that_move_away() -> None:
    config, data = _ends((0.0, 0.0), 0.7)
    assert verdict(spectra.ends_converge(config, data)) == "refuted"
    assert verdict(spectra.ends_leave(config, data)) == "supported"


def test_a_loose_certificate_decides_nothing() -> None:
    config, data = _ends((-0.1, -0.1), 0.4, error=0.5)
    assert verdict(spectra.ends_converge(config, data)) == "inconclusive"
    assert verdict(powers.ends_asymmetric(config, data)) == "inconclusive"


def test_an_end_without_a_certificate_is_named_with_its_state() -> None:
    config, data = _ends((0.0, 0.0), 0.01)
    assert premise.TASK_ENDS(config, data) == spectra.SIGNAL_ENDS(config, data) == ""
    trained = data.ends.where((data.state == "initial") | (data.operator != "task"))
    assert premise.TASK_ENDS(config, data.assign(ends=trained)) == (
        "the search for the ends of H_ℓ, trained, ended without a certificate at 2 draws"
    )
    assert spectra.SIGNAL_ENDS(config, data.assign(ends=trained)) == ""


@pytest.mark.parametrize(
    "claim",
    AT_FIXED_WEIGHTS,
    ids=lambda claim: claim.id,
)
def test_a_problem_without_matrices_is_decided_by_its_own_evidence(claim: Claim) -> None:
    """P3, F8a, F8c, F8d and the premise of P2 are; the others need the matrices."""

    def decided_by(problem: str) -> str | None:
        experiments = [evidence.plain.experiment for evidence in claim.evidence]
        return next((x.name for x in experiments if not x.refuses(PROBLEMS[problem])), None)

    wanted = {"P3-trace": "layers", "F8a-suppression": "layers"}
    wanted |= {"X16": "is_it_curvature"} | dict.fromkeys(("K1-alignment", "F8b-trace-by-rank", "X13"))
    assert decided_by("minilm") == wanted.get(claim.id, "spectra_at_scale")
    assert decided_by("mlp") == decided_by("transformer") == claim.evidence[0].plain.experiment.name


@pytest.mark.parametrize(
    "claim",
    AT_FIXED_WEIGHTS,
    ids=lambda claim: claim.id,
)
def test_every_claim_says_what_it_is(claim: Claim) -> None:
    assert claim.group == "fixed weights"
    assert claim.formula
    assert claim.measurement
    readings = [*(x.plain for x in claim.evidence), *claim.readings]
    assert claim.figure in {name for reading in readings for name in reading.experiment.captions}


def test_claims_on_the_same_draws_say_so() -> None:
    shared = [claim.id for claim in traces.CLAIMS if claim.measurement == traces.SHARED]
    assert shared == ["P3-trace", "K1-alignment", "F8b-trace-by-rank"]
    for claim in traces.CLAIMS:
        assert ("X2" in claim.statement) == (claim.id in shared)
