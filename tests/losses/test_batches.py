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


class Loader:
    """Batches that can only be iterated, anew as often as one likes; `read` counts them."""

    def __init__(self, batches):
        self.batches, self.read = batches, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.read += 1
            yield batch


class Tensor:
    """An array of another library, which NumPy can read."""

    dtype = "float64 of another library"

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.x, dtype)


def loaders(batches):
    """The ways in which people have their batches, beside a list."""
    return {
        "loader": Loader(batches),
        "generator made anew": lambda: (batch for batch in batches),
        "tensors": Loader([jax.tree.map(Tensor, batch) for batch in batches]),
        "no length": type("Endless", (), {"__iter__": lambda self: iter(batches)})(),
    }


@pytest.mark.parametrize("kind", loaders([]))
def test_a_loader_gives_what_its_list_gives(kind):
    """To the bit: a value reads its batches first to last in either case."""
    base, _, data = problem()
    batches = cut(data, (10, 10, 4), "host")
    listed, streamed = (sd.mean_over_batches(loss_on_batch, x)(base) for x in (batches, loaders(batches)[kind]))
    assert listed == streamed


def test_derivatives_of_a_loader_are_those_of_all_samples():
    """They add in the other direction than those of a list: N terms, each of a few hundred roundings."""
    base, theta, data = problem()
    whole, streamed = (
        sd.decompose(loss, base, theta, 0.7).lora
        for loss in (
            lambda weights: loss_on_batch(weights, data),
            sd.mean_over_batches(loss_on_batch, Loader(cut(data, (10, 10, 4), "host"))),
        )
    )
    expected = whole.dense()
    assert np.max(np.abs(streamed.dense() - expected)) <= 100 * N * EPS * np.max(np.abs(expected))


def test_a_loader_is_read_once_for_a_gradient_and_once_for_a_product():
    """Equal batches make one pass; one of a shape of its own may make one more from the beginning."""
    base, theta, data = problem()
    loader = Loader(cut(data, (4,) * 6, "host"))
    loss = sd.mean_over_batches(loss_on_batch, loader)
    gradient = jax.jit(jax.grad(loss))
    for run in (lambda: loss(base), lambda: gradient(base)):
        before = loader.read
        jax.block_until_ready(run())
        assert loader.read - before == len(loader)
    task = sd.decompose(loss, base, theta, 0.7).task
    v = jnp.ones(task.shape[0])
    jax.block_until_ready(task @ v)
    before = loader.read
    jax.block_until_ready(task @ v)
    assert loader.read - before == len(loader)


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


@pytest.mark.parametrize("place", ["device", "host", "loader"])
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

    def batches(k):
        return Loader(cut(drawn(k), (64,) * k, "host")) if place == "loader" else cut(drawn(k), (64,) * k, place)

    streamed = [temporary(sd.mean_over_batches(loss_on_batch, batches(k))) for k in (4, 64)]
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


ONE = iter([np.ones((2, 4))])


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        (iter([np.ones((2, 4))]), "can be read only once; pass a function that makes one"),
        ((x for x in [np.ones((2, 4))]), "a generator can be read only once"),
        ({"X": np.ones((2, 4))}, "must be a list, a loader or a function that makes one, got dict"),
        (None, "got NoneType"),
        (lambda: 3, "the function must make an iterator, a new one at each call, got 3"),
        (lambda: ONE, "a new one at each call"),
        (lambda: iter([]), "need at least one, got none"),
        ([np.array(["a", "b"])], "must be arrays of numbers"),
    ],
)
def test_what_cannot_serve_as_batches_is_told_what_can(batches, says):
    with rejects("batches", says):
        sd.mean_over_batches(loss_on_batch, batches)
