"""Sets LaTeX as MathML, which browsers draw by themselves: no script, no font and no network are needed."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: nodes.Element, display: str) -> str:
    """Convert the formula of a node; warn of one that has a command which is not understood."""
    try:
        found = convert(node.astext(), display=display)
    except Exception as error:  # there is no end to what the converter raises
        found = f"\\{type(error).__name__}"
    if "\\" in found:
        logger.warning("formula: cannot be set as MathML: %s", node.astext(), location=node, type="mathml")
    return found


def visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
