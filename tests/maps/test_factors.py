"""Where a map ends in W₀ + LR its factors are found, whatever it is called, and anything else is formed as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_cases import draw
from problems import rounding

from signal_drift import maps
from signal_drift.hessians.factored import Factored
from signal_drift.lora import Adapter
from signal_drift.maps.factors import factored

W0, A, B = draw(12, 10), draw(2, 10), draw(12, 2)
THETA = Adapter(A, B)

FOUND = {
    "LoRA": (maps.lora(0.5), THETA),
    "VeRA": (maps.vera(A, B), maps.Vera(jnp.arange(12.0), jnp.arange(2.0))),
    "a reader's, with more than W₀ added": (lambda W0, x: x.B @ x.A * 3.0 + jnp.tanh(W0) * jnp.sum(x.A), THETA),
}
FORMED = {
    "DoRA": (maps.dora(0.5), maps.Dora(A, B, jnp.arange(12.0))),
    "LoHa": (maps.loha(0.5), maps.Loha(THETA, THETA)),
    "a product times a matrix": (lambda W0, x: W0 + W0 * (x.B @ x.A), THETA),
    "a row added": (lambda W0, x: x.B @ x.A + x.A[0] + 0 * W0, THETA),
    "two products": (lambda W0, x: W0 + x.B @ x.A + 2 * (x.B @ x.A), THETA),
    "a product alone": (lambda W0, x: x.B @ x.A, THETA),
    "of a large rank": (maps.lora(0.5), Adapter(draw(9, 10), draw(12, 9))),
}


@pytest.mark.parametrize("name", [*FOUND, *FORMED])
def test_factors_are_found_where_they_are(name):
    f, theta = (FOUND | FORMED)[name]
    W, expected = factored(f, W0, theta), f(W0, theta)
    assert isinstance(W, Factored) == (name in FOUND)
    whole = W.merged() if isinstance(W, Factored) else W
    assert isinstance(whole, jax.Array)
    assert np.allclose(whole, expected, rtol=0, atol=rounding(12, expected))
