"""Checks what a step does to w when the same w is factored otherwise: statements of four other sources.

They are LoRAM (arXiv 2507.06558), *LoRA Without Regret* (Schulman and others, 2025), LoRA-RITE (2410.20625) and
LoRA-Muon (2606.12921), with our names for the factors: W = W₀ + s·BA. `OF_OTHERS` has them all.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from signal_drift.lora.adapters import Adapter, adjoint_product, effective_weights
from signal_drift.operators.operator import Point
from signal_drift.optimizers import separate_rates
from signal_drift.propositions.check import SAFETY, TOWARDS, Check, Tolerance, exact, largest, rounding
from signal_drift.propositions.optimizers import (
    ADAM,
    POWERS,
    STEPS,
    adam_has_a_gauge,
    rescaled_point,
    small_rates,
    trajectory,
)
from signal_drift.propositions.subject import Instance, flat
from signal_drift.training import Step, train

WORST = 1e3
"""The largest condition number of a factor, or of a gradient in its basis, that counts as full rank here."""
NEARLY = 0.49
"""The power of S in the control of a spectral step, which is invariant at ½ alone."""


def scaling_moves_into_the_factors(x: Instance, rule: str) -> Check:
    """Check that α = α'·a·b and (α'; aA, bB) have one w, under SGD with rates ×a², ×b² and under Adam with ×a, ×b.

    Proposition 1 of LoRAM and the table under it. The control gives each the rates of the other.
    """
    a, b = 4.0, 0.5
    optimizer, power, other = (optax.sgd, 2, 1) if rule == "SGD" else (ADAM, 1, 2)
    rates = _descent_rates(x) if rule == "SGD" else small_rates(x)
    squares = "²" if rule == "SGD" else ""
    there = rescaled_point(x, scale=1 / (a * b), p=a, q=b)

    def run(k: int) -> Float[Array, "steps D"]:
        return trajectory(there, a**k * rates[0], b**k * rates[1], optimizer).weights

    return Check.equality(
        "LoRAM-scaling",
        f"{rule}: (α, A, B) and (α/(ab), aA, bB) give the same w with η_A×a{squares}, η_B×b{squares}",
        run(power),
        trajectory(rescaled_point(x), *rates, optimizer).weights,
        exact(POWERS),
        control=("with the rates that the other optimizer needs", run(other)),
        assumptions=x.descending,
    )


def _descent_rates(x: Instance) -> tuple[float, float]:
    """η_A and η_B of SGD at which s·BA moves by about a hundredth a step, whatever s and the loss."""
    G, s = largest(flat(x.gradient)) or 1.0, max(x.s.values())
    return 0.01 / G, 0.01 / (G * s * (1 + s))


def adam_has_two_invariances(x: Instance) -> Check:
    """Check that Adam with ε = 0 does not see (α, init_A, LR_A, LR_B) → (α/(pq), p·init_A, p·LR_A, q·LR_B).

    "Parametrization invariances" of *LoRA Without Regret*; it is X4.
    """
    return replace(adam_has_a_gauge(x), claim="LWR-invariances")


def epsilon_is_scaled(x: Instance, how: str) -> Check:
    """Check that the invariance extends to ε > 0 with ε scaled, in one of the ways of `EPSILONS`.

    A note of *LoRA Without Regret* scales ε by 1/q. As ∇_A' = ∇_A/p and ∇_B' = ∇_B/q, it is ε/p that A needs. Where
    it holds it holds bit for bit (p and q are powers of 2); the tolerance is one rounding of w at every step, so that
    where it fails the ratio to it says by how much.
    """
    claim, p, q, of_A, words = EPSILONS[how]
    rates = small_rates(x)
    gradient = flat(adjoint_product(x.adapters, x.gradient, x.scaling))
    epsilon = largest(gradient) / 4 or 1.0
    here, there = rescaled_point(x), rescaled_point(x, scale=1 / (p * q), p=p, q=q)
    ours = _with_epsilon(there, (p * rates[0], q * rates[1]), (epsilon / of_A, epsilon / q))
    theirs = _with_epsilon(here, rates, (epsilon, epsilon))
    return Check.equality(
        claim,
        f"Adam with ε: (α, A, B, η_A, η_B) and (α/(pq), pA, qB, pη_A, qη_B) give the same w {words}",
        ours,
        theirs,
        rounding(STEPS, largest(theirs)),
        control=("with ε left as it is", _with_epsilon(there, (p * rates[0], q * rates[1]), (epsilon, epsilon))),
        assumptions=x.descending,
    )


EPSILONS = {
    "as noted": ("LWR-epsilon", 4.0, 0.5, 0.5, "with ε/q"),
    "where p = q": ("LWR-epsilon-tied", 4.0, 4.0, 4.0, "with ε/q, where p = q"),
    "each its own": ("LWR-epsilon-each", 4.0, 0.5, 4.0, "with ε/p for A and ε/q for B"),
}
"""By how ε is scaled: the claim, p, q, what ε of A is divided by, and the words."""


@jax.jit
def _with_epsilon(point: Point, rates: tuple[Any, Any], epsilons: tuple[Any, Any]) -> Float[Array, "steps D"]:
    """Run Adam, and return w after every step, with a rate and an ε for every A and for every B."""
    for_A, for_B = (optax.adam(rate, eps=epsilon) for rate, epsilon in zip(rates, epsilons, strict=True))

    def weights(step: Step) -> Array:
        moved = effective_weights(point.base, step.after, point.scaling)
        return jnp.concatenate([moved[k].ravel() for k in sorted(moved)])

    optimizer = separate_rates(for_A, for_B)
    return train(point.loss, point.base, point.adapters, point.scaling, optimizer, STEPS, record=weights).recorded


Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From A, B, ∇_A and ∇_B of one layer to (ΔA, ΔB)."""


def descent(A: np.ndarray, B: np.ndarray, gA: np.ndarray, gB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step by −∇."""
    return -gA, -gB


def adam(A: np.ndarray, B: np.ndarray, gA: np.ndarray, gB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take Adam's first step at the rate 1, with vanishing ε."""
    optimizer = ADAM(jnp.asarray(1.0))
    gradient: Any = Adapter(jnp.asarray(gA), jnp.asarray(gB))
    step: Any = optimizer.update(gradient, optimizer.init(gradient))[0]
    return np.asarray(step.A), np.asarray(step.B)


def lora_rite(A: np.ndarray, B: np.ndarray, gA: np.ndarray, gB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take LoRA-RITE's simplified step (Eq. 7, 8): of the unmagnified gradient, divided by the root of its Gram matrix.

    With Aᵀ = U_A R_A it is ΔB = −∇̄(∇̄ᵀ∇̄)^(−½) R_A^(−T), ∇̄ = ∇_B R_A⁻¹, and the same for A with B = U_B R_B.
    """

    def of(factor: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        R = np.linalg.qr(factor)[1]
        unmagnified = np.linalg.solve(R.T, gradient.T).T
        return -np.linalg.solve(R, (unmagnified @ inverse_root(unmagnified.T @ unmagnified)).T).T

    return of(B, gA.T).T, of(A.T, gB)


def lora_muon(
    A: np.ndarray, B: np.ndarray, gA: np.ndarray, gB: np.ndarray, power: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Take LoRA-Muon's step: ΔB = −msign(∇_B S^(−½)) S^(−½), S = AAᵀ, msign(X) = UVᵀ, and the same for A with BᵀB.

    With another `power` than ½ it is not LoRA-Muon's: it depends on how the product is factored.
    """

    def of(factor: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        root = inverse_root(factor.T @ factor, power)
        U, _, V = np.linalg.svd(gradient @ root, full_matrices=False)
        return -U @ V @ root

    return of(B, gA.T).T, of(A.T, gB)


def inverse_root(gram: np.ndarray, power: float = 0.5) -> np.ndarray:
    """Return S^(−½) of S ≻ 0, or another negative power."""
    values, vectors = np.linalg.eigh(gram)
    return (vectors / values**power) @ vectors.T


def parts_change_with_the_scale(x: Instance, rule: str, c: float = 4.0) -> Check:
    """Check by what the parts of a step change from (A, B) to (cA, B/c), which have one product.

    ΔB A, B ΔA and ΔB ΔA are multiplied by c², c⁻² and 1 under gradient descent, by c, 1/c and 1 under Adam: neither is
    scalar scale invariant (LoRA-RITE, Sec. 2.2). The control is that each of them stays.
    """
    step, k = {"gradient descent": (descent, 2), "Adam": (adam, 1)}[rule]
    before = _parts(x, step)
    factors = np.repeat([c**k, c**-k, 1.0], [len(part) for part in before])
    return Check.equality(
        "RITE-scale",
        f"{rule}: from (A, B) to (cA, B/c) ΔB A is multiplied by c{'²' * (k - 1)}, B ΔA divided by it, ΔB ΔA stays",
        np.concatenate(_parts(x, step, lambda layer, rank: c * np.eye(rank))),
        factors * np.concatenate(before),
        exact(POWERS),
        control=("each of them stays", np.concatenate(before)),
        assumptions={"B ≠ 0": not x.begins["B = 0"], **x.descending},
    )


def spectral_step_is_invariant(x: Instance) -> Check:
    """Check that LoRA-RITE's simplified step moves w alike from (A, B) and (RA, BR⁻¹), R any invertible matrix.

    Condition (4) of LoRA-RITE: each of ΔB A, B ΔA and ΔB ΔA stays. R is drawn, its condition number at most 9.
    """
    draw = np.random.default_rng(zlib.crc32(flat(x.gradient).tobytes()))

    def R(layer: str, rank: int) -> np.ndarray:
        U, _, V = np.linalg.svd(draw.standard_normal((rank, rank)))
        return (U * draw.uniform(0.5, 4.5, rank)) @ V

    statement = "LoRA-RITE’s simplified step: ΔB A, B ΔA and ΔB ΔA are the same from (A, B) and (RA, BR⁻¹)"
    return _alike(x, "RITE-invariance", statement, lora_rite, R, 9.0)


def spectral_steps_agree(x: Instance) -> Check:
    """Check that LoRA-RITE's simplified step and LoRA-Muon's are one: the same ΔB A, B ΔA and ΔB ΔA (2606.12921)."""
    statement = "LoRA-RITE’s simplified step in QR coordinates is LoRA-Muon’s: the same ΔB A, B ΔA and ΔB ΔA"
    return _alike(x, "LoRAMuon-core", statement, lora_muon, None, 1.0)


def _alike(
    x: Instance, claim: str, statement: str, rule: Rule, R: Callable[[str, int], np.ndarray] | None, spread: float
) -> Check:
    """Compare LoRA-RITE's step from (RA, BR⁻¹) with that of the rule from (A, B), where everything has rank r.

    `spread` is the largest condition number of R. The control is LoRA-Muon's step with a power a fiftieth off.
    """
    worst = _conditions(x)
    assumptions = {f"A, B, GAᵀ and BᵀG of rank r, with condition numbers up to {WORST:g}": worst <= WORST}
    control = f"as it is with S^(−{NEARLY:g}) for S^(−½)"
    if worst > WORST:
        unknown = Tolerance(np.nan, "none: a matrix is not of rank r", "")
        return Check(claim, statement, np.nan, np.nan, np.nan, unknown, f"{TOWARDS}{control}", np.nan, assumptions)
    ours = np.concatenate(_parts(x, rule))
    return Check.equality(
        claim,
        statement,
        np.concatenate(_parts(x, lora_rite, R)),
        ours,
        conditioned(max(sum(W.shape) for W in x.base.values()), spread * worst, largest(ours)),
        control=(control, np.concatenate(_parts(x, partial(lora_muon, power=NEARLY), R))),
        assumptions=assumptions,
    )


def conditioned(terms: int, condition: float, scale: float) -> Tolerance:
    """Allow c·n·ε·κ²·scale: the Gram matrix of X has the condition number κ², which its inverse root loses."""
    value = SAFETY * terms * float(np.finfo(float).eps) * condition**2 * scale
    return Tolerance(value, f"{SAFETY:g}·n·ε·κ²·scale", f"n = {terms}, κ = {condition:.3g}, scale = {scale:.3g}")


def _parts(x: Instance, rule: Rule, transform: Callable[[str, int], np.ndarray] | None = None) -> list[np.ndarray]:
    """ΔB A, B ΔA and ΔB ΔA of all layers, each one vector, from (RA, BR⁻¹) with R given by layer and rank."""
    found = []
    for k, (A, B) in sorted(x.adapters.items()):
        R = np.eye(len(A)) if transform is None else transform(k, len(A))
        G, RA, BR = np.asarray(x.gradient[k]), R @ np.asarray(A), np.linalg.solve(R.T, np.asarray(B).T).T
        dA, dB = rule(RA, BR, x.s[k] * BR.T @ G, x.s[k] * G @ RA.T)
        found.append((dB @ RA, BR @ dA, dB @ dA))
    return [np.concatenate([part.ravel() for part in parts]) for parts in zip(*found, strict=True)]


def _conditions(x: Instance) -> float:
    """The largest condition number of any A, B, and gradient in their bases; infinite where one has not rank r."""
    worst = 1.0
    for k, (A, B) in x.adapters.items():
        G = np.asarray(x.gradient[k])
        for factor, gradient in ((np.asarray(A).T, G), (np.asarray(B), G.T)):
            basis = np.linalg.qr(factor)[0] if factor.any() else factor
            worst = max(worst, _condition(factor), _condition(gradient @ basis))
    return worst


def _condition(matrix: np.ndarray) -> float:
    """σ₁/σ_r of a matrix of r columns."""
    if matrix.shape[0] < matrix.shape[1]:
        return np.inf
    values = np.linalg.svd(matrix, compute_uv=False)
    return float(values[0] / values[-1]) if values[-1] > 0 else np.inf


OF_OTHERS: list[Callable[[Instance], Check]] = [
    *(partial(scaling_moves_into_the_factors, rule=rule) for rule in ("SGD", "Adam")),
    adam_has_two_invariances,
    *(partial(epsilon_is_scaled, how=how) for how in EPSILONS),
    *(partial(parts_change_with_the_scale, rule=rule) for rule in ("gradient descent", "Adam")),
    spectral_step_is_invariant,
    spectral_steps_agree,
]
"""The statements of others, each to be held against an `Instance`; that of LWR-epsilon fails wherever p ≠ q."""
