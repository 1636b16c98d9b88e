"""The check of an accelerator: what it compares and must notice, and that docs say what its published record says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pages_of_docs import ROOT

from experiments.benchmark import on_device
from experiments.doors.gpu_check import check, record
from experiments.doors.gpu_check.figure import draw
from experiments.lab.errors import OptionError
from experiments.lab.runner import results
from experiments.problems import PROBLEMS
from signal_drift.errors import RoomError

TINY = on_device.EXPERIMENT.at(PROBLEMS["mlp"], quick=True)
PUBLISHED = json.loads((ROOT / "docs" / "gpu_check.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return results(on_device.EXPERIMENT, TINY, tmp_path_factory.mktemp("on_device"))


def exceeding(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(x["kernel"], x["dtype"]) for x in found if x["way"] == "ours" and not x["error"] <= x["bound"]}


def test_every_kernel_on_this_device_is_within_its_bound_and_float32_is_seen(measured: xr.Dataset) -> None:
    found = record.agreement(TINY, measured, measured, None)
    assert exceeding(found) == set()
    single = {x["kernel"]: x["error"] for x in found if x["dtype"] == "float32" and x["kernel"] != "trajectories"}
    assert all(error > np.finfo(float).eps for error in single.values()), "float64 where float32 was asked for"
    assert {x["kernel"] for x in found} == {point["kernel"] for point in on_device.points(TINY)} - {
        "memory",
        "growth",
        "product",
    }


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("as TF32 rounds", lambda x: x * (1 + 2.0**-11 * np.where(np.arange(len(x)) % 2, 1, -1))),
        ("one part in a thousand", lambda x: 1.001 * x),
        ("neighbours swapped", lambda x: x.reshape(-1, 2)[:, ::-1].ravel()),
    ],
)
def test_numbers_a_little_off_exceed_every_bound(
    name: str, wrong: Callable[[np.ndarray], np.ndarray], measured: xr.Dataset
) -> None:
    off = measured.assign(answer=(measured.answer.dims, np.apply_along_axis(wrong, -1, measured.answer.values)))
    seen = exceeding(record.agreement(TINY, off, measured, None))
    asked = {(p["kernel"], p["dtype"]) for p in on_device.points(TINY) if p["way"] == "ours"}
    assert seen == asked - {("memory", "float32"), ("growth", "float32")}, name


def test_training_may_come_as_far_apart_in_float32_as_it_does_in_float64(measured: xr.Dataset) -> None:
    found = record.agreement(TINY, measured, measured, 1e-12)
    (bound,) = (x["bound"] for x in found if x["kernel"] == "trajectories")
    assert bound == pytest.approx(1e-12 * 2.0**29)


def test_what_does_not_fit_is_recorded_and_the_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RoomError("op: as a dense matrix (5120, 5120) it needs 0.2 GiB, but 0.1 GiB are available")

    monkeypatch.setattr(on_device, "_call", full)
    data = on_device.measure(TINY, "dense", "ours", "float64", 6)
    assert str(data.reason.item()).startswith("no room: op: as a dense matrix")
    assert np.isnan(data.answer).all()
    assert np.isnan(data.seconds)


def test_an_experiment_is_compared_in_units_of_the_largest_number_of_each_point() -> None:
    """Not in units of the largest of all points, beside which one of a small point could be wrong unseen."""
    values = np.array([[1.0, 2.0], [4e6, 8e6], [1.0, 9.0]])
    here = xr.Dataset({"top": (("seed", "i"), values[:2]), "name": ("seed", ["a", "b"])}, {"seed": [0, 1]})
    shift = np.array([[0.0, 0.1], [0.0, 0.0], [0.0, 0.0]])
    more = xr.Dataset({"top": (("seed", "i"), values + shift)}, {"seed": [0, 1, 2]})
    assert record.figures_apart(here, more, {"seed"}) == {"top": pytest.approx(0.1 / 2.1)}
    assert record.figures_apart(here, None, {"seed"}) == {}
    assert record.figures_apart(here, here.where(here.seed > 0), {"seed"})["top"] == np.inf
    assert record.figures_apart(here.where(here.seed > 0), here, {"seed"})["top"] == np.inf


def test_source_depends_on_every_byte_and_name(tmp_path: Path) -> None:
    (tmp_path / "signal_drift").mkdir()
    file = tmp_path / "signal_drift" / "a.py"
    seen = {record.source(tmp_path)}
    for content in ("", "x = 1", "x = 2"):
        file.write_text(content, encoding="utf-8")
        seen.add(record.source(tmp_path))
    file.rename(file.with_name("b.py"))
    assert len(seen | {record.source(tmp_path)}) == 5


def test_minutes_must_be_positive() -> None:
    with pytest.raises(OptionError, match=r"^minutes: must be positive, got 0$"):
        check.gpu_check(check.Options(minutes=0))


def test_host_is_asked_the_numbers_that_are_compared() -> None:
    config, host = on_device.EXPERIMENT.at(PROBLEMS["mlp"]), check.host_config(quick=False)
    assert replace(config, **check.HOST) == host
    compared = [p for p in on_device.points(config) if p["kernel"] not in ("growth", "memory")]
    assert [p for p in on_device.points(host) if p["kernel"] not in ("growth", "memory")] == compared


def test_published_record_is_within_its_bounds_but_for_the_one_that_docs_name() -> None:
    assert exceeding(PUBLISHED["agreement"]) == {("matrices", "float64")}
    lowered = next(x for x in PUBLISHED["agreement"] if x["way"] == on_device.LOWERED)
    assert lowered["error"] > lowered["bound"], "TF32 must be told from float32"
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    by_precision = {
        dtype: {x["kernel"]: x["error"] for x in PUBLISHED["agreement"] if x["dtype"] == dtype and x["way"] == "ours"}
        for dtype in on_device.PRECISIONS
    }
    double, single = by_precision["float64"], by_precision["float32"]
    apart = {name: x["apart"] for name, x in PUBLISHED["figures"].items()}
    operators = ("gradient", "jacobian", "task", "signal", "drift", "lora", "extremes")
    told = [
        max(error for kernel, error in double.items() if kernel != "matrices"),
        max(single[name] for name in operators),
        single["trajectories"],
        single["matrices"],
        lowered["error"],
        max(apart["purification"]["lora"], *(apart["spectral_suppression"][name] for name in ("task", "signal"))),
        apart["dynamics"]["loss"],
    ]
    for number in told:
        assert f"{number:.1e}" in text, number
    times = {(x["kernel"], x["way"], x["dtype"], x["width"]): x for x in PUBLISHED["speed"]}
    for key, name, unit in (
        (("dense", "ours", "float64", 32), "seconds", 1e3),
        (("dense", "ours", "float64", 32), "host_seconds", 1e3),
        (("dense", "torch", "float64", 32), "seconds", 1e3),
        (("spectrum", "ours", "float64", 32), "seconds", 1),
        (("spectrum", "ours", "float64", 32), "host_seconds", 1),
        (("lora", "ours", "float64", 256), "seconds", 1e3),
        (("product", "torch", "float64", 256), "seconds", 1e3),
        (("growth", "ours", "float32", 16384), "seconds", 1e3),
        (("extremes", "ours", "float64", 256), "seconds", 1),
    ):
        assert f"{times[key][name] * unit:.3g} {'ms' if unit > 1 else 's'}" in text, (key, name)
    for value in (PUBLISHED["place"]["jax"], PUBLISHED["place"]["driver"], PUBLISHED["place"]["python"]):
        assert value in text


def test_rows_and_figure_tell_the_published_record() -> None:
    rows = record.rows(PUBLISHED)
    assert any("H200" in row.measured for row in rows)
    assert len(draw(PUBLISHED).axes) == 2


@pytest.mark.slow
def test_the_whole_check_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    check.gpu_check(check.Options(quick=True, minutes=0.01, out=tmp_path, device="cpu"))
    first = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert "purification" in first["left"]
    check.gpu_check(check.Options(quick=True, out=tmp_path, device="cpu"))
    found = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert found["left"] == []
    assert set(found["figures"]) == {experiment.name for experiment in check.FIGURES}
    assert found["language_model"]["certified"] == found["language_model"]["matrices"] == 7
    assert found["speed"] == first["speed"], "what is there is not timed again"
