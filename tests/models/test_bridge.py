"""The bridge on every kind of layer: the model's own output, nnx's own gradient, the user's own adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import EPS, rejects

import signal_drift as sd
from signal_drift.models.transformer import TransformerClassifier

D = {"param_dtype": jnp.float64}
NORMAL = jax.nn.initializers.normal(0.5)
X = jax.random.normal(jax.random.key(0), (5, 6, 4), jnp.float64)


def general(features, out, **options):
    return nnx.LinearGeneral(features, out, bias_init=NORMAL, rngs=nnx.Rngs(1), **options, **D)


def bias_of(layer):
    assert layer.bias is not None
    return layer.bias[...]


def einsum(equation, kernel, bias=None):
    return nnx.Einsum(equation, kernel, bias, rngs=nnx.Rngs(1), **D)


class Chain(nnx.Module):
    """The modules in turn, as attributes "0", "1", …, with tanh between them."""

    def __init__(self, *modules):
        self.steps = nnx.List(modules)

    def __call__(self, x):
        for step in self.steps:
            x = jnp.tanh(step(x))
        return x


def attention(**options):
    sizes = {"in_features": 4, "qkv_features": 6, "out_features": 3, "decode": False}
    return nnx.MultiHeadAttention(2, **sizes, attention_fn=sd.exact_attention, rngs=nnx.Rngs(2), **options, **D)


class Shared(nnx.Module):
    """One linear layer used twice, and twice an attribute."""

    def __init__(self):
        self.first = nnx.Linear(4, 4, rngs=nnx.Rngs(3), **D)
        self.second = self.first

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


def transformer():
    model = TransformerClassifier(24, 3, tokens=3, width=4, heads=2, blocks=2, rngs=nnx.Rngs(4))
    return Chain(lambda x: x.reshape(5, -1), model)


MODELS = {
    "linear": lambda: Chain(nnx.Linear(4, 3, bias_init=NORMAL, rngs=nnx.Rngs(0), **D)),
    "general": lambda: Chain(general(4, (2, 3)), general((2, 3), 5, axis=(-2, -1)), general((6, 5), 2, axis=(1, 2))),
    "general, many axes": lambda: Chain(general((6, 4), (2, 3), axis=(1, 2))),
    "einsum": lambda: Chain(einsum("nta,hab->nthb", (2, 4, 3), (2, 3)), einsum("nthb,bhd->ntd", (3, 2, 5))),
    "einsum, ellipsis": lambda: Chain(einsum("...a,ba->...b", (3, 4), (3,))),
    "attention": lambda: Chain(attention()),
    "grouped attention": lambda: Chain(
        nnx.MultiHeadAttention(
            4, 4, 8, num_kv_heads=2, decode=False, attention_fn=sd.exact_attention, rngs=nnx.Rngs(2), **D
        )
    ),
    "dropout and batch norm": lambda: Chain(
        attention(dropout_rate=0.5), nnx.BatchNorm(3, rngs=nnx.Rngs(5), **D), nnx.Dropout(0.5, rngs=nnx.Rngs(6))
    ),
    "shared": Shared,
    "transformer": transformer,
}


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    return MODELS[request.param]()


def evaluated(model):
    copy = nnx.clone(model)
    copy.eval()
    return copy


def test_forward_at_the_base_is_the_model_bit_by_bit(model):
    base, forward = sd.base_and_forward(model)
    np.testing.assert_array_equal(forward(base, X), evaluated(model)(X))


def test_every_layer_is_used_as_its_matrix_in_place(model):
    base, _ = sd.base_and_forward(model)
    assert sd.base_and_forward(model, example=jax.ShapeDtypeStruct(X.shape, X.dtype))[0].keys() == base.keys()


def test_gradient_is_that_of_nnx(model):
    """Kernel by kernel, each seen as its matrix by a reshape that is written out here."""
    base, forward = sd.base_and_forward(model)
    gradient = jax.jit(jax.grad(lambda weights: jnp.sum(jnp.sin(forward(weights, X)))))(base)
    copy = evaluated(model)
    wanted = nnx.jit(nnx.grad(lambda model: jnp.sum(jnp.sin(model(X)))))(copy)
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(copy)}
    assert gradient
    for name, G in gradient.items():
        kernel = wanted
        for step in name.split("."):
            kernel = kernel[int(step) if step.isdecimal() else step]
        kernel, module = np.asarray(kernel["kernel"][...]), modules[name]
        if getattr(module, "einsum_str", "").endswith("->nthb"):
            expected = kernel.transpose(0, 2, 1).reshape(6, 4)
        elif getattr(module, "einsum_str", "").endswith("b"):
            expected = kernel
        else:
            expected = kernel.reshape(G.shape[::-1]).T
        np.testing.assert_allclose(G, expected, rtol=0, atol=1e3 * EPS * (1 + np.max(np.abs(kernel))))


def test_the_matrix_of_a_layer_computes_it():
    """y = W x + b of the flattened features, in NumPy, for three axes of the kernel."""
    layer = general(4, (2, 3))
    (W,) = sd.base_and_forward(Chain(layer))[0].values()
    y = np.asarray(X) @ np.asarray(W).T + np.asarray(bias_of(layer)).ravel()
    np.testing.assert_allclose(np.asarray(layer(X)).reshape(5, 6, 6), y, rtol=0, atol=100 * EPS)
    layer = general((2, 3), 5, axis=(-2, -1))
    (W,) = sd.base_and_forward(Chain(layer))[0].values()
    x = np.asarray(X)[:, :, :3].reshape(5, 1, 18)[:, :, :6].reshape(5, 2, 3)
    y = x.reshape(5, 6) @ np.asarray(W).T + np.asarray(bias_of(layer))
    np.testing.assert_allclose(layer(jnp.asarray(x)), y, rtol=0, atol=100 * EPS)


def test_two_uses_of_one_module_are_one_layer():
    base, forward = sd.base_and_forward(Shared())
    ((name, W),) = base.items()
    other = {name: W + 1}
    model, copy = Shared(), Shared()
    copy.first.kernel[...] = (W + 1).T
    np.testing.assert_array_equal(forward(other, X), copy(X))
    assert np.max(np.abs(forward(other, X) - model(X))) > 0.1


def test_the_model_is_left_as_it_was():
    model = MODELS["dropout and batch norm"]()
    sd.base_and_forward(model)
    assert model.steps[2].deterministic is False
    assert model.steps[1].use_running_average is False


def test_softmax_of_flax_is_float32_and_ours_is_not():
    """Flax's own attention differs by float32 rounding; with it the Hessian is not even symmetric."""
    sizes = {"in_features": 4, "decode": False}
    model = nnx.MultiHeadAttention(2, **sizes, rngs=nnx.Rngs(2), **D)
    base, forward = sd.base_and_forward(model)
    q, k, v = (np.asarray(getattr(model, n)(X)) for n in ("query", "key", "value"))
    logits = np.einsum("nthd,nshd->nhts", q, k) / np.sqrt(2)
    share = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = np.einsum("nhts,nshd->nthd", share / share.sum(-1, keepdims=True), v)
    exact = model.out(jnp.asarray(mixed))
    assert np.max(np.abs(forward(base, X) - exact)) < 100 * EPS
    assert 1e-9 < np.max(np.abs(model(X) - exact)) < 1e-5
    single, x = nnx.MultiHeadAttention(2, **sizes, rngs=nnx.Rngs(2)), X.astype(jnp.float32)
    base, forward = sd.base_and_forward(single)
    np.testing.assert_array_equal(forward(base, x), single(x))


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ("*.attention.*", ["key", "out", "query", "value"]),
        ("*.blocks.1.expand", ["expand"]),
        (lambda path, module: isinstance(module, nnx.Linear) and "blocks.0" in path, ["contract", "expand"]),
        (lambda _, module: getattr(module, "kernel", X).shape == (8, 4), ["contract", "embed"]),
    ],
    ids=["glob", "path", "predicate on the path", "predicate on the module"],
)
def test_layers_are_chosen_by_path_or_predicate(layers, wanted):
    model = transformer()
    base, forward = sd.base_and_forward(model, layers)
    assert sorted({name.rsplit(".", 1)[1] for name in base}) == wanted
    assert len(base) < len(sd.base_and_forward(model)[0])
    np.testing.assert_array_equal(forward(base, X), model(X))
    with rejects("weights", "'steps.1.head'"):
        forward({"steps.1.head": jnp.ones((3, 4))}, X)


def test_a_decomposition_of_kernels_with_three_axes():
    """H_LoRA = H_Signal + H_Drift through an attention layer, to rounding of their largest entries."""
    base, forward = sd.base_and_forward(MODELS["attention"]())
    start = sd.init_adapters(jax.random.key(0), base, 2)
    theta = {k: sd.Adapter(A, jnp.ones_like(B) / 3) for k, (A, B) in start.items()}
    parts = sd.decompose(lambda w: jnp.mean(forward(w, X) ** 2), base, theta, 0.5)
    signal, drift, lora = (np.asarray(op.dense()) for op in (parts.signal, parts.drift, parts.lora))
    assert np.max(np.abs(lora - signal - drift)) < 1e4 * EPS * np.max(np.abs(signal))
    assert np.max(np.abs(lora - signal)) > 1e-4 * np.max(np.abs(signal))


class Tied(nnx.Module):
    """Two modules with one kernel."""

    def __init__(self):
        self.one, self.two = (nnx.Linear(4, 4, rngs=nnx.Rngs(0), **D) for _ in range(2))
        self.two.kernel = self.one.kernel


class Stacked(nnx.Module):
    def __init__(self):
        self.layers = nnx.vmap(lambda key: nnx.Linear(4, 4, rngs=nnx.Rngs(key), **D))(
            jax.random.split(jax.random.key(0), 3)
        )


REFUSED = {
    "nothing matches": (lambda: Chain(general(4, 3)), "*.typo", ["layers", "'*.typo'", "steps.0"]),
    "convolution": (
        lambda: Chain(nnx.Conv(4, 3, (2,), rngs=nnx.Rngs(0)), general(3, 2)),
        "steps.*",
        ["layers", "'steps.0' (Conv)"],
    ),
    "only a convolution": (lambda: Chain(nnx.Conv(4, 3, (2,), rngs=nnx.Rngs(0))), None, ["model", "'steps.0' (Conv)"]),
    "batch axis": (
        lambda: Chain(general(4, 3, batch_axis={0: 5})),
        lambda path, module: "0" in path,
        ["layers", "'steps.0' (LinearGeneral)", "batch_axis"],
    ),
    "einsum with a batch": (
        lambda: Chain(einsum("nta,tab->ntb", (6, 4, 3))),
        "*0",
        ["layers", "'t'", "the input and the result"],
    ),
    "einsum with a sum": (lambda: Chain(einsum("nta,abz->ntb", (4, 3, 2))), "*0", ["layers", "'z'", "neither"]),
    "stacked": (Stacked, "layers", ["layers", "'layers'", "layers.0"]),
    "tied": (Tied, None, ["model", "'one'", "'two'"]),
    "embedding": (lambda: Chain(nnx.Embed(3, 4, rngs=nnx.Rngs(0)), general(4, 2)), "steps.0", ["layers", "steps.1"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adapted_is_named(case):
    make, layers, (argument, *words) = REFUSED[case]
    with rejects(argument, *words):
        sd.base_and_forward(make(), layers)


def test_by_default_what_cannot_be_adapted_stays_frozen():
    model = Chain(nnx.Conv(4, 3, (2,), rngs=nnx.Rngs(0), **D), general(3, 2))
    base, forward = sd.base_and_forward(model)
    assert list(base) == ["steps.1"]
    np.testing.assert_array_equal(forward(base, X), model(X))


@pytest.mark.parametrize("wrong", [{"tokens": 5}, {"heads": 3}, {"blocks": 0}], ids=str)
def test_sizes_that_make_no_transformer_are_named(wrong):
    sizes: dict = {"tokens": 3, "width": 4, "heads": 2, "blocks": 1} | wrong
    with rejects("tokens", *wrong.values()):
        TransformerClassifier(24, 3, **sizes, rngs=nnx.Rngs(0))
