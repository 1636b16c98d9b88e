"""What is told of an adapter before training, against SVDs, steps of Adam, and dense Hessians of a tiny decoder."""

import gc
import json
import math
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import kronecker_jacobian, rejects
from safetensors.flax import save_file
from stored import adapter, factors, scaling_by_peft
from worded_llama import CLOSE, LAYERS, TEXT, derivatives, linear, model_in

import signal_drift as sd
from signal_drift.__main__ import main
from signal_drift.advice import Advice, LayerAdvice, advise, advise_from_gradient, advise_on_text
from signal_drift.models.llama import load_llama
from signal_drift.peft.config import lora_config

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]}
SHAPES = {"layers.0.q_proj": (6, 9), "layers.0.o_proj": (7, 5), "layers.1.q_proj": (6, 9)}
EPS = float(np.finfo(float).eps)


def config_in(folder: Path, **config: Any) -> Path:
    """PEFT's configuration without factors; None takes an entry out."""
    folder.mkdir(exist_ok=True)
    said = {k: v for k, v in (CONFIG | config).items() if v is not None}
    (folder / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def gradients(shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(5)
    return {layer: draw.standard_normal(shape) for layer, shape in shapes.items()}


def saved(path: Path, found: dict[str, np.ndarray], dtype: Any = jnp.float32) -> Path:
    save_file({f"{layer}.weight": jnp.asarray(G, dtype) for layer, G in found.items()}, path)
    return path


def one(folder: Path, G: np.ndarray, **config: Any) -> LayerAdvice:
    """The advice on one layer of this gradient."""
    adapter_folder = config_in(folder / "a", target_modules=["x"], **config)
    (found,) = advise_from_gradient(adapter_folder, saved(folder / "g.safetensors", {"x": G})).layers
    return found


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 4), (5, 5)])
def test_drift_of_a_gradient_with_known_singular_values(tmp_path: Path, shape: tuple[int, int]) -> None:
    """σ₁ = 3, σ₂ = 2.9, and smaller ones; rounded to float32, which moves σ₁ by no more than ‖G‖_F·ε."""
    draw, k = np.random.default_rng(1), min(shape)
    U, V = (np.linalg.qr(draw.standard_normal((n, n)))[0] for n in shape)
    sigma = np.array([3.0, 2.9, 1.0, 0.5, 0.1, 1e-3][:k])
    x = one(tmp_path, U[:, :k] * sigma @ V[:, :k].T, lora_alpha=6)
    allowed = np.linalg.norm(sigma) * float(np.finfo(np.float32).eps)
    assert abs(x.gradient_norm - 3) <= allowed
    assert abs(x.drift_largest - 1.5 * 3) <= 1.5 * allowed
    assert abs(2.9 - 3) > 100 * allowed  # control: σ₂ is told apart
    assert math.isnan(x.signal_largest)
    assert math.isnan(x.crossover)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_every_layer_has_its_own_gradient_and_scaling(tmp_path: Path, dtype: Any) -> None:
    """σ₁ by NumPy's SVD of what is stored, in float64; s by PEFT's own rule for patterns."""
    config = {"use_rslora": True, "rank_pattern": {"o_proj": 3}, "alpha_pattern": {"layers.1.q_proj": 5}}
    path = saved(tmp_path / "g.safetensors", gradients() | {"layers.0.up": np.ones((2, 2))}, dtype)
    found = advise_from_gradient(config_in(tmp_path / "a", **config), path)
    assert [x.layer for x in found.layers] == sorted(SHAPES)
    for x in found.layers:
        G = np.asarray(jnp.asarray(gradients()[x.layer], dtype).astype(jnp.float32), float)
        top = np.linalg.svd(G)[1][0]
        r, s = scaling_by_peft(CONFIG | config, x.layer)
        d_in = SHAPES[x.layer][1]
        assert x.gradient_norm == pytest.approx(top, rel=20 * EPS * max(G.shape))
        assert (x.shape, x.rank, x.scaling, x.alpha) == (SHAPES[x.layer], r, s, s * r)
        assert x.drift_largest == pytest.approx(s * top, rel=20 * EPS * max(G.shape))
        assert x.sigma == pytest.approx(1 / math.sqrt(3 * d_in))
        assert x.v1 == pytest.approx(256 * math.sqrt(r))
        assert x.v2 == pytest.approx(math.sqrt(3 * d_in * r))


def quadratic() -> tuple[dict[str, jax.Array], np.ndarray]:
    """W₀ and G of ½‖W‖²: one row of G is zero, and so are three entries more."""
    G = gradients({"x": (6, 9)})["x"]
    G[2], G[0, 1], G[4, 5], G[4, 6] = 0.0, 0.0, 0.0, 0.0
    return {"x": jnp.asarray(G)}, G


@cache
def first_steps(optimizer: str, draws: int = 2000) -> tuple[np.ndarray, np.ndarray, float, float]:
    """‖ΔW₁‖² and ⟨ΔW₁, −G⟩ of `sd.train` for draws of A ~ N(0, 1/r²), r = 4, s = 2; and those of full fine-tuning."""
    base, G = quadratic()
    # ε = 1e-200 is lost beside any entry of G, and leaves 0/(0 + ε) = 0
    transform = {"adam": optax.adam(1.0, eps=1e-200), "sgd": optax.sgd(1.0)}[optimizer]

    def loss(weights: Any) -> jax.Array:
        return jnp.sum(weights["x"] ** 2) / 2

    def moved(theta: Any) -> jax.Array:
        def after(step: sd.Step) -> jax.Array:
            return step.after["x"] if theta is None else 2.0 * step.after["x"].B @ step.after["x"].A + base["x"]

        return sd.train(loss, base, theta, 2.0, transform, 1, record=after).recorded[0] - base["x"]

    A = np.random.default_rng(2).standard_normal((draws, 4, 9)) / 4
    steps = np.asarray(jax.vmap(lambda A: moved({"x": sd.Adapter(A, jnp.zeros((6, 4)))}))(jnp.asarray(A)))
    full = np.asarray(moved(None))
    return np.sum(steps**2, (1, 2)), -np.einsum("noi,oi->n", steps, G), float(np.sum(full**2)), -float(np.sum(full * G))


def deviations(drawn: np.ndarray, stated: float) -> float:
    """How many standard errors the mean of the draws is away."""
    return abs(float(np.mean(drawn)) - stated) / (float(np.std(drawn)) / math.sqrt(len(drawn)))


def test_first_step_is_that_of_adam_against_full_fine_tuning(tmp_path: Path) -> None:
    """X8 over 2000 draws: within four standard errors, which a true size misses once in 16,000 seeds."""
    x = one(tmp_path, quadratic()[1], init_lora_weights="gaussian")
    assert (x.sigma, x.scaling) == (1 / 4, 2.0)
    squares, descents, full_square, full_descent = first_steps("adam")
    assert deviations(squares / full_square, x.step_size**2) < 4
    assert deviations(descents / full_descent, x.step_descent) < 4
    bracket = 1 + 2 * 3 / (math.pi * 9)
    assert deviations(squares / full_square, x.step_size**2 / bracket) > 6  # control: without the bracket
    assert deviations(squares / full_square, x.step_size**2 * 42 / 45) > 6  # control: as if no entry of G were 0
    by_sgd = first_steps("sgd")
    assert deviations(by_sgd[0] / by_sgd[2], x.step_size**2) > 6  # control: another optimizer
    assert x.step_alpha == pytest.approx(x.alpha / x.step_size)


@pytest.mark.filterwarnings("error")
def test_a_gradient_near_the_largest_float32_is_as_another(tmp_path: Path) -> None:
    """Sizes do not change and descents are relative; σ₁ is 2¹²⁶ times as large, a power of two, to no rounding."""
    G = gradients()["layers.0.q_proj"] / 4
    (tmp_path / "b").mkdir()
    small, large = one(tmp_path, G), one(tmp_path / "b", G * 2.0**126)
    assert large.gradient_norm == small.gradient_norm * 2.0**126
    assert (large.step_size, large.step_descent) == (small.step_size, pytest.approx(small.step_descent, rel=60 * EPS))
    assert math.isfinite(large.step_descent)


SCALINGS: dict[str, tuple[dict[str, Any], str]] = {
    "large": ({"lora_alpha": 1e200}, "the scaling of 'layers.0.o_proj' is out of range, got 2.5e+199"),
    "the largest": ({"lora_alpha": 1e308}, "the scaling of 'layers.0.o_proj' is out of range, got 2.5e+307"),
    "small": ({"lora_alpha": 1e-300}, "the scaling of 'layers.0.o_proj' is out of range, got 2.5e-301"),
    "in a pattern": ({"alpha_pattern": {"o_proj": 1e200}}, "the scaling of 'layers.0.o_proj' is out of range"),
    "a rank": (
        {"r": 10**200, "lora_alpha": 1e200, "init_lora_weights": "gaussian"},
        "r of 'layers.0.o_proj' must be below 2³¹",
    ),
}


@pytest.mark.parametrize(("config", "words"), SCALINGS.values(), ids=SCALINGS)
def test_a_scaling_out_of_range_is_one_line(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with rejects(f"adapter_config.json: {words}"):
        advise_from_gradient(config_in(tmp_path / "a", **config), file(tmp_path))


@pytest.mark.parametrize("alpha", [1e200, 1e-300])
def test_stored_factors_are_of_no_scaling_out_of_range(tmp_path: Path, alpha: float) -> None:
    with rejects("adapter_config.json: the scaling of 'layers.0.o_proj' is out of range"):
        advise_from_gradient(with_factors(tmp_path / "a", lora_alpha=alpha), file(tmp_path))


def test_a_layer_without_a_gradient_has_no_first_step(tmp_path: Path) -> None:
    folder = config_in(tmp_path / "a", target_modules=["x"])
    found = advise_from_gradient(folder, saved(tmp_path / "g.safetensors", {"x": np.zeros((3, 4))}))
    assert found.layers[0].drift_largest == 0
    assert math.isnan(found.layers[0].step_size)
    assert any("G = 0" in note and "'x'" in note for note in found.notes)


@pytest.mark.parametrize(("small", "said"), [(9e-9, True), (2e-8, False)])
def test_entries_below_epsilon_are_noted(tmp_path: Path, small: float, said: bool) -> None:
    G = np.ones((5, 20))
    G[0, 0], G[1, :4] = 0.0, small
    folder = config_in(tmp_path / "a", target_modules=["x"])
    found = advise_from_gradient(folder, saved(tmp_path / "g.safetensors", {"x": G}))
    assert found.layers[0].below_epsilon == (0.04 if said else 0)
    assert any(note.startswith("up to 4% of a layer's G is below") for note in found.notes) == said


@pytest.mark.parametrize(
    ("initialiser", "note"),
    [("pissa", "A from the singular vectors of W₀: σ_A and V2 do not apply"), (False, "B was random too")],
)
def test_where_a_is_not_drawn_alone_no_rule_is_stated(tmp_path: Path, initialiser: Any, note: str) -> None:
    folder = config_in(tmp_path / "a", init_lora_weights=initialiser)
    found = advise_from_gradient(folder, saved(tmp_path / "g.safetensors", gradients()))
    assert any(x.startswith(note) for x in found.notes)
    for x in found.layers:
        assert all(map(math.isnan, (x.sigma, x.v2, x.step_size, x.step_alpha, x.step_descent)))
        assert x.v1 == 512


TUNED: dict[str, Any] = {"target_modules": ["q_proj", "down_proj"], "alpha_pattern": {"down_proj": 3}, "r": 2}


@cache
def on_text() -> Advice:
    with TemporaryDirectory() as parent:
        adapter_folder = config_in(Path(parent, "a"), **TUNED)
        # of seven kinds of matrices two are adapted, in both layers
        return advise_on_text(adapter_folder, model_in(Path(parent, "m")), TEXT)


def of(layer: str) -> LayerAdvice:
    return next(x for x in on_text().layers if x.layer == layer)


@cache
def at_start(layer: str) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """ℓ, G and H_ℓ of a layer at W₀ in float64, and the A that is drawn for it."""
    with TemporaryDirectory() as parent:
        decoder: Any = load_llama(model_in(Path(parent, "m")), jnp.float64)
    both = {"attention.q": (8, 8), "feed_forward.down": (8, 6)}
    base = {f"layers.{i}.{k}": jnp.zeros(shape, jnp.float32) for i in (0, 1) for k, shape in both.items()}
    theta = advise.start(lora_config(CONFIG | TUNED), base, dict.fromkeys(base, 2))
    name = "layers.0.attention.q" if layer.endswith("q_proj") else "layers.1.feed_forward.down"
    W = jnp.asarray(linear(decoder, layer).kernel[...].T)
    return *derivatives(decoder, layer, W), np.asarray(theta[name].A, float)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_crossover_is_where_dense_hessians_are_equal(layer: str) -> None:
    """Both at α_c itself, each assembled there: λmax[H_Drift] of [[0, K], [Kᵀ, 0]], λmax[H_Signal] of JᵀH_ℓJ."""
    x, (loss, G, H, A) = of(layer), at_start(layer)
    d_out, r = len(G), len(A)

    def signal(alpha: float) -> float:
        theta = {"x": sd.Adapter(jnp.asarray(A), jnp.zeros((d_out, r)))}
        J = kronecker_jacobian(theta, {"x": alpha / r})
        return float(np.linalg.eigvalsh(J.T @ H @ J)[-1])

    def drift(alpha: float) -> float:
        K = alpha / r * np.kron(np.eye(r), G)
        zero = [np.zeros((n, n)) for n in K.shape]
        return float(np.linalg.eigvalsh(np.block([[zero[0], K], [K.T, zero[1]]]))[-1])

    relative = x.signal_error / x.signal_largest + 2 * CLOSE
    assert relative < 0.05
    assert x.signal_largest == pytest.approx(signal(x.alpha), rel=relative)
    assert x.drift_largest == pytest.approx(drift(x.alpha), rel=CLOSE)
    assert signal(x.crossover) == pytest.approx(drift(x.crossover), rel=2 * relative)
    for wrong in (x.crossover / r, x.crossover * x.scaling):  # controls: without r; λmax at this s as if at s = 1
        assert signal(wrong) != pytest.approx(drift(wrong), rel=0.2)
    assert on_text().loss == pytest.approx(loss, rel=CLOSE)
    assert on_text().predicted == 7


def test_what_the_gradient_alone_tells_is_the_same_on_a_text(tmp_path: Path) -> None:
    """The dense gradients at W₀, saved; both layers were adapted above with two more beside."""
    path = saved(tmp_path / "g.safetensors", {layer: at_start(layer)[1] for layer in LAYERS})
    for x in advise_from_gradient(config_in(tmp_path / "a", **TUNED), path).layers:
        both = (x._asdict(), of(x.layer)._asdict())
        for name in ("rank", "alpha", "gradient_norm", "drift_largest", "v1", "v2", "step_size", "step_descent"):
            assert both[0][name] == pytest.approx(both[1][name], rel=CLOSE), name


@pytest.mark.parametrize(("initialiser", "sigma"), [(True, 300**-0.5), ("gaussian", 1 / 40)])
def test_factors_start_as_the_initialiser_draws_them(initialiser: Any, sigma: float) -> None:
    """The root mean square of 4000 entries is within 5 of its standard errors, which are below σ/√(2n)."""
    base = {"x": jnp.zeros((3, 100), jnp.float32)}
    A, B = advise.start(lora_config({"init_lora_weights": initialiser}), base, {"x": 40})["x"]
    assert A.shape == (40, 100)
    assert not np.any(B)
    assert abs(float(jnp.sqrt(jnp.mean(A**2))) / sigma - 1) < 5 / math.sqrt(2 * A.size)
    # uniform entries end at √3·σ = 1/√d_in, normal ones go on
    assert (float(jnp.max(jnp.abs(A))) <= math.sqrt(3) * sigma * (1 + EPS)) == (initialiser is True)


def test_one_gradient_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a layer is read, the one before it is gone; and a folder of a model's form is read as a file is."""
    (tmp_path / "g").mkdir()
    saved(tmp_path / "g" / "model.safetensors", gradients())
    alive: list[weakref.ref] = []
    seen: list[tuple[str, int]] = []
    read = advise.read_tensor

    def watched(*given: Any) -> np.ndarray:
        gc.collect()
        assert not any(x() is not None for x in alive)
        found = read(*given)
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(advise, "read_tensor", watched)
    found = advise_from_gradient(config_in(tmp_path / "a"), tmp_path / "g", lambda *x: seen.append(x))
    assert seen == [(x.layer, 3) for x in found.layers]
    assert len(alive) == 3


def with_factors(folder: Path, shapes: dict[str, tuple[int, int]] = SHAPES, **config: Any) -> Path:
    return adapter(folder, factors(shapes), **config)


def test_stored_factors_say_which_layers_there_are(tmp_path: Path) -> None:
    """Not `target_modules`; an embedding beside them is left out, and said to be."""
    embedding = {f"base_model.model.wte.lora_embedding_{x}": np.ones((4, 4)) for x in "AB"}
    two = {layer: SHAPES[layer] for layer in ("layers.0.q_proj", "layers.0.o_proj")}
    folder = adapter(tmp_path / "a", factors(two) | embedding, target_modules=["k_proj"])
    found = advise_from_gradient(folder, saved(tmp_path / "g.safetensors", gradients()))
    assert [x.layer for x in found.layers] == sorted(two)
    assert any("an embedding" in note and "'wte'" in note for note in found.notes)


def file(folder: Path, **changed: np.ndarray) -> Path:
    return saved(folder / "g.safetensors", gradients() | changed)


HALF = {k: SHAPES[k] for k in ("layers.0.q_proj", "layers.1.q_proj")}
ODD = np.full((6, 9), 1.0)
ODD[1, 2] = np.nan
REFUSED: dict[str, tuple[Callable[[Path], tuple[Path, Path]], tuple[str, ...]]] = {
    "NaN": (
        lambda f: (config_in(f / "a"), file(f, **{"layers.0.q_proj": ODD})),
        ("gradient: 'layers.0.q_proj.weight' must be finite", "got nan"),
    ),
    "another shape": (
        lambda f: (with_factors(f / "a"), file(f, **{"layers.0.q_proj": ODD.T})),
        ("gradient: 'layers.0.q_proj' is (9, 6), which does not fit A (4, 9) and B (6, 4)",),
    ),
    "another rank": (
        lambda f: (with_factors(f / "a", r=8), file(f)),
        ("gradient: 'layers.0.o_proj' is (7, 5), which does not fit A (4, 5) and B (7, 4) of rank 8",),
    ),
    "no matrix": (
        lambda f: (config_in(f / "a"), file(f, **{"layers.0.q_proj": np.ones(6)})),
        ("gradient: 'layers.0.q_proj' must be a matrix (d_out, d_in), got shape (6,)",),
    ),
    "a missing layer": (
        lambda f: (with_factors(f / "a"), saved(f / "g", gradients(HALF))),
        (
            "gradient: has no 'layers.0.o_proj', which the adapter adapts; it has 'layers.0.q_proj' to ",
            "'layers.1.q_proj'",
        ),
    ),
    "a missing kind of layer": (
        lambda f: (config_in(f / "a"), saved(f / "g", gradients(HALF))),
        ("gradient: has no layer that target_modules names 'o_proj'; it has 'layers.0.q_proj' to",),
    ),
    "an expression for none": (
        lambda f: (config_in(f / "a", target_modules="q_proj"), file(f)),
        ("gradient: has no layer that the target_modules 'q_proj' matches",),
    ),
    "an expression without end": (
        lambda f: (config_in(f / "a", target_modules="((a*)*)*"), file(f)),
        ("adapter_config.json: the pattern '((a*)*)*' may take for ever",),
    ),
    "no expression": (
        lambda f: (config_in(f / "a", target_modules="("), file(f)),
        ("adapter_config.json: target_modules has the key '(', no regular expression",),
    ),
    "no selection": (
        lambda f: (config_in(f / "a", target_modules=None), file(f)),
        ("adapter_config.json: target_modules is None, so that only factors",),
    ),
    "a narrower selection": (
        lambda f: (config_in(f / "a", layers_to_transform=[0]), file(f)),
        ("adapter_config.json: layers_to_transform narrows target_modules, so that only factors",),
    ),
    "no α": (
        lambda f: (config_in(f / "a", lora_alpha=None), file(f)),
        ("adapter_config.json: lora_alpha must be there",),
    ),
    "no r": (lambda f: (config_in(f / "a", r=None), file(f)), ("adapter_config.json: r must be there",)),
    "no r beside factors": (
        lambda f: (with_factors(f / "a", r=None), file(f)),
        ("adapter_config.json: r must be there",),
    ),
    "DoRA": (
        lambda f: (config_in(f / "a", use_dora=True), file(f)),
        ("adapter_config.json: use_dora is set, with which W is not W₀ + s·BA",),
    ),
    "QALoRA": (
        lambda f: (with_factors(f / "a", use_qalora=True), file(f)),
        ("adapter_config.json: use_qalora is set",),
    ),
    "no adapter": (lambda f: (f / "a", file(f)), ("folder: ", "is no PEFT adapter, it has no adapter_config.json")),
    "no gradient": (
        lambda f: (config_in(f / "a"), f / "g.safetensors"),
        ("g.safetensors: is damaged or no safetensors file",),
    ),
    "a folder without one": (
        lambda f: (config_in(f / "a"), f / "a"),
        ("folder: ", "has neither model.safetensors nor model.safetensors.index.json"),
    ),
    "whole numbers": (
        lambda f: (config_in(f / "a", target_modules=["x"]), saved(f / "g", {"x": np.ones((2, 2))}, jnp.int32)),
        ("g: 'x.weight' is of dtype I32, which is not read",),
    ),
    "embeddings alone": (
        lambda f: (
            adapter(f / "a", {f"base_model.model.wte.lora_embedding_{x}": np.ones((4, 4)) for x in "AB"}),
            file(f),
        ),
        ("folder: ", "has factors of embeddings alone"),
    ),
}


@pytest.mark.parametrize(("makes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, makes: Callable[[Path], tuple[Path, Path]], words: tuple[str, ...]
) -> None:
    given = makes(tmp_path)
    with rejects(*words) as caught:
        advise_from_gradient(*given)
    assert "\n" not in str(caught.value)


def test_a_layer_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    save_file({"x": jnp.ones((2, 2)), "x.weight": jnp.ones((2, 2))}, tmp_path / "g.safetensors")
    with rejects("gradient: has 'x' twice", "'x.weight'"):
        advise_from_gradient(config_in(tmp_path / "a"), tmp_path / "g.safetensors")


def test_a_model_without_a_layer_of_the_adapter_is_refused(tmp_path: Path) -> None:
    model = model_in(tmp_path / "m")
    with rejects("model: has no layer that target_modules names 'lm_head'; it has 'model.layers.0.mlp.down_proj' to"):
        advise_on_text(config_in(tmp_path / "a", target_modules=["lm_head"]), model, TEXT)
    with rejects("model: 'model.layers.0.self_attn.q_proj' is (8, 8), which does not fit A (4, 9)"):
        advise_on_text(with_factors(tmp_path / "b", {"model.layers.0.self_attn.q_proj": (8, 9)}), model, TEXT)


def test_all_linear_is_every_matrix(tmp_path: Path) -> None:
    path = file(tmp_path, norm=np.ones(4))
    found = advise_from_gradient(config_in(tmp_path / "a", target_modules="all-linear"), path)
    assert [x.layer for x in found.layers] == sorted(SHAPES)


def test_command_prints_a_table_and_what_it_cannot_know(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["advise", str(config_in(tmp_path / "a")), "--gradient", str(file(tmp_path))])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 layers where training begins, B = 0"
    assert "λmax[H_Signal]" not in lines[1]
    assert [line.split()[0] for line in lines[2:5]] == sorted(SHAPES)
    assert lines[5].startswith("note: λmax[H_Signal] and α_c are not known from a gradient alone")
    assert lines[6].startswith("What is known of each rule is not quoted: --ledger takes docs/ledger.json")
    assert len(lines) == 7


def test_command_prints_json_of_a_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "t").write_text(TEXT, encoding="utf-8")
    given = ["--model", str(model_in(tmp_path / "m")), "--text", str(tmp_path / "t")]
    main(["advise", str(config_in(tmp_path / "a", **TUNED, init_lora_weights="olora")), *given, "--json"])
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed["known"] is None
    assert printed["predicted"] == 7
    for x in printed["layers"]:
        assert x["drift_largest"] == pytest.approx(of(x["layer"]).drift_largest)
        assert x["crossover"] is x["v2"] is x["signal_largest"] is None


def test_many_layers_are_shown_by_kind(tmp_path: Path) -> None:
    """Two kinds, one row each, with the range of what differs."""
    many = {f"layers.{i}.{k}": i * np.eye(3) for i in range(1, 32) for k in ("q_proj", "o_proj")}
    found = advise_from_gradient(config_in(tmp_path / "a"), saved(tmp_path / "g.safetensors", many))
    title, header, *rows = repr(found).splitlines()
    assert title == "62 layers where training begins, B = 0, by kind"
    assert [row.split()[0] for row in rows] == ["layers.*.o_proj", "layers.*.q_proj"]
    for row in rows:
        assert " 1 … 31 " in row  # σ₁(G)
        assert " 2 … 62 " in row  # s·σ₁(G)
    assert header.split()[:3] == ["layer", "W", "r"]


def test_the_table_of_a_text_has_the_crossover() -> None:
    title, header, *rows = repr(on_text()).splitlines()
    assert title.endswith("over 7 predicted tokens")
    assert "α_c" in header
    assert len(rows) == 4
    assert all(f"{of(row.split()[0]).crossover:.3g}" in row for row in rows)


GIVEN = {
    "nothing": ([], "gradient: is needed, or model and text in its place, got neither"),
    "both": (
        ["--gradient", "g", "--model", "m"],
        "gradient: is needed, or model and text in its place, got --gradient",
    ),
    "a model alone": (["--model", "m"], "model and text: each needs the other, got --model m without --text"),
    "no ledger": (["--gradient", "g", "--ledger", "l.json"], "l.json: cannot be read (FileNotFoundError)"),
    "no model": (["--model", "m", "--text", "t"], "folder: 'm' has no config.json"),
}


@pytest.mark.parametrize(("options", "line"), GIVEN.values(), ids=GIVEN)
def test_command_ends_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    options: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "t").write_text(TEXT, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["advise", str(config_in(tmp_path / "a")), *options])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1
