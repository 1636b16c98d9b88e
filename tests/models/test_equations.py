"""Parameters of a user's own modules, in an attention as gemma's: NumPy, flax's gradient, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from problems import EPS, rejects

import signal_drift as sd
from signal_drift.models import predictor

B, T, N, K, H, W = 2, 3, 4, 2, 3, 5  # batch, time, heads, heads of keys and values, their width, the model's
SMALL = jax.nn.initializers.normal(0.4)
EQUATIONS = {"*q_einsum.w": "btd,ndh->btnh", "*kv_einsum.w": "bsd,ckdh->cbskh", "*attn_vec_einsum.w": "btnh,nhd->btd"}


class Product(nnx.Module):
    """One einsum with one parameter `w`."""

    def __init__(self, equation, shape, key):
        self.equation, self.w = equation, nnx.Param(SMALL(key, shape, jnp.float64))

    def __call__(self, x):
        return jnp.einsum(self.equation, x, self.w[...])


class Attention(nnx.Module):
    """Causal attention in which N/K queries share a key, then a residual; gate, a plain parameter, is in no einsum."""

    def __init__(self, key=None):
        keys = jax.random.split(jax.random.key(0) if key is None else key, 3)
        self.q_einsum = Product("BTD,NDH->BTNH", (N, W, H), keys[0])
        self.kv_einsum = Product("BSD,CKDH->CBSKH", (2, K, W, H), keys[1])
        self.attn_vec_einsum = Product("BTNH,NHD->BTD", (N, H, W), keys[2])
        self.gate = nnx.Param(jnp.ones((W, W)))

    def __call__(self, x, *, mask, causal=True):
        q, (k, v) = self.q_einsum(x), self.kv_einsum(x)
        q = q.reshape(*q.shape[:2], K, N // K, H)
        logits = jnp.einsum("btkgh,bskh->bkgts", q, k) / np.sqrt(H)
        allowed = (jnp.tril(jnp.ones((T, T), bool)) if causal else True) & mask[:, None, None, None, :]
        shares = jax.nn.softmax(jnp.where(allowed, logits, -1e30))
        mixed = jnp.einsum("bkgts,bskh->btkgh", shares, v).reshape(*x.shape[:2], N, H)
        return x + jnp.tanh(self.gate[...].sum()) * self.attn_vec_einsum(mixed)


X = jax.random.normal(jax.random.key(1), (B, T, W), jnp.float64)
MASK = jnp.array([[True, True, True], [True, True, False]])
EXAMPLE = {"x": jax.ShapeDtypeStruct(X.shape, X.dtype), "mask": jax.ShapeDtypeStruct((B, T), bool)}


@pytest.fixture(scope="module")
def parts():
    model = Attention()
    return model, *sd.base_and_forward(model, equations=EQUATIONS, example=EXAMPLE)


def by_hand(model, theta, s, causal):
    """The attention in NumPy, each of its three products with s·B(Ax) beside it."""
    x, allowed = (
        np.asarray(X),
        np.asarray(MASK)[:, None, None, None, :] & (np.tril(np.ones((T, T), bool)) | (not causal)),
    )

    def product(name, x, equation, outputs):
        w, (A, B) = np.asarray(getattr(model, name).w[...]), (np.asarray(f) for f in theta[f"{name}.w"])
        beside = s * (x.reshape(*x.shape[:2], -1) @ A.T @ B.T)
        return np.einsum(equation, x, w) + beside.reshape(*x.shape[:2], *outputs)

    q = product("q_einsum", x, "btd,ndh->btnh", (N, H)).reshape(2, T, K, N // K, H)
    k, v = product("kv_einsum", x, "bsd,ckdh->bsckh", (2, K, H)).transpose(2, 0, 1, 3, 4)
    logits = np.where(allowed, np.einsum("btkgh,bskh->bkgts", q, k) / np.sqrt(H), -np.inf)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = np.einsum("bkgts,bskh->btkgh", shares / shares.sum(-1, keepdims=True), v).reshape(2, T, N, H)
    return x + np.tanh(float(W * W)) * product("attn_vec_einsum", mixed, "btnh,nhd->btd", (W,))


@pytest.mark.parametrize("causal", [True, False])
def test_adapters_beside_the_products_are_forward(parts, causal):
    model, base, forward = parts
    assert {k: W0.shape for k, W0 in base.items()} == {
        "q_einsum.w": (N * H, W),
        "kv_einsum.w": (2 * K * H, W),
        "attn_vec_einsum.w": (W, N * H),
    }
    draw = np.random.default_rng(0)
    theta = {
        k: sd.Adapter(*(jnp.asarray(draw.normal(size=n)) for n in ((2, d_in), (d_out, 2))))
        for k, (d_out, d_in) in shapes(base)
    }
    run = jax.jit(predictor(forward, X, mask=MASK, causal=causal))
    ours, before = run(sd.effective_weights(base, theta, 0.3)), run(base)
    np.testing.assert_allclose(ours, by_hand(model, theta, 0.3, causal), rtol=0, atol=1e4 * EPS)
    np.testing.assert_allclose(before, model(X, mask=MASK, causal=causal), rtol=0, atol=1e3 * EPS)
    assert np.max(np.abs(ours - before)) > 0.1


def shapes(base):
    return [(k, W0.shape) for k, W0 in base.items()]


def test_gradient_is_that_of_nnx(parts):
    model, base, forward = parts
    gradient = jax.jit(jax.grad(lambda w: jnp.mean(jnp.sin(forward(w, X, mask=MASK)))))(base)
    theirs = nnx.jit(nnx.grad(lambda m: jnp.mean(jnp.sin(m(X, mask=MASK)))))(model)
    matrix = {
        "q_einsum": lambda w: w.transpose(0, 2, 1).reshape(N * H, W),
        "kv_einsum": lambda w: w.transpose(0, 1, 3, 2).reshape(2 * K * H, W),
        "attn_vec_einsum": lambda w: w.reshape(N * H, W).T,
    }
    for name, view in matrix.items():
        wanted = view(np.asarray(theirs[name]["w"][...]))
        np.testing.assert_allclose(gradient[f"{name}.w"], wanted, rtol=0, atol=1e3 * EPS * (1 + np.max(np.abs(wanted))))
        assert np.max(np.abs(wanted)) > 1e-4


class Layers(nnx.Module):
    """Two attentions that a scan runs over, their mask a keyword."""

    def __init__(self):
        self.blocks = nnx.vmap(Attention)(jax.random.split(jax.random.key(2), 2))

    def __call__(self, x, *, mask):
        run = nnx.scan(lambda x, block: block(x, mask=mask), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return run(x, self.blocks)


def test_a_stack_of_them_is_one_layer_for_each_index():
    base, forward = sd.base_and_forward(Layers(), "*.q_einsum.w.1", equations=EQUATIONS, example=EXAMPLE)
    assert list(base) == ["blocks.q_einsum.w.1"]
    model = Layers()
    w = model.blocks.q_einsum.w
    moved = np.asarray(base["blocks.q_einsum.w.1"]) + 0.5
    w[...] = w[...].at[1].set(moved.reshape(N, H, W).transpose(0, 2, 1))
    np.testing.assert_array_equal(
        forward({"blocks.q_einsum.w.1": jnp.asarray(moved)}, X, mask=MASK), model(X, mask=MASK)
    )


class Own(nnx.Module):
    """Square parameters side by side, so that no shape tells an input from an output; `kernel` by another name."""

    def __init__(self):
        self.first, self.kernel = (nnx.Param(SMALL(jax.random.key(i), (2, 2, 2), jnp.float64)) for i in range(2))

    def __call__(self, x):
        return jnp.einsum("nab,abc->nc", jnp.einsum("nd,dab->nab", x, self.first[...]), self.kernel[...])


@pytest.mark.parametrize(
    ("equations", "words"),
    [
        ({"first": "nd,adb->nab"}, ["model", "'first'", "axes [0]", "[1]"]),
        ({"kernel": "nab,acb->nc"}, ["model", "'kernel'", "axes [0, 1]", "[0, 2]"]),
        ({"kernel": "na,abc->nbc"}, ["model", "'kernel'", "axes [0, 1]", "[0]"]),
        ({"first": "nd,dab"}, ["equations", "'first'", "(2, 2, 2)", "'nd,dab'", "no einsum"]),
        ({"first": "nd,d1b->n1b"}, ["equations", "'first'", "no einsum"]),
        ({"first": "nd,dabc->nabc"}, ["equations", "'first'", "3 axes", "4"]),
        ({"first": "nd,ddb->nb"}, ["equations", "'first'", "repeats"]),
        ({"first": "nd,dab->nabd"}, ["equations", "'first'", "'d'", "the input and the result"]),
        ({"*.w": "nd,dab->nab"}, ["equations", "'*.w'", "'first', 'kernel'"]),
    ],
    ids=str,
)
def test_a_wrong_equation_is_named(equations, words):
    with rejects(*words):
        sd.base_and_forward(Own(), equations=equations, example=X[0, :, :2])


def test_an_equation_needs_an_example():
    with rejects("equations", "`example`", "'first'"):
        sd.base_and_forward(Own(), equations={"first": "nd,dab->nab"})


def test_all_parameters_of_one_module_by_their_paths():
    base, forward = sd.base_and_forward(
        Own(), equations={"first": "nd,dab->nab", "kernel": "nab,abc->nc"}, example=X[0, :, :2]
    )
    x, first, second = (np.asarray(a) for a in (X[0, :, :2], base["first"], base["kernel"]))
    np.testing.assert_allclose(forward(base, x), x @ first.T @ second.T, rtol=0, atol=100 * EPS)


def test_what_has_no_equation_is_said():
    assert [
        line.split()
        for line in repr(sd.base_and_forward(Attention(), equations=EQUATIONS, example=EXAMPLE)[1]).splitlines()[2:]
    ] == [["gate", "5×5", "Attention"]]
    with rejects("model", "no kernel", "Attention", "`equations`", "'gate'"):
        sd.base_and_forward(Attention())


def test_a_predictor_takes_keywords_arrays_as_data_and_flags_as_they_are(parts):
    model, base, forward = parts
    traced = []

    @jax.jit
    def compiled(predict, weights):
        traced.append(1)
        return predict(weights)

    found = {}
    for mask in (MASK, ~MASK | True):
        for causal in (True, False):
            predict = predictor(forward, X, mask=mask, causal=causal)
            assert isinstance(predict, Partial)
            found[int(mask.sum()), causal] = np.asarray(compiled(predict, base))
    assert len(traced) == 2
    assert len({float(y.sum()) for y in found.values()}) == 4
    np.testing.assert_allclose(found[6, True], model(X, mask=MASK | True), rtol=0, atol=1e3 * EPS)
