"""Claims that are algebra, on checks of which the ratios are known: what fails or is missing is refuted."""

import numpy as np
import pytest
import xarray as xr

from experiments.claims.lora_alpha import algebra as claims
from experiments.curvature import algebra
from experiments.ledger.verdict import decide
from experiments.problems import PROBLEMS

CONFIG = algebra.Config(PROBLEMS["mlp"])


def checks(error: float, control: float, applicable: bool = True) -> xr.Dataset:
    """Two checks of X5 on three instances, the second with this error and control on the last, in tolerances of 2."""
    dims, ones = ("seed", "check"), np.ones((3, 2))
    errors, controls = 0.2 * ones, 4.0 * ones
    errors[-1, -1], controls[-1, -1] = 2 * error, 2 * control
    words = {
        name: ("check", ["X5", "X5"] if name == "claim" else ["a", "b"]) for name in ("claim", "statement", "rule")
    }
    return xr.Dataset(
        {
            "error": (dims, errors),
            "tolerance": (dims, 2 * ones),
            "control_error": (dims, controls),
            "applicable": (dims, np.full((3, 2), applicable)),
        },
        {**words, "control": ("check", ["c", "d"])},
    )


@pytest.mark.parametrize(
    ("error", "wanted"), [(0.9, "supported"), (1.1, "refuted"), (np.nan, "refuted"), (np.inf, "refuted")]
)
def test_one_instance_of_one_check_refutes(error: float, wanted: str) -> None:
    """A number that is missing where the assumptions are met is no excuse."""
    found = claims.holds("X5", CONFIG, checks(error, 2.0))
    assert decide(found).verdict == wanted
    assert all(np.isfinite(x.estimate.value) or x.estimate.value == np.inf for x in found)


@pytest.mark.parametrize(("control", "wanted"), [(2.0, "refuted"), (0.9, "supported"), (np.nan, "supported")])
def test_the_control_falls_only_if_every_check_notices_it_at_every_instance(control: float, wanted: str) -> None:
    assert decide(claims.control_holds("X5", CONFIG, checks(0.1, control))).verdict == wanted


def test_a_claim_whose_assumptions_nothing_meets_does_not_apply() -> None:
    assert claims.applies("X5", CONFIG, checks(0.1, 2.0)) == ""
    assert claims.applies("X5", CONFIG, checks(0.1, 2.0, False)) == "none of 3 instances meets its assumptions"


def test_every_claim_says_what_it_is() -> None:
    for claim in claims.CLAIMS:
        assert claim.group == "algebra"
        assert claim.formula
        assert claim.measurement
        assert claim.figure
