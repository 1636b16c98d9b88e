"""Each layout of an adapter in a folder: read as NumPy reads it, or refused in a line that says what converts it."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from problems import rejects
from safetensors.numpy import save_file
from stored import SHAPES, adapter, factors

from signal_drift.peft import audit_adapter, open_adapter, rescaled_config

EPS = float(np.finfo(np.float32).eps)
Arrays = dict[str, np.ndarray]


def draw(seed: int = 0, **shapes: tuple[int, ...]) -> Arrays:
    draws = np.random.default_rng(seed)
    return {name: draws.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def single(folder: Path, tensors: Arrays, name: str = "lora.safetensors", **metadata: str) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, folder / name, metadata or None)
    return folder


def mlx(folder: Path, tensors: Arrays, **config: Any) -> Path:
    single(folder, tensors, "adapters.safetensors")
    settings = {
        "fine_tune_type": "lora",
        "num_layers": 4,
        "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0},
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config), encoding="utf-8")
    return folder


def same(found: Any, delta: np.ndarray) -> None:
    """To the float32 rounding of sums of r terms."""
    wanted = np.linalg.svd(delta.astype(float), compute_uv=False)[: len(found.singular_values)]
    assert found.shape == delta.shape
    np.testing.assert_allclose(found.singular_values, wanted, atol=16 * max(delta.shape) * EPS * wanted[0])


RENAMED = {
    "without a prefix, as from the state of the model": lambda k: k.removeprefix("base_model.model."),
    "by DDP": lambda k: f"module.{k}",
    "compiled": lambda k: f"_orig_mod.{k}",
    "with an adapter's name": lambda k: k.replace(".weight", ".default.weight"),
    "without .weight": lambda k: k.removesuffix(".weight"),
}


@pytest.mark.parametrize("rename", RENAMED.values(), ids=RENAMED)
def test_names_of_peft_old_and_new_are_one_layer(tmp_path: Path, rename: Any) -> None:
    """Patterns are looked up by the same names, and the factors are the same."""
    config: dict[str, Any] = {
        "rank_pattern": {"^model.layers.0.q_proj": 4},
        "alpha_pattern": {"^model.layers.0.q_proj": 2},
    }
    plain = audit_adapter(adapter(tmp_path / "a", **config))
    found = audit_adapter(adapter(tmp_path / "b", {rename(k): x for k, x in factors().items()}, **config))
    assert [x.layer for x in found] == [x.layer for x in plain] == sorted(SHAPES)
    assert [x.scaling for x in found] == [x.scaling for x in plain] == [2.0, 0.5, 2.0]
    for x, y in zip(found, plain, strict=True):
        np.testing.assert_array_equal(x.singular_values, y.singular_values)


P = "base_model.model."
BESIDE = {
    "biases": {f"{P}model.layers.0.q_proj.base_layer.bias": (6,)},
    "biases by their old names": {f"{P}model.layers.0.q_proj.bias": (6,), f"{P}model.norm.bias": (6,)},
    "the embedding below its factors": {f"{P}model.layers.0.q_proj.base_layer.weight": (6, 5)},
    "a resized vocabulary": {f"{P}model.embed_tokens.weight": (9, 8), f"{P}lm_head.weight": (9, 8)},
    "a saved head": {f"{P}score.modules_to_save.weight": (2, 8), f"{P}score.weight": (2, 8)},
    "a value head of TRL": {"v_head.summary.weight": (1, 8), "v_head.summary.bias": (1,)},
    "magnitudes of DoRA": {f"{P}model.layers.0.q_proj.lora_magnitude_vector": (6,)},
    "the bias of B": {f"{P}model.layers.0.q_proj.lora_B.bias": (6,)},
    "the bias of B of an adapter": {f"{P}model.layers.0.q_proj.lora_B.default.bias": (6,)},
    "trained tokens": {f"{P}model.embed_tokens.token_adapter.trainable_tokens_delta": (2, 8)},
    "a norm": {f"{P}model.norm.weight": (8,)},
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_lies_beside_the_pairs_is_noted(tmp_path: Path, beside: dict[str, tuple[int, ...]]) -> None:
    plain = audit_adapter(adapter(tmp_path / "a"))
    found = audit_adapter(adapter(tmp_path / "b", factors() | {k: np.ones(shape) for k, shape in beside.items()}))
    assert [x.layer for x in found] == sorted(SHAPES)
    for x, y in zip(found, plain, strict=True):
        np.testing.assert_array_equal(x.singular_values, y.singular_values)
    (note,) = found.notes().keys() - plain.notes().keys()
    assert note.startswith("stored beside A and B, and no part of s·BA: ")
    assert all(repr(key) in note for key in beside)


def test_an_embedding_as_peft_saves_it_is_audited_beside_its_table(tmp_path: Path) -> None:
    tensors = {f"{P}wte.lora_embedding_{k}": x for k, x in draw(A=(4, 9), B=(8, 4)).items()}
    (found,) = audit_adapter(adapter(tmp_path / "a", tensors | {f"{P}wte.base_layer.weight": np.ones((9, 8))}))
    same(found, 2.0 * tensors[f"{P}wte.lora_embedding_B"] @ tensors[f"{P}wte.lora_embedding_A"])
    assert np.isnan(found.v2)


@pytest.mark.parametrize("dtype", [jnp.dtype(jnp.float8_e4m3fn), jnp.dtype(jnp.float8_e5m2)])
def test_float8_is_read_as_any_float(tmp_path: Path, dtype: Any) -> None:
    found = audit_adapter(adapter(tmp_path / "a", dtype=dtype))
    assert [x.layer for x in found] == sorted(SHAPES)
    for x in found:
        A, B = (factors()[f"{P}{x.layer}.lora_{k}.weight"].astype(dtype).astype(np.float32) for k in "AB")
        same(x, 2.0 * B @ A)


A, B = f"{P}x.lora_A.weight", f"{P}x.lora_B.weight"
UNREADABLE: dict[str, tuple[Arrays, str, str]] = {
    "a shard of ZeRO-3": (
        {A: np.zeros(0), B: np.zeros(0)},
        f"adapter_model.safetensors: {A!r} has no entries",
        "ZeRO-3",
    ),
    "half a shard": ({A: np.ones((4, 3)), B: np.zeros((0, 4))}, f"adapter_model.safetensors: {B!r} has no", "(0, 4)"),
    "integers": (
        {A: np.ones((4, 3), int), B: np.ones((3, 4))},
        f"adapter_model.safetensors: {A!r} is of dtype I64",
        "F16",
    ),
    "bytes": (
        {A: np.ones((4, 3)), B: np.ones((3, 4), np.uint8)},
        f"adapter_model.safetensors: {B!r} is of dtype U8",
        "",
    ),
    "truth": ({A: np.ones((4, 3), bool), B: np.ones((3, 4))}, f"adapter_model.safetensors: {A!r} is of dtype BOOL", ""),
    "a vector": ({A: np.ones(12), B: np.ones((3, 4))}, "adapter_model.safetensors: 'x' has A (12,)", "rank is 4"),
    "B alone": ({B: np.ones((3, 4))}, "adapter_model.safetensors: 'x' has lora_B without", ""),
    "two adapters": (
        {A: np.ones((4, 3)), B: np.ones((3, 4)), f"{P}x.lora_A.other.weight": np.ones((4, 3))},
        "adapter_model.safetensors: 'x' has lora_A twice",
        "other",
    ),
    "only a head": ({"v_head.weight": np.ones(3)}, "adapter_model.safetensors: has no layer", "v_head.weight"),
    "LoKr": ({"x.lokr_w1": np.ones((2, 2))}, "adapter_model.safetensors: 'x.lokr_w1' is of another method", ""),
}


@pytest.mark.parametrize(("tensors", "begins", "names"), UNREADABLE.values(), ids=UNREADABLE)
def test_tensors_that_cannot_be_read_are_named(tmp_path: Path, tensors: Arrays, begins: str, names: str) -> None:
    folder = adapter(tmp_path / "a")
    save_file(tensors, folder / "adapter_model.safetensors")
    with rejects(begins, names):
        list(open_adapter(folder).layers())


def sharded(folder: Path, **weight_map: Any) -> Path:
    """Three layers in two files, with an index of them."""
    adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    found = {key: f"adapter_model-{1 + i % 2:05}-of-00002.safetensors" for i, key in enumerate(factors())}
    for name in set(found.values()):
        save_file({key: x for key, x in factors().items() if found[key] == name}, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": found | weight_map}
    (folder / "adapter_model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_shards_are_one_adapter(tmp_path: Path) -> None:
    plain = audit_adapter(adapter(tmp_path / "a"))
    for x, y in zip(audit_adapter(sharded(tmp_path / "b")), plain, strict=True):
        assert x.layer == y.layer
        np.testing.assert_array_equal(x.singular_values, y.singular_values)


SHARDS = {
    "above": ({A: "../adapter_model.safetensors"}, "names '../adapter_model.safetensors', no safetensors file of its"),
    "absolute": ({A: "/etc/x.safetensors"}, "names '/etc/x.safetensors', no safetensors file of its own folder"),
    "missing": ({A: "no.safetensors"}, "names 'no.safetensors', which is not there"),
    "a pickle": ({A: "x.bin"}, "names 'x.bin', no safetensors file"),
    "of number": ({A: 3}, "must have an object weight_map of file names"),
    "not in it": ({A: "adapter_model-00001-of-00002.safetensors"}, f"says that {A!r} is in"),
}


@pytest.mark.parametrize(("entry", "says"), SHARDS.values(), ids=SHARDS)
def test_an_index_that_lies_is_refused(tmp_path: Path, entry: dict, says: str) -> None:
    with rejects(f"adapter_model.safetensors.index.json: {says}"):
        open_adapter(sharded(tmp_path / "a", **entry))


def kohya(layer: str, alpha: Any, A: np.ndarray, B: np.ndarray) -> Arrays:
    more = {} if alpha is None else {f"{layer}.alpha": np.asarray(alpha)}
    return {f"{layer}.lora_down.weight": A, f"{layer}.lora_up.weight": B} | more


def test_names_of_other_tools_are_not_written_for_peft(tmp_path: Path) -> None:
    single(tmp_path, kohya("lora_unet_a", 1.0, np.ones((2, 3)), np.ones((3, 2))))
    with rejects("folder: has layers of other tools", "lora_unet_a"):
        rescaled_config(open_adapter(tmp_path), "s", rank=4)


def test_kohya_has_an_alpha_for_each_layer(tmp_path: Path) -> None:
    """s = α/r, with r by the tensor; 0 and none are α = r; a convolution is its einsum."""
    x = draw(A=(4, 9), B=(6, 4), C=(2, 3, 3, 3), D=(5, 2, 1, 1))
    A, B, C, D = x.values()
    tensors = kohya("lora_unet_a", np.float16(1), A, B) | kohya("lora_te_b", 8, A, B) | kohya("lora_unet_c", 3.0, C, D)
    tensors |= kohya("lora_unet_d", 0.0, A, B) | kohya("lora_unet_e", None, A, B)
    found = {x.layer: x for x in audit_adapter(single(tmp_path / "a", tensors, ss_network_module="networks.lora"))}
    for layer, s in {"lora_unet_a": 0.25, "lora_te_b": 2.0, "lora_unet_d": 1.0, "lora_unet_e": 1.0}.items():
        assert found[layer].scaling == s
        same(found[layer], s * B @ A)
        assert found[layer].v2 == pytest.approx(np.sqrt(4 * 3 * 9))
    same(found["lora_unet_c"], 1.5 * np.einsum("or,rikl->oikl", D[:, :, 0, 0], C).reshape(5, 27))
    assert any("s = 1" in note for note in found["lora_unet_e"].notes)


DIFFUSERS = {
    "peft": ("unet.up.0.attn.to_q.lora_A.weight", "unet.up.0.attn.to_q.lora_B.weight"),
    "lora.up": ("transformer.x.0.lora.down.weight", "transformer.x.0.lora.up.weight"),
    "attention processors": ("unet.mid.processor.to_q_lora.down.weight", "unet.mid.processor.to_q_lora.up.weight"),
    "text encoders": ("text_encoder.a.lora_linear_layer.down.weight", "text_encoder.a.lora_linear_layer.up.weight"),
    "other tools": ("diffusion_model.a.lora_A.default.weight", "diffusion_model.a.lora_B.default.weight"),
}


@pytest.mark.parametrize("names", DIFFUSERS.values(), ids=DIFFUSERS)
def test_diffusers_without_an_alpha_has_s_1(tmp_path: Path, names: tuple[str, str]) -> None:
    A, B = draw(A=(4, 9), B=(6, 4)).values()
    (found,) = audit_adapter(single(tmp_path / "a", dict(zip(names, (A, B), strict=True))))
    same(found, B @ A)
    assert np.isnan(found.v2)
    assert {"how A was drawn is not stored: σ_A and V2 do not apply", *found.notes} == set(found.notes)
    assert "layers without a stored α have s = 1, as diffusers takes it" in found.notes


def test_diffusers_keeps_configurations_in_the_metadata(tmp_path: Path) -> None:
    """One for each component, with its own patterns, which do not know the component."""
    A, B = draw(A=(4, 9), B=(6, 4)).values()
    names = [f"{part}.lora_{x}.weight" for part in ("unet.q", "unet.v", "text_encoder.q") for x in "AB"]
    said = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"^q": 2}, "unet.init_lora_weights": "gaussian"}
    said |= {"text_encoder.r": 4, "text_encoder.lora_alpha": 6, "text_encoder.use_rslora": True}
    folder = single(tmp_path / "a", dict(zip(names, (A, B) * 3, strict=True)), lora_adapter_metadata=json.dumps(said))
    found = {x.layer: x for x in audit_adapter(folder)}
    assert {layer: x.scaling for layer, x in found.items()} == {"unet.q": 0.5, "unet.v": 2.0, "text_encoder.q": 3.0}
    assert found["unet.q"].sigma_set == 0.25
    assert found["text_encoder.q"].sigma_set == pytest.approx(1 / np.sqrt(27))


def test_mlx_multiplies_by_its_scale(tmp_path: Path) -> None:
    """y = x W₀ᵀ + scale·(x a) b, by NumPy on the identity; experts are not transposed."""
    x = draw(a=(9, 2), b=(2, 6), c=(3, 2, 5), d=(3, 4, 2))
    tensors = {"l.q.lora_a": x["a"], "l.q.lora_b": x["b"], "l.e.lora_a": x["c"], "l.e.lora_b": x["d"]}
    *experts, q = audit_adapter(mlx(tmp_path / "a", tensors))
    same(q, (20.0 * (np.eye(9) @ x["a"]) @ x["b"]).T)
    assert (q.layer, q.scaling, q.v2) == ("l.q", 20.0, pytest.approx(np.sqrt(2 * 3 * 9)))
    assert [e.layer for e in experts] == ["l.e[0]", "l.e[1]", "l.e[2]"]
    for i, e in enumerate(experts):
        same(e, 20.0 * x["d"][i] @ x["c"][i])
    assert (
        repr(open_adapter(tmp_path / "a")) == "AdapterFiles('a'): 2 layers, mlx, r 2, lora_alpha 40, initialised True"
    )
    older = tensors | {"l.e.lora_a": x["c"].reshape(6, 5)}
    assert [y.norm for y in audit_adapter(mlx(tmp_path / "b", older))][:3] == [y.norm for y in experts]
    dora = audit_adapter(mlx(tmp_path / "c", tensors | {"l.q.m": np.ones(6)}, fine_tune_type="dora")).notes()
    assert sum("DoRA" in note or "'l.q.m'" in note for note in dora) == 2


def text(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / name).write_bytes(b"?")
    return folder


FOREIGN: dict[str, tuple[Any, str, str]] = {
    "an old mlx adapter": (
        lambda f: text(f, "adapters.npz"),
        "folder: 'adapters.npz' is an old mlx",
        "save_safetensors",
    ),
    "a GGUF": (lambda f: text(f, "lora.gguf"), "folder: 'lora.gguf' is a GGUF", "convert_lora_to_gguf"),
    "a pickle": (
        lambda f: text(f, "pytorch_lora_weights.bin"),
        "folder: 'pytorch_lora_weights.bin' is a pickle",
        "safe",
    ),
    "alpha and scale of mlx": (
        lambda f: mlx(f, draw(a=(9, 2)), lora_parameters={"rank": 2, "scale": 2.0, "alpha": 16}),
        "adapter_config.json: lora_parameters has alpha, 16",
        "write s as scale",
    ),
    "scale of 0": (lambda f: mlx(f, {}, lora_parameters={"scale": 0}), "adapter_config.json: scale must be", "0"),
    "no parameters": (lambda f: mlx(f, {}, lora_parameters=[1]), "adapter_config.json: lora_parameters must be", "[1]"),
    "all weights": (
        lambda f: mlx(f, {}, fine_tune_type="full"),
        "adapter_config.json: fine_tune_type must be",
        "'full'",
    ),
    "LoHa": (
        lambda f: single(f, {"lora_unet_x.hada_w1_a": np.ones((2, 2))}),
        "lora.safetensors: 'lora_unet_x.hada_",
        "",
    ),
    "Tucker": (
        lambda f: single(f, kohya("x", 1.0, np.ones((2, 3)), np.ones((3, 2))) | {"x.lora_mid.weight": np.ones((2, 2))}),
        "lora.safetensors: 'x.lora_mid.weight' is of another method",
        "",
    ),
    "PEFT without its configuration": (
        lambda f: single(f, factors()),
        "folder: ",
        "which has the α of lora.safetensors",
    ),
    "two files": (
        lambda f: single(single(f, factors()), factors(), "other.safetensors"),
        "folder: ",
        "'lora.safetensors', 'other.safetensors'",
    ),
    "an α of two": (
        lambda f: single(f, kohya("x", [1.0, 2.0], np.ones((2, 3)), np.ones((3, 2)))),
        "lora.safetensors: 'x.alpha' must be one number",
        "(2,)",
    ),
    "an α below 0": (
        lambda f: single(f, kohya("x", -1.0, np.ones((2, 3)), np.ones((3, 2)))),
        "lora.safetensors: 'x.alpha' must be positive",
        "-1.0",
    ),
}


@pytest.mark.parametrize(("make", "begins", "names"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_read_says_why_and_what_converts_it(tmp_path: Path, make: Any, begins: str, names: str) -> None:
    with rejects(begins, names):
        audit_adapter(make(tmp_path / "a"))


def test_a_snapshot_of_a_hugging_face_cache_is_read(tmp_path: Path) -> None:
    """Its files are links to the blobs beside it; links anywhere else are refused."""
    plain = adapter(tmp_path / "plain")
    snapshot = tmp_path / "models--a" / "snapshots" / "0f"
    blobs = tmp_path / "models--a" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for i, path in enumerate(sorted(plain.iterdir())):
        path.rename(blobs / str(i))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(i))
    assert len(audit_adapter(snapshot)) == 3
    snapshot.parent.rename(tmp_path / "models--a" / "moved")
    with rejects("folder: 'adapter_config.json' is a link out of it"):
        audit_adapter(tmp_path / "models--a" / "moved" / "0f")
