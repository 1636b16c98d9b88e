"""What every method draws: the same noise for all, the start's own images, and a run that is the comparison's."""

import numpy as np
import xarray as xr

from experiments.problems import PROBLEMS
from experiments.problems.flow import asked_for
from experiments.tuning.methods import methods, samples
from signal_drift.tasks.flow_matching import sampled

TINY = samples.EXPERIMENT.at(PROBLEMS["flow"], quick=True)


def test_a_run_is_judged_by_the_images_that_its_weights_draw_and_is_the_same_run() -> None:
    problem = samples.Painted(**vars(TINY.problem), count=3)
    painter = problem.painter("float32")
    judged, plain = (x.training(0, 2, "float32") for x in (problem, TINY.problem))
    noise, labels = asked_for(3, "float32")
    np.testing.assert_array_equal(judged.fit(painter.base), sampled(painter.forward, painter.base, noise, labels))
    assert labels.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(judged.batches.noise, plain.batches.noise)
    assert judged.scores == {}


def test_figure_has_a_row_for_every_method() -> None:
    names = [samples.BEFORE, *methods(2, TINY.problem.sigma_a()), samples.FULL]
    images = np.zeros((1, len(names), TINY.count, 64), np.float32)
    data = xr.Dataset(
        {"image": (("rank", "method", "sample", "pixel"), images)},
        {"rank": [2], "method": names, "digit": ("sample", [7, 8, 9])},
    )
    report = samples.report(TINY, data)
    (draw,) = report.figures.values()
    assert len(draw().axes) == len(names) * TINY.count


def test_only_flow_draws_images() -> None:
    assert [name for name, p in PROBLEMS.items() if not samples.refuses(p)] == ["flow"]
