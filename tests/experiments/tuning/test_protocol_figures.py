"""Figures of the V-protocol: an interval where there are seeds, none and no warning where there is one."""

import numpy as np
import pytest
import xarray as xr

from experiments.tuning.methods import COMMON, FULL, V1, V2
from experiments.tuning.protocol_figures import draw_methods
from signal_drift import plotting


@pytest.mark.parametrize(("seeds", "lines", "bands"), [(1, 0, 0), (3, 2, 2)])
def test_one_seed_has_marks_and_no_intervals(seeds: int, lines: int, bands: int) -> None:
    """Intervals are the only drawn lines of two points with a length; bands are those of α = r and of FFT."""
    figure, (panel,) = plotting.panels(1, "")
    values = np.arange(4.0)[:, None] + 0.01 * np.arange(seeds)
    draw_methods(panel, xr.DataArray(values, dims=("method", "seed"), coords={"method": [COMMON, V1, V2, FULL]}))
    figure.draw_without_rendering()
    shown = [np.asarray(line.get_xdata(), float) for line in panel.lines]
    assert sum(x.size == 2 and np.ptp(x) > 0 for x in shown) == lines
    assert len(panel.patches) == bands
    assert sum(x.size == 1 for x in shown) == 2  # V1 and V2
