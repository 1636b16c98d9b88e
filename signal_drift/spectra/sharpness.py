"""Measures curvature by a few values of the loss: how far it can be moved along an update before it rises."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from signal_drift.display import Table, displayed_as, span
from signal_drift.errors import InputError
from signal_drift.errors.arguments import is_real, leaves
from signal_drift.errors.words import shown
from signal_drift.losses.arguments import check_loss, traceable

PASSES = 40
"""Values of the loss that one search may take."""
FARTHEST = 2.0**40
"""The largest η tried where the loss does not rise."""
GROWTH, SHRINKAGE = 16.0, 2.0**20
"""How much larger, and smaller, than all before it the next η may be."""
EVERY = 3
"""Of so many trials within a bracket one halves it on the scale of log η, whatever the others do."""


class CriticalSharpness(NamedTuple):
    """Hold a bracket of η_c: the largest η tried up to which the loss has not risen, the smallest at which it has.

    `low` = 0 says that it rose at every η tried, `high` = ∞ that it never did. `rounding` is ε|ℓ(θ)|/|gᵀu|, how far one
    rounding of the loss moves η_c on a quadratic. `passes` counts the values of the loss.
    """

    low: Float[Array, "*runs"]
    high: Float[Array, "*runs"]
    rounding: Float[Array, "*runs"]
    passes: Int[Array, "*runs"]

    @property
    def rate(self) -> Float[Array, "*runs"]:
        """Return η_c, the middle of the bracket: 0 where the loss rises at once, ∞ where it never rises."""
        return jnp.where(self.low == 0, 0, (self.low + self.high) / 2)

    @property
    def sharpness(self) -> Float[Array, "*runs"]:
        """Return λ_c = 2/η_c: ∞ where the loss rises at once, 0 where it never rises."""
        return 2 / self.rate

    @property
    def bracketed(self) -> Bool[Array, "*runs"]:
        """Tell whether both ends are known, and known from 0 in spite of rounding; never at a stationary point."""
        return (self.low > self.rounding) & (self.high < jnp.inf)


def critical_sharpness(
    loss: Callable[[Any], Array], point: Any, update: Any, *, tolerance: float = 1e-3
) -> CriticalSharpness:
    """Find λ_c = 2/η_c along an update u, η_c = min{η > 0 : ℓ(θ + ηu) > ℓ(θ)}, by a few values of the loss.

    The definition is that of arXiv 2601.16979 with the sign of optax: updates are added. `point` is any tree of
    arrays, `loss` any function of it, `update` a tree of the same shapes: what `optimizer.update` returns, so that
    η = 1 is the step itself and λ_c < 2 where it lowers the loss and no smaller one raises it; or −∇ℓ, for λ_c in the
    unit of the Hessian. λ_c is proportional to u. A loss that is not finite counts as risen.

    On a quadratic with gradient g and Hessian H, ℓ(θ + ηu) − ℓ(θ) = η gᵀu + ½η² uᵀHu, so that for gᵀu < 0

        λ_c = max(0, uᵀHu/(−gᵀu)),

    and along u = −g, λ_c = max(0, gᵀHg/gᵀg) ≤ max(0, λ_max(H)): in an orthonormal basis of eigenvectors v_i,
    gᵀHg = Σ_i λ_i (gᵀv_i)² ≤ λ_max Σ_i (gᵀv_i)² = λ_max gᵀg, with equality for g an eigenvector of λ_max.

    A search from η = 1 brackets η_c, high ≤ (1 + `tolerance`)·low, in 4 to 8 passes on most quadratics, some ten on
    a network and 40 at most; the first gives gᵀu too, at the cost of a gradient. The next η is where the remainder
    ℓ(θ + ηu) − ℓ(θ) − η gᵀu, taken for a power of η, makes up for η gᵀu: exact on a quadratic. Where gᵀu > 0 the
    loss rises at once, low = high = 0 after one pass; one that has not risen at η = 2⁴⁰ is taken for one that never
    does. A rise between two η tried that is over at the larger is not seen. The function is traceable: vmap it, or
    record it in `train`.

    >>> import jax, jax.numpy as jnp
    >>> H = jnp.array([3.0, 1.0])
    >>> def loss(x):
    ...     return jnp.sum(H * x**2) / 2
    >>> x = jnp.ones(2)
    >>> found = critical_sharpness(loss, x, -jax.grad(loss)(x))
    >>> round(float(found.sharpness), 2), int(found.passes), bool(found.bracketed)  # (3³ + 1)/(3² + 1)
    (2.8, 4, True)

    With adapters, θ = (A, B) and ℓ(w(θ)):

    >>> from signal_drift.lora import effective_weights, init_adapters
    >>> base = {"layer": jnp.eye(2)}
    >>> theta = init_adapters(jax.random.key(0), base, rank=1)
    >>> def of_adapters(theta):
    ...     return jnp.sum(effective_weights(base, theta, 2.0)["layer"] ** 2)
    >>> down = jax.tree.map(jnp.negative, jax.grad(of_adapters)(theta))
    >>> bool(critical_sharpness(of_adapters, theta, down).bracketed)
    True

    Raises `InputError` for an update that is not shaped like the point, a tolerance out of range, and a loss that is
    no scalar or, outside of a trace, not finite at the point.
    """
    _check_fit(point, update)
    check_loss(loss, point)
    along = traceable("loss", loss)
    least = 4 * float(jnp.finfo(jax.eval_shape(along, point).dtype).eps)
    if not is_real(tolerance) or not least <= tolerance < 1:
        raise InputError(f"tolerance: must be at least 4ε = {least:.1e} and below 1, got {shown(tolerance)}")
    start, found = _search(along, point, update, tolerance)
    if not isinstance(start, Tracer) and not jnp.isfinite(start):
        raise InputError(f"loss: must be finite at the point, got {start}")
    return found


def _check_fit(point: Any, update: Any) -> None:
    """Two trees of real arrays of the same shapes."""
    values, changes = leaves("point", point), leaves("update", update)
    for name, found in (("point", values), ("update", changes)):
        for path, x in found:
            if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
                where = name + jax.tree_util.keystr(path)
                raise InputError(f"{where}: must be an array of real floating-point numbers, got {shown(x)}")
    if not values:
        raise InputError(f"point: must hold at least one array, got {shown(point)}")
    if jax.tree.structure(point) != jax.tree.structure(update):
        raise InputError(f"update: must be a tree like the point, {shown(point)}, got {shown(update)}")
    for (path, x), (_, change) in zip(values, changes, strict=True):
        if jnp.shape(x) != jnp.shape(change):
            where = "update" + jax.tree_util.keystr(path)
            raise InputError(f"{where}: must have the point's shape {jnp.shape(x)}, got {jnp.shape(change)}")


class _State(NamedTuple):
    """A bracket of η_c, remainder/η at its ends, the values of the loss taken and how many of them within it."""

    low: Array
    high: Array
    at_low: Array
    at_high: Array
    passes: Array
    within: Array


@jax.jit
def _search(loss: Partial, point: Any, update: Any, tolerance: Array) -> tuple[Array, CriticalSharpness]:
    """ℓ(θ), and the bracket."""

    def value(eta: Array) -> Array:
        return loss(optax.apply_updates(point, optax.tree.scale(eta, update))).astype(eta.dtype)

    given = jax.eval_shape(loss, point).dtype
    zero = jnp.zeros((), jnp.promote_types(given, jnp.float32))
    start, slope = jax.value_and_grad(value)(zero)

    def trial(x: _State) -> _State:
        eta = _next(x, slope, tolerance / 3)
        there = value(eta)
        risen = ~(jnp.isfinite(there) & (there <= start))
        rest = (there - start) / eta - slope
        within = jnp.isfinite(x.high) & (x.low > 0)
        return _State(
            low=jnp.where(risen, x.low, eta),
            high=jnp.where(risen, eta, x.high),
            at_low=jnp.where(risen, x.at_low, rest),
            at_high=jnp.where(risen, rest, x.at_high),
            passes=x.passes + 1,
            within=x.within + within,
        )

    def goes_on(x: _State) -> Array:
        wide = jnp.where(jnp.isfinite(x.high), x.high > (1 + tolerance) * x.low, x.low < FARTHEST)
        return wide & (x.passes < PASSES)

    none = jnp.full_like(zero, jnp.nan)
    high = jnp.where(slope > 0, 0, jnp.where(jnp.isfinite(start), jnp.inf, jnp.nan)).astype(zero.dtype)
    low = jnp.where(jnp.isfinite(start), 0, jnp.nan).astype(zero.dtype)
    found = jax.lax.while_loop(goes_on, trial, _State(low, high, none, none, jnp.asarray(1), jnp.asarray(0)))
    rounding = float(jnp.finfo(given).eps) * jnp.abs(start / slope)
    return start, CriticalSharpness(found.low, found.high, rounding, found.passes)


def _next(x: _State, slope: Array, nudge: Array) -> Array:
    """The η to try: on the far side of where the remainder of a power of η meets −gᵀu, so that both ends close in."""
    risen = jnp.isfinite(x.high)
    known, there = jnp.where(risen, x.high, x.low), jnp.where(risen, x.at_high, x.at_low)
    power = jnp.log(x.at_high / x.at_low) / jnp.log(x.high / x.low)
    power = jnp.where(jnp.isfinite(power) & (power > 0), power, 1)
    guess = known * (-slope / there) ** (1 / power)
    usable = jnp.isfinite(guess) & (guess > 0) & (x.within % EVERY < EVERY - 1)
    from_below = risen & (guess / x.high > x.low / guess)
    aimed = guess * jnp.where(from_below, 1 - nudge, 1 + nudge)
    middle = jnp.where(x.low > 0, jnp.sqrt(x.low) * jnp.sqrt(x.high), x.high / GROWTH)
    faster = jnp.clip(2.0 ** (x.passes - 2), 1 + nudge, 4)
    least = jnp.where(x.low > 0, x.low * (1 + nudge), x.high / SHRINKAGE)
    most = jnp.where(x.low > 0, x.high * (1 - nudge), x.high / faster)
    inside = jnp.clip(jnp.where(usable, aimed, middle), least, most)
    beyond = jnp.clip(jnp.where(usable, aimed, 4 * x.low), faster * x.low, GROWTH * x.low)
    return jnp.where(risen, inside, jnp.where(x.low > 0, beyond, 1))


def _table(x: CriticalSharpness) -> Table:
    bracket = f"η_c = {span(x.rate)} between {span(x.low)} and {span(x.high)}, ± {span(x.rounding)} by rounding"
    return Table(f"CriticalSharpness, λ_c = {span(x.sharpness)}, {bracket}, after {span(x.passes)} passes")


displayed_as(_table)(CriticalSharpness)
