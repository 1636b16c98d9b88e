"""Links names in backticks, in docstrings and on the pages of docs/, to where the reference has them.

A name that begins with the library's is checked: it is one of the reference, or can be imported at least.
"""

import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

LIBRARY = "signal_drift"
FULL = re.compile(rf"(?:sd|{LIBRARY})((?:\.[A-Za-z_]\w*)+)")


class LinkedNames(SphinxTransform):
    """Make a reference of every `sd.name` on a page in Markdown."""

    default_priority = 210

    def apply(self, **kwargs: Any) -> None:
        for code in list(self.document.findall(nodes.literal)):
            if FULL.fullmatch(code.astext()) and isinstance(code.parent, nodes.paragraph | nodes.entry):
                about = {"refdomain": "py", "reftype": "obj", "refdoc": self.env.docname, "refwarn": True}
                code.replace_self(addnodes.pending_xref("", code.deepcopy(), reftarget=code.astext(), **about))


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element) -> Any:
    """Find what Sphinx did not: `sd.name`, and the name of a type or of a function wherever it is documented."""
    if node["refdomain"] != "py":
        return None
    target, domain = node["reftarget"], env.domains.python_domain
    name = re.sub(r"^sd\.", f"{LIBRARY}.", target)
    found = [name] if name in domain.objects else []
    if not found and (node["reftype"] == "class" or "_" in target):
        kinds = ("class", "exception", "function", "data")
        ends = [path for path, x in domain.objects.items() if path.endswith(f".{target}") and x.objtype in kinds]
        found = sorted(ends, key=lambda path: path.count("."))[:1]
    if found:
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, shown)
    if node["reftype"] == "class" and not FULL.fullmatch(target):
        return nodes.inline("", target.rpartition(".")[2])  # a type of another library, without where it is defined
    return shown if not FULL.fullmatch(target) or importable(name) else None


def importable(name: str) -> bool:
    """Tell whether this is a module, or an attribute of one."""
    parent, _, attribute = name.rpartition(".")
    try:
        return hasattr(import_module(parent), attribute) or bool(import_module(name))
    except ImportError:
        return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(LinkedNames)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
