"""The mean over batches against the loss on all samples at once, and the memory that it needs."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import EPS, rejects

import signal_drift as sd

N, SIZES = 24, {"equal": (8, 8, 8), "unequal": (5, 10, 2, 5, 2), "one": (24,)}
WIDTHS = (4, 6, 3)


def mlp(weights, X):
    return jnp.tanh(X @ weights["a"].T) @ weights["b"].T


def loss_on_batch(weights, batch):
    return jnp.mean((mlp(weights, batch["X"]) - batch["Y"]) ** 2)


def problem(dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 6)
    base = {
        "a": jax.random.normal(keys[0], (WIDTHS[1], WIDTHS[0]), dtype),
        "b": jax.random.normal(keys[1], (WIDTHS[2], WIDTHS[1]), dtype),
    }
    adapters = sd.init_adapters(keys[2], base, 2)
    theta = {k: sd.Adapter(A, jax.random.normal(keys[3], B.shape, dtype)) for k, (A, B) in adapters.items()}
    X, Y = jax.random.normal(keys[4], (N, WIDTHS[0]), dtype), jax.random.normal(keys[5], (N, WIDTHS[2]), dtype)
    return base, theta, {"X": X, "Y": Y}


def cut(data, sizes, place):
    ends = np.cumsum((0, *sizes))
    convert = jnp.asarray if place == "device" else np.asarray
    return [jax.tree.map(lambda x, i=i, j=j: convert(x[i:j]), data) for i, j in pairwise(ends)]


def operators(loss, base, theta):
    parts = sd.decompose(loss, base, theta, 0.7)
    weights = sd.effective_weights(base, theta, 0.7)
    gradient = ravel_pytree(jax.jit(jax.grad(loss))(weights))[0]
    return {"loss": loss(weights), "gradient": gradient, "task": parts.task.dense(), "lora": parts.lora.dense()}


@pytest.mark.parametrize("place", ["device", "host"])
@pytest.mark.parametrize("sizes", SIZES)
def test_gradient_and_hessians_are_those_of_all_samples(sizes, place):
    """Sums of N terms in another order, each of a few hundred roundings: error at most 100·N·ε·(largest entry)."""
    base, theta, data = problem()
    whole = operators(lambda weights: loss_on_batch(weights, data), base, theta)
    streamed = operators(sd.mean_over_batches(loss_on_batch, cut(data, SIZES[sizes], place)), base, theta)
    for name, value in whole.items():
        assert np.max(np.abs(streamed[name] - value)) <= 100 * N * EPS * np.max(np.abs(value)), name


def test_batches_of_unequal_sizes_are_weighted():
    """The control: the plain mean over batches of unequal sizes is another loss."""
    base, theta, data = problem()
    batches = cut(data, SIZES["unequal"], "device")
    plain = operators(lambda w: jnp.mean(jnp.stack([loss_on_batch(w, b) for b in batches])), base, theta)
    streamed = operators(sd.mean_over_batches(loss_on_batch, batches), base, theta)
    for name, value in plain.items():
        assert np.max(np.abs(streamed[name] - value)) > 1e-3 * np.max(np.abs(value)), name


@pytest.mark.parametrize("place", ["device", "host"])
def test_memory_of_a_product_does_not_grow_with_the_number_of_batches(place):
    """The compiler's own account of temporary memory decides; the control is the loss on all samples at once."""
    base, theta, _ = problem()

    def temporary(loss):
        def products(loss, theta, v):
            return [jax.jvp(jax.grad(f), (theta,), (v,)) for f in (lambda t: loss(sd.effective_weights(base, t, 0.7)),)]

        analysis = jax.jit(products).lower(loss, theta, theta).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    def drawn(count):
        X = jax.random.normal(jax.random.key(0), (64 * count, WIDTHS[0]), jnp.float64)
        return {"X": X, "Y": X[:, : WIDTHS[2]]}

    streamed = [temporary(sd.mean_over_batches(loss_on_batch, cut(drawn(k), (64,) * k, place))) for k in (4, 64)]
    whole = [temporary(jax.tree_util.Partial(whole_loss, drawn(k))) for k in (4, 64)]
    assert streamed[1] < 1.1 * streamed[0]
    assert whole[1] > 10 * whole[0]


def whole_loss(data, weights):
    return loss_on_batch(weights, data)


class Files:
    """A data set whose batches come from disk, as NumPy memory maps."""

    def __init__(self, folder, batches):
        self.paths, self.read = [folder / f"{i}.npy" for i in range(len(batches))], 0
        for path, batch in zip(self.paths, batches, strict=True):
            np.save(path, np.hstack([batch["X"], batch["Y"]]))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        self.read += 1
        both = np.load(self.paths[i], mmap_mode="r")
        return {"X": both[:, : WIDTHS[0]], "Y": both[:, WIDTHS[0] :]}


def test_batches_are_read_where_they_are_at_every_product(tmp_path):
    """Training, too, reads them anew at every step."""
    base, theta, data = problem()
    files = Files(tmp_path, cut(data, SIZES["unequal"], "host"))
    loss, before = sd.mean_over_batches(loss_on_batch, files), files.read
    parts = sd.decompose(loss, base, theta, 0.7)
    v = jnp.ones(parts.lora.shape[0])
    exact = sd.decompose(lambda weights: loss_on_batch(weights, data), base, theta, 0.7).lora @ v
    np.testing.assert_allclose(parts.lora @ v, exact, rtol=0, atol=100 * N * EPS * np.max(np.abs(exact)))
    assert files.read >= before + 2 * len(files)


@pytest.mark.parametrize("place", ["device", "host"])
def test_training_on_batches_is_full_batch_training(place):
    import optax

    base, theta, data = problem()
    streamed = sd.mean_over_batches(loss_on_batch, cut(data, SIZES["unequal"], place))
    runs = [
        jax.jit(lambda loss: sd.train(loss, base, theta, 0.7, optax.adam(1e-2), 5).loss)(loss)
        for loss in (streamed, jax.tree_util.Partial(whole_loss, data))
    ]
    np.testing.assert_allclose(*runs, rtol=1e-10)


@pytest.mark.parametrize("place", ["device", "host"])
def test_float32_stays_float32(place):
    base, _, data = problem(jnp.float32)
    loss = sd.mean_over_batches(loss_on_batch, cut(data, SIZES["unequal"], place))
    assert loss(base).dtype == jnp.float32
    assert float(loss(base)) == pytest.approx(float(loss_on_batch(base, data)), rel=1e-5)


def test_losses_on_other_data_of_the_same_shapes_share_their_structure():
    """So that one compilation serves every data set on the device."""
    _, _, data = problem()
    other = jax.tree.map(lambda x: x + 1, data)
    losses = [sd.mean_over_batches(loss_on_batch, cut(d, SIZES["unequal"], "device")) for d in (data, other)]
    assert jax.tree.structure(losses[0]) == jax.tree.structure(losses[1])


@pytest.mark.parametrize(
    ("batches", "name"),
    [
        ([], "batches"),
        ([{"X": np.ones((2, 4)), "Y": np.ones((3, 3))}], "batches[0]"),
        ([{"X": np.ones((2, 4)), "Y": np.ones((2, 3))}, {"X": np.ones((0, 4)), "Y": np.ones((0, 3))}], "batches[1]"),
        ([np.float64(1.0)], "batches[0]"),
    ],
    ids=["none", "mismatch", "empty", "scalar"],
)
def test_batches_that_make_no_data_set_are_named(batches, name):
    with rejects(name, "none" if not batches else np.shape(jax.tree.leaves(batches[-1])[0])):
        sd.mean_over_batches(loss_on_batch, batches)
