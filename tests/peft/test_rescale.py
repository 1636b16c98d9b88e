"""The configuration of an adapter with another α: read by PEFT's own formula, and all else as it was in the file."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import rejects
from stored import SHAPES, adapter, factors, scaling_by_peft
from torch_models import peers, torch_model

from signal_drift.__main__ import main
from signal_drift.peft.audit import audit_adapter
from signal_drift.peft.files import open_adapter
from signal_drift.peft.rescale import rescaled_config

SCALES = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"}
KEPT: dict[str, Any] = {
    "use_dora": True,
    "lora_dropout": 0.1,
    "bias": "lora_only",
    "fan_in_fan_out": True,
    "target_modules": ["q_proj", "o_proj"],
    "modules_to_save": ["score"],
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "someone/model",
    "revision": None,
    "layers_to_transform": [0, 1],
    "layers_pattern": "layers",
    "exclude_modules": ["lm_head"],
    "lora_bias": False,
    "loftq_config": {},
    "eva_config": {"rho": 2.0, "tau": 0.99},
    "init_lora_weights": "gaussian",
    "peft_version": "0.21.2",
    "a field of tomorrow": [1, {"β": None}],
}
UNEVEN: dict[str, Any] = {"alpha_pattern": {"layers.1.q_proj": 3}, "rank_pattern": {"o_proj": 2}}
RANKS = {layer: 2 if layer.endswith("o_proj") else 4 for layer in SHAPES}
EMBEDDING = {
    "base_model.model.wte.lora_embedding_A": np.ones((4, 9)),
    "base_model.model.wte.lora_embedding_B": np.ones((3, 4)),
}


def uneven(folder: Path, **config: Any) -> Path:
    """An adapter of two ranks and two α, as UNEVEN says."""
    tensors = {k: v for layer, r in RANKS.items() for k, v in factors({layer: SHAPES[layer]}, r).items()}
    return adapter(folder, tensors, **UNEVEN | config)


def emitted(capsys: pytest.CaptureFixture, folder: Path, *options: str) -> Any:
    main(["config", str(folder), *options])
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture, folder: Path, *options: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["config", str(folder), *options])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("options", [("--rule", "V1"), ("--rule", "V2", "--no-rslora"), ("--keep", "s", "--rank", "3")])
def test_all_that_does_not_scale_survives(tmp_path: Path, capsys: pytest.CaptureFixture, options: Any) -> None:
    folder = uneven(tmp_path / "a", **KEPT)
    new = emitted(capsys, folder, *options)
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert {k: v for k, v in new.items() if k not in SCALES} == {k: v for k, v in stored.items() if k not in SCALES}
    assert new.keys() >= SCALES


@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("rule", ["V1", "V2"])
@pytest.mark.parametrize("rank", [None, 3])
def test_every_layer_has_the_alpha_of_the_rule(tmp_path: Path, rule: Any, rank: int | None, rslora: bool) -> None:
    new = rescaled_config(open_adapter(uneven(tmp_path / "a", **KEPT)), rule, rank=rank, use_rslora=rslora)
    for layer in SHAPES:
        r, s = scaling_by_peft(new, layer)
        assert r == (rank or RANKS[layer])
        alpha = 256 * math.sqrt(r) if rule == "V1" else math.sqrt(r) * r  # "gaussian" draws with σ_A = 1/r
        assert s * r == pytest.approx(alpha, rel=1e-14)


@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("rank", [None, 1, 3, 64])
@pytest.mark.parametrize(("keep", "power"), [("s", 0), ("s√r", 0.5), ("s-sqrt-r", 0.5)])
@pytest.mark.parametrize("was", [True, False])
def test_what_is_kept_at_another_rank(
    tmp_path: Path, keep: Any, power: float, rank: int | None, rslora: bool, was: bool
) -> None:
    """s or s·√r of every layer, before and after by PEFT's formula; "pissa", for which no rule is, does not matter."""
    folder = uneven(tmp_path / "a", use_rslora=was, init_lora_weights="pissa")
    new = rescaled_config(open_adapter(folder), keep, rank=rank, use_rslora=rslora)
    stored = json.loads((folder / "adapter_config.json").read_text())
    for layer in SHAPES:
        (r, s), (r_was, s_was) = scaling_by_peft(new, layer), scaling_by_peft(stored, layer)
        assert r == (rank or r_was)
        assert s * r**power == pytest.approx(s_was * r_was**power, rel=1e-14)
    assert new["init_lora_weights"] == "pissa"


@pytest.mark.parametrize("keep", ["s", "s√r", "s-sqrt-r"])
def test_command_keeps(tmp_path: Path, capsys: pytest.CaptureFixture, keep: str) -> None:
    """By hand: s = 8/4 = 2 at rank 4; at rank 16 it is 2, or 1 where 2·√4 is kept, and with rsLoRA lora_alpha = 4·s."""
    folder = adapter(tmp_path / "a")
    new = emitted(capsys, folder, "--keep", keep, "--rank", "16")
    assert (new["r"], new["lora_alpha"]) == (16, 8 if keep == "s" else 4)
    (rule, *_) = emitted(capsys, folder, "--keep", keep, "--rank", "16", "--form", "qwix")
    assert (rule["rank"], rule["alpha"]) == (16, 32 if keep == "s" else 16)
    assert refused(capsys, folder, "--keep", keep, "--rule", "V1") == (
        f"error: keep: replaces the rule, got --keep {keep} and --rule V1"
    )


STAYS = [["q_proj", "o_proj"], [*SHAPES, "lm_head"], r"model\.layers\.\d\.\w_proj", "all-linear", "(a+)+$"]


@pytest.mark.parametrize("targets", STAYS, ids=str)
def test_layers_that_the_adapter_names_stay_as_they_are(tmp_path: Path, targets: Any) -> None:
    fields = {"target_modules": targets, "exclude_modules": ["x"]}
    new = rescaled_config(open_adapter(adapter(tmp_path / "a", **fields)), "V1")
    assert {field: new[field] for field in fields} == fields


UNNAMED: dict[str, dict[str, Any]] = {
    "missing": {},
    "null": {"target_modules": None, "exclude_modules": None},
    "empty": {"target_modules": []},
    "one of two": {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
    "end of a part": {"target_modules": ["q_proj", "proj"]},
    "no name": {"target_modules": [1]},
}


@pytest.mark.parametrize("fields", UNNAMED.values(), ids=UNNAMED)
def test_layers_that_the_adapter_has_and_does_not_name_are_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    """And no others: not one that ends in the same name, nor one in which a dot is another letter."""
    new = rescaled_config(open_adapter(adapter(tmp_path / "a", **fields)), "V1")
    assert all(re.fullmatch(new["target_modules"], layer) for layer in SHAPES)
    for other in ("q_proj", "x.model.layers.0.q_proj", "model.layers.0xq_proj"):
        assert not re.fullmatch(new["target_modules"], other)
    assert not any(new[field] for field in fields.keys() - {"target_modules"})


@pytest.mark.parametrize("form", ["json", "qwix"])
@pytest.mark.parametrize(
    "setting",
    [{"use_qalora": True}, {"use_bdlora": {"nblocks": 1}}, {"target_parameters": ["mlp.experts.up"]}],
    ids=str,
)
def test_another_map_is_not_scaled(
    tmp_path: Path, capsys: pytest.CaptureFixture, form: str, setting: dict[str, Any]
) -> None:
    (field,) = setting
    line = refused(capsys, adapter(tmp_path / "a", **setting), "--form", form)
    assert line == f"error: adapter_config.json: {field} is set, but α is here for one full A and B of each layer"


def test_embeddings_alone_have_nothing_to_scale(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = adapter(tmp_path / "a", EMBEDDING)
    for options in ([], ["--form", "qwix"], ["--rule", "V1", "--rank", "2"], ["--form", "qwix", "--keep", "s"]):
        assert refused(capsys, folder, *options) == ("error: folder: has no layer to scale, only embeddings, got 'wte'")
    assert scaling_by_peft(emitted(capsys, folder, "--keep", "s", "--rank", "16"), "wte") == (16, 2.0)


@pytest.mark.parametrize("rank", [None, 16])
def test_embeddings_keep_their_scaling_beside_layers_with_a_rule(tmp_path: Path, rank: int | None) -> None:
    new = rescaled_config(open_adapter(adapter(tmp_path / "a", factors() | EMBEDDING)), "V2", rank=rank)
    assert scaling_by_peft(new, "wte") == pytest.approx((rank or 4, 2.0), rel=1e-14)
    assert re.fullmatch(new["target_modules"], "wte")
    r, s = scaling_by_peft(new, "model.layers.0.q_proj")
    assert s * r == pytest.approx(math.sqrt(r * 3 * 5), rel=1e-14)


def test_inference_mode_that_peft_sets_in_every_file_is_not_for_training(tmp_path: Path) -> None:
    assert rescaled_config(open_adapter(adapter(tmp_path / "a", inference_mode=True)), "V2")["inference_mode"] is False


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "eva", "olora", "corda", "loftq", False])
def test_another_initialiser_for_one_that_has_no_rule(tmp_path: Path, capsys: pytest.CaptureFixture, init: Any) -> None:
    folder = adapter(tmp_path / "a", init_lora_weights=init)
    for rule in ("V1", "V2"):
        line = refused(capsys, folder, "--rule", rule)
        assert line.startswith("error: init_lora_weights: must draw A at random and set B = 0, got " + repr(init))
        assert "--init" in line
    for name, value, sigma in (("gaussian", "gaussian", 1 / 4), ("true", True, 1 / math.sqrt(3 * 5))):
        new = emitted(capsys, folder, "--init", name)
        assert new["init_lora_weights"] == value
        r, s = scaling_by_peft(new, "model.layers.0.q_proj")
        assert s * r == pytest.approx(math.sqrt(r) / sigma, rel=1e-14)


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        (["--init", "pissa"], "init_lora_weights: must draw A at random and set B = 0, got 'pissa'"),
        (["--init", "false", "--rule", "V1"], "init_lora_weights: must draw A at random and set B = 0, got False"),
        (["--init", "magic"], "init_lora_weights: unknown 'magic'"),
        (["--init", "magic", "--keep", "s"], "init_lora_weights: unknown 'magic'"),
        (["--init", "true", "--form", "qwix"], "init: is for PEFT, qwix draws A by he_uniform, got --init true"),
        (["--rank", "0"], "rank: must be from 1 to 2147483647, got 0"),
        (["--rank", "-1", "--keep", "s√r"], "rank: must be from 1 to 2147483647, got -1"),
        (["--rank", "9" * 400], "rank: must be from 1 to 2147483647, got 99"),
        (["--keep", "s", "--rank", "1", "--integers"], "integers: would round the lora_alpha of 'model.layers.0.o_pr"),
    ],
)
def test_options_that_make_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], begins: str
) -> None:
    assert refused(capsys, adapter(tmp_path / "a", lora_alpha=1), *options).startswith(f"error: {begins}")


def test_unknown_way_to_scale_is_refused(tmp_path: Path) -> None:
    by: Any = "V3"
    with rejects("by: must be V1, V2, s or s√r", "V3"):
        rescaled_config(open_adapter(adapter(tmp_path / "a")), by)


def test_command_writes_a_configuration_for_the_same_layers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = adapter(tmp_path / "a")
    fixed = adapter(tmp_path / "b", **emitted(capsys, folder, "--rule", "V2"))
    assert [x.under_scaled for x in audit_adapter(fixed)] == pytest.approx([1.0, 1.0, 1.0])
    assert not any(math.isclose(x.under_scaled, 1) for x in audit_adapter(folder))
    main(["config", str(folder), "--form", "python", "--rank", "2"])
    assert capsys.readouterr().out.startswith("peft.LoraConfig(r=2, ")
    assert len(emitted(capsys, folder, "--form", "qwix")) == 3


# The real PEFT, where it is installed.


TRAINED: dict[str, dict[str, Any]] = {
    "plain": {},
    "DoRA": {"use_dora": True, "lora_dropout": 0.1},
    "biases": {"bias": "lora_only"},
    "all biases and the head": {"bias": "all", "modules_to_save": ["score"]},
    "lora_bias": {"lora_bias": True},
    "one block": {"layers_to_transform": [1], "layers_pattern": "layers"},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fields", TRAINED.values(), ids=TRAINED)
def test_peft_trains_the_same_parameters_at_the_scaling_of_the_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture, fields: dict[str, Any]
) -> None:
    _, peft = peers()

    def trained(config: Any) -> tuple[Any, dict[str, tuple[int, ...]]]:
        model = peft.get_peft_model(
            torch_model(SHAPES | {"score": (2, 6), "model.layers.1.x": (3, 3)}, bias=True), config
        )
        return model, {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}

    model, wanted = trained(peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "o_proj"], **fields))
    model.save_pretrained(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "adapter_config.json").write_text(json.dumps(emitted(capsys, tmp_path, "--rule", "V2")))
    new, found = trained(peft.LoraConfig.from_pretrained(tmp_path / "new"))
    assert found == wanted
    layers = {name: module for name, module in new.named_modules() if getattr(module, "scaling", None)}
    assert layers
    for name, module in layers.items():
        d_in = SHAPES[name.removeprefix("base_model.model.")][1]
        assert module.scaling["default"] == pytest.approx(math.sqrt(3 * d_in / 4))
