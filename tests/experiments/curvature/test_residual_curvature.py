"""The share of negative curvature from all eigenvalues."""

import pytest
import xarray as xr

from experiments.curvature import residual_curvature


def test_negative_share_weighs_absolute_values():
    """A quarter of −1, 0, 1 and 2 is negative, and nothing of the same with 0 for −1."""
    dims = ("state", "seed", "task_index")
    data = xr.Dataset({"spectrum": (dims, [[[-1.0, 0.0, 1.0, 2.0]] * 2, [[0.0, 0.0, 1.0, 2.0]] * 2])})
    data = data.assign_coords(state=["initial", "trained"])
    assert residual_curvature.negative_share(data, "initial").value == pytest.approx(0.25)
    assert residual_curvature.negative_share(data, "trained").value == 0
