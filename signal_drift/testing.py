"""Draws losses, shapes, ranks, scalings and initialisations by hypothesis, for property tests of statements.

Needs `hypothesis`::

    @given(problems())
    def test_hessian_splits(x):
        assert hessian_splits(x).holds
"""

from hypothesis import strategies as st

from signal_drift.propositions.random_problems import KINDS, random_instance
from signal_drift.propositions.subject import Instance


def problems(kinds: list[str] | None = None) -> st.SearchStrategy[Instance]:
    """Draw instances of the listed kinds (all by default), α from 1e-3 to 1e4, B = 0 or not."""
    return st.builds(
        random_instance,
        kind=st.sampled_from(kinds or list(KINDS)),
        seed=st.integers(0, 2**16),
        alpha=st.floats(-3, 4).map(lambda x: 10.0**x),
        begins=st.booleans(),
    )
