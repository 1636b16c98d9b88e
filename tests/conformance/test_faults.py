"""Every known kind of fault, each in a small framework that has this one: the certificate names it, with its numbers.

And bad input: one line each.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_frameworks import ALPHA, KAIMING, RANK, SHAPES, fake, said, start, uniform
from problems import rejects

from signal_drift.conformance import Certificate, Factors, Framework, Layer, Observation, certify, certify_outputs
from signal_drift.peft import write


def contradiction(framework: Any, **options: Any) -> str:
    """The first one, which is on the certificate's first line too."""
    found: Certificate = certify(framework, **options)
    assert not found.holds
    assert found.contradictions[0] in repr(found).splitlines()[0]
    return found.contradictions[0]


@pytest.mark.parametrize(
    ("s", "rslora", "reading"),
    [
        (ALPHA, False, "α (not divided by r)"),
        (ALPHA / math.sqrt(RANK), False, "α/√r (rsLoRA)"),
        (ALPHA / RANK, True, "α/r (LoRA)"),
        (ALPHA**2 / RANK, True, "α²/r (rsLoRA twice)"),
        (ALPHA / RANK**0.25, True, "α/⁴√r (the root taken twice)"),
        (ALPHA / RANK**2, False, "α/r² (divided by r twice)"),
        ((ALPHA / RANK) ** 2, False, "α²/r² (α/r twice)"),
        (1.0, False, "1 (α is not read)"),
        (1 / RANK, False, "1/r (α is read as 1)"),
    ],
)
def test_alpha_that_is_read_otherwise(s: float, rslora: bool, reading: str) -> None:
    line = contradiction(fake(s, layers=said(rslora=rslora)))
    stated = "α/√r = 12/√4 = 6" if rslora else "α/r = 12/4 = 3"
    assert line == f"layer 'down': s is {s:.6g}, and is said to be {stated}: as if it were {reading}"


def test_alpha_that_is_missing_and_read_as_0() -> None:
    line = contradiction(fake(0.0, base=True))
    assert line.startswith("layer 'down': its output does not change with B: s = 0, and is said to be α/r = 12/4 = 3")
    assert line.endswith("in 3 of 3 layers")


def test_a_layer_that_alpha_does_not_reach() -> None:
    line = contradiction(fake(lambda name: 1.0 if name == "up2" else 3.0))
    assert line == (
        "layer 'up2': s is 1, and is said to be α/r = 12/4 = 3: as if it were 1 (α is not read); "
        "2 of 3 layers have the s that is said"
    )


def test_a_layer_that_the_adapter_does_not_reach() -> None:
    line = contradiction(fake(lambda name: 0.0 if name == "up" else 3.0))
    assert line.startswith("layer 'up': its output does not change with B")
    assert line.endswith("in 1 of 3 layers")


def he_uniform(draws: np.random.Generator, r: int, d_in: int) -> np.ndarray:
    return uniform(draws, r, d_in) * 6**0.5


def on_shards(draws: np.random.Generator, r: int, d_in: int, shards: int = 4) -> np.ndarray:
    """Each shard draws its share of the columns as if they were all."""
    return np.hstack([uniform(draws, r, d_in // shards) for _ in range(shards)])


@pytest.mark.parametrize(
    ("draw", "fits"), [(he_uniform, "he_uniform, √(2/d_in)"), (on_shards, "on each of 4 shards of d_in")]
)
def test_A_that_is_drawn_otherwise(draw: Callable, fits: str) -> None:
    """A variance of 6 or of 4 times that of PEFT; neither name would do for the other."""
    found = certify(fake(state=start(draw)))
    assert len(found.contradictions) == len(SHAPES)
    for x, line in zip(found.layers, found.contradictions, strict=True):
        d_in = SHAPES[x.layer][1]
        assert x.sigma is not None
        assert x.sigma.measured == pytest.approx(float(np.sqrt(np.mean(start(draw)[x.layer].A ** 2))))
        assert f"of {RANK * d_in} entries, and is said to be {KAIMING[x.layer]:.4g}" in line
        assert fits in line
        assert "gaussian" not in line


def test_B_that_is_not_0_at_the_start() -> None:
    state = {k: Factors(A, B + (k == "up") * 1e-3) for k, (A, B) in start().items()}
    assert contradiction(fake(state=state)) == "layer 'up': B is not 0 at the start"
    assert certify(fake(state=state, layers=said(b_is_zero=False))).holds
    assert certify(fake(state=state, trained=True)).holds


def test_layers_that_share_their_factors() -> None:
    line = contradiction(fake(shared={"up2": "up"}))
    assert line == "layer 'up2': changes with the factors of 'up', and not with its own"
    tied = said() | {"up2": said()["up2"]._replace(tied_to="up")}
    assert certify(fake(shared={"up2": "up"}, layers=tied)).holds
    assert contradiction(fake(layers=tied)) == "layer 'up2': is said to be tied to 'up', and has factors of its own"


@pytest.mark.parametrize(
    "change",
    [lambda name, y: np.tanh(y), lambda name, y: y * (1 + 0.01 * np.sign(y)), lambda name, y: np.roll(y, 1, axis=1)],
)
def test_a_map_that_is_not_LoRA(change: Callable) -> None:
    assert "is not s·BAx for any s" in contradiction(fake(change=change))


def with_scaling(s: Callable, dtype: Callable = np.asarray, times: float = 1.0, **settings: Any) -> Framework:
    """y = W₀x + s·BAx with s of x, A and B, and W₀ `times` as large, rounded throughout."""
    draws = np.random.default_rng(7)
    W0 = {k: times * draws.standard_normal(shape) / shape[1] ** 0.5 for k, shape in SHAPES.items()}

    def layer(k: str, factors: Factors, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            s_, (A, B, x) = s(x, *factors), (dtype(z) for z in (*factors, x))
            return dtype(dtype(x @ dtype(W0[k]).T) + dtype(s_ * dtype(dtype(x @ A.T) @ B.T)))

    return Framework("s", said(**settings), start(), lambda theta, x: {k: layer(k, theta[k], x[k]) for k in theta})


@pytest.mark.parametrize(
    ("s", "others"),
    [
        (lambda x, A, B: 3.0 if np.count_nonzero(A.any(axis=1)) == 1 else 4.5, "4.5, 4.5 with"),
        (lambda x, A, B: 3.0 / np.count_nonzero(A.any(axis=1)), "0.75, 0.75 with"),
        (lambda x, A, B: 6.0 if np.count_nonzero(x[0]) > 1 else 3.0, "6, 6 with"),
        (lambda x, A, B: 6.0 if np.abs(B).max() < 0.5 else 3.0, "and 6 with"),
        (lambda x, A, B: 3.0 * (1 + 1e-9 * (np.abs(B).max() < 0.5)), "and 3 with"),
    ],
    ids=["one row of A", "by the rows of A", "dense x", "small B", "small B, hardly"],
)
def test_s_that_is_not_one_number(s: Callable, others: str) -> None:
    """With one direction of the rank, one entry of x and large B it is as said."""
    found = certify(with_scaling(s, times=4.0))
    assert [x.s for x in found.layers] == pytest.approx([3.0] * 3, rel=1e-14)
    assert found.contradictions[0].startswith("layer 'down': s is not one number: 3 with one direction of the rank")
    assert others in found.contradictions[0]
    assert len(found.contradictions) == len(SHAPES)
    assert certify(with_scaling(lambda x, A, B: 3.0, times=4.0)).holds


def rounded(dtype: Any) -> Callable:
    return lambda x: np.asarray(np.asarray(x, dtype), float)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("alpha", [1e-3, 12.0, 4096.0])
@pytest.mark.parametrize("times", [0.0, 1.0, 100.0])
def test_sound_frameworks_with_small_s_and_no_or_a_large_base(dtype: str, alpha: float, times: float) -> None:
    """Nothing overflows in half precision, and s·BAx is seen above W₀x; twice s is refused."""
    options = {"dtype": rounded(dtype), "times": times}
    layers = {k: x._replace(alpha=alpha, dtype=dtype) for k, x in said().items()}
    found = certify(with_scaling(lambda x, A, B: alpha / RANK, **options)._replace(layers=layers))
    assert found.holds, found.contradictions
    assert all(dtype in x.dtype for x in found.layers)
    twice = certify(with_scaling(lambda x, A, B: 2 * alpha / RANK, **options)._replace(layers=layers))
    assert "is said to be α/r" in twice.contradictions[0]


def test_what_is_lost_in_rounding_is_said_to_be() -> None:
    """In half precision s·BAx of s = 2.5e-6 is below 0.05, and W₀x above 10⁴."""
    layers = {k: x._replace(alpha=1e-5, dtype="float16") for k, x in said().items()}
    lost = with_scaling(lambda x, A, B: 2.5e-6, rounded("float16"), times=1e4)._replace(layers=layers)
    with rejects("forward: s·BAx of layer 'down' is lost in the rounding of W₀x, so that s is not seen"):
        certify(lost)


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        (lambda W0, A, x: 2 * x @ W0.T, "y(A, 0) is not W₀x + b: it differs by"),
        (lambda W0, A, x: 0 * x @ W0.T, "y(A, 0) is not W₀x + b: it differs by"),
        (lambda W0, A, x: (1 + 1e-9) * x @ W0.T, "y(A, 0) is not W₀x + b: it differs by"),
        (lambda W0, A, x: np.maximum(x @ W0.T, 0), "y(A, 0) is not W₀x + b: it differs by"),
        (lambda W0, A, x: x @ W0.T + 5 * x @ A.T @ A @ np.ones_like(W0).T, "y(A, 0) is not W₀x + b: it differs by"),
        (lambda W0, A, x: x @ W0.T + np.linalg.norm(A), "y(A, 0) differs by"),
    ],
    ids=["doubled", "dropped", "hardly more", "relu", "a term of A", "a bias of A"],
)
def test_a_base_that_is_not_run_as_it_is(rest: Callable, line: str) -> None:
    """Only that B adds s·BAx is asked where W₀ is not shown."""
    draws = np.random.default_rng(7)
    W0 = {k: draws.standard_normal(shape) for k, shape in SHAPES.items()}

    def forward(theta: Any, x: Any) -> Any:
        return {k: rest(W0[k], A, x[k]) + 3 * x[k] @ A.T @ B.T for k, (A, B) in theta.items()}

    hidden = Framework("base", said(), start(), forward)
    assert line in contradiction(hidden._replace(base=W0))
    assert certify(hidden).holds


def saved(folder: Path, theta: dict[str, Factors], s: float, fold: float = 1.0) -> Path:
    """Store it as PEFT does, with B times `fold`."""
    import jax.numpy as jnp

    import signal_drift as sd

    write({k: sd.Adapter(jnp.asarray(A), jnp.asarray(fold * B)) for k, (A, B) in theta.items()}, folder, s)
    return folder


def trained() -> dict[str, Factors]:
    draws = np.random.default_rng(3)
    return {k: Factors(A, draws.standard_normal(B.shape)) for k, (A, B) in start().items()}


def test_what_is_saved_is_what_is_run(tmp_path: Path) -> None:
    live = fake(state=trained(), trained=True)
    assert certify(live, saved=saved(tmp_path / "right", trained(), 3.0)).holds
    assert certify(live, saved=saved(tmp_path / "folded", trained(), 1.0, fold=3.0)).holds
    line = contradiction(live, saved=saved(tmp_path / "twice", trained(), 3.0, fold=3.0))
    assert line == (
        "layer 'down': s·BA as saved, with s = 3, is 3 times what is run, s = 3: as if s had been folded into B, and "
        "were applied once more"
    )
    line = contradiction(live, saved=saved(tmp_path / "lost", trained(), 1.0))
    assert line == "layer 'down': s·BA as saved, with s = 1, is 0.333333 times what is run, s = 3"
    other = trained() | {"up": Factors(*(x[::-1].copy() for x in trained()["up"]))}
    assert "is not what is run" in contradiction(live, saved=saved(tmp_path / "other", other, 3.0))
    less = {k: x for k, x in trained().items() if k != "up"}
    assert contradiction(live, saved=saved(tmp_path / "less", less, 3.0)) == (
        "layer 'up': is run, and is not among what is saved"
    )
    more = trained() | {"extra": trained()["up"]}
    assert contradiction(live, saved=saved(tmp_path / "more", more, 3.0)) == (
        "layer 'extra': is saved, and is not among what is run"
    )
    number: Any = 5
    with rejects("saved: must be a folder or file, got 5"):
        certify(live, saved=number)


def test_nothing_is_concluded_from_a_file_with_B_0(tmp_path: Path) -> None:
    found = certify(fake(), saved=saved(tmp_path / "fresh", start(), 5.0))
    assert found.holds
    assert sum("B = 0, so that any s would be saved alike" in note for note in found.notes) == len(SHAPES)


def test_dropout_is_named() -> None:
    draws = np.random.default_rng(0)
    drops = fake(change=lambda name, y: y * draws.binomial(1, 0.9, y.shape) / 0.9)
    with rejects("forward: is not deterministic, two calls differ by", "is dropout on?"):
        certify(drops)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite(value: float) -> None:
    with rejects("forward: the output of layer 'up' must be finite", value):
        certify(fake(change=lambda name, y: y + value if name == "up" else y))


def test_adapters_that_are_merged() -> None:
    """y = (W₀ + s·BA)x whatever the factors, which `base` tells from an α that is 0."""
    plain = fake(0.0)
    with rejects("forward: the output of no layer changes with B", "give `base` to tell"):
        certify(plain)
    with rejects("forward: the output of no layer changes with B: the adapters are merged", "is not W₀x"):
        certify(plain._replace(base={k: 0.5 * np.ones(shape) for k, shape in SHAPES.items()}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": None}, "alpha: is missing in what is said of layer 'up'"),
        ({"r": None}, "r: is missing in what is said of layer 'up'"),
        ({"alpha": 0.0}, "alpha: must be positive and finite, got 0.0 for layer 'up'"),
        ({"alpha": math.nan}, "alpha: must be positive and finite, got nan for layer 'up'"),
        ({"r": 0}, "r: must be a whole number of at least 1"),
        ({"r": 5}, "state['up']: A (4, 64) and B (24, 4) must be (5, 64) and (24, 5), by the r = 5 that is said"),
        ({"sigma_a": 0.0}, "sigma_a: must be positive and finite, got 0.0"),
        ({"tied_to": "x"}, "tied_to: unknown layer 'x'"),
        ({"dtype": "x"}, "dtype: must be one of float64, float32, float16, bfloat16, or empty, got 'x' for layer 'up'"),
    ],
)
def test_what_is_said_makes_no_sense(settings: dict[str, Any], message: str) -> None:
    with rejects(message):
        certify(fake(layers=said() | {"up": said()["up"]._replace(**settings)}))


def test_outputs_of_other_shapes_or_layers() -> None:
    sound = fake()
    nothing: Any = {}
    with rejects("layers: no layers"):
        certify(sound._replace(layers=nothing))
    with rejects("forward: gives no output of layer 'up'"):
        certify(sound._replace(forward=lambda theta, inputs: nothing))
    with rejects("forward: the output of layer 'up' must have the shape (16, 24), got (16, 96)"):
        certify(sound._replace(forward=lambda theta, inputs: inputs | {"up": inputs["down"], "up2": inputs["down"]}))
    with rejects("state: must have the factors of the layers ['down', 'up', 'up2']"):
        certify(sound._replace(state={}))
    with rejects("forward: must return a dict from layers to outputs, got None"):
        certify(sound._replace(forward=lambda theta, inputs: None))  # pyright: ignore[reportArgumentType]
    for y, shown in (("a", "'a'"), (np.full((16, 24), 1j), "dtype complex128")):
        wrong = sound._replace(forward=lambda theta, x, y=y: dict.fromkeys(x, y) | {"down": np.ones((16, 16))})
        with rejects("forward: the output of layer 'up' must be of real numbers, got", shown):
            certify(wrong)
    with rejects("base: must have W₀ of the layers ['down', 'up', 'up2'], got {}"):
        certify(sound._replace(base={}))
    with rejects("base['up']: must have the shape (24, 64), got (64, 24)"):
        certify(sound._replace(base={k: np.ones(shape[:: -1 if k == "up" else 1]) for k, shape in SHAPES.items()}))
    odd = {k: Factors(A, B + np.nan) for k, (A, B) in start().items()}
    with rejects("state['up'].B: must be finite", "nan"):
        certify(sound._replace(state=odd))


@pytest.mark.parametrize("kind", [object(), 3, None, {"A": 1}, np.ones(3)])
def test_a_framework_of_an_unknown_kind_is_told_the_known_ones(kind: Any) -> None:
    with rejects("framework: must be a Framework, a flax.nnx model with nnx.LoRA, a model of PEFT", "Keras; of_qwix"):
        certify(kind)


def test_a_folder_has_no_forward_pass(tmp_path: Path) -> None:
    with rejects("framework:", "has no forward pass; give certify_outputs"):
        certify(tmp_path)


def test_outputs_that_are_there_already() -> None:
    """y(A, 0) and y(A, B) of one layer, from two states of a framework: right, wrong, and of no use."""
    draws = np.random.default_rng(0)
    x, A, B, W0 = (draws.standard_normal(shape) for shape in ((9, 16), (4, 16), (24, 4), (24, 16)))
    layers = {"up": Layer((24, 16), 4, 12.0)}

    def outputs(s: float) -> dict[str, Observation]:
        return {"up": Observation(x, A, B, x @ W0.T, x @ (W0 + s * B @ A).T)}

    assert certify_outputs("mine", layers, outputs(3.0)).holds
    (line,) = certify_outputs("mine", layers, outputs(12.0)).contradictions
    assert "s is 12, and is said to be α/r = 12/4 = 3: as if it were α (not divided by r)" in line
    with rejects("outputs: must be of the layers ['up'], got []"):
        certify_outputs("mine", layers, {})
    with rejects("outputs['up'].with_b: must be finite", "nan"):
        certify_outputs("mine", layers, {"up": outputs(3.0)["up"]._replace(with_b=x @ W0.T * np.nan)})
    with rejects("outputs['up'].x: must have the shape (9, 16), got (9, 15)"):
        certify_outputs("mine", layers, {"up": outputs(3.0)["up"]._replace(x=x[:, 1:])})


def test_a_framework_is_asked_for_a_function() -> None:
    nothing: Any = None
    with rejects("forward: must be a function, got NoneType"):
        certify(Framework("none", said(), start(), nothing))
