"""How methods stand, on planted costs: the marks, the choice of the others, the edges, and whether an order holds."""

import numpy as np
import pytest
import xarray as xr

from experiments.lab.side_by_side import Cell, SideBySide, as_markdown
from experiments.tuning.methods import COMMON, FULL, V1, V2
from experiments.tuning.methods.standings import LOSS, OVER_ALPHA, Column, cells, compared, order, own_best

NOISE = np.array([-0.1, 0.0, 0.1, 0.05, -0.05])


def column(means: dict[str, float], judge: str = LOSS) -> Column:
    """Each row has the noise of its own, so that nothing is exact."""
    costs = {name: mean + np.roll(NOISE, i) for i, (name, mean) in enumerate(means.items())}
    return Column(4, judge, costs, {})


def test_the_best_two_of_a_column_are_marked() -> None:
    found = cells(column({"a": 1.0, "b": -2.0, "c": 0.5}))
    assert {name: cell.place for name, cell in found.items()} == {"a": "", "b": "best", "c": "second"}
    half = 2.7764451 * np.std(NOISE, ddof=1) / 5**0.5  # Student's t at four degrees of freedom
    assert found["b"].text == f"-2 ± {half:.2g}"


def test_of_a_score_more_is_better() -> None:
    found = cells(column({"a": -0.9, "b": -0.2}, "accuracy"))
    assert (found["a"].place, found["a"].text[:3]) == ("best", "0.9")


def test_rows_of_one_run_share_their_mark_and_what_diverged_has_none() -> None:
    lost = np.where(np.arange(5) == 1, np.inf, -9.0)
    rows = {"a": NOISE - 2, "same": NOISE - 2, "b": NOISE, "c": NOISE + 1, "lost": lost}
    found = cells(Column(4, LOSS, rows, {}))
    assert [cell.place for cell in found.values()] == ["best", "best", "second", "", ""]
    assert found["lost"].text == "diverged at 1 of 5"
    assert {cell.place for cell in cells(Column(4, LOSS, {"a": NOISE, "b": NOISE}, {})).values()} == {""}


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ({"a": 1.0, "b": 2.0}, "holds, 2 ahead"),
        ({"a": 1.0, "b": -1.0}, "fails, 1 ahead, 1 behind"),
        ({"a": 1.0, "b": 0.02}, "undecided, 1 ahead, 1 undecided"),
        ({"a": np.inf, "b": 2.0}, "undecided, 1 ahead, 1 undecided"),  # five seeds and a median
    ],
)
def test_order_is_read_off_paired_intervals(others: dict[str, float], verdict: str) -> None:
    assert order(column({"leader": 0.0, FULL: -9.0, **others}), "leader", {}).verdict == verdict


def test_pairing_decides_what_spreads_of_single_rows_hide() -> None:
    spread = 10 * NOISE
    paired = Column(4, LOSS, {"leader": spread, "a": spread + 0.1 + NOISE / 100}, {})
    shuffled = Column(4, LOSS, {"leader": spread, "a": spread[::-1] + 0.1}, {})
    assert order(paired, "leader", {}).ahead == ["a"]
    assert order(shuffled, "leader", {}).undecided == ["a"]


def test_no_row_is_held_against_itself() -> None:
    """V2 is `a` here, and `b` as well; only `c` and V1 are others."""
    rows = column({"a": 0.0, "b": 0.0, V2: 0.0, "c": 1.0, V1: 1.0})
    found = order(rows, V2, {"b": "a", V2: "a"})
    assert found.ahead == ["c", V1]
    assert (found.behind, found.undecided) == ([], [])
    starred = Column(4, LOSS, {f"{name} *": x for name, x in rows.costs.items()}, {})
    assert order(starred, f"{V2} *", {"b": "a", V2: "a"}).ahead == ["c *", f"{V1} *"]


def test_a_single_seed_decides_nothing_and_has_no_interval() -> None:
    single = Column(4, LOSS, {"leader": np.array([0.0]), "a": np.array([5.0])}, {})
    assert order(single, "leader", {}).undecided == ["a"]
    assert cells(single)["a"].text == "5"


def measured() -> xr.Dataset:
    """Two judges at one rank; the loss is lowest at the 2nd of three rates, accuracy at the last, α at its first."""
    by_rate = np.broadcast_to(np.array([3.0, 1.0, 2.0])[:, None], (5, 3, 2)) + NOISE[:, None, None] / 100
    dims = ("rank", "seed")
    return xr.Dataset(
        {
            "by_rate": ((*dims, "multiple", "tuned"), by_rate[None]),
            "score_by_rate": ((*dims, "judge", "multiple", "tuned"), np.sort(-by_rate, axis=1)[None, :, None]),
            "log_loss": ((*dims, "share", "method"), by_rate[None, :, :1]),
            "score": ((*dims, "judge", "share", "method"), np.full((1, 5, 1, 1, 2), np.nan)),
            "by_alpha": ((*dims, "share", "over_v2"), np.broadcast_to([0.0, 1.0, 2.0], (1, 5, 1, 3))),
            "score_by_alpha": ((*dims, "judge", "share", "over_v2"), np.broadcast_to([1.0, 2.0, 3.0], (1, 5, 1, 1, 3))),
        },
        coords={
            "rank": [4],
            "seed": range(5),
            "share": [1.0],
            "judge": ["accuracy"],
            "method": [COMMON, FULL],
            "tuned": [COMMON, FULL],
            "multiple": [0.1, 1.0, 10.0],
            "over_v2": [0.5, 1.0, 2.0],
        },
    )


def test_own_best_is_that_of_each_judge_and_an_edge_is_said() -> None:
    loss, accuracy = own_best(measured())
    assert (loss.name, accuracy.name) == ("r = 4: ln loss", "r = 4: accuracy")
    assert loss.where == {f"{COMMON} *": " (1×)", f"{FULL} *": " (1×)", OVER_ALPHA: " (≤ 0.5 V2)"}
    assert accuracy.where == {f"{COMMON} *": " (≥ 10×)", f"{FULL} *": " (≥ 10×)", OVER_ALPHA: " (≥ 2 V2)"}
    np.testing.assert_array_equal(loss.costs[f"{COMMON} *"], measured().by_rate.values[0, :, 1, 0])
    assert cells(accuracy)[OVER_ALPHA].text == "3 ± 0 (≥ 2 V2)"


def test_a_judge_that_says_nothing_of_a_run_is_the_worst_it_can_be() -> None:
    _, accuracy = compared(measured().sel(share=1.0))
    assert np.isinf(accuracy.costs[COMMON]).all()
    assert cells(accuracy)[COMMON] == Cell("diverged at 5 of 5")


def test_without_the_rate_of_the_comparison_no_alpha_is_best_there() -> None:
    data = measured().assign_coords(share=[0.1])
    assert OVER_ALPHA not in own_best(data)[0].costs


def test_markdown_marks_the_best_and_the_second_and_lines_up() -> None:
    rows = {"a": [Cell("1", "best")], "b\x1b": [Cell("2", "second")], "c": [Cell("30 ± 1")]}
    text = as_markdown(SideBySide("title", ["r = 4"], {"at η_FFT": rows}, ["note"])).splitlines()
    assert (text[0], text[-1]) == ("title", "note")
    assert [line.split("|")[2].strip() for line in text[4:7]] == ["**1**", "__2__", "30 ± 1"]
    assert len({len(line) for line in text[1:-1]}) == 1
    assert "\x1b" not in "".join(text)
