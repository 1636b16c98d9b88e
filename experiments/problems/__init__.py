"""Open this package to see the problems that statements are tested on, or to add one.

Every module here that defines `PROBLEM` or `PROBLEMS` is found by itself.

>>> sorted(PROBLEMS)
['contrastive', 'digits', 'flow', 'grpo', 'minilm', 'mlp', 'policy', 'smollm', 'teacher256', 'teacher64', 'transformer']
>>> PROBLEMS["mlp"].draw(0).base["layers.0"].shape
(32, 32)
"""

from importlib import import_module
from pkgutil import iter_modules

from experiments.lab.errors import OptionError
from experiments.lab.problem import Drawn, Problem, Setting, Training, Tuning

__all__ = ["PROBLEMS", "Drawn", "Problem", "Setting", "Training", "Tuning", "find"]


def _found() -> dict[str, Problem]:
    """The problems by name: the model of the paper first, then the others in the order of their names."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    problems = [
        problem
        for module in modules
        for problem in getattr(module, "PROBLEMS", [module.PROBLEM] if hasattr(module, "PROBLEM") else [])
    ]
    return {problem.name: problem for problem in sorted(problems, key=lambda p: (not p.paper, p.name))}


PROBLEMS: dict[str, Problem] = _found()


def find(name: str) -> Problem:
    """Return the problem of that name. Raises `OptionError` for one that is unknown, with the names there are."""
    if name not in PROBLEMS:
        raise OptionError(f"problem: unknown {name!r}; there are {', '.join(PROBLEMS)}")
    return PROBLEMS[name]
