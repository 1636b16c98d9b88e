"""Write numbers and words of a ledger as a page has them."""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from experiments.ledger.table import Entry


def digits(item: Entry) -> int:
    """Count the significant digits that tell the numbers of a finding apart: 5, where needed up to 10."""
    pairs = (item.get("band"), item.get("interval"), (item["measured"],))
    values = {x for pair in pairs if pair is not None for x in pair if x is not None}
    return next((n for n in range(5, 10) if len({f"{x:.{n}g}" for x in values}) == len(values)), 10)


def number(value: float | None, precision: int = 5) -> str:
    """Write a number with so many significant digits; a dash for what is not known."""
    return "–" if value is None else f"{value:.{precision}g}"


def interval(pair: Sequence[float | None] | None, precision: int = 5) -> str:
    """Write [low, high], with a round bracket at an end that is not bounded."""
    if pair is None:
        return "–"
    low, high = pair
    left = "(−∞" if low is None else f"[{number(low, precision)}"
    return f"{left}, {'∞)' if high is None else f'{number(high, precision)}]'}"


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
    return re.sub(markup, r"\\\g<0>", " ".join(text.split()))


def subscripts(text: str) -> Markup:
    """Write text as HTML in which the indices of symbols stand low: H_ℓ, ΔW_Signal, ‖·‖_F, but not update_scaling."""
    symbol, index = r"((?<![A-Za-z_])[A-Za-z\u0370-\u03ff]|[‖∇²\]])", r"(ℓ|[A-Za-z0-9]+(?![A-Za-z0-9_]))"
    return Markup(re.sub(f"{symbol}_{index}", r"\1<sub>\2</sub>", str(escape(text))))
