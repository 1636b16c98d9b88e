"""Reads text as this project writes it: backticks for code, all else plain, with the indices of symbols set low.

A docstring is reStructuredText but for what formulas have in them, |s|, A* and a trailing underscore, which mean
themselves.
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.transforms import SphinxTransform

SYMBOL = r"(?<=[A-Za-z\u0370-\u03ff])(?<![A-Za-z_][A-Za-z\u0370-\u03ff])|(?<=[‖∇²\]])"
INDEX = re.compile(rf"(?:{SYMBOL})_([ℓθ*]|\{{[^{{}}]+\}}|[\u0370-\u03ff]|[A-Za-z0-9]+(?![A-Za-z0-9_]))")
MODULES = re.compile(r"(?<!['\"\w.])~?(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
CODE = (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.raw)


def plain(docstring: str) -> str:
    """Escape what is markup to reStructuredText outside of code: *, |, backslashes and a trailing underscore."""
    blocks = re.split(r"(\n\s*\n)", docstring)
    literal = False
    for i in range(0, len(blocks), 2):
        literal = blocks[i].startswith("    ") and (literal or (i > 0 and blocks[i - 2].endswith("::")))
        if not literal and not blocks[i].lstrip().startswith(">>>"):
            parts = re.split(r"(`[^`]*`)", blocks[i])
            parts[::2] = [re.sub(r"[*|\\]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            blocks[i] = "".join(parts)
    return "".join(blocks)


def escape(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, of the arguments that it lists too."""
    text = plain("\n".join(lines))
    lines[:] = GoogleDocstring(text).lines() if "\nArgs:\n" in text else text.split("\n")


def shorten(app: Sphinx, what: str, name: str, thing: Any, options: Any, *signature: str | None) -> tuple[Any, ...]:
    """Write types as their source has them, without the modules that they are from: Float[Array, 'r d_in']."""
    return tuple(part and MODULES.sub("", part) for part in signature)


def skip_field(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out a field of a named tuple of which nothing is said: the signature has it."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


class Indices(SphinxTransform):
    """Set the index of a symbol low, X_i as in print, in all text that is not code."""

    default_priority = 900

    def apply(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            parts = INDEX.split(str(text))
            if len(parts) > 1 and not any(isinstance(node, CODE) for node in above(text)):
                kinds = (nodes.Text, lambda index: nodes.subscript(index, index.strip("{}")))
                text.parent.replace(text, [kinds[i % 2](part) for i, part in enumerate(parts) if part])


def above(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", skip_field)
    app.add_transform(Indices)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
