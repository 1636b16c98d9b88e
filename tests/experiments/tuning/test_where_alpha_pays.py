"""Where V2 pays: what a row says of invented runs, and what it is held against."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from experiments.lab.problem import Tuning
from experiments.problems import PROBLEMS
from experiments.tuning import where_alpha_pays as pays
from experiments.tuning.methods import COMMON, FULL, TENFOLD, V1, V2

OVER_V2 = Tuning.over_v2
CONFIG = pays.EXPERIMENT.at(PROBLEMS["teacher256"])
RANK = 4
METHODS = [COMMON, TENFOLD, V1, V2, FULL]


def runs(v2: float, best: float, gap: float = 1.0, seeds: int = 5) -> xr.Dataset:
    """ln loss 0 for α = r and −`gap` for FFT, give or take; that of V2, and of the best α, which is V2/2."""
    noise = 0.01 * np.random.default_rng(0).standard_normal((len(METHODS), seeds))
    log_loss = np.array([0.0, 5.0, 5.0, v2, -gap])[:, None] + noise
    by_alpha = np.full((len(OVER_V2), seeds), 1.0)
    by_alpha[OVER_V2.index(0.5)] = best + 0.01 * np.arange(seeds)
    rates = np.array(pays.compared(CONFIG)[1].fft_rates)
    eta = float(rates[len(rates) // 2])
    data = {
        "log_loss": (("method", "seed"), log_loss),
        "by_alpha": (("over_v2", "seed"), by_alpha),
        "fft": ("fft_rate", np.log(rates / eta) ** 2),
        "learning_rate": eta,
        "drift": 3.0,
        "signal": 2.0,
    }
    coords = {"method": METHODS, "over_v2": list(OVER_V2), "seed": range(seeds), "fft_rate": rates}
    wide = xr.Dataset(data, coords).expand_dims(rank=[RANK], share=[1.0])
    return wide.assign({name: wide[name].isel(share=0, drop=True) for name in ("fft", "drift", "signal")})


def cells(data: xr.Dataset) -> dict[str, str]:
    (row,) = pays.lines(CONFIG, data, 1.0).values()
    return dict(zip(pays.COLUMNS, (cell.text for cell in row), strict=True))


def test_a_row_says_what_the_runs_say() -> None:
    """V2 = √r/σ_A = 2·16 at d = 256 is 8·r; α_c = r·σ₁(G)/λmax = 4·3/2."""
    told = cells(runs(v2=-0.8, best=-0.9))
    assert told["V2/r"] == "8"
    assert told["α_c/V2"] == f"{6 / 32:.3g}"
    assert float(told["of the gap V2 closes"].split()[0]) == pytest.approx(0.8, abs=0.02)
    assert told["of the gap the best α closes"].endswith("at 0.5 V2")
    assert float(told["of the gap the best α closes"].split()[0]) == pytest.approx(0.88, abs=0.02)


def test_an_alpha_at_an_end_of_the_sweep_is_the_best_there_or_beyond() -> None:
    data = runs(v2=-0.8, best=-0.9)
    data.by_alpha[{"over_v2": -1}] = -2.0
    assert cells(data)["of the gap the best α closes"].endswith(f"at ≥ {OVER_V2[-1]:g} V2")


def test_without_a_gap_nothing_is_said_of_its_share() -> None:
    told = cells(runs(v2=-0.8, best=-0.9, gap=-0.5))
    assert told["of the gap V2 closes"] == told["of the gap the best α closes"] == "no gap"


def test_gain_of_v2_goes_with_what_it_is_made_to_go_with() -> None:
    rows = [
        {"gain": x, "V2/r": x**3, "α_c/V2": -x, "rank": r, "η_FFT": 1.0 + (x == 2)}
        for x, r in zip(range(5), (4, 1, 5, 2, 3), strict=True)
    ]
    (told,) = pays.association("η_FFT", rows)
    assert "V2/r +1.00, α_c/V2 -1.00" in told
    assert "at η_FFT over 5 rows" in told
    assert pays.association("η_FFT", rows[: pays.FEWEST - 1]) == []


def test_rows_run_at_two_rates_are_counted_by_where_v2_gains_more() -> None:
    high, more, less = runs(-0.5, -0.9), runs(-0.8, -0.9), runs(-0.2, -0.9)

    def both(low: xr.Dataset) -> xr.Dataset:
        wide = ("log_loss", "by_alpha", "learning_rate")
        joined = xr.concat([low[list(wide)].assign_coords(share=[0.1]), high[list(wide)]], "share")
        return joined.assign({name: high[name] for name in ("fft", "drift", "signal")})

    notes = pays.side_by_side([(CONFIG, both(more)), (CONFIG, both(less)), (CONFIG, high)]).notes
    assert "Of 2 rows run at more than one rate V2 gains more at the lowest in 1." in notes


def test_problems_are_laid_out_in_one_table() -> None:
    other = replace(CONFIG, problem=PROBLEMS["teacher64"])
    table = pays.side_by_side([(CONFIG, runs(-0.8, -0.9)), (other, runs(-0.8, -0.9))])
    (rows,) = table.groups.values()
    assert list(rows) == ["teacher256, r = 4", "teacher64, r = 4"]
    assert all(len(row) == len(table.columns) for row in rows.values())


def test_what_the_seeds_of_every_problem_are_is_said() -> None:
    asked = [
        (replace(CONFIG, problem=PROBLEMS[name], seeds=n), runs(-0.8, -0.9, seeds=5))
        for name, n in (("teacher256", 5), ("digits", 1), ("teacher64", 5))
    ]
    notes = pays.side_by_side(asked).notes
    told = "Read are on digits the first seed; on teacher256, teacher64 the first 5 seeds;"
    assert [note.startswith(told) for note in notes].count(True) == 1
