"""Lay out a strip: one finding's prediction and measurement on one axis, so that the verdict can be seen.

The axis is made from the prediction, so strips of different quantities can be compared. u is the distance from the
centre of the band in half-widths of the band (on log x where the band spans a factor of 4 or more), and the position is

    t = u for |u| ≤ 1,    t = sign(u)(1 + log₁₀|u|) beyond,    drawn for |t| ≤ 3, that is 100 half-widths.

A band with one finite edge has that edge in the middle. What lies beyond the frame is an arrow at its end.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH, MARGIN, REACH = 240.0, 9.0, 3.0
MIDDLE = WIDTH / 2


class Segment(NamedTuple):
    """Hold a line from `left` to `right` in pixels; an open end goes on beyond the frame."""

    left: float
    right: float
    open_left: bool
    open_right: bool


class Strip(NamedTuple):
    """Holds what is drawn, in pixels of a frame of width `WIDTH`; None where nothing is known."""

    band: Segment
    edges: list[tuple[float, float]]
    """Position and value of each finite edge of the band."""
    interval: Segment | None
    point: float | None
    """None as well where the point lies beyond the frame: the interval's arrow shows the side."""


def strip(finding: Mapping[str, Any]) -> Strip:
    """Compute the geometry of one finding, from its `band`, `interval` and `measured`."""
    low, high = ends(finding["band"])
    measured = finding["measured"]
    around = _known(finding["interval"]) or _known([measured, measured])
    seen = [x for x in (*(around or ()), measured) if x is not None and math.isfinite(x)]
    scale = _log if 0 < 4 * low <= high < math.inf and min(seen, default=1) > 0 else float
    centre, half = _axis(scale(low), scale(high), [scale(x) for x in seen])

    def position(value: float) -> float:
        return _position((scale(value) - centre) / half)

    where = None if measured is None else position(measured)
    return Strip(
        band=_segment(position(low), position(high)),
        edges=[(_pixel(position(x)), x) for x in dict.fromkeys((low, high)) if math.isfinite(x)],
        interval=None if around is None else _segment(*map(position, around)),
        point=None if where is None or abs(where) > REACH else _pixel(where),
    )


def ends(pair: Sequence[float | None] | None) -> tuple[float, float]:
    """Return the two ends of a band or an interval, ±∞ where they are not bounded."""
    low, high = pair or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def _known(pair: Sequence[float | None] | None) -> tuple[float, float] | None:
    return ends(pair) if pair and any(x is not None for x in pair) else None


def _axis(low: float, high: float, seen: Sequence[float]) -> tuple[float, float]:
    """Centre and unit of the axis.

    With no width to go by, the unit is the size of the edge, unless that is zero to rounding, but at most twice the
    largest distance from it, so that a measurement close to its bound can still be told from the bound.
    """
    finite = [x for x in (low, high) if math.isfinite(x)]
    if len(finite) == 2 and low < high:
        return low / 2 + high / 2, high / 2 - low / 2
    centre = finite[0] if finite else sum(seen) / max(len(seen), 1)
    farthest = max((abs(x - centre) for x in seen), default=0.0)
    size = abs(centre) if abs(centre) > 1e-11 * farthest else farthest
    return centre, min(size, 2 * farthest) or 1.0


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _position(u: float) -> float:
    return u if abs(u) <= 1 else math.copysign(1 + math.log10(abs(u)), u)


def _segment(left: float, right: float) -> Segment:
    return Segment(_pixel(left), _pixel(right), left < -REACH, right > REACH)


def _pixel(t: float) -> float:
    """Position to pixels; the ends of the frame stand for all that is beyond them."""
    return round(MIDDLE + max(-REACH, min(REACH, t)) * (MIDDLE - MARGIN) / REACH, 2)
