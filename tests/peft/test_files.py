"""Reading PEFT's files: what is stored comes back, one layer at a time, and nothing else is believed."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects
from stored import CONFIG, SHAPES, adapter, factors

from signal_drift.peft.config import read_config
from signal_drift.peft.files import open_adapter


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64])
def test_factors_come_back_as_stored(tmp_path: Path, dtype: Any) -> None:
    tensors = factors()
    layers = list(open_adapter(adapter(tmp_path / "a", dtype=dtype)).layers())
    assert [x.layer for x in layers] == sorted(SHAPES)
    for x in layers:
        for factor, name in ((x.A, "A"), (x.B, "B")):
            wanted = jnp.asarray(tensors[f"base_model.model.{x.layer}.lora_{name}.weight"], dtype)
            assert np.array_equal(factor, np.asarray(wanted).astype(np.float32))


def test_convolutions_are_flattened_to_their_fan_in(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    A, B = (draws.integers(-9, 10, shape).astype(float) for shape in ((2, 3, 5, 5), (7, 2, 1, 1)))
    tensors = {"base_model.model.conv.lora_A.weight": A, "base_model.model.conv.lora_B.weight": B}
    (x,) = open_adapter(adapter(tmp_path / "a", tensors, jnp.float64, r=2)).layers()
    assert (x.A.shape, x.B.shape) == ((2, 75), (7, 2))
    assert np.array_equal(x.B @ x.A, np.einsum("or,rikl->oikl", B[:, :, 0, 0], A).reshape(7, 75))  # integers: exact


def test_only_the_layer_asked_for_is_read(tmp_path: Path) -> None:
    tensors = factors()
    tensors["base_model.model.model.layers.1.q_proj.lora_B.weight"][2, 1] = np.nan
    layers = open_adapter(adapter(tmp_path / "a", tensors)).layers()
    assert [next(layers).layer, next(layers).layer] == sorted(SHAPES)[:2]
    with rejects("adapter_model.safetensors: lora_B of 'model.layers.1.q_proj' must be finite", "nan"):
        next(layers)


def test_what_belongs_to_an_adapter_without_being_a_factor_is_passed_over(tmp_path: Path) -> None:
    tensors = factors() | {
        "base_model.model.score.weight": np.ones((2, 2)),
        "base_model.model.model.layers.0.q_proj.lora_magnitude_vector": np.ones(6),
        "base_model.model.model.layers.0.q_proj.lora_B.bias": np.ones(6),
    }
    found = open_adapter(adapter(tmp_path / "a", tensors, modules_to_save=["score"]))
    assert [place.layer for place in found.layout.places] == sorted(SHAPES)
    assert repr(found) == "AdapterFiles('a'): 3 layers, r 4, lora_alpha 8, initialised True"


def test_embeddings_are_known_as_such(tmp_path: Path) -> None:
    tensors = {
        "base_model.model.wte.lora_embedding_A": np.ones((4, 9)),
        "base_model.model.wte.lora_embedding_B": np.ones((3, 4)),
    }
    (x,) = open_adapter(adapter(tmp_path / "a", tensors)).layers()
    assert (x.layer, x.embedding, x.A.shape) == ("wte", True, (4, 9))


PATTERNS = {"layers.0.q_proj": 2, "q_proj": 3, "layers\\.\\d\\.o_proj": 5, "a+b": 7}


@pytest.mark.parametrize(
    ("layer", "value"),
    [
        ("model.layers.0.q_proj", 2),  # the first that matches, though the second does too
        ("model.layers.1.q_proj", 3),
        ("q_proj", 3),
        ("model.layers.1.o_proj", 5),
        ("model.layers.10.o_proj", 1),  # \d is one digit
        ("model.layers.1.xq_proj", 1),  # a pattern begins after a dot
        ("model.q_proj.inner", 1),  # and goes to the end
        ("a+b", 7),  # a name that is no expression of itself
        ("x.a+b", 1),
    ],
)
def test_patterns_are_looked_up_as_by_peft(tmp_path: Path, layer: str, value: int) -> None:
    config = read_config(adapter(tmp_path / "a", r=1, lora_alpha=1, rank_pattern=PATTERNS, alpha_pattern=PATTERNS))
    assert config.rank(layer) == value
    assert config.scaling(layer) == 1


def test_scaling_with_and_without_rslora(tmp_path: Path) -> None:
    for use, s in ((False, 8 / 4), (True, 8 / 2)):
        assert read_config(adapter(tmp_path / "a", use_rslora=use)).scaling("any") == s


def truncated(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def oversized_header(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 8 + b"{}")


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")


BROKEN: dict[str, tuple[Any, str, str]] = {
    "truncated": (truncated, "adapter_model.safetensors: is damaged", "not fully covered"),
    "oversized header": (oversized_header, "adapter_model.safetensors: is damaged", "header too large"),
    "empty": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b""),
        "adapter_model.safetensors: is damaged",
        "",
    ),
    "pickled": (pickled, "folder: 'adapter_model.bin' is a pickle", "safe_serialization=True"),
    "no weights": (
        lambda f: (f / "adapter_model.safetensors").unlink(),
        "folder: ",
        "has no adapter_model.safetensors",
    ),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "folder: ", "is no PEFT adapter"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json: cannot be read", ""),
    "JSON of a list": (
        lambda f: (f / "adapter_config.json").write_text("[]"),
        "adapter_config.json: peft_type",
        "list",
    ),
    "latin text": (
        lambda f: (f / "adapter_config.json").write_bytes(b"\xff"),
        "adapter_config.json: cannot be read",
        "",
    ),
}


@pytest.mark.parametrize(("breaks", "begins", "names"), BROKEN.values(), ids=BROKEN)
def test_damaged_files_are_one_line(tmp_path: Path, breaks: Any, begins: str, names: str) -> None:
    folder = adapter(tmp_path / "a")
    breaks(folder)
    with rejects(begins, names):
        open_adapter(folder)


CONFIGS: dict[str, tuple[dict[str, Any], str, object]] = {
    "another method": ({"peft_type": "IA3"}, "adapter_config.json: peft_type must be 'LORA'", "IA3"),
    "rank 0": ({"r": 0}, "adapter_config.json: r must be positive", 0),
    "half a rank": ({"r": 2.5}, "adapter_config.json: r must be positive", 2.5),
    "a rank of true": ({"r": True}, "adapter_config.json: r must be positive", True),
    "alpha of text": ({"lora_alpha": "8"}, "adapter_config.json: lora_alpha must be positive", "'8'"),
    "rslora of 1": ({"use_rslora": 1}, "adapter_config.json: use_rslora must be true or false", 1),
    "pattern of a list": ({"rank_pattern": [1]}, "adapter_config.json: rank_pattern must be an object", [1]),
    "rank 0 of a layer": ({"rank_pattern": {"q": 0}}, "adapter_config.json: rank_pattern['q'] must be positive", 0),
    "no expression": ({"alpha_pattern": {"(": 1}}, "adapter_config.json: alpha_pattern has the key '('", ""),
    "unknown initialiser": ({"init_lora_weights": "magic"}, "init_lora_weights: unknown 'magic'", "pissa"),
    "initialiser of 3": ({"init_lora_weights": 3}, "adapter_config.json: init_lora_weights must be", 3),
}


@pytest.mark.parametrize(("change", "begins", "value"), CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_make_no_sense(tmp_path: Path, change: dict, begins: str, value: object) -> None:
    with rejects(begins, value):
        open_adapter(adapter(tmp_path / "a", **change))


A, B = "base_model.model.x.lora_A.weight", "base_model.model.x.lora_B.weight"
TENSORS: dict[str, tuple[dict[str, np.ndarray], str, str]] = {
    "no B": ({A: np.ones((4, 3))}, "adapter_model.safetensors: 'x' has lora_A without", ""),
    "nothing": ({}, "adapter_model.safetensors: has no layer", "0 keys"),
    "another rank": (
        {A: np.ones((2, 3)), B: np.ones((3, 2))},
        "adapter_model.safetensors: 'x' has A (2, 3)",
        "rank is 4",
    ),
    "transposed": (
        {A: np.ones((3, 4)), B: np.ones((3, 4))},
        "adapter_model.safetensors: 'x' has A (3, 4)",
        "(r, d_in)",
    ),
    "a number": ({A: np.ones(()), B: np.ones((3, 4))}, "adapter_model.safetensors: 'x' has A ()", "rank is 4"),
    "infinite": ({A: np.full((4, 3), np.inf), B: np.ones((3, 4))}, "adapter_model.safetensors: lora_A of 'x'", "inf"),
}


@pytest.mark.parametrize(("tensors", "begins", "names"), TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_no_adapter(tmp_path: Path, tensors: dict, begins: str, names: str) -> None:
    with rejects(begins, names):
        list(open_adapter(adapter(tmp_path / "a", tensors)).layers())


def test_defaults_are_those_of_peft(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "rank_pattern": null}', encoding="utf-8")
    config = read_config(folder)
    assert (config.r, config.lora_alpha, config.use_rslora, config.init_lora_weights) == (8, 8.0, False, True)
    assert CONFIG["r"] != 8
