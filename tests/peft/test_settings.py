"""The settings of PEFT: each is in the table, and one that changes ΔW has its own formula, a note or a refusal."""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import rejects
from stored import CONFIG, adapter

from signal_drift.peft import audit_adapter, open_adapter
from signal_drift.peft.settings import SETTINGS, setting_notes

EPS = float(np.finfo(np.float32).eps)


def stored(layer: str, A: tuple[int, ...], B: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(seed)
    shapes = {f"base_model.model.{layer}.lora_{x}.weight": shape for x, shape in (("A", A), ("B", B))}
    return {key: draws.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def same_spectrum(found: Any, delta: np.ndarray) -> None:
    """To the float32 rounding of sums of r, d_in or d_out terms."""
    assert found.shape == delta.shape
    wanted = np.linalg.svd(delta.astype(float), compute_uv=False)
    values = found.singular_values
    np.testing.assert_allclose(values, wanted[: len(values)], atol=16 * max(delta.shape) * EPS * wanted[0])
    assert np.all(wanted[len(values) :] <= 16 * max(delta.shape) * EPS * wanted[0])


def test_the_table_has_every_field_of_the_installed_peft() -> None:
    """A field that a new release adds has to be treated before it is passed over."""
    pytest.importorskip("peft.tuners", reason="needs the extra peers", exc_type=ImportError)
    fields = dataclasses.fields(import_module("peft").LoraConfig)
    assert {field.name for field in fields} - SETTINGS.keys() == set()
    kinds = {f.name: f.default if f.default_factory is dataclasses.MISSING else None for f in fields}
    assert setting_notes({name: default for name, default in kinds.items() if default is not dataclasses.MISSING}) == ()


UNSET: dict[str, Any] = dict.fromkeys(SETTINGS) | {"bias": "none", "megatron_core": "megatron.core"}
PEFT_DEFAULTS: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 8,
    "qalora_group_size": 16,
    "init_lora_weights": True,
    "peft_type": "LORA",
}


def test_a_configuration_as_peft_writes_it_says_nothing(tmp_path: Path) -> None:
    """Every field there, each at its default; null, false and empty are the same."""
    for empty in (False, [], {}, ""):
        rest = {name: empty for name, setting in SETTINGS.items() if setting.treatment in ("noted", "refused")}
        assert setting_notes(UNSET | rest | PEFT_DEFAULTS) == ()
    notes = audit_adapter(adapter(tmp_path / "a", **(UNSET | PEFT_DEFAULTS))).notes()
    assert list(notes) == ["B ≠ 0: the adapter is trained, and A is no longer as it was drawn"]


REFUSED = {
    "kasa_config": {"beta": 1e-4, "gamma": 1e-3},
    "arrow_config": {"top_k": 3},
    "megatron_config": {"tensor_model_parallel_size": 2},
}


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_settings_without_a_formula_are_refused_by_name(tmp_path: Path, name: str, value: Any) -> None:
    assert {name for name, setting in SETTINGS.items() if setting.treatment == "refused"} == REFUSED.keys()
    with rejects(f"adapter_config.json: {name} is set", SETTINGS[name].reason):
        open_adapter(adapter(tmp_path / "a", **{name: value}))


NOTED = {
    "fan_in_fan_out": True,
    "bias": "lora_only",
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1, 2],
    "use_dora": True,
    "velora_config": {"num_groups": 64},
    "alora_invocation_tokens": [7],
    "monteclora_config": {"num_samples": 8},
    "layer_replication": [[0, 4], [2, 5]],
    "lora_bias": True,
    "ensure_weight_tying": True,
}


def test_settings_that_leave_the_formula_true_are_noted(tmp_path: Path) -> None:
    assert {name for name, setting in SETTINGS.items() if setting.treatment == "noted"} == NOTED.keys()
    notes = audit_adapter(adapter(tmp_path / "a", **NOTED)).notes()
    for name in NOTED:
        assert notes[f"{name}: {SETTINGS[name].reason}"] == 3


def test_a_field_that_is_not_known_is_said_with_the_version(tmp_path: Path) -> None:
    """One, and the number of a hundred; none that is empty."""
    found = audit_adapter(adapter(tmp_path / "a", use_magic={"a": 1}, other=None, more=[], peft_version="0.99.0"))
    said = "'use_magic' of adapter_config.json: not known here (written by PEFT '0.99.0'); s·BA may not be the whole "
    assert found.notes()[f"{said}update"] == 3
    fields: dict[str, Any] = {f"x{i:02}": 1 for i in range(100)}
    many = audit_adapter(adapter(tmp_path / "a", **fields)).notes()
    assert "'x00', 'x01', 'x02' and 97 more of adapter_config.json: not known here; s·BA may not be" in " ".join(many)


@pytest.mark.parametrize("g", [1, 2, 4])
def test_qalora_acts_on_means_of_groups(tmp_path: Path, g: int) -> None:
    """y = s·B·A·(d_in/g)·mean, applied to the columns of the identity, by NumPy."""
    tensors = stored("q", (4, 6), (5, 4))
    A, B = tensors.values()
    (found,) = audit_adapter(adapter(tmp_path / "a", tensors, use_qalora=True, qalora_group_size=g))
    means = np.eye(6 * g).reshape(6 * g, 6, g).mean(axis=2) * 6
    same_spectrum(found, 2.0 * B @ A @ means.T)
    assert np.isnan(found.v2)
    assert found.sigma_measured == pytest.approx(float(np.sqrt((A.astype(float) ** 2).mean())))
    assert any("QALoRA" in note for note in found.notes)


@pytest.mark.parametrize("blocked", ["a", "b"])
def test_bd_lora_has_its_blocks_on_the_diagonal(tmp_path: Path, blocked: str) -> None:
    """Each block maps its own part of the inputs, which PEFT's forward does one after the other."""
    tensors = stored("m.q", (4, 3), (6, 4)) if blocked == "a" else stored("m.q", (4, 8), (6, 2))
    A, B = tensors.values()
    settings = {"nblocks": 2, f"target_modules_bd_{blocked}": ["q"], "match_strict": True}
    (found,) = audit_adapter(adapter(tmp_path / "a", tensors, use_bdlora=settings))

    def through(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        rows, inputs = np.split(w, 2), np.split(x, 2)
        return np.concatenate([row @ part for row, part in zip(rows, inputs, strict=True)])

    d_in = 6 if blocked == "a" else 8
    delta = [through(e, A) if blocked == "a" else A @ e for e in np.eye(d_in)]
    delta = [B @ h if blocked == "a" else through(h, B) for h in delta]
    same_spectrum(found, 2.0 * np.stack(delta, axis=1))
    assert np.isnan(found.v2)


def test_bd_lora_leaves_other_layers_plain(tmp_path: Path) -> None:
    settings = {"nblocks": 2, "target_modules_bd_a": ["up_proj"], "match_strict": False}
    (found,) = audit_adapter(adapter(tmp_path / "a", stored("q", (4, 5), (6, 4)), use_bdlora=settings))
    assert found.shape == (6, 5)
    assert found.v2 == pytest.approx(np.sqrt(4 * 3 * 5))


@pytest.mark.parametrize("layer", ["m.experts", "m.experts.base_layer"])
def test_experts_are_audited_one_by_one(tmp_path: Path, layer: str) -> None:
    """PEFT's einsum over (out, rank, expert) and (expert, rank, in); another layer of the adapter is plain."""
    E, r, d_in, d_out = 3, 4, 5, 6
    tensors = stored(layer, (E * r, d_in), (d_out, E * r)) | stored("q", (r, 7), (5, r), seed=1)
    A, B = list(tensors.values())[:2]
    found = audit_adapter(adapter(tmp_path / "a", tensors, target_parameters=["experts.down_proj", "experts.up_proj"]))
    assert [x.layer for x in found] == [*(f"{layer}[{e}]" for e in range(E)), "q"]
    deltas = 2.0 * np.einsum("ore,eri->eoi", B.reshape(d_out, r, E), A.reshape(E, r, d_in))
    for x, delta in zip(found, deltas, strict=False):
        same_spectrum(x, delta)
        assert x.v2 == pytest.approx(np.sqrt(r * 3 * d_in))


PLAIN = stored("m.experts", (4, 5), (6, 4))
MISFITS: dict[str, tuple[dict, dict, str, str]] = {
    "experts of another rank": (
        stored("m.experts", (6, 5), (6, 6)),
        {"target_parameters": ["experts.w"]},
        "adapter_model.safetensors: 'm.experts' has A (6, 5)",
        "its rank is 4 for each expert",
    ),
    "experts with patterns": (
        PLAIN,
        {"target_parameters": ["experts.w"], "rank_pattern": {"experts.w": 2}},
        "adapter_config.json: target_parameters with rank_pattern",
        "'m.experts'",
    ),
    "blocks of no layer": (
        stored("q", (4, 5), (6, 2)),
        {"use_bdlora": {"nblocks": 2}},
        "adapter_model.safetensors: 'q' has A (4, 5) and B (6, 2)",
        "use_bdlora names it in no list",
    ),
    "blocks in both": (
        PLAIN,
        {"use_bdlora": {"target_modules_bd_a": ["m"], "target_modules_bd_b": ["experts"]}},
        "adapter_config.json: use_bdlora names 'm.experts' both",
        "",
    ),
    "blocks that do not divide": (
        PLAIN,
        {"use_bdlora": {"nblocks": 3, "target_modules_bd_a": ["m"]}},
        "adapter_model.safetensors: use_bdlora says 3 blocks in lora_A of 'm.experts'",
        "(4, 5)",
    ),
    "blocks of true": (PLAIN, {"use_bdlora": True}, "adapter_config.json: use_bdlora must be an object", "True"),
    "0 blocks": (PLAIN, {"use_bdlora": {"nblocks": 0}}, "adapter_config.json: nblocks must be positive", "0"),
    "a group of 2³⁰ inputs": (
        PLAIN,
        {"use_qalora": True, "qalora_group_size": 2**30},
        "adapter_config.json: qalora_group_size would make a factor of 'm.experts' have",
        str(20 * 2**30),
    ),
    "parameters of text": (
        PLAIN,
        {"target_parameters": "experts.w"},
        "adapter_config.json: target_parameters must be a list of names",
        "'experts.w'",
    ),
    "no rank of a layer": (PLAIN, {"rank_pattern": {"q": None}}, "adapter_config.json: rank_pattern['q']", "None"),
}


@pytest.mark.parametrize(("tensors", "config", "begins", "names"), MISFITS.values(), ids=MISFITS)
def test_what_a_setting_does_not_fit_is_refused(
    tmp_path: Path, tensors: dict, config: dict, begins: str, names: str
) -> None:
    assert CONFIG["r"] == 4
    with rejects(begins, names):
        list(open_adapter(adapter(tmp_path / "a", tensors, **config)).layers())
