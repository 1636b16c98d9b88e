"""The benchmark: every way computes the same numbers, a floor is one, and what ends a way is told.

Speed is reported, never asserted.
"""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import xarray as xr

from experiments.benchmark import experiment as benchmark
from experiments.benchmark import floors as benchmark_floors
from experiments.benchmark import process as processes
from experiments.benchmark import timing as benchmark_timing
from experiments.benchmark.config import ANSWERS, Config
from experiments.benchmark.report import AIMS, KERNEL, LABEL, difference, exponent, report
from experiments.benchmark.ways import cases as benchmark_cases
from experiments.benchmark.worker import find
from experiments.lab.runner import combined, labelled
from experiments.problems import PROBLEMS
from signal_drift.hessians.factored import composed_loss
from signal_drift.operators import linearised as linear

PAPER, QUICK = (benchmark.EXPERIMENT.at(PROBLEMS["mlp"], quick) for quick in (False, True))
CONFIG = QUICK.at(8)
SAME = {(kernel, way) for kernel, ways in benchmark.WAYS.items() for way in ways if way not in {"ours", "curvlinops-1"}}
STOCHASTIC = {"trace"}


def _sized(width: int, rank: int) -> Config:
    return replace(PAPER, problem=replace(PAPER.problem, width=width, rank=rank))


def answer(kernel: str, way: str, config: Config = CONFIG) -> np.ndarray:
    try:
        result = find(kernel, way)(config)()
    except ImportError as missing:
        pytest.skip(f"needs the extra peers: {missing.name}")
    result = result["answer"] if isinstance(result, dict) else result
    return result.numpy(force=True) if hasattr(result, "numpy") else np.asarray(result)


@pytest.mark.filterwarnings("ignore")  # of the other tools
@pytest.mark.parametrize(("kernel", "way"), sorted(x for x in SAME if x[0] not in STOCHASTIC))
def test_every_way_computes_the_same(kernel: str, way: str) -> None:
    """To rounding; extremes to their tolerance of 1e-8·‖H‖, float32 trajectories to its rounding in every step."""
    ours, other = answer(kernel, "ours"), answer(kernel, way)
    eps = np.finfo(np.float64).eps
    bound = {"extremes": 2 * CONFIG.tolerance, "trajectories": 4 * CONFIG.steps * float(np.finfo(np.float32).eps)}
    assert ours.shape == other.shape
    assert np.abs(ours - other).max() <= bound.get(kernel, 10 * ours.size * eps) * np.abs(ours).max()


@pytest.mark.filterwarnings("ignore")  # of the other tools
@pytest.mark.parametrize(
    ("kernel", "way"),
    sorted(x for x in SAME if x[0] in {"gradient", "product", "trajectories"} or x == ("dense", "hand")),
)
def test_layers_are_passed_in_their_order(kernel: str, way: str) -> None:
    """Twelve layers sort otherwise by name: layers.10 and layers.11 would come before layers.2."""
    deep = replace(CONFIG, problem=replace(CONFIG.problem, depth=12))
    ours, other = answer(kernel, "ours", deep), answer(kernel, way, deep)
    eps = np.finfo(np.float32 if kernel == "trajectories" else np.float64).eps
    assert np.abs(ours - other).max() <= 100 * deep.problem.depth * eps * np.abs(ours).max()


@pytest.mark.parametrize(("width", "rank"), [(256, 16), (32, 16)])
def test_floor_of_the_gradient_is_just_below_what_the_compiler_counts(width: int, rank: int) -> None:
    """It counts the elementwise operations as well, a few per cent; the rank decides whether to merge."""
    config = _sized(width, rank)
    counted = benchmark_cases._gradient.lower(composed_loss, benchmark_cases.point(config)).compile().cost_analysis()
    assert counted is not None
    assert 1 <= counted["flops"] / benchmark_floors.flops("gradient", config, 1) < 1.1


@pytest.mark.parametrize(("width", "rank"), [(256, 16), (32, 16)])
def test_floor_of_a_product_is_just_below_what_the_compiler_counts(width: int, rank: int) -> None:
    config = _sized(width, rank)
    parts, v = benchmark_cases._decomposition(config)
    _ = parts.lora @ v
    counted = linear._applied.lower(vars(parts.lora)["_linear"], v).compile().cost_analysis()
    assert counted is not None
    assert 1 <= counted["flops"] / benchmark_floors.flops("product", config, 1) < 1.1


def test_operations_through_merged_weights_are_just_below_what_the_compiler_counts() -> None:
    """At a width where they are not the fewer, so that no floor has them."""
    config = _sized(256, 16)
    at, flops = benchmark_cases.point(config), benchmark_floors.product_flops(config)
    linear = jax.jit(benchmark_cases._merged_map)(at)
    counted = jax.jit(lambda linear, v: linear(v)).lower(linear, at.direction).compile().cost_analysis()
    assert counted is not None
    assert flops["factored"] < flops["merged"] <= counted["flops"] < 1.1 * flops["merged"]


@pytest.mark.parametrize(("seconds", "calls"), [(1e-3, 100), (0.0625, 16), (1.0, 5), (4.0, 3), (20.0, 1)])
def test_brief_calls_are_repeated_more_and_long_ones_less(
    seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five are asked for, a second is wanted in all and ten are enough."""
    made: list[int] = []
    monkeypatch.setattr(benchmark_timing, "timed", lambda call: (made.append(1) or seconds, None))
    assert benchmark_timing.median(lambda: None, 5) == seconds
    assert len(made) == calls


@pytest.mark.parametrize("kernel", ["extremes", "trace"])
def test_floors_of_iterations_are_a_gradient_and_their_products(kernel: str) -> None:
    gradient, product = (benchmark_floors.flops(name, CONFIG, 1) for name in ("gradient", "product"))
    assert benchmark_floors.flops(kernel, CONFIG, 7) == gradient + 7 * product


def test_floor_is_the_longer_of_arithmetic_and_memory() -> None:
    slow_memory = {"float64": 1e30, "float32": 1e30, "bytes": 1.0}
    slow_arithmetic = {"float64": 1.0, "float32": 1.0, "bytes": 1e30}
    for kernel in (kernel for kernel in KERNEL if kernel != "pipeline"):
        moved, done = benchmark_floors.moved_bytes(kernel, CONFIG, 3), benchmark_floors.flops(kernel, CONFIG, 3)
        assert benchmark_floors.floor_seconds(kernel, CONFIG, 3, slow_memory) == moved
        assert benchmark_floors.floor_seconds(kernel, CONFIG, 3, slow_arithmetic) == done


def test_no_time_is_measured_under_the_allocator_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads wait for it. Where the time was not measured the memory is not asked for."""
    asked = []

    def watched(command: list[str], environment: dict[str, str], _: Config) -> tuple[str, str]:
        asked.append(("MALLOC_ARENA_MAX" in environment, "16: Config" in command[-1]))
        found = {"memory": 5.0} if asked[-1][0] else {"seconds": 1.0}
        return json.dumps({"size": 8, **found}), "over 16 GB"

    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setattr(processes, "_watched", watched)
    found = processes.process({8: CONFIG, 16: CONFIG}, "gradient", "ours")
    assert found == {8: {"seconds": 1.0, "memory": 5.0}, 16: {"reason": "over 16 GB"}}
    assert asked == [(False, True), (True, False)]


def test_a_fresh_process_measures_every_width() -> None:
    data = benchmark.measure(QUICK, "product", "ours")
    assert data.width.values.tolist() == list(QUICK.widths)
    assert (data.reason == "").all()
    assert (data.seconds > 0).all()
    assert data.memory.notnull().all()
    assert (data["first"] > data.seconds).all()
    assert data.result.values.tolist() == [8 * 2 * 3 * d * min(3, d // 2) for d in QUICK.widths]  # p numbers of 8 bytes
    ours = benchmark_cases.product_ours(CONFIG)()
    np.testing.assert_allclose(data.answer.sel(width=8)[[0, -1]], np.asarray(ours)[[0, -1]], rtol=1e-12)


@pytest.mark.parametrize(("limit", "reason"), [({"seconds": 0.2}, "over 0.2 s"), ({"gigabytes": 0.01}, "over 0.01 GB")])
def test_a_way_that_exceeds_its_limits_is_ended_and_says_so(limit: dict[str, float], reason: str) -> None:
    data = benchmark.measure(replace(QUICK, **limit), "gradient", "ours")
    assert data.reason.values.tolist() == [reason] * len(QUICK.widths)
    assert np.isnan(data.seconds).all()


def test_a_matrix_that_does_not_fit_ends_the_way_with_the_reason() -> None:
    data = benchmark.measure(replace(QUICK, widths=(8, 2048)), "dense", "ours")
    assert data.reason.values[0] == ""
    assert data.reason.values[1].startswith("no room: op: as a dense matrix")


def test_every_point_has_all_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is so in the paper's configuration, in which one kernel is asked for at one width in the middle."""
    config = PAPER
    monkeypatch.setattr(processes, "process", lambda *_: {32: {"seconds": 1.0}, 64: {"reason": "too large"}})
    measured = [labelled(benchmark.measure(config, **p), p) for p in benchmark.points(config)]
    data = combined(measured)
    assert data.width.values.tolist() == list(config.widths)
    assert data.sel(kernel="dense", way="ours").reason.values.tolist() == ["", "", "", *["too large"] * 3]
    assert data.sel(kernel="pipeline", way="ours").seconds.notnull().values.tolist() == [w == 32 for w in config.widths]


def invented(slope: dict[str, float]) -> xr.Dataset:
    """Every way takes d^slope seconds, ours half of that, and gets as far as d = 128 but for the dense kernels."""
    config, points = PAPER, []
    for kernel, ways in benchmark.WAYS.items():
        for way in ways:
            found = {
                width: {"first": 9.0, "seconds": float(width) ** slope.get(kernel, 1.0) / (2 if way == "ours" else 1)}
                | {"memory": 1e6 * (1 if way == "ours" else 2), "answer": [1.0] * ANSWERS}
                | {"float64": 1e11, "float32": 2e11, "bytes": 1e10}
                for width in (8, 16, 32, 256)
            }
            rows = [{**processes.EMPTY, **found.get(width, {"reason": "too large"})} for width in config.widths]
            names = {n: (("width", "entry") if n == "answer" else "width", [row[n] for row in rows]) for n in rows[0]}
            points.append(
                xr.Dataset(names, coords={"width": list(config.widths)}).expand_dims(kernel=[kernel], way=[way])
            )
    combined = xr.combine_by_coords(points, join="outer")
    assert isinstance(combined, xr.Dataset)
    return combined


def test_report_has_each_aim_and_way_and_the_true_exponents() -> None:
    data = invented({"gradient": 2.0, "extremes": 2.5})
    assert exponent(data.seconds.sel(kernel="gradient", way="ours")) == pytest.approx(2.0)
    assert difference(data, "dense", "torch", 32) == 0
    told = report(PAPER, data)
    ways = sum(len(ways) for ways in benchmark.WAYS.values())
    assert len(told.rows) == len(AIMS) + 1 + ways
    assert told.rows[len(AIMS)].measured == "+0.50"
    merged = next(row for row in told.rows if row.quantity.endswith(f"ratio to {LABEL['merged']}"))
    assert (merged.predicted, merged.measured) == ("at most 0.4", "0.5")
    assert any("none at d = 64: too large" in sentence for sentence in told.sentences)
    assert jax.tree.leaves(told.figures)


def test_report_of_memory_that_was_not_measured_says_so() -> None:
    data = invented({})
    data["memory"] = data.memory.where((data.kernel != "extremes") | (data.way != "ours"))
    told = [row for row in report(PAPER, data).rows if row.quantity.startswith("extremes of H_LoRA, ")]
    aim, ours = (next(row for row in told if words in row.quantity) for words in ("peak memory", LABEL["ours"]))
    assert (aim.measured, aim.interval) == ("–", "one of them was not measured")
    assert ours.interval.startswith("memory not measured")


def test_report_of_a_tool_that_is_not_installed_says_so() -> None:
    data = invented({})
    data["seconds"] = data.seconds.where(data.way != "peft")
    row = next(r for r in report(PAPER, data).rows if "PEFT" in r.quantity)
    assert row.measured == "–"
