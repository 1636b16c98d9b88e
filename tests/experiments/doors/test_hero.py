"""The hero figure: drawn from what a reproduction stored, anew where a verdict changes, and not without its records."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from experiments.claims import CLAIMS
from experiments.doors.hero import draw_hero, draw_verdicts
from experiments.lab.runner import Reader
from experiments.ledger import table
from experiments.ledger.first_screen import is_here
from experiments.problems import PROBLEMS
from signal_drift import plotting


def drawn(out: Path) -> str:
    with Image.open(out / "figures" / "hero.png") as picture:
        return picture.info["Drawn"]


def test_hero_is_drawn_by_a_reproduction_and_follows_the_verdicts(out: Path, stored: Path) -> None:
    entries = table.read(out / "ledger.json")
    assert [e["id"] for e in entries] == [claim.id for claim in CLAIMS]
    assert draw_hero(entries, PROBLEMS["mlp"], Reader(stored), quick=True)
    assert drawn(stored) == drawn(out)
    turned = table.Entries(e | {"verdict": "refuted"} for e in entries)
    assert draw_hero(turned, PROBLEMS["mlp"], Reader(stored), quick=True)
    assert drawn(stored) != drawn(out)


def test_hero_is_not_drawn_without_its_records(out: Path, tmp_path: Path) -> None:
    assert not draw_hero(table.read(out / "ledger.json"), PROBLEMS["mlp"], Reader(tmp_path), quick=True)
    assert not (tmp_path / "figures").exists()


def test_no_two_verdicts_of_the_reference_run_stand_on_one_another() -> None:
    """In a panel of the size that it has in the figure."""
    entries = table.read(Path(__file__).parents[3] / "docs" / "ledger.json")
    figure, (panel,) = plotting.panels(1, "Verdicts", height=5.6, width=6.4)
    draw_verdicts(panel, [(e["group"], e["id"], e["verdict"]) for e in entries if is_here(e)])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in panel.texts]
    assert len(boxes) > 40
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            shared = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert shared < 0.25 * one.height or min(one.x1, other.x1) <= max(one.x0, other.x0)
