"""Narrow the findings of a control to the one that convinces least: a wrong law has to fail in all that it changes."""

from collections.abc import Sequence

from experiments.ledger.verdict import ERROR, Finding

DECADES = 15.0
"""Levels are told apart down to 10⁻¹⁵, where 1 − level is still another number than 1."""
HALVINGS = 20
"""Bisections of the exponent of the level."""


def weakest(findings: Sequence[Finding]) -> list[Finding]:
    """Return the finding that lies least apart from its band, the first of equals; none of none."""
    return [min(findings, key=apartness)] if findings else []


def apartness(finding: Finding) -> float:
    """Compute −log₁₀ of the lowest level at which the interval lies apart from the band; 0 where it does at none.

    Infinite for what lies apart without sampling error.
    """
    if not finding.known or not finding.apart(0.0):
        return 0.0
    if finding.estimate.n == 0:
        return float("inf") if finding.apart(1 - ERROR) else 0.0
    low, high = 0.0, DECADES
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if finding.apart(1 - 10**-middle) else (low, middle)
    return low
