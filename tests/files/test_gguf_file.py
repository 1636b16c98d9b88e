"""Fields and tensors of a GGUF file that the package gguf wrote, and what is asked of it in vain."""

import sys
from pathlib import Path

import numpy as np
import pytest
from llamas import CONFIGS, gguf, tensors
from problems import rejects

from signal_drift.files import GgufFile, open_gguf

pytest.importorskip("gguf", reason="needs the extra smollm")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return open_gguf(gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", CONFIGS["tied"]))


def test_fields_have_their_kinds(file: GgufFile) -> None:
    assert file.field("general.architecture", str) == "llama"
    assert file.field("llama.block_count", int) == 2
    assert file.field("llama.block_count", float) == 2.0
    assert file.field("llama.rope.scaling.type", str, "none") == "none"


def test_a_field_that_is_not_there_or_of_another_kind_is_one_line(file: GgufFile) -> None:
    with rejects("model.gguf: has no field 'llama.width'"):
        file.field("llama.width", int)
    with rejects("model.gguf: general.architecture must be of type int", "'llama'"):
        file.field("general.architecture", int)


def test_a_tensor_is_the_matrix_that_was_written(file: GgufFile) -> None:
    written = tensors(CONFIGS["tied"])["model.layers.1.mlp.down_proj.weight"]
    assert file.shape("blk.1.ffn_down.weight") == written.shape == (16, 24)
    np.testing.assert_array_equal(file.tensor("blk.1.ffn_down.weight"), written)


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with rejects("path: a GGUF file needs the package gguf", "signal-drift[smollm]"):
        open_gguf(tmp_path / "model.gguf")
