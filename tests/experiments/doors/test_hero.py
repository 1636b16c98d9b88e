"""The hero figure: drawn from what a reproduction stored, anew where a verdict changes, and not without its records."""

from pathlib import Path

from PIL import Image

from experiments.claims import CLAIMS
from experiments.doors.hero import draw_hero
from experiments.ledger import table
from experiments.problems import PROBLEMS


def drawn(out: Path) -> str:
    with Image.open(out / "figures" / "hero.png") as picture:
        return picture.info["Drawn"]


def test_hero_is_drawn_by_a_reproduction_and_follows_the_verdicts(out: Path, stored: Path) -> None:
    entries = table.read(out / "ledger.json")
    assert [e["id"] for e in entries] == [claim.id for claim in CLAIMS]
    assert draw_hero(entries, PROBLEMS["mlp"], stored, quick=True)
    assert drawn(stored) == drawn(out)
    turned = table.Entries(e | {"verdict": "refuted"} for e in entries)
    assert draw_hero(turned, PROBLEMS["mlp"], stored, quick=True)
    assert drawn(stored) != drawn(out)


def test_hero_is_not_drawn_without_its_records(out: Path, tmp_path: Path) -> None:
    assert not draw_hero(table.read(out / "ledger.json"), PROBLEMS["mlp"], tmp_path, quick=True)
    assert not (tmp_path / "figures").exists()
