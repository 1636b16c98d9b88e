"""Open this to ask what is special about an adapter map: H_Drift's form and spectrum, degrees in α, gauge, remainder.

Every statement takes a `MapInstance`, any loss at any θ with one of the maps of `signal_drift.maps`, and returns a
`Check`, in float64, from dense matrices.

>>> import jax.numpy as jnp
>>> from signal_drift.maps import Vera, vera
>>> A, B = jnp.arange(6.0).reshape(2, 3), jnp.array([[1.0, -2.0], [3.0, 1.0], [0.5, 2.0]])
>>> theta, delta = ({"layer": Vera(x * jnp.array([1.0, 2, -1]), x * jnp.array([3.0, 1]))} for x in (1.0, 0.5))
>>> x = MapInstance(lambda w: jnp.sum(w["layer"] ** 3), {"layer": jnp.ones((3, 3))}, theta, vera(A, B), delta)
>>> [(c.claim, c.holds, c.refutes_control) for c in (drift_has_a_closed_spectrum(x), gauge_leaves_the_weights(x))]
[('X17', True, True), ('X18', True, True)]
"""

from collections.abc import Callable

from signal_drift.propositions.adapter_maps.alpha import map_has_a_degree_in_alpha
from signal_drift.propositions.adapter_maps.drift import (
    drift_has_a_closed_spectrum,
    drift_is_its_couplings,
    drift_is_zero_on_its_diagonal,
)
from signal_drift.propositions.adapter_maps.gauge import gauge_is_the_null_space, gauge_leaves_the_weights
from signal_drift.propositions.adapter_maps.remainder import (
    remainder_is_cubic,
    remainder_is_its_terms,
    remainder_is_quartic,
)
from signal_drift.propositions.adapter_maps.subject import MAPS, MapInstance
from signal_drift.propositions.check import Check

__all__ = [
    "MAPS",
    "MAP_PROPOSITIONS",
    "MapInstance",
    "drift_has_a_closed_spectrum",
    "drift_is_its_couplings",
    "drift_is_zero_on_its_diagonal",
    "gauge_is_the_null_space",
    "gauge_leaves_the_weights",
    "map_has_a_degree_in_alpha",
    "remainder_is_cubic",
    "remainder_is_its_terms",
    "remainder_is_quartic",
]

MAP_PROPOSITIONS: list[Callable[[MapInstance], Check]] = [
    drift_is_its_couplings,
    drift_is_zero_on_its_diagonal,
    drift_has_a_closed_spectrum,
    map_has_a_degree_in_alpha,
    gauge_leaves_the_weights,
    gauge_is_the_null_space,
    remainder_is_its_terms,
    remainder_is_cubic,
    remainder_is_quartic,
]
