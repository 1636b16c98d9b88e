"""Make figures parts of a page: the content of an SVG file, with ids that are its own."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FRAME = re.compile(r"[\d.]+ [\d.]+ [\d.]+ [\d.]+")
"""The four numbers of a viewBox."""
LETTER = re.compile(r'<path id="([^"]+)" (d="[^"]*" transform="scale\([^)]*\)") ?/>')
"""The outline of a letter as Matplotlib defines it, for <use> to draw."""


class Inline(NamedTuple):
    """Hold a figure as part of an HTML page: the content of its <svg> and the frame that it is drawn in."""

    frame: str
    markup: str


def inlined(file: Path, name: str) -> Inline | None:
    """Make the figure in a file part of a page; None where the file has none."""
    try:
        figure = inline(file.read_text(encoding="utf-8"), name)
    except (OSError, ValueError, KeyError, RecursionError, ET.ParseError):
        return None
    return figure if FRAME.fullmatch(figure.frame) else None


def inline(svg: str, name: str) -> Inline:
    """Strip a figure of what only a file of its own needs; its ids start with `name`, so that none clashes.

    Metadata and the style sheet are left out, which would hold for the whole page. Coordinates are rounded to a
    hundredth of a point.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style"}:
                parent.remove(child)
    for element in root.iter():
        attributes = {_local(key): _own(_local(key), value, name) for key, value in element.attrib.items()}
        element.tag = _local(element.tag)
        element.attrib.clear()
        element.attrib.update(attributes)
        element.tail = (element.tail or "").strip()
    return Inline(root.attrib["viewBox"], "".join(ET.tostring(child, encoding="unicode") for child in root))


class Figures(NamedTuple):
    """Hold the figures of one page by their names, and the outlines of the letters that they all use."""

    letters: str
    each: dict[str, Inline]


def sharing_letters(figures: Mapping[str, Inline]) -> Figures:
    """Take the outlines of letters out of all figures, so that the page has each of them once, under a short id."""
    ids: dict[str, str] = {}
    each: dict[str, Inline] = {}
    for name, figure in figures.items():
        own = {found[1]: ids.setdefault(found[2], f"g{len(ids)}") for found in LETTER.finditer(figure.markup)}
        rest = LETTER.sub("", figure.markup)
        links = {f'href="#{old}"': f'href="#{new}"' for old, new in own.items()}
        each[name] = figure._replace(markup=re.sub(r'href="#[^"]*"', lambda x, to=links: to.get(x[0], x[0]), rest))
    return Figures("".join(f'<path id="{name}" {outline}/>' for outline, name in ids.items()), each)


def _local(name: str) -> str:
    """A name without its XML namespace, as HTML writes it."""
    return name.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    """An attribute's value with every id and every reference to one made the figure's own."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return re.sub("^#", f"#{name}-", value)
    if key == "d":
        return re.sub(r"\d+\.\d+", _rounded, " ".join(value.split()))
    return value.replace("url(#", f"url(#{name}-")


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
