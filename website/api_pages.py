"""Writes the API reference: a page for each package, and on it each public name once, under the shortest path to it.

What a package exports is read from its source, and a signature is shown as it is written there, with the names of types
rather than what they stand for.
"""

import ast
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from house_style import plain

LONGEST = 120
"""Characters of a constant's value, beyond which only its name is shown."""


class Definition(NamedTuple):
    """Tell where a name is defined: the module, the node, and the one that follows it."""

    module: str
    node: ast.stmt
    after: ast.stmt | None


def pages(library: ModuleType) -> dict[str, str]:
    """Return the text of every page by its path."""
    top = library.__name__
    paths: dict[tuple[str, int], str] = {}
    shown: set[str] = set()
    made = {}
    for module in (top, *rooms(library)):
        entries = []
        for name in exported(module):
            found = definition(module, name)
            path = paths.setdefault((found.module, found.node.lineno), f"{module}.{name}")
            if module != top and path not in shown:
                shown.add(path)
                entries.append(entry(path, found))
        head = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n"
        made[f"api/{module}.rst"] = "\n".join([head, *entries])
    lost = set(paths.values()) - shown
    if lost:
        raise ValueError(f"{min(lost)} is exported by no package below {top}")
    listed = "".join(f"   {module}\n" for module in sorted(rooms(library)))
    rows = "".join(f"   * - `{name}`\n     - {sentence(definition(top, name))}\n" for name in exported(top))
    made[f"api/{top}.rst"] += (
        f"\n.. list-table::\n   :widths: auto\n\n{rows}\n.. toctree::\n   :maxdepth: 1\n\n{listed}"
    )
    return made


def sentence(found: Definition) -> str:
    """Return what is said first of a name."""
    node = found.node
    text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else said(found.after)
    return plain(" ".join((text or "").split("\n\n")[0].split()))


def rooms(library: ModuleType) -> list[str]:
    """List all packages and the modules that lie beside them, those within packages last."""
    found = pkgutil.walk_packages(library.__path__, f"{library.__name__}.")
    depth = {m.name: m.name.count(".") for m in found if m.ispkg or m.name.count(".") == 1}
    return sorted((name for name in depth if not name.endswith("__main__")), key=lambda name: depth[name])


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(Path(str(import_module(module).__file__)).read_text(encoding="utf-8"))


def exported(module: str) -> list[str]:
    """List what a module says that it exports, or else everything that is defined in it and has a docstring."""
    if hasattr(import_module(module), "__all__"):
        return list(import_module(module).__all__)
    found = [x for x in tree(module).body if isinstance(x, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(x)]
    return list(dict.fromkeys(x.name for x in found if not x.name.startswith("_")))


def definition(module: str, name: str) -> Definition:
    """Follow a name through imports to its last definition."""
    body = tree(module).body
    for node, after in reversed(list(zip(body, [*body[1:], None], strict=True))):
        if isinstance(node, ast.ImportFrom) and any(x.name == name for x in node.names):
            return definition(str(node.module), name)
        if name in defined(node):
            return Definition(module, node, after)
    raise ValueError(f"{module}: {name} is not defined")


def defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (x.id for x in targets if isinstance(x, ast.Name))


def entry(path: str, found: Definition) -> str:
    """Write the directive that shows one name."""
    node = found.node
    if isinstance(node, ast.FunctionDef):
        returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f".. autofunction:: {path}({ast.unparse(node.args)}){returned}\n"
    if isinstance(node, ast.ClassDef):
        return f".. autoclass:: {path}\n   :members:\n"
    module, _, name = path.rpartition(".")
    value = ast.unparse(node.value) if isinstance(node, ast.Assign | ast.AnnAssign) and node.value else ""
    shown = f"   :value: {value}\n" if len(value) <= LONGEST else ""
    return f".. py:data:: {name}\n   :module: {module}\n{shown}\n   {plain(said(found.after))}\n"


def said(node: ast.stmt | None) -> str:
    """Return the text that stands after a constant, on one line."""
    match node:
        case ast.Expr(ast.Constant(str(text))):
            return " ".join(text.split())
    return ""
