"""A strip shows what the numbers say: order, sides and ends, for whatever numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.ledger.strips import MARGIN, MIDDLE, WIDTH, strip

NUMBERS = st.floats(-1e100, 1e100, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 1e-13, -1e-13, 100.0])
ENDS = st.none() | NUMBERS


@settings(deadline=None, max_examples=500)
@given(st.tuples(ENDS, ENDS), st.tuples(ENDS, ENDS), st.none() | NUMBERS)
def test_a_strip_keeps_every_order_and_stays_in_its_frame(band, interval, measured) -> None:
    """Whatever the numbers: what is left of something else is drawn left of it or, beyond the frame, at its end."""
    values = {"band": _ordered(band), "interval": _ordered(interval), "measured": measured}
    drawn = strip(values)
    places: list[tuple[float, float]] = [*drawn.edges]  # pixel, value
    places += zip(drawn.band[:2], _bounds(values["band"]), strict=True)
    if drawn.interval and any(x is not None for x in interval):
        places += zip(drawn.interval[:2], _bounds(values["interval"]), strict=True)
    if drawn.point is not None and measured is not None:
        places.append((drawn.point, measured))
    pixels = [x for x, _ in places]
    assert all(MARGIN <= x <= WIDTH - MARGIN for x in pixels)
    assert [x for x, _ in sorted(places, key=lambda p: (p[1], p[0]))] == sorted(pixels)


def _ordered(pair: tuple[float | None, float | None]) -> list[float | None]:
    low, high = pair
    return [high, low] if low is not None and high is not None and low > high else [low, high]


def _bounds(pair: list[float | None]) -> tuple[float, float]:
    return -math.inf if pair[0] is None else pair[0], math.inf if pair[1] is None else pair[1]


def test_a_bounded_band_is_always_in_the_middle_third() -> None:
    third = (MIDDLE - MARGIN) / 3
    for band in ([0.95, 1.05], [-1e-13, 3e-13], [1e10, 1e11], [-7, 0]):
        drawn = strip({"band": band, "interval": None, "measured": 3.0})
        assert drawn.band == (MIDDLE - third, MIDDLE + third, False, False)


def test_position_is_linear_inside_the_band_and_counts_decades_outside() -> None:
    """Worked by hand for the band 1 ± 0.1: half-widths 0.5, 1, 10, 100 and 1000 to the right of its centre."""
    third = (MIDDLE - MARGIN) / 3
    points = [
        strip({"band": [0.9, 1.1], "interval": None, "measured": x}).point for x in (1.05, 1.1, 2.0, 10.99, 101.0)
    ]
    assert points == [pytest.approx(MIDDLE + k * third, abs=0.1) for k in (0.5, 1, 2, 3)] + [None]


def test_a_band_of_several_decades_is_logarithmic_inside() -> None:
    assert strip({"band": [0.1, 10], "interval": None, "measured": 1.0}).point == pytest.approx(MIDDLE)
    linear = MIDDLE + (1 - 5.05) / 4.95 * (MIDDLE - MARGIN) / 3  # an interval that reaches zero has no logarithm
    assert strip({"band": [0.1, 10], "interval": [-1, 1], "measured": 1.0}).point == pytest.approx(linear, abs=0.1)


def test_an_end_that_is_not_bounded_or_lies_beyond_the_frame_is_open() -> None:
    drawn = strip({"band": [None, 0.1], "interval": [1e5, 1e9], "measured": 1e6})
    assert drawn.band == (MARGIN, MIDDLE, True, False)
    assert drawn.interval == (WIDTH - MARGIN, WIDTH - MARGIN, False, True)
    assert drawn.point is None
    drawn = strip({"band": [0, None], "interval": [None, 2], "measured": 1})
    assert (drawn.band.open_right, drawn.interval and drawn.interval.open_left) == (True, True)
    for high, beyond in ((10.9, False), (11.1, True)):  # 99 and 101 half-widths from the centre
        drawn = strip({"band": [0.9, 1.1], "interval": [1, high], "measured": 1}).interval
        assert drawn
        assert drawn.open_right == beyond


def test_nothing_is_drawn_of_what_is_not_known() -> None:
    for interval in (None, [None, None]):
        drawn = strip({"band": [0, 1], "interval": interval, "measured": None})
        assert (drawn.interval, drawn.point) == (None, None)
