"""A NaN in what a statement reads makes its check fail, or refuses the instance: it is never passed over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import signal_drift as sd
from signal_drift.losses.composite import composite, outputs_and_criterion
from signal_drift.propositions import PROPOSITIONS, failures, jacobian_gram, random_instance, update_has_no_remainder
from signal_drift.propositions.check import Check, below_zero, exact, over, rounding, worst
from signal_drift.propositions.subject import Instance

PLACES = ("jacobian", "task", "signal", "drift", "lora", "weights_of", "delta")
NAMES = [getattr(p, "__name__", f"signal_descends {i}") for i, p in enumerate(PROPOSITIONS)]


def with_nan(tree: Any) -> Any:
    """The last entry of the first array is NaN."""
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([jnp.asarray(leaves[0]).at[(-1,) * leaves[0].ndim].set(jnp.nan), *leaves[1:]])


class Matrices(dict):
    """The matrices of an instance, with the NaN; what is read is written down."""

    def __init__(self, of: "Planted") -> None:
        self.of = of

    def __getitem__(self, name: str) -> np.ndarray:
        self.of.read.add(name)
        matrix = np.asarray(getattr(self.of.parts, name).dense())
        return np.asarray(with_nan(matrix)) if self.of.place == name else matrix


@dataclass(frozen=True, eq=False, repr=False)
class Planted(Instance):
    """An instance with a NaN at one place, that knows what was read."""

    place: str = ""
    read: set[str] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in ("delta", "weights_of"):
            self.read.add(name)
            if super().__getattribute__("place") == name:
                return (lambda *a: with_nan(value(*a))) if callable(value) else with_nan(value)
        return value

    def rescaled(self, scaling: Mapping[str, float]) -> Instance:
        kept = (object.__getattribute__(self, name) for name in ("delta", "weights_of"))
        delta, weights_of = kept
        return Planted(self.loss, self.base, self.adapters, scaling, delta, weights_of, self.place, self.read)

    @cached_property
    def dense(self) -> Mapping[str, np.ndarray]:
        return Matrices(self)


def fails_or_refuses(proposition: Any, x: Instance) -> bool:
    try:
        check = proposition(x)
    except sd.InputError:
        return True
    return not check.holds and failures([check]) != []


def instance(proposition: Any, *rest: Any, kind: str = "quadratic") -> Planted:
    """One at which the statement is applicable, of B = 0 or not."""
    for begins in (True, False):
        x = random_instance(kind, 3, 2.0, begins)
        if proposition(x).applicable:
            return Planted(x.loss, x.base, x.adapters, x.scaling, x.delta, x.weights_of, *rest)
    pytest.fail("not applicable")


@pytest.mark.parametrize("proposition", PROPOSITIONS, ids=NAMES)
def test_nan_in_what_is_read_never_passes(proposition):
    clean = instance(proposition)
    assert not fails_or_refuses(proposition, clean)
    assert not (clean.read - set(PLACES))
    for place in clean.read:
        assert fails_or_refuses(proposition, instance(proposition, place, set())), place


def _with_slope_nan(criterion: Any, y: Any) -> Any:
    """√0 added to the criterion: the value is right, its slope NaN."""
    flat = ravel_pytree(y)[0]
    return criterion(y) + jnp.sqrt(jnp.sum((flat - jax.lax.stop_gradient(flat)) ** 2))


@pytest.mark.parametrize("proposition", PROPOSITIONS, ids=NAMES)
def test_loss_whose_slope_is_nan_never_passes(proposition):
    """Only what is said of the map θ ↦ w alone holds, whatever the loss."""
    x = instance(proposition)
    outputs, criterion = outputs_and_criterion(x.loss) or pytest.fail("not composite")
    loss = composite(outputs, Partial(_with_slope_nan, criterion))
    spoiled = Instance(loss, x.base, x.adapters, x.scaling, x.delta, x.weights_of)
    about_the_map = proposition in (update_has_no_remainder, jacobian_gram)
    assert fails_or_refuses(proposition, spoiled) != about_the_map


@pytest.mark.parametrize("position", [0, 1, 2])
def test_worst_of_several_errors_keeps_a_nan(position):
    errors = [1.0, 2.0, 3.0]
    assert worst(*errors) == 3.0
    errors[position] = np.nan
    assert np.isnan(worst(*errors))
    assert [below_zero(-2.0), below_zero(2.0)] == [2.0, 0.0]
    assert np.isnan(below_zero(np.nan))


@pytest.mark.parametrize("size", [np.inf, np.nan])
def test_tolerance_without_a_bound_passes_nothing(size):
    """An overflow in the scale of the terms would otherwise excuse every error."""
    check = Check.bound("X0", "a ≥ 0", 1.0, rounding(1, size), control=("a ≥ 1", 2.0))
    assert not check.holds
    assert failures([check])
    assert np.isnan(over(1.0, size))
    assert over(0.0, exact("zeros").value) == 0.0
