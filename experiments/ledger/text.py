"""Write numbers, words and formulas of a ledger as a page has them: four significant digits at most."""

import math
import re
from collections.abc import Sequence

from latex2mathml.converter import convert
from markupsafe import Markup, escape

from experiments.ledger.table import Entry

NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|\.\d)")
"""A number that stands by itself: no part of a version, a date, a digest or a symbol."""
POINT = re.compile(r" ?\[([^][,]+), \1\]")
"""An interval whose ends are the same."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Write a number with four significant digits at most; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    if float(mantissa) == 0:
        return "0"
    if -4 <= int(exponent) < 5:
        return short_decimal(float(f"{mantissa}e{exponent}")).replace("-", "−")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    factor = short_decimal(float(mantissa)).replace("-", "−")
    return factor.removesuffix("1") + power if factor in ("1", "−1") else f"{factor}·{power}"


def short_decimal(rounded: float) -> str:
    """Write what has been rounded to four digits, without an exponent."""
    return f"{rounded:.0f}" if abs(rounded) >= 1000 else f"{rounded:.4g}"


def interval(pair: Sequence[float | None] | None) -> str:
    """Write [low, high], with a round bracket at an end that is not bounded; nothing for what has no width.

    Where both ends look the same at four digits, what is written is half of the width: ± 2·10⁻⁷.
    """
    low, high = pair or (None, None)
    if low == high:
        return ""
    if low is not None and high is not None and number(low) == number(high):
        return f"± {number((high - low) / 2)}"
    left = "(−∞" if low is None else f"[{number(low)}"
    return f"{left}, {'∞)' if high is None else f'{number(high)}]'}"


def allowed(finding: Entry) -> str:
    """Write what a finding's statement allows: in its own words, or 1 ± 10⁻⁶ where these need more digits."""
    low, high = finding["band"]
    if low is not None and high is not None and low < high and number(low) == number(high):
        return f"{number(low)} {interval((low, high))}"
    return short(finding["predicted"] or "–")


def method(finding: Entry) -> str:
    """Say how an interval was made, and its confidence."""
    confidence = finding.get("confidence")
    return f"{f'{number(100 * confidence)}% ' if confidence else ''}{finding['method']}" if finding["method"] else ""


def short(text: str) -> str:
    """Round every number of a text that has more than four significant digits, and write 1e-13 as 10⁻¹³.

    An interval without width, as it is or once rounded, is left out.
    """
    return POINT.sub("", NUMBER.sub(_shortened, text))


def _shortened(found: re.Match[str]) -> str:
    written = found[0].replace("−", "-")
    digits = written.lower().partition("e")[0].lstrip("-").replace(".", "").lstrip("0")
    kept = len(digits) <= 4 and "e" not in written.lower()
    return written.replace("-", "−") if kept else number(float(written))


def duration(seconds: float | None) -> str:
    """Write seconds below two minutes, then minutes, then hours."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plain(text: str) -> str:
    """Write text on one line in which Markdown finds no table, tag, emphasis, code, mathematics or link."""
    markup = r"[\\`*|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[]|(?<!\w)_|_(?!\w)"
    return re.sub(markup, r"\\\g<0>", " ".join(short(text).split()))


def subscripts(text: str) -> Markup:
    """Write text as HTML in which the indices of symbols stand low: H_ℓ, ΔW_Signal, ‖·‖_F, but not update_scaling."""
    symbol, index = r"((?<![A-Za-z_])[A-Za-z\u0370-\u03ff]|[‖∇²\]])", r"([ℓθ]|[A-Za-z0-9]+(?![A-Za-z0-9_])|\*)"
    return Markup(re.sub(f"{symbol}_{index}", r"\1<sub>\2</sub>", str(escape(short(text)))))


def mathematics(latex: str) -> Markup:
    """Set a formula as MathML, on a line of its own, or as it is written where it is no LaTeX."""
    try:
        return Markup(convert(latex, display="block"))
    except Exception:  # there is no end to what the converter raises
        return escape(latex)
