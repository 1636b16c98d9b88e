"""README and the guide pages of docs/, taken apart: links, code, commands, tables."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GENERATED = {"report.md", "error_rates.md"}
README = ROOT / "README.md"
GUIDES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in GENERATED)
PAGES = [README, *GUIDES]


class Block(NamedTuple):
    """A fenced block: the word after the fence, and what is in it."""

    language: str
    text: str


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[Path]:
    """The files that a page links to or shows."""
    found = re.findall(r"\]\(([^)\s#]+)", prose(page))
    return [(page.parent / target).resolve() for target in found if not target.startswith("https://")]


def spoken(page: Path) -> list[str]:
    """Return what stands in backticks within the prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> list[list[str]]:
    """The words of every command line, those within the prose too."""
    lines = [line for block in blocks(page) if not block.language for line in block.text.splitlines()]
    lines += [text for text in spoken(page) if text.startswith(("make ", "python -m "))]
    return [words for line in lines if (words := shlex.split(line.replace("…", ""), comments=True))]


def rows(page: Path, header: str) -> list[list[str]]:
    """The cells of the table under a heading row that begins with `header`."""
    _, _, rest = read(page).partition(f"\n| {header} |")
    assert rest, f"{page.name} has no table {header!r}"
    table = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
