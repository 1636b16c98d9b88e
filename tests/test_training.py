"""Training against loops written out in NumPy, and what it records against the update's own decomposition.

An entry of a gradient errs by n·ε of the largest entry, n of about 20. Adam divides it by its own size, here at least
10⁻⁵ of the largest, and multiplies it by η ≤ 0.02: 2·10³·n·ε a step, and 10⁴·n·ε = TOLERANCE over the six steps.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import (
    EPS,
    SMALL,
    flat,
    flat_loss,
    flat_weights,
    kronecker_jacobian,
    problem,
    rejects,
    rounding,
    unflat,
)

import signal_drift as sd
from signal_drift.lora.norms import CANCELLATION

STEPS = 6
TOLERANCE = 1e4 * 20 * EPS


# The loops.


def descent(eta):
    """θ ← θ − η∇; η may be a vector."""
    return lambda gradients, theta: -eta * gradients[-1]


def adam(eta, decay=0.0, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma & Ba: the moments as sums over all gradients so far, corrected for their start at zero; decay as AdamW."""

    def rule(gradients, theta):
        t = len(gradients)
        m = sum((1 - b1) * b1 ** (t - 1 - i) * g for i, g in enumerate(gradients)) / (1 - b1**t)
        v = sum((1 - b2) * b2 ** (t - 1 - i) * g**2 for i, g in enumerate(gradients)) / (1 - b2**t)
        return -eta * (m / (np.sqrt(v) + eps) + decay * theta)

    return rule


def value_and_gradient(P, theta):
    """(ℓ, ∇_θ ℓ = Jᵀg) at the flat θ: in NumPy for a quadratic, else by one differentiation of the loss alone."""
    w = np.asarray(flat_weights(P, theta))
    if P.quadratic:
        Q, b = P.quadratic
        value, g = w @ Q @ w / 2 + b @ w, Q @ w + b
    else:
        value, g = jax.value_and_grad(lambda w: flat_loss(P, w))(w)
    return float(value), np.asarray(g), kronecker_jacobian(unflat(theta, P.adapters), P.s).T @ np.asarray(g)


def loop(P, rule, steps=STEPS):
    """(losses, weight gradients, θ's), the first and the last with one entry more than there are steps."""
    thetas, losses, weight_gradients, gradients = [flat(P.adapters)], [], [], []
    for _ in range(steps):
        value, g, gradient = value_and_gradient(P, thetas[-1])
        losses.append(value)
        weight_gradients.append(g)
        gradients.append(gradient)
        thetas.append(thetas[-1] + rule(gradients, thetas[-1]))
    losses.append(value_and_gradient(P, thetas[-1])[0])
    return losses, weight_gradients, thetas


def on_B(P, factor):
    """1 on the entries of A and `factor` on those of B, flat."""
    return flat({k: (np.ones(A.shape), np.full(B.shape, factor)) for k, (A, B) in P.adapters.items()})


OPTIMIZERS = {
    "sgd": (optax.sgd(0.01), lambda P: descent(0.01)),
    "adam": (optax.adam(0.02), lambda P: adam(0.02)),
    "adamw": (optax.adamw(0.02, weight_decay=0.1), lambda P: adam(0.02, 0.1)),
    "LoRA+": (sd.separate_rates(optax.sgd(0.002), optax.sgd(0.01)), lambda P: descent(0.002 * on_B(P, 5.0))),
    "LoRA+ adam": (sd.separate_rates(optax.adam(0.01), optax.adam(0.04)), lambda P: adam(0.01 * on_B(P, 4.0))),
}
RUNS = [
    ("psd", "sgd"),
    ("psd-at-init", "adam"),
    ("indefinite", "adam"),
    ("psd", "adamw"),
    ("indefinite", "LoRA+"),
    ("mlp", "LoRA+ adam"),
]


@cache
def run(name, optimizer):
    P = problem(name)
    return sd.train(P.loss, P.base, P.adapters, P.scaling, OPTIMIZERS[optimizer][0], STEPS)


@cache
def expected(name, optimizer):
    return loop(problem(name), OPTIMIZERS[optimizer][1](problem(name)))


@pytest.mark.parametrize(("name", "optimizer"), RUNS)
def test_trajectory_equals_the_loop(name, optimizer):
    (losses, _, thetas), trained = expected(name, optimizer), run(name, optimizer)
    assert trained.loss.shape == (STEPS + 1,)
    assert np.allclose(trained.loss, losses, rtol=0, atol=TOLERANCE * max(map(abs, losses)))
    assert np.allclose(flat(trained.trained), thetas[-1], rtol=0, atol=TOLERANCE * np.linalg.norm(thetas[-1]))
    assert 0.01 < np.linalg.norm(thetas[-1] - thetas[0]) < 10


@pytest.mark.parametrize(("name", "optimizer"), RUNS)
def test_records_equal_the_decomposed_updates(name, optimizer):
    """‖ΔW‖_F per layer and step, and ⟨Δw, −g⟩, from `decompose_update` of consecutive θ of the loop.

    The Gram form of a norm errs by δ ≤ 10·n·ε·‖L‖²‖R‖² in its square, so by at most √δ, and by δ/‖LR‖ where the norm is
    larger than that; ‖L‖, ‖R‖ ≤ ‖θ‖ + ‖Δθ‖.
    """
    P, trained = problem(name), run(name, optimizer)
    _, weight_gradients, thetas = expected(name, optimizer)
    assert trained.signal_norms.keys() == trained.drift_norms.keys() == P.base.keys()
    for t, g in enumerate(weight_gradients):
        theta, delta = (jnp.asarray(x) for x in (thetas[t], thetas[t + 1] - thetas[t]))
        parts = sd.decompose_update(unflat(theta, P.adapters), unflat(delta, P.adapters), P.scaling)
        size = float(jnp.linalg.norm(theta) + jnp.linalg.norm(delta))
        for recorded, matrices in ((trained.signal_norms, parts.signal), (trained.drift_norms, parts.drift)):
            for layer, matrix in matrices.items():
                norm, square_error = np.linalg.norm(matrix), P.s[layer] ** 2 * rounding(20, size**4)
                error = min(np.sqrt(square_error), square_error / max(norm, EPS)) + TOLERANCE * size
                assert abs(recorded[layer][t] - norm) <= error
        error = TOLERANCE * np.linalg.norm(g)
        assert abs(trained.signal_alignment[t] + flat(parts.signal) @ g) <= error * size
        assert abs(trained.drift_alignment[t] + flat(parts.drift) @ g) <= error * size
        assert abs(trained.gradient_norm[t] - np.linalg.norm(g)) <= error


@pytest.mark.parametrize("part", ["signal", "drift"])
def test_total_norm_is_the_norm_over_layers(part):
    trained = run("indefinite", "adam")
    layers = np.stack(list(getattr(trained, f"{part}_norms").values()))
    assert layers.shape == (3, STEPS)
    total = getattr(trained, f"{part}_norm")
    assert total.shape == (STEPS,)
    assert np.allclose(total, np.linalg.norm(layers, axis=0), rtol=rounding(3), atol=0)


FIRST_STEPS = {"sgd": optax.sgd(0.1), "sign descent": optax.sign_sgd(0.1), "adam": optax.adam(0.1)}


@pytest.mark.parametrize("optimizer", FIRST_STEPS)
def test_first_step_from_B_zero_has_no_drift(optimizer):
    """X3, exactly: ∇_A ℓ = s·BᵀG = 0, these optimizers map 0 to 0, and ΔB·0 = 0. The second step does drift."""
    P = problem("mlp-at-init")
    trained = sd.train(P.loss, P.base, P.adapters, P.scaling, FIRST_STEPS[optimizer], 2)
    assert trained.drift_norm[0] == 0
    assert all(norms[0] == 0 for norms in trained.drift_norms.values())
    assert trained.drift_alignment[0] == 0
    assert trained.signal_norm[0] > 0
    assert trained.drift_norm[1] > 0


@pytest.mark.parametrize("optimizer", FIRST_STEPS)
def test_first_step_away_from_B_zero_drifts(optimizer):
    """X3 needs B = 0 (negative control). In a layer signs may cancel, over all layers they do not."""
    P = problem("mlp")
    trained = sd.train(P.loss, P.base, P.adapters, P.scaling, FIRST_STEPS[optimizer], 1)
    assert trained.drift_norm[0] > TOLERANCE * trained.signal_norm[0]


def test_full_fine_tuning_is_gradient_descent_on_the_weights():
    """θ = w: W ← W − η(Qw + b), all signal, no drift; `scaling` does nothing."""
    P, eta = problem("indefinite"), 0.03
    assert P.quadratic is not None
    Q, b = P.quadratic
    trained = sd.train(P.loss, P.base, None, 1e9, optax.sgd(eta), STEPS)
    w, losses = flat(P.base), []
    for t in range(STEPS):
        losses.append(w @ Q @ w / 2 + b @ w)
        g = Q @ w + b
        square = float(g @ g)
        assert float(trained.signal_alignment[t]) == pytest.approx(eta * square, rel=TOLERANCE)
        assert float(trained.signal_norm[t]) == pytest.approx(eta * np.sqrt(square), rel=TOLERANCE)
        assert float(trained.gradient_norm[t]) == pytest.approx(np.sqrt(square), rel=TOLERANCE)
        w = w - eta * g
    losses.append(w @ Q @ w / 2 + b @ w)
    assert np.allclose(trained.loss, losses, rtol=0, atol=TOLERANCE * max(map(abs, losses)))
    assert np.allclose(flat(trained.trained), w, rtol=0, atol=TOLERANCE * np.linalg.norm(w))
    assert not trained.drift_norm.any()
    assert not trained.drift_alignment.any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_padded_rank_leaves_the_run_unchanged(optimizer):
    """Every record and the trained factors, to rounding; what was padded is still exactly zero."""
    P, plain = problem("indefinite"), run("indefinite", optimizer)
    wide = sd.pad_rank(P.adapters, 7)
    padded = sd.train(P.loss, P.base, wide, P.scaling, OPTIMIZERS[optimizer][0], STEPS)
    for layer, (A, B) in padded.trained.items():
        r = len(P.adapters[layer].A)
        assert (A.shape[0], B.shape[1]) == (7, 7)
        assert not A[r:].any()
        assert not B[:, r:].any()
        for factor, same in ((A[:r], plain.trained[layer].A), (B[:, :r], plain.trained[layer].B)):
            assert np.allclose(factor, same, rtol=0, atol=TOLERANCE * np.linalg.norm(same))
    for one, other in zip(*(jax.tree.leaves(x._replace(trained=None)) for x in (plain, padded)), strict=True):
        assert np.allclose(one, other, rtol=0, atol=TOLERANCE * np.max(np.abs(other)))


@pytest.mark.parametrize("name", SMALL)
def test_padding_leaves_the_weights_unchanged(name):
    P = problem(name)
    padded = sd.effective_weights(P.base, sd.pad_rank(P.adapters, 9), P.scaling)
    w = flat_weights(P, flat(P.adapters))
    assert np.allclose(flat(padded), w, rtol=0, atol=rounding(9, w))


def loop_with_drift(P, eta, c):
    """Losses of gradient descent on a quadratic of w, with w ← w + JΔθ + c·Δw_Drift: w is followed by itself."""
    Q, b = P.quadratic
    theta, w, losses = flat(P.adapters), np.asarray(flat_weights(P, flat(P.adapters))), []
    for _ in range(STEPS):
        losses.append(w @ Q @ w / 2 + b @ w)
        J = kronecker_jacobian(unflat(theta, P.adapters), P.s)
        delta = -eta * J.T @ (Q @ w + b)
        drift = {k: P.s[k] * np.asarray(x.B) @ np.asarray(x.A) for k, x in unflat(delta, P.adapters).items()}
        theta, w = theta + delta, w + J @ delta + c * flat(drift)
    return np.array([*losses, w @ Q @ w / 2 + b @ w])


@pytest.mark.parametrize("c", [0.0, -1.0, 4.0, 0.37])
def test_the_drift_is_multiplied_as_in_a_loop_that_follows_the_weights(c):
    """The control, a drift of c + 0.01, is caught."""
    P = problem("indefinite")
    trained = sd.train(P.loss, P.base, P.adapters, P.scaling, optax.sgd(0.05), STEPS, drift=c)
    losses, near = loop_with_drift(P, 0.05, c), loop_with_drift(P, 0.05, c + 0.01)
    tolerance = TOLERANCE * max(map(abs, losses))
    assert np.allclose(trained.loss, losses, rtol=0, atol=tolerance)
    assert np.max(np.abs(losses - near)) > 10 * tolerance
    final = flat_loss(P, flat_weights(replace(P, base=trained.base), flat(trained.trained)))
    assert np.isclose(final, losses[-1], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "optimizer"), [("indefinite", "adam"), ("mlp", "LoRA+ adam")])
def test_once_the_drift_is_the_run_as_it_is(name, optimizer):
    """Bit for bit, as a number and as an array; and without moving a W₀ of its own where it is the number 1."""
    P, transform = problem(name), OPTIMIZERS[optimizer][0]

    def trained(drift):
        return sd.train(P.loss, P.base, P.adapters, P.scaling, transform, STEPS, drift=drift)

    plain, once, array = run(name, optimizer), trained(1.0), trained(jnp.asarray(1.0))
    assert once.base is None
    for other in (once, array._replace(base=None)):
        for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
            assert np.array_equal(x, y)
    assert all(np.array_equal(array.base[k], P.base[k]) for k in P.base)


def test_noise_has_the_norm_of_the_drift_and_another_direction_by_key():
    """Compare the norm of what w does beyond the signal with ‖s ΔBΔA‖, in every layer, to n·ε of it for n entries."""
    P = problem("mlp")

    def beyond(step):
        drift = sd.decompose_update(step.theta, step.delta, step.scaling).drift
        return drift, {k: drift[k] + step.base_delta[k] for k in drift}

    def noise(seed):
        drift = sd.DriftNoise(jax.random.key(seed))
        return sd.train(
            P.loss, P.base, P.adapters, P.scaling, optax.sgd(0.05), STEPS, drift=drift, record=beyond
        ).recorded

    (drift, one), (_, other) = noise(0), noise(1)
    for k in drift:
        norm, n = np.linalg.norm(drift[k], axis=(1, 2)), drift[k][0].size
        assert np.allclose(np.linalg.norm(one[k], axis=(1, 2)), norm, rtol=10 * n * EPS, atol=0)
        cosines = [np.vdot(one[k][t], x[t]) / norm[t] ** 2 for t in range(STEPS) for x in (drift[k],)]
        assert max(map(abs, cosines)) < 0.99
        assert not np.allclose(one[k][0] / norm[0], other[k][0] / np.linalg.norm(other[k][0]), atol=0.01)
        assert not np.allclose(one[k][0] / norm[0], one[k][1] / norm[1], atol=0.01)


def test_a_frozen_A_stays_and_drifts_nowhere():
    P = problem("indefinite")
    trained = sd.train(P.loss, P.base, P.adapters, P.scaling, sd.frozen_A(optax.adam(0.02)), STEPS)
    losses = loop(P, lambda gradients, theta: adam(0.02)(gradients, theta) * on_B(P, 2.0) * (on_B(P, 2.0) - 1) / 2)[0]
    assert np.allclose(trained.loss, losses, rtol=0, atol=TOLERANCE * max(map(abs, losses)))
    assert not trained.drift_norm.any()
    assert all(np.array_equal(trained.trained[k].A, P.adapters[k].A) for k in P.base)


def test_one_factor_at_a_time_has_each_factor_stand_still_in_turn():
    """Against a loop in which each factor has an Adam of its own, fed with the gradients of its own turns."""
    P = problem("indefinite")
    trained = sd.train(P.loss, P.base, P.adapters, P.scaling, sd.one_factor_at_a_time(optax.adam(0.02)), STEPS)
    of_B = on_B(P, 2.0) - 1

    def rule(gradients, theta):
        turn = (len(gradients) - 1) % 2
        return adam(0.02)(gradients[turn::2], theta) * (1 - of_B if turn else of_B)

    losses, _, thetas = loop(P, rule)
    assert np.allclose(trained.loss, losses, rtol=0, atol=TOLERANCE * max(map(abs, losses)))
    assert np.allclose(flat(trained.trained), thetas[-1], rtol=0, atol=TOLERANCE * np.linalg.norm(thetas[-1]))
    assert not trained.drift_norm.any()


@pytest.mark.parametrize("drift", [np.nan, np.inf, "noise", None, jnp.ones(2), sd.DriftNoise(None)])  # pyright: ignore
def test_a_drift_that_is_no_number_and_no_noise_is_named(drift):
    with rejects("drift"):
        sd.train(*arguments("psd"), optax.sgd(0.1), 1, drift=drift)


def test_full_fine_tuning_has_no_drift_to_change():
    loss, base, _, scaling = arguments("psd")
    with rejects("drift", "0.0"):
        sd.train(loss, base, None, scaling, optax.sgd(0.1), 1, drift=0.0)


def arguments(name):
    P = problem(name)
    return P.loss, P.base, P.adapters, P.scaling


def test_runs_mapped_over_scalings_equal_single_runs():
    """One of the mapped scalings is the problem's own, whose run is known; the losses of another follow the loop."""
    P, optimizer = problem("psd"), OPTIMIZERS["sgd"][0]
    mapped = jax.vmap(lambda s: sd.train(P.loss, P.base, P.adapters, s, optimizer, STEPS))(jnp.array([1.5, P.scaling]))
    for one, both in zip(jax.tree.leaves(run("psd", "sgd")), jax.tree.leaves(mapped), strict=True):
        assert np.allclose(both[1], one, rtol=0, atol=TOLERANCE * np.max(np.abs(one)))
    losses = loop(replace(P, scaling=1.5), descent(0.01))[0]
    assert np.allclose(mapped.loss[0], losses, rtol=0, atol=TOLERANCE * max(map(abs, losses)))


def test_diverging_run_carries_on_as_inf_and_nan():
    trained = sd.train(*arguments("psd"), optax.sgd(1e200), STEPS)
    assert jnp.isfinite(trained.loss[0])
    assert trained.loss.shape == (STEPS + 1,)
    assert not jnp.isfinite(trained.loss[-1])
    assert not jnp.isfinite(trained.drift_norm[-1])


def test_no_steps_record_the_loss_alone():
    P = problem("psd")
    trained = sd.train(*arguments("psd"), optax.sgd(0.1), 0)
    assert trained.loss.shape == (1,)
    assert trained.signal_norm.shape == trained.drift_alignment.shape == (0,)
    assert np.array_equal(flat(trained.trained), flat(P.adapters))


def test_train_checks_its_arguments():
    loss, base, adapters, scaling = arguments("psd")
    first = {"first": adapters["first"]}
    with rejects("adapters", "'second'"):
        sd.train(loss, base, first, scaling, optax.sgd(0.1), 1)
    with rejects("adapters['second']", "(2, 4)"):
        sd.train(loss, base, {**first, "second": adapters["first"]}, scaling, optax.sgd(0.1), 1)
    with rejects("scaling", "'typo'"):
        sd.train(loss, base, adapters, {"first": 1.0, "second": 1.0, "typo": 1.0}, optax.sgd(0.1), 1)
    with rejects("base", "{}"):
        sd.train(loss, {}, None, scaling, optax.sgd(0.1), 1)
    with rejects("base['W']", "(3,)"):
        sd.train(loss, {"W": jnp.ones(3)}, None, scaling, optax.sgd(0.1), 1)


def test_train_names_a_loss_that_is_no_scalar():
    _, base, adapters, scaling = arguments("psd")
    with rejects("loss", "(3, 4)"):
        sd.train(lambda weights: weights["first"], base, adapters, scaling, optax.sgd(0.1), 1)


def test_train_names_a_negative_number_of_steps():
    with rejects("steps", -1):
        sd.train(*arguments("psd"), optax.sgd(0.1), -1)


def test_norms_do_not_depend_on_the_sign_of_the_scaling():
    """s·BA with s < 0 and B equals −s·(−B)A, norms and all."""
    loss, base, adapters, scaling = arguments("psd")
    assert isinstance(scaling, float)
    mirrored = {layer: adapter._replace(B=-adapter.B) for layer, adapter in adapters.items()}
    plain, negative = (
        sd.train(loss, base, start, s, optax.sgd(0.05), 2) for start, s in ((adapters, scaling), (mirrored, -scaling))
    )
    assert np.allclose(negative.loss, plain.loss, rtol=TOLERANCE, atol=0)
    for layer in base:
        assert np.allclose(negative.signal_norms[layer], plain.signal_norms[layer], rtol=TOLERANCE, atol=0)
        assert np.allclose(negative.drift_norms[layer], plain.drift_norms[layer], rtol=TOLERANCE, atol=0)


def test_padding_to_a_smaller_rank_is_named():
    with rejects("rank", 1):
        sd.pad_rank(problem("psd").adapters, 1)


def batch_of(rng):
    return jnp.asarray(rng.standard_normal((STEPS, 5, 4))), jnp.asarray(rng.standard_normal((STEPS, 5, 2)))


def test_every_step_is_taken_on_its_own_batch():
    """Gradient descent on ½‖XWᵀ − Y‖²/5 of each batch, written out: G = (XWᵀ − Y)ᵀX/5, ∇_A = sBᵀG, ∇_B = sGAᵀ."""
    rng, eta, s = np.random.default_rng(3), 0.05, 1.7
    X, Y = batch_of(rng)
    W0, A, B = (rng.standard_normal(shape) for shape in ((2, 4), (3, 4), (2, 3)))

    def loss(weights, batch):
        inputs, targets = batch
        return jnp.sum((inputs @ weights["one"].T - targets) ** 2) / (2 * len(inputs))

    start = {"one": sd.Adapter(jnp.asarray(A), jnp.asarray(B))}
    trained = sd.train(loss, {"one": jnp.asarray(W0)}, start, s, optax.sgd(eta), STEPS, (X, Y))
    losses = []
    for x, y in zip(np.asarray(X), np.asarray(Y), strict=True):
        rest = x @ (W0 + s * B @ A).T - y
        losses.append(np.sum(rest**2) / 10)
        G = rest.T @ x / 5
        A, B = A - eta * s * B.T @ G, B - eta * s * G @ A.T
    losses.append(np.sum((np.asarray(X[-1]) @ (W0 + s * B @ A).T - np.asarray(Y[-1])) ** 2) / 10)
    assert np.allclose(trained.loss, losses, rtol=TOLERANCE, atol=0)
    assert np.allclose(trained.trained["one"].A, A, rtol=0, atol=TOLERANCE * np.linalg.norm(A))
    assert np.allclose(trained.trained["one"].B, B, rtol=0, atol=TOLERANCE * np.linalg.norm(B))


def test_one_batch_for_all_steps_is_no_batch():
    P, same = problem("psd"), jnp.ones((STEPS, 1))
    on_batch = sd.train(
        lambda w, batch: batch[0] * P.loss(w), P.base, P.adapters, P.scaling, OPTIMIZERS["sgd"][0], STEPS, same
    )
    for one, other in zip(jax.tree.leaves(run("psd", "sgd")), jax.tree.leaves(on_batch), strict=True):
        assert np.allclose(one, other, rtol=0, atol=TOLERANCE * np.max(np.abs(one)))


def test_train_names_batches_that_do_not_fit_the_steps():
    with rejects("batches", STEPS, "(3, 2)"):
        sd.train(*arguments("psd"), optax.sgd(0.1), STEPS, {"x": jnp.ones((STEPS, 1)), "y": jnp.ones((3, 2))})


def written_out(P, optimizer, low_rank):
    """The scan behind `train` and its records, in the same order of operations but for the norms: of the products.

    Beside each norm stand its terms, ‖B‖‖ΔA‖ + ‖ΔB‖‖A‖ and ‖ΔB‖‖ΔA‖ times |s|.
    """
    norm = jnp.linalg.norm
    s, start = P.s, dict(P.adapters if low_rank else P.base)

    def weights(theta):
        return {k: P.base[k] + s[k] * (B @ A) for k, (A, B) in sorted(theta.items())} if low_rank else theta

    def norms(theta, delta):
        if not low_rank:
            return {k: (norm(x), jnp.zeros(()), norm(x), jnp.zeros(())) for k, x in delta.items()}
        size = {k: abs(s[k]) * norm(dB) for k, (_, dB) in delta.items()}
        return {
            k: (
                abs(s[k]) * norm(B @ delta[k].A + delta[k].B @ A),
                abs(s[k]) * norm(delta[k].B @ delta[k].A),
                abs(s[k]) * norm(B) * norm(delta[k].A) + size[k] * norm(A),
                size[k] * norm(delta[k].A),
            )
            for k, (A, B) in theta.items()
        }

    def step(carry, _):
        theta, state = carry
        value, G = jax.value_and_grad(P.loss)(weights(theta))
        gradient = (
            {k: sd.Adapter(s[k] * (B.T @ G[k]), s[k] * (G[k] @ A.T)) for k, (A, B) in theta.items()} if low_rank else G
        )
        delta, state = optimizer.update(gradient, state, theta)
        drift = [s[k] * jnp.vdot(x.B.T @ G[k], x.A) for k, x in delta.items()] if low_rank else [jnp.zeros(())]
        alignments = -jnp.asarray(optax.tree.vdot(delta, gradient)), -jnp.sum(jnp.stack(drift))
        seen = value, norms(theta, delta), *alignments, optax.tree.norm(G)
        return (optax.apply_updates(theta, delta), state), seen

    (theta, _), seen = jax.lax.scan(step, (start, optimizer.init(start)), None, length=STEPS)
    return (jnp.append(seen[0], P.loss(weights(theta))), *seen[1:], theta)


@pytest.mark.parametrize("low_rank", [True, False])
@pytest.mark.parametrize(("name", "optimizer"), [("mlp", "adam"), ("indefinite", "sgd")])
def test_a_run_is_the_scan_written_out_bit_for_bit(name, optimizer, low_rank):
    """The norms alone are to rounding: their squares to n·ε of their terms', which `CANCELLATION` keeps near them."""
    P, transform = problem(name), OPTIMIZERS[optimizer][0]
    found = sd.train(P.loss, P.base, P.adapters if low_rank else None, P.scaling, transform, STEPS)
    loss, norms, signal_alignment, drift_alignment, gradient_norm, theta = written_out(P, transform, low_rank)
    expected = loss, signal_alignment, drift_alignment, gradient_norm, theta
    seen = found.loss, found.signal_alignment, found.drift_alignment, found.gradient_norm, found.trained
    jax.tree.map(np.testing.assert_array_equal, seen, expected)
    for k, (signal, drift, *terms) in norms.items():
        for one, other, size in zip((found.signal_norms[k], found.drift_norms[k]), (signal, drift), terms, strict=True):
            assert np.all(np.abs(one - other) <= CANCELLATION * rounding(max(P.base[k].shape)) * size)


@pytest.mark.parametrize("low_rank", [True, False])
def test_a_recorder_sees_every_step_whole(low_rank):
    """The quantities it sees fit together and follow Adam's own moments; the run is the one recorded by default."""
    P, optimizer = problem("indefinite"), OPTIMIZERS["adam"][0]
    start = P.adapters if low_rank else None
    found = sd.train(P.loss, P.base, start, P.scaling, optimizer, STEPS, record=lambda step: step)
    plain = sd.train(P.loss, P.base, start, P.scaling, optimizer, STEPS)
    np.testing.assert_array_equal(found.loss, plain.loss)
    jax.tree.map(np.testing.assert_array_equal, found.trained, plain.trained)
    theta: Any = dict(start or P.base)
    state = optimizer.init(theta)
    for t in range(STEPS):
        step = sd.Step(*jax.tree.map(lambda x, t=t: x[t], tuple(found.recorded)))
        jax.tree.map(np.testing.assert_array_equal, step.theta, theta)
        weights = sd.effective_weights(P.base, theta, P.scaling) if low_rank else theta
        value, G = jax.value_and_grad(P.loss)(weights)
        pulled = sd.adjoint_product(theta, step.gradient, P.scaling) if low_rank else step.gradient
        delta, state = optimizer.update(step.theta_gradient, state, theta)
        for seen, wanted in (
            (step.weights, weights),
            (step.loss, value),
            (step.gradient, G),
            (step.theta_gradient, pulled),
            (step.delta, delta),
            (step.state, state),
            (step.after, optax.apply_updates(theta, delta)),
        ):
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE), seen, wanted)
        assert step.scaling == (P.s if low_rank else {})
        theta, state = step.after, step.state
    jax.tree.map(np.testing.assert_array_equal, found.trained, theta)
    jax.tree.map(np.testing.assert_array_equal, found.state, state)


def test_a_recorder_sees_the_batch_of_its_step_and_may_be_mapped():
    P, factors = problem("psd"), jnp.arange(1.0, STEPS + 1)

    def losses(s):
        run = sd.train(
            lambda w, batch: batch * P.loss(w), P.base, P.adapters, s, optax.sgd(0.01), STEPS, factors,
            record=lambda step: (step.loss, P.loss(step.weights)),
        )  # fmt: skip
        return run.loss[:-1], *run.recorded

    on_batch, recorded, plain = jax.vmap(losses)(jnp.array([0.5, 1.0]))
    assert plain.shape == (2, STEPS)
    np.testing.assert_array_equal(recorded, on_batch)
    np.testing.assert_allclose(recorded, factors * plain, rtol=TOLERANCE)


def test_a_recorder_may_see_nothing_and_no_steps():
    nothing = sd.train(*arguments("psd"), optax.sgd(0.1), 2, record=lambda step: None)
    assert nothing.recorded is None
    none = sd.train(*arguments("psd"), optax.sgd(0.1), 0, record=lambda step: step.loss)
    assert (none.loss.shape, none.recorded.shape) == ((1,), (0,))


def test_train_names_a_recorder_that_is_no_function():
    record: Any = "loss"
    with rejects("record", "'loss'"):
        sd.train(*arguments("psd"), optax.sgd(0.1), 1, record=record)
