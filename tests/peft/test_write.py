"""Adapters written from JAX: what is read back, by this package and by PEFT, is what was given."""

import json
import math
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects
from safetensors.flax import load_file
from stored import scaling_by_peft
from torch_models import peers, torch_model

import signal_drift as sd
from signal_drift.peft import write
from signal_drift.peft.audit import audit_adapter
from signal_drift.peft.files import open_adapter

SHAPES = {"q": (8, 6), "block.q": (6, 10), "block.0.q": (4, 6), "block.x-q": (5, 7), "blockx0xq": (3, 9)}
"""Names that end in one another, and two that differ in what a dot matches."""
RANKS = {"q": 2, "block.q": 2, "block.0.q": 3, "block.x-q": 2, "blockx0xq": 5}
SCALING = {"q": 5.0, "block.q": 2.0, "block.0.q": 0.7, "block.x-q": 2.0, "blockx0xq": 100.0}
EPS = float(np.finfo(np.float64).eps)


def pair(A: Any, B: Any) -> sd.Adapter:
    """NumPy arrays, and what is no array, where the type says JAX."""
    return sd.Adapter(A, B)


def adapters(dtype: Any = np.float32) -> dict[str, sd.Adapter]:
    """Normal factors, B ≠ 0."""
    draws = np.random.default_rng(0)
    return {
        k: pair(*(draws.standard_normal(shape).astype(dtype) for shape in ((RANKS[k], d_in), (d_out, RANKS[k]))))
        for k, (d_out, d_in) in SHAPES.items()
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("of", [jnp.asarray, np.asarray])
def test_factors_and_dtypes_come_back_bit_by_bit(tmp_path: Path, dtype: str, of: Any) -> None:
    given = {k: pair(*map(of, a)) for k, a in adapters(jnp.dtype(dtype)).items()}
    write(given, tmp_path / "a", 1.0)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(stored) == 2 * len(SHAPES)
    for layer, (A, B) in given.items():
        for name, factor in (("A", A), ("B", B)):
            found = stored[f"base_model.model.{layer}.lora_{name}.weight"]
            assert found.dtype == dtype
            assert np.array_equal(found, factor)
    for x in open_adapter(tmp_path / "a").layers():
        assert np.array_equal(x.A, np.asarray(given[x.layer].A).astype(np.float32))
        assert np.array_equal(x.B, np.asarray(given[x.layer].B).astype(np.float32))


@pytest.mark.parametrize("laid_out", ["columns first", "every other row", "backwards", "big-endian"])
def test_memory_may_be_laid_out_in_any_way(tmp_path: Path, laid_out: str) -> None:
    """safetensors takes the bytes as they lie: those of a transposed kernel would come back in another order."""
    A = np.arange(24.0).reshape(4, 6)
    views = {
        "columns first": np.asfortranarray(A),
        "every other row": np.repeat(A, 2, axis=0)[::2],
        "backwards": np.ascontiguousarray(A[:, ::-1])[:, ::-1],
        "big-endian": A.astype(">f8"),
    }
    write({"x": pair(views[laid_out], np.ones((3, 4)))}, tmp_path / "a", 1.0)
    (x,) = open_adapter(tmp_path / "a").layers()
    assert np.array_equal(x.A, A)


def test_every_layer_has_its_scaling_by_the_formula_of_peft(tmp_path: Path) -> None:
    """Up to the rounding of α = s·r and of α/r, and of an α that is an integer but for 4ε."""
    write(adapters(), tmp_path / "a", SCALING)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    audited = {x.layer: x for x in audit_adapter(tmp_path / "a")}
    assert audited.keys() == SHAPES.keys()
    for layer, (A, B) in adapters().items():
        r, s = scaling_by_peft(config, layer)
        assert r == RANKS[layer]
        assert s == pytest.approx(SCALING[layer], rel=5 * EPS)
        assert audited[layer].scaling == s
        wanted = np.linalg.svd(SCALING[layer] * B.astype(float) @ A.astype(float), compute_uv=False)[:r]
        # A and B are float32, of which Gram matrices in float64 keep √ε = 1.5e-8 of the largest singular value
        np.testing.assert_allclose(audited[layer].singular_values, wanted, atol=10 * math.sqrt(EPS) * wanted[0])


@pytest.mark.parametrize("s", [0.25, jnp.asarray(3.0, jnp.bfloat16)])
def test_one_scaling_for_all_is_exact_at_a_rank_that_is_a_power_of_two(tmp_path: Path, s: Any) -> None:
    write({k: a for k, a in adapters().items() if RANKS[k] == 2}, tmp_path / "a", s)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["alpha_pattern"] == config["rank_pattern"] == {}
    assert scaling_by_peft(config, "block.q") == (2, float(s))


def test_these_layers_are_selected_and_no_other(tmp_path: Path) -> None:
    given = {k: a for k, a in adapters().items() if k != "block.q"}
    write(given, tmp_path / "a", 1.0, base_model_name_or_path="someone/model")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert all(re.fullmatch(config["target_modules"], layer) for layer in given)
    assert not any(re.fullmatch(config["target_modules"], layer) for layer in ("block.q", "x.q", "blockx0.q", "q.q"))
    assert config["base_model_name_or_path"] == "someone/model"


A, B = np.ones((2, 3)), np.ones((4, 2))
BROKEN: dict[str, tuple[Any, Any, str, object]] = {
    "no layer": ({}, 1.0, "adapters: no layers", "{}"),
    "no dict": ([A, B], 1.0, "adapters: must be a dict", "list"),
    "a pair": ({"x": (A, B)}, 1.0, "adapters['x']: must be an Adapter", "tuple"),
    "lists": ({"x": pair([[1.0]], [[1.0]])}, 1.0, "adapters['x'].A: must be an array", "list"),
    "integers": ({"x": pair(A, B.astype(int))}, 1.0, "adapters['x'].B: must be of a floating dtype", "int64"),
    "eight bits": (
        {"x": pair(A.astype(jnp.float8_e4m3fn), B)},
        1.0,
        "adapters['x'].A: must be of a dtype",
        "float8_e4",
    ),
    "complex": ({"x": pair(A + 0j, B)}, 1.0, "adapters['x'].A: must be of a floating dtype", "complex128"),
    "nan": ({"x": pair(A, B * np.nan)}, 1.0, "adapters['x'].B: must be finite", "nan"),
    "vectors": ({"x": pair(A[0], B)}, 1.0, "adapters['x']: A (3,) and B (4, 2) must be (r, d_in)", "(3,)"),
    "transposed": ({"x": pair(A.T, B)}, 1.0, "adapters['x']: A (3, 2) and B (4, 2) must be (r, d_in)", "(3, 2)"),
    "rank 0": ({"x": pair(A[:0], B[:, :0])}, 1.0, "adapters['x']: A (0, 3) and B (4, 0) must have entries", "(0, 3)"),
    "no name": ({"": pair(A, B)}, 1.0, "adapters: a layer must be named as a module", "''"),
    "empty part": ({"a..b": pair(A, B)}, 1.0, "adapters: a layer must be named as a module", "'a..b'"),
    "two lines": ({"a\nb": pair(A, B)}, 1.0, "adapters: a layer must be named as a module", r"'a\nb'"),
    "escape": ({"a\x1b[2J": pair(A, B)}, 1.0, "adapters: a layer must be named as a module", r"'a\x1b[2J'"),
    "number": ({3: pair(A, B)}, 1.0, "adapters: the names of layers must be strings", 3),
    "zero": ({"x": pair(A, B)}, 0.0, "scaling: must be positive and finite", 0.0),
    "negative": ({"x": pair(A, B)}, {"x": -2}, "scaling: must be positive and finite", -2),
    "infinite": ({"x": pair(A, B)}, math.inf, "scaling: must be positive and finite", "inf"),
    "none": ({"x": pair(A, B)}, None, "scaling: must be positive and finite", "None"),
    "vector": ({"x": pair(A, B)}, np.ones(2), "scaling: must be positive and finite", "for 'x'"),
    "beyond floats": ({"x": pair(A, B)}, 1.7e308, "scaling: must give 'x'", "inf"),
    "another layer": ({"x": pair(A, B)}, {"y": 1.0}, "scaling: missing layer", "'x'"),
}


@pytest.mark.parametrize(("given", "scaling", "begins", "value"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_adapter_is_refused_and_nothing_written(
    tmp_path: Path, given: Any, scaling: Any, begins: str, value: object
) -> None:
    with rejects(begins, value):
        write(given, tmp_path / "a", scaling)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    write(adapters(), tmp_path / "a", 1.0)
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with rejects("folder: ", str(tmp_path / "a"), "is there already"):
        write(adapters(), tmp_path / "a", 2.0)
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    with rejects("folder: ", "adapter_config.json", "is there already"):
        write(adapters(), tmp_path / "a" / "adapter_config.json", 2.0)


@pytest.mark.parametrize("place", ["adapter_config.json/deeper", "x" * 300, "a\0b"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with rejects("folder: ", "cannot be written"):
        write(adapters(), tmp_path / place, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]


STOPS = ((KeyboardInterrupt(), "^$"), (OSError(28, "No space left on device"), "No space left on device"))


@pytest.mark.parametrize(("stop", "says"), STOPS, ids=["interrupt", "full disk"])
@pytest.mark.parametrize("at", ["save_file", "os.replace"])
def test_a_write_that_stops_leaves_nothing(tmp_path: Path, monkeypatch: Any, at: str, stop: Any, says: str) -> None:
    def stops(*_: Any, **__: Any) -> None:
        raise stop

    monkeypatch.setattr(f"signal_drift.peft.writer.{at}", stops)
    with pytest.raises((KeyboardInterrupt, sd.InputError), match=says):
        write(adapters(), tmp_path / "a", 1.0)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_missing_parents_are_filled(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for place in (tmp_path / "a", tmp_path / "c" / "d"):
        write(adapters(), place, 1.0)
        assert sorted(path.name for path in place.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
        assert place.stat().st_mode == tmp_path.joinpath("b").stat().st_mode


# The real PEFT, where it is installed.


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peft_computes_with_what_is_written(tmp_path: Path, dtype: str) -> None:
    """Every layer's forward is x(W₀ + s·BA)ᵀ, to the rounding of sums of d_in and r products, and s its scaling."""
    torch, peft = peers()
    given, eps = adapters(dtype), float(np.finfo(dtype).eps)
    write(given, tmp_path / "a", SCALING)
    model = torch_model(SHAPES | {"block.other": (3, 4), "x.q": (2, 6)}).to(getattr(torch, dtype))
    base = {k: v.detach().numpy().copy() for k, v in model.named_parameters()}
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "a", autocast_adapter_dtype=False)
    layers = {n.removeprefix("base_model.model."): m for n, m in adapted.named_modules() if hasattr(m, "lora_A")}
    layers = {name: m for name, m in layers.items() if hasattr(m, "base_layer")}
    assert layers.keys() == SHAPES.keys()
    for layer, adapted_layer in layers.items():
        assert adapted_layer.scaling["default"] == pytest.approx(SCALING[layer], rel=5 * EPS)
        W0 = base[f"{layer}.weight"].astype(float)
        A, B = (np.asarray(factor, float) for factor in given[layer])
        x = np.random.default_rng(1).standard_normal((7, A.shape[1])).astype(dtype)
        wanted = x @ (W0 + SCALING[layer] * B @ A).T
        norm_of_x, norm_of_W0, norm_of_A, norm_of_B = (float(np.linalg.norm(matrix)) for matrix in (x, W0, A, B))
        size = norm_of_x * (norm_of_W0 + SCALING[layer] * norm_of_A * norm_of_B)
        found = adapted_layer(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2 * sum(A.shape) * eps * size)
