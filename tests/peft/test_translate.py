"""The settings of another tool: s·BA follows PEFT's trajectory to rounding, and without the correction does not."""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import muon
from problems import rejects
from stored import SHAPES, adapter, factors, scaling_by_peft

import signal_drift as sd
from signal_drift.__main__ import main
from signal_drift.peft import Gauge, Tool, open_adapter, translate

STEPS = 12
Optimizer = Callable[[Any, Any], optax.GradientTransformation]
"""Of a rate and of what ε and the decay are divided by."""


INVARIANT: dict[str, Optimizer] = {
    "Adam": lambda rate, over: optax.adam(rate, eps=1e-300),
    "sign descent": lambda rate, over: optax.sign_sgd(rate),
    "Muon": lambda rate, over: muon(rate, eps=1e-300),
}
EXACT: dict[str, Optimizer] = {
    "Adam with ε": lambda rate, over: optax.adam(rate, eps=1e-3 / over),
    "AdamW": lambda rate, over: optax.adamw(rate, eps=1e-300, weight_decay=1.0 / over),
}
DESCENT: dict[str, Optimizer] = {
    "gradient descent": lambda rate, over: optax.sgd(rate),
    "with momentum": lambda rate, over: optax.sgd(rate, momentum=0.9),
}
OPTIMIZERS = INVARIANT | EXACT | DESCENT


@cache
def problem() -> tuple[Any, dict[str, jax.Array]]:
    draws = np.random.default_rng(0)
    base = {k: jnp.asarray(draws.standard_normal(shape)) for k, shape in SHAPES.items()}
    X, Y = jnp.asarray(draws.standard_normal((7, 5))), jnp.asarray(draws.standard_normal((7, 6)))
    first, middle, last = "model.layers.0.q_proj", "model.layers.0.o_proj", "model.layers.1.q_proj"

    def loss(weights: Mapping[str, jax.Array]) -> jax.Array:
        h = jnp.tanh(jnp.tanh(X @ weights[first].T) @ weights[middle].T)
        return jnp.mean((h @ weights[last].T - Y) ** 2)

    return loss, base


def update(gauges: Mapping[str, Gauge], kind: str, power: int = 1, **wrong: bool) -> np.ndarray:
    """s·BA after every step, with A drawn once for all tools and p times as large; `wrong` leaves a correction out."""
    _, base = problem()
    drawn = sd.init_adapters(jax.random.key(1), base, {k: g.r for k, g in gauges.items()})
    begins = {k: a._replace(A=gauges[k].p * a.A) for k, a in drawn.items()}
    rates, over = {}, {}
    for k, g in gauges.items():
        rates |= {f"{k}.A": 0.02 * g.p**power, f"{k}.B": 0.02 * (1 if wrong.get("rate_of_B") else g.q) ** power}
        over |= {f"{k}.A": 1.0 if wrong.get("one") else g.p, f"{k}.B": 1.0 if wrong.get("one") else g.q}
    numbers = jax.tree.map(jnp.asarray, ({k: g.s for k, g in gauges.items()}, rates, over))
    return np.asarray(trajectory(begins, *numbers, kind))


@partial(jax.jit, static_argnames="kind")
def trajectory(begins: Any, s: Any, rates: dict[str, Any], over: dict[str, Any], kind: str) -> jax.Array:
    """The numbers are data, so that each optimizer is compiled once."""
    loss, base = problem()
    labels: Any = {k: sd.Adapter(f"{k}.A", f"{k}.B") for k in base}  # pyright: ignore[reportArgumentType]
    joined = optax.partition({name: OPTIMIZERS[kind](rate, over[name]) for name, rate in rates.items()}, labels)

    def change(step: sd.Step) -> Any:
        return jnp.concatenate([(s[k] * (B @ A)).ravel() for k, (A, B) in sorted(step.after.items())])

    return sd.train(loss, base, begins, s, joined, STEPS, record=change).recorded


def in_peft(config: Mapping[str, Any]) -> dict[str, Gauge]:
    """Train as PEFT itself does, by its own formula."""
    return {k: Gauge(*scaling_by_peft(config, k), math.nan, 1.0, 1.0) for k in SHAPES}


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 12, "init_lora_weights": True},
    "patterns": {"r": 4, "lora_alpha": 12, "init_lora_weights": True, "alpha_pattern": {"o_proj": 5}},
    "gaussian": {"r": 2, "lora_alpha": 10, "use_rslora": True, "init_lora_weights": "gaussian"},
}


def translated(folder: Path, name: str, to: Any) -> tuple[dict[str, Gauge], dict[str, Gauge]]:
    return in_peft(CONFIGS[name]), dict(translate(open_adapter(stored(folder, name)), to).layers)


def stored(folder: Path, name: str) -> Path:
    return adapter(folder, factors(rank=CONFIGS[name]["r"]), **CONFIGS[name])


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    """To rounding: 12 steps of sums of a hundred terms, and ten times that for what training amplifies."""
    return bool(np.max(np.abs(found - wanted)) <= 1e4 * float(np.finfo(float).eps) * np.max(np.abs(wanted)))


@pytest.mark.parametrize("to", get_args(Tool))
@pytest.mark.parametrize("name", CONFIGS)
def test_adam_moves_the_weights_alike(tmp_path: Path, name: str, to: Any) -> None:
    here, there = translated(tmp_path / "a", name, to)
    wanted = update(here, "Adam")
    assert close(update(there, "Adam"), wanted)
    if any(g.q != 1 for g in there.values()):
        off = np.max(np.abs(update(there, "Adam", rate_of_B=True) - wanted))
        assert off > 0.1 * np.max(np.abs(wanted))


@pytest.mark.parametrize("to", ["nnx", "kohya"])
@pytest.mark.parametrize("kind", [*INVARIANT, *EXACT, *DESCENT])
def test_other_optimizers_move_them_alike(tmp_path: Path, kind: str, to: Any) -> None:
    """ε and a decay divided by p and q; gradient descent by p² and q², which Adam's factors are not (control)."""
    here, there = translated(tmp_path / "a", "gaussian", to)
    power = 2 if kind in DESCENT else 1
    wanted = update(here, kind)
    assert close(update(there, kind, power), wanted)
    if kind in EXACT:
        assert not np.allclose(update(there, kind, one=True), wanted, rtol=1e-4, atol=0)
    if kind in DESCENT:
        assert not np.allclose(update(there, kind, 1), wanted, rtol=1e-2, atol=0)


def emitted(capsys: pytest.CaptureFixture, folder: Path, to: str) -> Any:
    main(["translate", str(folder), "--to", to])
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_say_in_every_tool_what_the_layers_are(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    """s by each tool's documented formula, and σ_A by its own initialiser, of 20 000 columns."""
    folder = stored(tmp_path / "a", name)
    for to in get_args(Tool):
        found = emitted(capsys, folder, to)
        assert found["to"] == to
        for i, (layer, (_, d_in)) in enumerate(sorted(SHAPES.items())):
            entry, settings = found["layers"][layer], found["settings"]
            r, s = scaling_by_peft(CONFIGS[name], layer)
            p, q = (entry["rates"]["Adam (ε → 0), sign descent, Muon"][x] for x in "AB")
            assert entry["rates"]["gradient descent"] == {"A": p**2, "B": q**2}
            assert entry["s"] * p * q == pytest.approx(s, rel=1e-14)
            assert entry["alpha"] == pytest.approx(entry["s"] * r)
            sigma = 1 / r if CONFIGS[name]["init_lora_weights"] == "gaussian" else (3 * d_in) ** -0.5
            assert entry["sigma_a"] == pytest.approx(p * sigma)
            if to == "qwix":
                assert (settings[i]["rank"], settings[i]["alpha"] / r) == (r, pytest.approx(s))
                assert settings[i]["module_path"] == layer.replace(".", "/").replace(".", r"\.")
                init = settings[i]["lora_a_initializer"]
            elif to == "nnx":
                assert (entry["s"], p, settings[layer]["lora_rank"]) == (1.0, 1.0, r)
                init = settings[layer]["a_initializer"]
            elif to == "keras":
                assert (settings[layer]["rank"], settings[layer]["lora_alpha"] / r) == (r, pytest.approx(s))
                assert settings[layer]["a_initializer"].startswith("keras.initializers.")
                continue
            elif to == "kohya":
                assert settings["network_dim"] == r
                assert entry["sigma_a"] == pytest.approx((3 * d_in) ** -0.5)
                assert p == q
                continue
            else:
                assert settings["use_rslora"] is True
                assert scaling_by_peft(settings, layer) == (r, pytest.approx(s, rel=1e-14))
                continue
            A = eval(init, {"jax": jax})(jax.random.key(0), (d_in, 20_000), jnp.float64)
            assert float(jnp.std(A)) == pytest.approx(entry["sigma_a"], rel=0.02)


def test_what_cannot_be_carried_over_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = {"lora_dropout": 0.1, "bias": "lora_only"}
    tensors = factors() | {
        "base_model.model.wte.lora_embedding_A": np.ones((4, 9)),
        "base_model.model.wte.lora_embedding_B": np.ones((3, 4)),
    }
    plain = adapter(tmp_path / "a", tensors, **settings)
    qwix = emitted(capsys, plain, "qwix")
    assert all(rule["dropout"] == 0.1 for rule in qwix["settings"])
    assert qwix["not carried over"] == [
        "the embeddings 'wte'",
        "bias: biases of the base model are trained too",
    ]
    nnx = emitted(capsys, plain, "nnx")["not carried over"]
    assert nnx[:4] == [
        "Adam's ε: as ε/p for A and ε/q for B, p = 1, q = 2; one ε for both is another trajectory",
        "decoupled weight decay λ (AdamW): as λ/p for A and λ/q for B; one λ for both is another trajectory",
        "clipping by the norm of all gradients: at no threshold, for those of A and of B change by other factors",
        "lora_dropout = 0.1, of the inputs of A, which nnx has not",
    ]
    rslora = emitted(capsys, plain, "peft-rslora")
    assert rslora["not carried over"] == []
    assert rslora["settings"]["lora_dropout"] == 0.1
    normal = emitted(capsys, adapter(tmp_path / "b", init_lora_weights="gaussian"), "kohya")["not carried over"]
    assert "the draw of A: kohya's is uniform, this one normal; σ_A is the same" in normal
    assert "the rate, in multiples of PEFT's, of every layer: 0.943 … 1.03, of which kohya takes one" in normal
    assert any(line.startswith("network_alpha of every layer: ") for line in normal)
    even = {k: x for k, x in factors().items() if "q_proj" in k}
    same = emitted(capsys, adapter(tmp_path / "c", even, init_lora_weights="gaussian"), "kohya")["not carried over"]
    assert "clipping by the norm of the gradients: at 1/p of the threshold" in same


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        (
            {"init_lora_weights": "pissa"},
            "init_lora_weights: must draw A at random and set B = 0, as X4 asks, got 'pis",
        ),
        ({"init_lora_weights": False}, "init_lora_weights: must draw A at random and set B = 0, as X4 asks, got False"),
        ({"use_dora": True}, "adapter_config.json: use_dora is set, and X4 is about W₀ + s·BA"),
        ({"use_qalora": True}, "adapter_config.json: use_qalora is set"),
        ({"lora_alpha": None}, "adapter_config.json: lora_alpha must be there"),
        ({"r": None}, "adapter_config.json: r must be there"),
        *(
            ({"lora_dropout": p}, f"adapter_config.json: lora_dropout must be at least 0 and below 1, got {p!r}")
            for p in (-0.1, 1, 1.5, math.nan, "x", "", False)
        ),
    ],
)
def test_other_maps_and_starts_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, settings: dict[str, Any], begins: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["translate", str(adapter(tmp_path / "a", **settings)), "--to", "nnx"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {begins}")


@pytest.mark.parametrize("to", get_args(Tool))
def test_a_missing_alpha_is_not_taken_to_be_the_default(tmp_path: Path, to: Any) -> None:
    folder = adapter(tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    del config["lora_alpha"]
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with rejects("adapter_config.json: lora_alpha must be there"):
        translate(open_adapter(folder), to)


@pytest.mark.parametrize(
    ("to", "words"),
    [
        *((to, f"got a convolution, A (4, 5, 3, 3); {to} has no setting") for to in ("qwix", "nnx", "keras")),
        ("kohya", "got a convolution, A (4, 5, 3, 3); kohya needs conv_dim and conv_alpha for it"),
        ("peft-rslora", ""),
    ],
)
def test_a_convolution_goes_to_peft_alone(tmp_path: Path, to: Any, words: str) -> None:
    draws, name = np.random.default_rng(0), "base_model.model.conv"
    tensors = factors() | {
        f"{name}.lora_A.weight": draws.standard_normal((4, 5, 3, 3)),
        f"{name}.lora_B.weight": draws.standard_normal((6, 4, 1, 1)),
    }
    stored = open_adapter(adapter(tmp_path / "a", tensors))
    if not words:
        assert translate(stored, to).layers["conv"].sigma_a == pytest.approx((3 * 5 * 9) ** -0.5)
        return
    with rejects("folder: 'conv' must be linear", words):
        translate(stored, to)


def one_line(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_setting_that_json_has_not_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = str(adapter(tmp_path / "a", eva_config={"rho": math.nan}))
    line = one_line(capsys, "translate", folder, "--to", "peft-rslora")
    assert line.startswith("error: adapter_config.json: eva_config must be JSON, without NaN, got {'rho': nan}")
    assert one_line(capsys, "config", folder) == line


def test_command_refuses_another_tool_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = one_line(capsys, "translate", str(adapter(tmp_path / "a")), "--to", "bogus")
    assert line == "error: to: must be one of qwix, nnx, keras, kohya, peft-rslora, got 'bogus'"


def test_help_names_the_tools(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["translate", "--help"])
    told = capsys.readouterr().out
    assert all(tool in told for tool in get_args(Tool))


def test_another_tool_or_another_tools_files_are_refused(tmp_path: Path) -> None:
    nowhere: Any = "torchtune"
    with rejects("to: must be one of qwix, nnx, keras, kohya, peft-rslora", "torchtune"):
        translate(open_adapter(adapter(tmp_path / "a")), nowhere)
    from safetensors.numpy import save_file

    (tmp_path / "b").mkdir()
    pair = {"x.lora_down.weight": np.ones((2, 3), np.float32), "x.lora_up.weight": np.ones((4, 2), np.float32)}
    save_file(pair, tmp_path / "b" / "lora.safetensors")
    with rejects("folder: must be PEFT's, got one of the kind 'single file'"):
        translate(open_adapter(tmp_path / "b"), "nnx")
