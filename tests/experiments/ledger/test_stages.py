"""Seeds are added where a claim is undecided, stage by stage, and no longer than the budget lasts."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.analysis.intervals import mean_of
from experiments.doors.rerun import rerun
from experiments.lab.experiment import Experiment, Report
from experiments.lab.problem import Problem
from experiments.lab.runner import Reader, last_stage, results
from experiments.ledger import ledger
from experiments.ledger.claim import Claim, Evidence, Reading
from experiments.ledger.stages import Question, add_seeds, added_seconds
from experiments.ledger.table import Entries
from experiments.ledger.verdict import Finding, above
from experiments.problems import PROBLEMS

MLP = {"mlp": PROBLEMS["mlp"]}


@dataclass(frozen=True)
class Config:
    problem: Problem
    mean: float = 0.5
    seeds: int = 5


def measure(config: Config, seed: int) -> xr.Dataset:
    return xr.Dataset({"x": config.mean + np.random.default_rng(seed).standard_normal()})


def measure_above(config: Config, first: xr.Dataset, seed: int) -> xr.Dataset:
    return first.sel(seed=seed, drop=True)


def trial(mean: float) -> tuple[Question, list[Claim]]:
    """A claim that a mean is positive, five seeds at first and up to forty."""
    experiment = Experiment(
        name="trial",
        title="A trial.",
        configure=lambda problem: Config(problem, mean),
        points=lambda config: [{"seed": seed} for seed in range(config.seeds)],
        measure=measure,
        report=lambda config, data: Report([], [], {}),
        stages=(1, 2, 8),
    )

    def positive(config: Config, data: xr.Dataset) -> list[Finding]:
        return [Finding("the mean", above(0.0), mean_of(data.x.values))]

    plain = Reading("as stated", "The mean is positive.", experiment, positive)
    return Question(experiment, PROBLEMS["mlp"]), [Claim("T1", "training", (), "a test", (Evidence(plain),))]


def stages_run(mean: float, seconds: float, out: Path) -> tuple[list[int], str]:
    """The numbers of seeds that were added to the first five, and the verdict in the end."""
    question, claims = trial(mean)
    results(question.experiment, question.experiment.at(question.problem), out)
    ran: list[int] = []

    def answer(asked: Question, config: Any) -> Entries:
        ran.append(config.seeds)
        results(asked.experiment, config, out)
        return ledger.ledger(claims, MLP, Reader(out))

    entries = add_seeds(claims, ledger.ledger(claims, MLP, Reader(out)), [question], out, seconds, answer)
    return ran, entries[0]["verdict"]


def test_a_claim_that_is_decided_needs_no_more_seeds(tmp_path: Path) -> None:
    assert stages_run(9.0, 1e9, tmp_path) == ([], "supported")


def test_seeds_are_added_until_it_is_decided(tmp_path: Path) -> None:
    ran, verdict = stages_run(0.8, 1e9, tmp_path)
    assert ran in ([10], [10, 40])
    assert verdict == "supported"


def test_stages_end(tmp_path: Path) -> None:
    assert stages_run(0.0, 1e9, tmp_path) == ([10, 40], "inconclusive")


def test_a_stage_that_the_budget_does_not_leave_is_not_run(tmp_path: Path) -> None:
    assert stages_run(0.0, 0.0, tmp_path) == ([], "inconclusive")


def test_a_stage_that_does_not_fit_into_memory_is_not_tried_again(tmp_path: Path) -> None:
    question, claims = trial(0.0)
    results(question.experiment, question.experiment.at(question.problem), tmp_path)
    before, tried = ledger.ledger(claims, MLP, Reader(tmp_path)), []
    after = add_seeds(claims, before, [question], tmp_path, 1e9, lambda _, config: tried.append(config.seeds))
    assert after is before
    assert tried == [10]


def test_a_claim_measured_again_gets_the_same_seeds(tmp_path: Path) -> None:
    for mean in (9.0, 0.8, 0.0):
        ran, verdict = stages_run(mean, 1e9, tmp_path / f"{mean}")
        _, (claim,) = trial(mean)
        again = rerun(claim, MLP, tmp_path / "again", quick=False)
        assert (again["problems"]["mlp"]["seeds"], again["verdict"]) == ([5, *ran][-1], verdict)
    assert not list((tmp_path / "again" / "rerun").iterdir())


def test_cost_of_a_stage_is_that_of_its_seeds_at_the_pace_of_the_first(tmp_path: Path) -> None:
    question, _ = trial(0.0)
    first, second, third = question.experiment.staged(question.experiment.at(question.problem))
    results(question.experiment, first, tmp_path)
    assert added_seconds(question, third, tmp_path) == 7 * added_seconds(question, second, tmp_path) > 0
    assert last_stage(question.experiment, first, tmp_path) == first


def test_seeds_cost_as_well_what_the_experiment_builds_on(tmp_path: Path) -> None:
    """Charge nothing for what has its seeds already, and for what lacks them what its own stored points say."""
    below, _ = trial(0.0)
    own = replace(
        below.experiment, name="above", first=lambda config: (below.experiment, config), measure=measure_above
    )
    above = Question(own, below.problem)
    first, second, _ = own.staged(own.at(below.problem))
    results(own, first, tmp_path)
    both = added_seconds(above, second, tmp_path)
    alone = added_seconds(Question(replace(own, first=None), below.problem), second, tmp_path)
    assert both == alone + added_seconds(below, second, tmp_path) > alone
    results(below.experiment, second, tmp_path)
    assert added_seconds(above, second, tmp_path) == alone


def test_levels_are_shared_over_the_looks(tmp_path: Path) -> None:
    """The interval of a claim with three looks is that of 1 − 0.05/3."""
    question, claims = trial(0.8)
    results(question.experiment, question.experiment.at(question.problem), tmp_path)
    (written,) = ledger.ledger(claims, MLP, Reader(tmp_path))
    assert written["findings"][0]["confidence"] == round(1 - 0.05 / 3, 4)
