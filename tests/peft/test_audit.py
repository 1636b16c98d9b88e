"""The numbers of an audit, from formulas and from the whole matrix s·BA; and its command line."""

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from stored import SHAPES, adapter, factors

from signal_drift.__main__ import main
from signal_drift.peft.audit import audit_adapter, singular_values


def whole(layer: str, scale: float) -> np.ndarray:
    A, B = (factors()[f"base_model.model.{layer}.lora_{x}.weight"].astype(float) for x in "AB")
    return scale * B @ A


@pytest.mark.parametrize("rslora", [False, True])
def test_numbers_of_every_layer(tmp_path: Path, rslora: bool) -> None:
    found = audit_adapter(adapter(tmp_path / "a", use_rslora=rslora, alpha_pattern={"o_proj": 3}))
    assert [x.layer for x in found] == sorted(SHAPES)
    for x in found:
        d_in = SHAPES[x.layer][1]
        lora_alpha = 3 if x.layer.endswith("o_proj") else 8
        s = lora_alpha / (2 if rslora else 4)
        assert x.shape == SHAPES[x.layer]
        assert (x.rank, x.scaling, x.alpha) == (4, s, 4 * s)
        assert x.sigma_set == pytest.approx(1 / math.sqrt(3 * d_in))
        assert x.v1 == 512
        assert x.v2 == pytest.approx(math.sqrt(4 * 3 * d_in))
        assert x.under_scaled == pytest.approx(math.sqrt(12 * d_in) / (4 * s))
        A = factors()[f"base_model.model.{x.layer}.lora_A.weight"]
        assert x.sigma_measured == pytest.approx(float(np.sqrt((A.astype(float) ** 2).mean())))
        dense = whole(x.layer, s)
        assert x.norm == pytest.approx(np.linalg.norm(dense), rel=1e-5)
        assert x.stable_rank == pytest.approx((np.linalg.norm(dense) / np.linalg.norm(dense, 2)) ** 2, rel=1e-5)


@pytest.mark.parametrize(("d_out", "d_in", "r"), [(6, 5, 4), (3, 7, 5), (7, 3, 5), (4, 4, 9), (1, 1, 1)])
def test_singular_values_are_those_of_the_whole_matrix(d_out: int, d_in: int, r: int) -> None:
    """Also where r exceeds the layer; to the float32 rounding of sums of r, d_in or d_out terms."""
    draws = np.random.default_rng(1)
    A, B = (draws.standard_normal(shape).astype(np.float32) for shape in ((r, d_in), (d_out, r)))
    found, wanted = singular_values(A, B, -1.5), np.linalg.svd(-1.5 * B.astype(float) @ A.astype(float))[1]
    eps = float(np.finfo(np.float32).eps)
    assert len(found) == min(r, d_in, d_out)
    np.testing.assert_allclose(found, wanted[: len(found)], atol=16 * max(d_out, d_in, r) * eps * wanted[0])


INITIALISERS = {
    "gaussian": (1 / 4, None),
    "pissa": (math.nan, "A from the singular vectors of W₀: σ_A and V2 do not apply"),
    "pissa_niter_4": (math.nan, "A from the singular vectors of W₀: σ_A and V2 do not apply"),
    "olora": (math.nan, "A from the QR decomposition of W₀: σ_A and V2 do not apply"),
    "loftq": (math.nan, "A from the error of quantising W₀: σ_A and V2 do not apply"),
    "eva": (math.nan, "A from the singular vectors of the inputs: σ_A and V2 do not apply"),
    False: (1 / math.sqrt(15), "B was random too: V2 is derived for B = 0 at the start"),
}


@pytest.mark.parametrize(("initialiser", "expected"), INITIALISERS.items(), ids=map(str, INITIALISERS))
def test_where_a_formula_does_not_apply_it_is_said(tmp_path: Path, initialiser: Any, expected: tuple) -> None:
    found = audit_adapter(adapter(tmp_path / "a", init_lora_weights=initialiser))
    sigma, note = expected
    x = next(x for x in found if x.layer == "model.layers.0.q_proj")
    assert x.sigma_set == pytest.approx(sigma, nan_ok=True)
    assert math.isnan(x.v2) == math.isnan(x.under_scaled) == math.isnan(sigma)
    assert note is None or found.notes()[note] == 3
    assert x.v1 == 512


def test_embeddings_have_no_rule(tmp_path: Path) -> None:
    names = ("base_model.model.wte.lora_embedding_A", "base_model.model.wte.lora_embedding_B")
    (x,) = audit_adapter(adapter(tmp_path / "a", dict(zip(names, (np.zeros((4, 9)), np.ones((3, 4))), strict=True))))
    assert math.isnan(x.sigma_set)
    assert math.isnan(x.v2)
    assert x.norm == 0
    assert math.isnan(x.stable_rank)
    assert any("embedding" in note for note in x.notes)


def test_as_made_and_as_trained_are_told_apart(tmp_path: Path) -> None:
    """A uniform A of 4·4000 entries is within five standard errors of its σ_A; one that grew by a tenth is not."""
    tensors = factors({"x": (3, 4000)})
    as_made = {k: v * ("lora_A" in k) for k, v in tensors.items()}
    (fresh,) = audit_adapter(adapter(tmp_path / "a", as_made))
    assert fresh.notes == ("B = 0: the adapter is as it was made",)
    (trained,) = audit_adapter(adapter(tmp_path / "b", {k: 1.1 * v for k, v in tensors.items()}))
    assert trained.notes == (
        "B ≠ 0: the adapter is trained, and A is no longer as it was drawn",
        "σ_A as stored differs from the initialiser's by more than chance",
    )


def test_dora_and_transposed_kernels_are_noted(tmp_path: Path) -> None:
    notes = audit_adapter(adapter(tmp_path / "a", use_dora=True, fan_in_fan_out=True)).notes()
    assert sum("DoRA" in note or "fan_in_fan_out" in note for note in notes) == 2


def test_command_prints_a_table_with_notes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["audit", str(adapter(tmp_path / "a", dtype=jnp.bfloat16))])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 layers"
    assert [line.split()[0] for line in lines[2:5]] == sorted(SHAPES)
    assert lines[5] == "note: B ≠ 0: the adapter is trained, and A is no longer as it was drawn (3 of 3 layers)"


def test_command_prints_json_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = adapter(tmp_path / "a", init_lora_weights="pissa")
    main(["audit", str(folder), "--json", "--figure", str(tmp_path / "drawn.png")])
    text = capsys.readouterr().out
    assert "W₀" in text  # as it is written, not escaped
    printed = json.loads(text, parse_constant=pytest.fail)
    assert printed[0]["v2"] is None
    np.testing.assert_allclose(printed[1]["singular_values"], audit_adapter(folder)[1].singular_values)
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["audit", "config"])
def test_command_refuses_a_folder_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, str(tmp_path)])
    assert caught.value.code == 2
    assert (
        capsys.readouterr().err
        == f"error: folder: {str(tmp_path)!r} is no PEFT adapter, it has no adapter_config.json\n"
    )
