"""Train by every method: one compiled loop for each map, over all methods, rates and scalings; no run is done twice."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import signal_drift as sd
from experiments.lab.problem import Training
from experiments.tuning.methods.kinds import Kind, Scalings, Started, Trained
from experiments.tuning.methods.recipes import Method, Recipe, recipe
from experiments.tuning.runs import Outcome, Tuned, judged
from signal_drift.lora.adapters import Adapter

Request = tuple[Sequence[float], Mapping[str, Method]]
"""Learning rates, in the place of η_FFT, and the methods that are to run at all of them."""


class Runs(NamedTuple):
    """Hold the outcomes of all runs, one after another, and the place of each."""

    outcomes: Outcome
    places: Mapping[Recipe, int]

    def at(self, request: Request) -> Outcome:
        """Return the outcomes of a request, their first axes the rates and the methods."""
        rates, methods = request
        chosen = np.array([[self.places[recipe(m, eta)] for m in methods.values()] for eta in rates])
        return jax.tree.map(lambda x: x[chosen], self.outcomes)


def method_runs(config: Tuned, seed: int, rank: int, padded: int, requests: Sequence[Request]) -> Runs:
    """Train adapters of one rank as all requests together ask; ranks share one compilation for each map.

    Runs that coincide are done once. `padded` is the largest rank of all.
    """
    problem, dtype = config.problem, config.dtype
    base, training = problem.draw(seed, dtype).base, problem.training(seed, config.steps, dtype)
    asked = [recipe(m, eta) for rates, methods in requests for eta in rates for m in methods.values()]
    found, places = [], {}
    for kind in dict.fromkeys(x.kind for x in asked):
        recipes = list(dict.fromkeys(x for x in asked if x.kind == kind))
        frozen, start = kind.start(base, problem.adapters(seed, rank, dtype))
        numbers, count = numbers_of(recipes, _capacity(asked, kind), dtype), len(recipes)
        whole = sd.pad_rank(start, padded)
        outcomes = train_all(training, frozen, whole, numbers, count, train=kind.train, steps=config.steps)
        places |= {x: len(places) + i for i, x in enumerate(recipes)}
        found.append(jax.tree.map(lambda x, n=count: x[:n], outcomes))
    return Runs(jax.tree.map(lambda *parts: jnp.concatenate(parts), *found), places)


def _capacity(asked: Sequence[Recipe], kind: Kind) -> int:
    """Count the runs there may be through the map of a kind at any rank: at some, more of them coincide."""
    return sum(x.kind.train is kind.train for x in asked)


class Numbers(NamedTuple):
    """Hold what differs between the runs of one map: s of every layer, η_A and η_B."""

    scaling: Scalings
    rate_a: Array
    rate_b: Array


def numbers_of(recipes: Sequence[Recipe], capacity: int, dtype: str) -> Numbers:
    """Lay the numbers of some runs out for a loop that has room for `capacity` of them."""

    def column(values: Iterable[float]) -> Array:
        return jnp.asarray(np.resize(list(values), capacity), dtype)

    layers = [layer for layer, _ in recipes[0].scaling]
    scaling = {layer: column(dict(x.scaling)[layer] for x in recipes) for layer in layers}
    return Numbers(scaling, column(x.rate_a for x in recipes), column(x.rate_b for x in recipes))


@partial(jax.jit, static_argnames=("train", "steps"))
def train_all(
    training: Training,
    base: dict[str, Array],
    start: dict[str, Adapter],
    numbers: Numbers,
    runs: int | Array,
    *,
    train: Callable[..., Trained],
    steps: int,
) -> Outcome:
    """Do the first `runs` runs from one start, one after another; the rows of the others are NaN."""

    def one(i: int | Array) -> Outcome:
        s, rate_a, rate_b = jax.tree.map(lambda x: x[i], numbers)
        return judged(training, *train(training, Started(base, start, s, rate_a, rate_b), steps))

    capacity = len(numbers.rate_a)
    nothing = jax.tree.map(lambda x: jnp.full((capacity, *x.shape), jnp.nan, x.dtype), jax.eval_shape(one, 0))
    return jax.lax.fori_loop(
        0, runs, lambda i, found: jax.tree.map(lambda every, x: every.at[i].set(x), found, one(i)), nothing
    )
