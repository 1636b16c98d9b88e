"""s·BA added to a layer's matrix adds s·B(Ax) to its output: what breaks that is refused by name, nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import EPS, rejects

import signal_drift as sd

D = {"param_dtype": jnp.float64}
X = jax.random.normal(jax.random.key(0), (5, 4), jnp.float64)


class Scaled(nnx.Linear):
    def __call__(self, inputs, out_sharding=None):
        return 2 * super().__call__(inputs)


class Normalised(nnx.Linear):
    def __call__(self, inputs, out_sharding=None):
        return inputs @ (self.kernel[...] / jnp.linalg.norm(self.kernel[...]))


class Activated(nnx.Linear):
    def __call__(self, inputs, out_sharding=None):
        return nnx.relu(super().__call__(inputs))


class Reversed(nnx.LinearGeneral):
    """The features in another order than the kernel has them."""

    def __call__(self, inputs, out_sharding=None):
        return super().__call__(inputs[..., ::-1])


class Twice(nnx.Einsum):
    def __call__(self, inputs, *args, **options):
        return super().__call__(inputs) + super().__call__(inputs)


class Head(nnx.Module):
    """A layer by the name of "head", after another."""

    def __init__(self, head):
        self.first, self.head = nnx.Linear(4, 4, rngs=nnx.Rngs(0), **D), head

    def __call__(self, x):
        return self.head(jnp.tanh(self.first(x)))


BROKEN = {
    "scale": lambda: Scaled(4, 3, rngs=nnx.Rngs(1), **D),
    "scale, bfloat16": lambda: Scaled(4, 3, rngs=nnx.Rngs(1), param_dtype=jnp.bfloat16),
    "norm": lambda: Normalised(4, 3, rngs=nnx.Rngs(1), **D),
    "activation": lambda: Activated(4, 3, rngs=nnx.Rngs(1), **D),
    "other order": lambda: Reversed(4, (3, 2), rngs=nnx.Rngs(1), **D),
    "einsum twice": lambda: Twice("na,ab->nb", (4, 3), rngs=nnx.Rngs(1), **D),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_module_that_computes_something_else_is_named(case):
    head = BROKEN[case]()
    with rejects("model", "'head'", type(head).__name__, "y = W x + b"):
        sd.base_and_forward(Head(head))
    assert list(sd.base_and_forward(Head(head), "first")[0]) == ["first"]


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16], ids=str)
def test_rounding_is_no_reason(dtype):
    """A thousand inputs, and a bias a million times the product or as large as the type allows."""
    bias = jax.nn.initializers.constant(min(1e6, float(jnp.finfo(dtype).max) / 8))
    base, _ = sd.base_and_forward(nnx.Linear(1000, 3, bias_init=bias, param_dtype=dtype, rngs=nnx.Rngs(0)))
    assert base[""].dtype == dtype


def test_a_model_that_is_made_under_jit_is_checked_all_the_same():
    base = jax.jit(lambda key: sd.base_and_forward(Head(nnx.Linear(4, 3, rngs=nnx.Rngs(key), **D)))[0])(
        jax.random.key(0)
    )
    assert base["head"].shape == (3, 4)

    def make(key):
        return sd.base_and_forward(Head(Scaled(4, 3, rngs=nnx.Rngs(key), **D)))[0]

    with rejects("model", "'head' (Scaled)"):
        jax.eval_shape(make, jax.random.key(0))


class Masked(nnx.Linear):
    """Another signature than a linear layer's: y = W x + b where the mask is, 0 elsewhere."""

    def __call__(self, inputs, mask):  # pyright: ignore[reportIncompatibleMethodOverride]
        return mask[:, None] * super().__call__(inputs)


class UsesMasked(nnx.Module):
    def __init__(self):
        self.layer = Masked(4, 3, rngs=nnx.Rngs(1), **D)

    def __call__(self, x, *, mask):
        return self.layer(x, mask)


def test_a_module_that_cannot_be_called_alone_needs_an_example():
    model, mask = UsesMasked(), jnp.arange(5) % 2 == 0
    with rejects("model", "'layer' (Masked)", "example"):
        sd.base_and_forward(model)
    shapes = {"x": jax.ShapeDtypeStruct(X.shape, X.dtype), "mask": jax.ShapeDtypeStruct((5,), bool)}
    for example in ({"x": X, "mask": mask}, shapes):
        base, forward = sd.base_and_forward(model, example=example)
        np.testing.assert_array_equal(forward(base, X, mask=mask), model(X, mask=mask))


class Follow(nnx.Module):
    """`use(self, x)` with a square layer at "layer" and one more parameter."""

    def __init__(self, use, layer=None):
        self.use = use
        self.layer = layer or nnx.Linear(4, 4, rngs=nnx.Rngs(2), **D)

    def __call__(self, x):
        return self.use(self, x)


def kernel(model):
    return model.layer.kernel[...]


ELSEWHERE = {
    "tied head": (lambda m, x: jnp.tanh(m.layer(x)) @ kernel(m).T, "axes [1] are summed over in place of [0]"),
    "penalty": (lambda m, x: m.layer(x) + jnp.sum(kernel(m) ** 2), "integer_pow"),
    "scale": (lambda m, x: x @ (3 * kernel(m)), "`mul`"),
    "norm": (lambda m, x: x @ (kernel(m) / jnp.linalg.norm(kernel(m), axis=0)), "`"),
    "product of two": (lambda m, x: x @ (kernel(m) @ kernel(m)), "dot_general"),
    "part of it": (lambda m, x: x[:, :2] @ kernel(m)[:2], "slice"),
    "mixed axes": (
        lambda m, x: x @ kernel(m).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4),
        "axes [0, 1] are summed over",
    ),
    "returned": (lambda m, x: (m.layer(x), kernel(m)), "outputs"),
    "in a scan": (
        lambda m, x: jax.lax.scan(lambda c, _: (jnp.tanh(c @ kernel(m).T), None), x, None, length=2)[0],
        "summed over",
    ),
    "rows as steps": (lambda m, x: jax.lax.scan(lambda c, w: (c + x @ w, None), x[:, 0], kernel(m).T)[0], "`scan`"),
    "carried": (lambda m, x: jax.lax.fori_loop(0, 2, lambda _, W: W, kernel(m)) @ x.T, "`"),
    "in a branch": (
        lambda m, x: jax.lax.cond(x[0, 0] > 0, lambda W: x @ W, lambda W: x @ W.T, kernel(m)),
        "summed over",
    ),
    "under jit": (lambda m, x: jax.jit(lambda W: x @ (W + 1))(kernel(m)), "`add`"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_kernel_that_is_used_in_another_way_is_named(case):
    use, words = ELSEWHERE[case]
    model = Follow(use)
    sd.base_and_forward(model)  # each module by itself is what it should be
    with rejects("model", "'layer'", "layer.kernel", words):
        sd.base_and_forward(model, example=X)


def test_the_line_of_the_use_is_named():
    with rejects("model", "test_promise.py:"):
        sd.base_and_forward(Follow(ELSEWHERE["scale"][0]), example=X)


FINE = {
    "twice": lambda m, x: m.layer(jnp.tanh(m.layer(x))),
    "remat": lambda m, x: nnx.remat(lambda layer, x: jnp.tanh(layer(x)))(m.layer, x),
    "jit": lambda m, x: nnx.jit(lambda layer, x: jnp.tanh(layer(x)))(m.layer, x),
    "scan": lambda m, x: jax.lax.scan(lambda c, _: (jnp.tanh(m.layer(c)), None), x, None, length=2)[0],
    "cond": lambda m, x: jax.lax.cond(x[0, 0] > 0, lambda W: x @ W, lambda W: -(x @ W), kernel(m)),
    "vmap": lambda m, x: jax.vmap(m.layer)(x),
    "batches of it": lambda m, x: jnp.einsum("nbi,nio->nbo", x[:, None], jnp.broadcast_to(kernel(m), (5, 4, 4))),
    "heads": lambda m, x: jnp.einsum("ni,iab->nab", x, kernel(m).reshape(4, 2, 2)).reshape(5, 4),
    "from the left": lambda m, x: (kernel(m).T @ x.T).T,
    "in float32": lambda m, x: x.astype(jnp.float32) @ kernel(m).astype(jnp.float32),
    "custom derivative": lambda m, x: jax.nn.relu(m.layer(x)),
    "not at all": lambda m, x: x,
}


@pytest.mark.parametrize("case", FINE)
def test_a_kernel_that_is_only_multiplied_is_no_case(case):
    model = Follow(FINE[case])
    base, forward = sd.base_and_forward(model, example=X)
    np.testing.assert_array_equal(forward(base, X), model(X))


def test_weight_normalisation_of_flax_is_found_in_place():
    model = nnx.WeightNorm(nnx.Linear(4, 3, rngs=nnx.Rngs(0), **D), rngs=nnx.Rngs(1))
    with rejects("model", "'layer_instance'"):
        sd.base_and_forward(model, example=X)


def test_what_is_found_in_place_is_wrong():
    """B(Ax) beside the layer, in NumPy, is not what BA in the kernel of a tied head gives; of one use it is."""
    A, B = np.ones((1, 4)) / 2, np.arange(4.0)[:, None]
    for use, same in ((lambda m, x: m.layer(x), True), (ELSEWHERE["tied head"][0], False)):
        model = Follow(use)
        base, forward = sd.base_and_forward(model)
        W = np.asarray(base["layer"])
        beside = np.asarray(model.layer(X)) + np.asarray(X) @ A.T @ B.T
        beside = beside if same else np.tanh(beside) @ W
        off = np.max(np.abs(forward({"layer": base["layer"] + B @ A}, X) - beside))
        assert off < 100 * EPS if same else off > 0.1
