"""Say in a sentence why a verdict came out as it did, and what would change it, from the deciding finding."""

from collections.abc import Sequence

import numpy as np

from experiments.ledger.verdict import Decided, Finding, deciding, seeds_needed


def reason(findings: Sequence[Finding], decided: Decided) -> str:
    """Say which quantity decided, what was measured of it and what is stated."""
    place = deciding(findings, decided)
    finding = findings[place]
    if finding.words and decided.verdict == "refuted":
        return f"{begun(finding.words)}."
    measured = f"{finding.quantity} is {shown(finding, decided.confidence)}, stated is {finding.band}"
    if decided.verdict == "supported":
        return f"{_all(len(findings))}{begun(measured) if len(findings) == 1 else measured}."
    if decided.verdict == "refuted":
        others = decided.each.count("refuted") - 1
        fail = "fails" if others == 1 else "fail"
        return f"{begun(measured)}{f', and {others} more of {len(findings)} quantities {fail}' if others else ''}."
    others = decided.each.count("inconclusive") - 1
    also = f", as are {others} more of {len(findings)} quantities" if others else ""
    return f"{begun(measured)}: undecided{also}."


def begun(words: str) -> str:
    """Begin a sentence with a capital, unless it begins with a symbol."""
    first = words.partition(" ")[0]
    return f"{words[:1].upper()}{words[1:]}" if first.isascii() and first.isalpha() and len(first) > 1 else words


def _all(count: int) -> str:
    return "" if count == 1 else f"All {count} quantities lie within their bands; of them "


def shown(finding: Finding, confidence: float) -> str:
    """Write value and interval, no interval where there is no sampling error and an open end where it is unbounded."""
    value, low, high = finding.estimate.at(confidence)
    if not np.isfinite(value):
        return "not finite" if np.isinf(value) else "not known"
    if f"{low:.4g}" == f"{high:.4g}":
        return f"{value:.4g}"
    left = f"[{low:.4g}" if np.isfinite(low) else "(unbounded"
    return f"{value:.4g} {left}, {f'{high:.4g}]' if np.isfinite(high) else 'unbounded)'}"


def wanted(findings: Sequence[Finding], decided: Decided) -> str:
    """Say what evidence would change the verdict, or decide it."""
    finding = findings[deciding(findings, decided)]
    if decided.verdict == "inconclusive":
        needed = [
            seeds_needed(x, decided.confidence)
            for x, v in zip(findings, decided.each, strict=True)
            if v == "inconclusive"
        ]
        known = [n for n in needed if n is not None]
        if not known:
            return f"A measurement of {finding.quantity} whose interval is bounded."
        return f"About {max(known)} seeds instead of {finding.estimate.n}, if the values stay where they are."
    side = "apart from" if decided.verdict == "supported" else "within"
    where = "one" if decided.verdict == "supported" and len(findings) > 1 else "the"
    band = "its band" if where == "one" else f"what is stated, {finding.band}"
    of = _named(findings, finding)
    return f"More seeds, or a draw of other data, that bring {where} interval of {of} {side} {band}."


def _named(findings: Sequence[Finding], finding: Finding) -> str:
    return finding.quantity if len(findings) == 1 or finding is not findings[0] else f"{len(findings)} quantities"
