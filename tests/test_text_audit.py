"""An adapter on a text, against dense matrices of the decoder with its merged kernels; and its command line."""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llamas import stored, tensors
from problems import kronecker_jacobian, rejects
from stored import adapter, factors
from worded_llama import CLOSE, CONFIG, LAYERS, TEXT, WORDS, derivatives, linear, model_in

import signal_drift as sd
from signal_drift.__main__ import as_table, main
from signal_drift.models.llama import load_llama
from signal_drift.peft.audit import audit_adapter
from signal_drift.peft.writer import write
from signal_drift.text_audit import LayerCurvature, TextAudit, audit_on_text

pytest.importorskip("tokenizers", reason="needs the extra minilm")

SCALING = dict(zip(LAYERS, (2.0, 0.5), strict=True))


def trained(shapes: dict[str, tuple[int, int]] = LAYERS, rank: int = 2) -> dict[str, sd.Adapter]:
    draw = np.random.default_rng(3)
    return {
        k: sd.Adapter(*(jnp.asarray(draw.normal(size=x) / 2, jnp.float32) for x in ((rank, d_in), (d_out, rank))))
        for k, (d_out, d_in) in shapes.items()
    }


def adapter_in(folder: Path, shapes: dict[str, tuple[int, int]] = LAYERS, **more: Any) -> Path:
    write(more.get("adapters", trained(shapes)), folder, more.get("scaling", 1.0))
    return folder


class Case(NamedTuple):
    found: TextAudit
    decoder: nnx.Module


@cache
def case() -> Case:
    """The audit, and the same decoder in float64."""
    with TemporaryDirectory() as parent:
        model = model_in(Path(parent, "model"))
        tuned = adapter_in(Path(parent, "tuned"), scaling=SCALING)
        return Case(audit_on_text(tuned, model, TEXT), load_llama(model, jnp.float64))


@cache
def dense(layer: str, merged: bool = True, shift: int = 1) -> tuple[float, np.ndarray, np.ndarray]:
    """ℓ, G and H_ℓ of one layer at its merged W, the other layer merged or left at W₀."""
    decoder = nnx.clone(case().decoder)
    for k, (A, B) in trained().items():
        if merged or k == layer:
            kernel = linear(decoder, k).kernel
            kernel[...] = kernel[...] + (SCALING[k] * np.asarray(B, float) @ np.asarray(A, float)).T
    W = jnp.asarray(linear(decoder, layer).kernel[...].T)
    return derivatives(decoder, layer, W, shift)


def signal_block(layer: str, s: float, H: np.ndarray) -> np.ndarray:
    """JᵀH_ℓJ with J entry by entry."""
    theta = jax.tree.map(lambda x: jnp.asarray(x, float), trained()[layer])
    J = kronecker_jacobian({"x": theta}, {"x": s})
    return J.T @ H @ J


def of(layer: str) -> LayerCurvature:
    return next(x for x in case().found.layers if x.layer == layer)


def test_the_loss_is_the_mean_over_all_tokens_but_the_first() -> None:
    found = case().found
    wanted, other = (dense(next(iter(LAYERS)), shift=shift)[0] for shift in (1, 0))
    assert found.predicted == 7
    assert found.loss == pytest.approx(wanted, rel=CLOSE)
    assert found.loss != pytest.approx(other, rel=10 * CLOSE)  # control: the token itself
    assert [x.layer for x in found.layers] == list(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_drift_is_the_largest_singular_value_of_the_gradient(layer: str) -> None:
    x, s = of(layer), SCALING[layer]
    top, apart = (float(np.linalg.svd(dense(layer, merged=m)[1])[1][0]) for m in (True, False))
    assert x.gradient_norm == pytest.approx(top, rel=CLOSE)
    assert x.gradient_norm != pytest.approx(apart, rel=10 * CLOSE)  # control: the other layer without its adapter
    G = s * np.kron(np.eye(2), dense(layer)[1])
    H = np.block([[np.zeros((G.shape[1],) * 2), G.T], [G, np.zeros((len(G),) * 2)]])
    assert x.drift_largest == pytest.approx(float(np.linalg.eigvalsh(H)[-1]), rel=CLOSE)


@pytest.mark.parametrize("layer", LAYERS)
def test_signal_is_the_largest_eigenvalue_of_its_block(layer: str) -> None:
    x, s = of(layer), SCALING[layer]

    def off(H: np.ndarray) -> float:
        return abs(x.signal_largest - float(np.linalg.eigvalsh(H)[-1]))

    H = signal_block(layer, s, dense(layer)[2])
    allowed = x.signal_error + CLOSE * float(np.linalg.norm(H))
    assert off(H) <= allowed < 0.05 * x.signal_largest
    assert off(signal_block(layer, s, dense(layer, merged=False)[2])) > 2 * allowed  # control: as above
    assert off(signal_block(layer, s**0.5, dense(layer)[2])) > 2 * allowed  # control: ∝ s


@pytest.mark.parametrize("layer", LAYERS)
def test_signal_to_drift_is_that_of_one_step_by_signs(layer: str) -> None:
    s, (A, B), G = SCALING[layer], (np.asarray(x, float) for x in trained()[layer]), dense(layer)[1]
    slope = s * B.T @ G, s * G @ A.T
    assert min(np.abs(g).min() for g in slope) > CLOSE * max(np.abs(g).max() for g in slope)  # no sign is in doubt

    def ratio(dA: np.ndarray, dB: np.ndarray) -> float:
        return float(np.linalg.norm(B @ dA + dB @ A) / np.linalg.norm(dB @ dA))

    assert of(layer).signal_to_drift == pytest.approx(ratio(*(-1e-4 * np.sign(g) for g in slope)), rel=CLOSE)
    assert of(layer).signal_to_drift != pytest.approx(ratio(*(-1e-4 * g for g in slope)), rel=0.01)  # control: SGD


@pytest.mark.parametrize(("error", "said"), [(0.5, "above"), (1.5, "open"), (float("inf"), "open")])
def test_a_crossover_that_the_search_does_not_tell_is_open(error: float, said: str) -> None:
    assert LayerCurvature("x", 1.0, 2.0, 3.0, error, 1.0).crossover == said
    other = {"above": "below"}.get(said, said)
    assert LayerCurvature("x", 1.0, 3.0, 2.0, error, 1.0).crossover == other


def test_an_adapter_as_it_was_made_has_no_drift(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """B = 0: ∇_A ℓ = 0, ΔA = 0; infinite is null in JSON. The layers are those of the audit without a text."""
    fresh = {k: sd.Adapter(x.A, 0 * x.B) for k, x in trained().items()}
    folder = adapter_in(tmp_path / "fresh", adapters=fresh, scaling=SCALING)
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    model = model_in(tmp_path / "model")
    main(["audit", str(folder), "--json", "--model", str(model), "--text", str(tmp_path / "text")])
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [(x["layer"], x["scaling"]) for x in printed] == list(SCALING.items())
    for x in printed:
        assert x["signal_to_drift"] is None
        assert x["drift_largest"] == pytest.approx(x["scaling"] * x["gradient_norm"])
        assert x["crossover"] in {"above", "below", "open"}
        assert x["predicted"] == 7


def test_the_table_follows_that_of_the_adapter(tmp_path: Path) -> None:
    lines = as_table(audit_adapter(adapter_in(tmp_path / "tuned", scaling=SCALING)), case().found).splitlines()
    begins = next(i for i, line in enumerate(lines) if line.startswith("loss "))
    assert lines[begins].endswith(" over 7 predicted tokens")
    assert lines[0] == "2 layers"
    assert [line.split()[0] for line in lines[begins + 2 :]] == list(LAYERS)
    assert all(of(line.split()[0]).crossover in line for line in lines[begins + 2 :])


def without_bounds(model: Path) -> Path:
    return stored(model, CONFIG, tensors(CONFIG) | {"model.norm.weight": np.full(8, np.nan, np.float32)})


Q = "model.layers.0.self_attn.q_proj"
EMBEDDING = {
    "base_model.model.model.embed_tokens.lora_embedding_A": np.ones((4, 7)),
    "base_model.model.model.embed_tokens.lora_embedding_B": np.ones((8, 4)),
}
NONE_OF_THEM = "which is none of the model's matrices, model.layers.0.self_attn.q_proj to model.layers.1.mlp.down_proj"
REFUSED: dict[str, tuple[Callable[[Path], tuple[Path, Path, str]], tuple[str, ...]]] = {
    "another width": (
        lambda f: (adapter_in(f / "a", {Q: (8, 5)}), model_in(f / "m"), TEXT),
        (f"adapter: {Q!r} is (8, 5) in the adapter and (8, 8) in the model",),
    ),
    "a layer more": (
        lambda f: (adapter_in(f / "a", {"model.layers.2.self_attn.q_proj": (8, 8)}), model_in(f / "m"), TEXT),
        ("adapter: adapts 'model.layers.2.self_attn.q_proj', ", NONE_OF_THEM),
    ),
    "a head": (
        lambda f: (adapter_in(f / "a", {"lm_head": (7, 8)}), model_in(f / "m"), TEXT),
        ("adapter: adapts 'lm_head', ", NONE_OF_THEM),
    ),
    "an embedding": (
        lambda f: (adapter(f / "a", EMBEDDING), model_in(f / "m"), TEXT),
        ("adapter: adapts 'model.embed_tokens', ", NONE_OF_THEM),
    ),
    "DoRA": (
        lambda f: (adapter(f / "a", factors({Q: (8, 8)}), use_dora=True), model_in(f / "m"), TEXT),
        ("adapter: must be W₀ + s·BA alone to be put into a model, got use_dora",),
    ),
    "no text": (lambda f: (adapter_in(f / "a"), model_in(f / "m"), ""), ("text: must have 2 tokens or more", "got 0")),
    "nothing to predict": (
        lambda f: (adapter_in(f / "a"), model_in(f / "m"), "a"),
        ("text: must have 2 tokens or more for one to be predicted, got 1: 'a'",),
    ),
    "a long text": (
        lambda f: (adapter_in(f / "a"), model_in(f / "m"), "a " * 10),
        ("text: has 10 tokens, more than max_position_embeddings = 9 of config.json",),
    ),
    "another vocabulary": (
        lambda f: (adapter_in(f / "a"), model_in(f / "m", [*WORDS, "h"]), "a h"),
        ("tokenizer.json: has the token 7, which is not below the model's 7",),
    ),
    "no tokenizer": (
        lambda f: (adapter_in(f / "a"), stored(f / "m", CONFIG), TEXT),
        ("folder: ", "has no tokenizer.json"),
    ),
    "another architecture": (
        lambda f: (adapter_in(f / "a"), model_in(f / "m", architectures=["BertModel"]), TEXT),
        ("config.json: architectures must be one of ['LlamaForCausalLM', 'Qwen2ForCausalLM'], got ['BertModel']",),
    ),
    "no adapter": (lambda f: (f, model_in(f / "m"), TEXT), ("folder: ", "is no PEFT adapter")),
    "a loss without bounds": (
        lambda f: (adapter_in(f / "a"), without_bounds(model_in(f / "m")), TEXT),
        ("text: its loss or gradient at the adapter is not finite, the loss is nan",),
    ),
}


@pytest.mark.parametrize(("makes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_put_together_is_one_line(
    tmp_path: Path, makes: Callable[[Path], tuple[Path, Path, str]], words: tuple[str, ...]
) -> None:
    arguments = makes(tmp_path)
    with rejects(*words):
        audit_on_text(*arguments)


def test_without_the_package_of_tokenizers_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tuned = model_in(tmp_path / "m"), adapter_in(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with rejects("text: needs the package tokenizers"):
        audit_on_text(tuned, model, TEXT)


GIVEN = {
    "a model alone": (["--model", "m"], "model and text: each needs the other, got --model m without --text"),
    "a text alone": (["--text", "t"], "model and text: each needs the other, got --text t without --model"),
    "no such text": (["--model", "m", "--text", "t"], "text: 't' cannot be read (FileNotFoundError)"),
}


@pytest.mark.parametrize(("options", "line"), GIVEN.values(), ids=GIVEN)
def test_command_refuses_half_of_the_question(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", str(adapter_in(tmp_path / "a")), *options])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_text_that_is_not_utf8_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "t").write_bytes(b"\xff")
    with pytest.raises(SystemExit):
        main(["audit", str(adapter_in(tmp_path / "a")), "--model", "m", "--text", str(tmp_path / "t")])
    assert capsys.readouterr().err.endswith("cannot be read (UnicodeDecodeError)\n")
