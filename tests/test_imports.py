"""The house: which room may import which, read from the source, so that it cannot drift.

A room is a package of `signal_drift` or `experiments`, or a module that lies beside them. Imports count wherever they
stand, in functions and under `TYPE_CHECKING` too. What `import signal_drift` reaches are the rooms that it re-exports.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER, FLOORS = 14, 10
"""Code files in one folder, and rooms one above the other, at most."""

BASICS = {"errors", "display"}
LIBRARY: dict[str, set[str]] = {
    "errors": set(),
    "display": set(),
    "files": BASICS,
    "plotting": set(),
    "lora": BASICS,
    "losses": BASICS | {"lora"},
    "operators": BASICS | {"jaxpr", "lora"},
    "models": BASICS | {"files", "lora", "losses"},
    "jaxpr": set(),
    "hessians": BASICS | {"jaxpr", "lora", "losses", "operators"},
    "optimizers": {"errors", "lora"},
    "training": BASICS | {"lora", "losses", "optimizers"},
    "spectra": BASICS | {"lora", "losses", "operators", "hessians"},
    "maps": BASICS | {"jaxpr", "lora", "losses", "operators", "hessians"},
    "tasks": BASICS | {"files", "lora", "losses", "models", "training"},
    "propositions": BASICS
    | {"lora", "losses", "operators", "hessians", "spectra", "maps", "optimizers", "training", "tasks", "models"},
    "peft": BASICS | {"files", "lora", "models", "plotting"},
    "conformance": BASICS | {"models", "peft"},
    "text_audit": BASICS | {"files", "lora", "losses", "hessians", "spectra", "models", "tasks", "peft"},
    "advice": BASICS | {"files", "lora", "models", "peft", "propositions", "spectra", "text_audit"},
    "testing": {"propositions"},
    "__init__": BASICS
    | {"lora", "losses", "operators", "hessians", "spectra", "maps", "models", "optimizers", "training"},
    "__main__": BASICS | {"peft", "text_audit", "advice"},
}
BOTTOM = {"lab", "analysis", "problems"}
SUBJECTS = {"curvature", "dynamics", "gauge", "tuning", "benchmark"}
EXPERIMENTS: dict[str, set[str]] = {
    "__init__": set(),
    "lab": set(),
    "analysis": {"lab"},
    "problems": {"lab", "analysis"},
    **dict.fromkeys(SUBJECTS, BOTTOM),
    "ledger": {"lab", "analysis"},
    "claims": BOTTOM | SUBJECTS | {"ledger"},
    "catalogue": BOTTOM | SUBJECTS,
    "doors": BOTTOM | SUBJECTS | {"catalogue", "claims", "ledger"},
    "__main__": BOTTOM | {"catalogue", "doors"},
}
MAY_IMPORT = {f"signal_drift.{room}": {f"signal_drift.{other}" for other in below} for room, below in LIBRARY.items()}
OPEN = MAY_IMPORT.keys() - {"signal_drift.__main__"}
"""What every experiment may import of the library."""
MAY_IMPORT |= {
    f"experiments.{room}": OPEN | {f"experiments.{other}" for other in below} for room, below in EXPERIMENTS.items()
}
FIRST = {f"experiments.tuning.{name}" for name in ("rates", "rank_law", "protocol_comparison")}
"""The sweeps for η_FFT and for the best α, and the comparison, which are measured before what builds on them."""
DRAWS = {"signal_drift.plotting", "signal_drift.peft.figure"}
"""Where the library imports matplotlib."""


def sources() -> dict[str, Path]:
    """Every module by its name, that of a package with `.__init__`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for top in ("signal_drift", "experiments")
        for path in sorted((ROOT / top).rglob("*.py"))
    }


SOURCES = sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def as_module(name: str) -> str:
    return f"{name}.__init__" if f"{name}.__init__" in SOURCES else name


def imports(tree: ast.Module) -> set[str]:
    """Everything that is imported: the modules of this house as they are, of others the package."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {as_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [as_module(f"{node.module}.{alias.name}") for alias in node.names]
            found |= {name if name in SOURCES else as_module(str(node.module)) for name in names}
    return found


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}
HOUSE = {name: found & SOURCES.keys() for name, found in IMPORTS.items()}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def rooms() -> dict[str, set[str]]:
    """The rooms that each room imports; in the place of `signal_drift` itself those that it re-exports."""
    facade = {room(other) for other in HOUSE["signal_drift.__init__"]}
    found: dict[str, set[str]] = {}
    for module, others in HOUSE.items():
        reached = {room(other) for other in others}
        if "signal_drift.__init__" in reached:
            reached |= facade
        found.setdefault(room(module), set()).update(reached - {room(module), "signal_drift.__init__"})
    return found


@pytest.mark.parametrize("name", sorted({room(module) for module in SOURCES}))
def test_a_room_imports_only_what_lies_below(name):
    assert name in MAY_IMPORT, "a new room: say in the table what it may import"
    found = {room(other) for module, others in HOUSE.items() if room(module) == name for other in others}
    assert found - {name} <= MAY_IMPORT[name]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return the names along a circle of imports, or none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as found:
        return found.args[1]
    return []


def test_a_circle_is_found():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_the_table_itself_has_no_circle():
    assert circle(MAY_IMPORT) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circle({name: others - {name} for name, others in HOUSE.items()}) == []


def test_no_experiment_imports_another():
    experiments = {
        name
        for name, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "EXPERIMENT" for t in node.targets)
    }
    assert len(experiments) > 10
    found = {name: HOUSE[name] & experiments - FIRST for name in experiments}
    assert {name: others for name, others in found.items() if others} == {}
    assert not HOUSE["experiments.tuning.rates"] & experiments


def test_the_library_draws_in_two_places_and_knows_no_experiment():
    library = {name: found for name, found in IMPORTS.items() if name.startswith("signal_drift.")}
    assert {name for name, found in library.items() if any(x.split(".")[0] == "matplotlib" for x in found)} == DRAWS
    assert {name for name, found in library.items() if any(x.split(".")[0] == "experiments" for x in found)} == set()


def test_no_folder_is_crowded():
    folders = [path.parent for path in SOURCES.values()]
    assert {str(f.relative_to(ROOT)): n for f in set(folders) if (n := folders.count(f)) > FOLDER} == {}


def test_the_house_is_not_too_high():
    """A room's floor is one above the highest that it imports."""
    found, floors = rooms(), {}
    for name in TopologicalSorter(found).static_order():
        floors[name] = 1 + max((floors[other] for other in found.get(name, ())), default=0)
    assert max(floors.values()) <= FLOORS, sorted(floors.items(), key=lambda item: item[1])
