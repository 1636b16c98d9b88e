"""Reads the templates of GSM-symbolic out of the wheel of reasoning-gym 0.1.25 (Apache-2.0), which is not installed."""

import builtins
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from signal_drift.errors import InputError
from signal_drift.tasks.answers.worked_answers import Template, WorkedAnswer

SHA256 = "7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435"
"""Of the wheel: no code of any other file is run."""
UTILITIES = "reasoning_gym.utils"
GENERATORS = "reasoning_gym.arithmetic.gsm_symbolic.generators_"
RANGES = ("00_49", "50_99")
FAULTY = {32, 35, 37, 61, 63, 65, 74, 76, 77, 79, 86, 87, 90, 97, 98}
"""Templates of which the package itself says that they need to be mended."""


def read_templates(wheel: str | Path) -> dict[int, Template]:
    """Return the 85 templates that are sound, by their numbers.

    Three modules of the wheel are run, by themselves: they need nothing but Python, and nobody else can import them.
    Raises `InputError` for a file that is not that wheel.
    """
    generators: dict[int, Callable[..., Any]] = {}
    with zipfile.ZipFile(_believed(wheel)) as archive:
        known = {UTILITIES: SimpleNamespace(**_run(archive, UTILITIES, {}))}
        for numbers in RANGES:
            names = _run(archive, GENERATORS + numbers, known)
            generators |= {int(name[9:]): value for name, value in names.items() if name.startswith("generate_")}
    return {k: partial(_drawn, k, generators[k]) for k in sorted(generators.keys() - FAULTY)}


def _believed(wheel: str | Path) -> io.BytesIO:
    """The wheel's bytes, once their digest is known to be right."""
    try:
        content = Path(wheel).read_bytes()
    except OSError as error:
        raise InputError(f"wheel: cannot read {str(wheel)!r} ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(f"wheel: {str(wheel)!r} is not that of reasoning-gym 0.1.25 (its SHA-256 differs)")
    return io.BytesIO(content)


def _run(archive: zipfile.ZipFile, module: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Run a module, which imports those that are `known` from there, and return its names."""

    def imported(name: str, *rest: Any) -> Any:
        return known[name] if name in known else __import__(name, *rest)

    names = {"__name__": module, "__builtins__": vars(builtins) | {"__import__": imported}}
    exec(compile(archive.read(module.replace(".", "/") + ".py"), module, "exec"), names)
    return names


def _drawn(template: int, generator: Callable[..., Any], draws: Random) -> WorkedAnswer:
    drawn = generator(draws, 1.0)
    return WorkedAnswer(drawn["question"], drawn["metadata"]["answer_cot"], drawn["answer"], template)
