"""Split a sweep over machines: shard i/n measures points[i::n], and the shards meet in one folder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from experiments.lab.errors import OptionError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Name part `index`, counted from 0, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, points: Sequence[T]) -> Sequence[T]:
        return points[self.index :: self.count]


WHOLE = Shard(0, 1)


def shard_of(text: str | None, environment: Mapping[str, str]) -> Shard:
    """Return the shard written "i/n"; without a text, the task's place in its SLURM array, or the whole."""
    if text is None:
        return _slurm_shard(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise OptionError(f"shard: must be i/n with 0 ≤ i < n, got {text!r}")
    return Shard(int(match[1]), int(match[2]))


def _slurm_shard(environment: Mapping[str, str]) -> Shard:
    """Task ID is shard i = (ID − MIN)/STEP of the array --array=MIN-MAX:STEP, n = its COUNT."""
    if "SLURM_ARRAY_TASK_ID" not in environment or "SLURM_ARRAY_TASK_COUNT" not in environment:
        return WHOLE
    defaults = {"ID": "0", "COUNT": "1", "MIN": "0", "STEP": "1"}
    values = {name: environment.get(f"SLURM_ARRAY_TASK_{name}", value) for name, value in defaults.items()}
    for name, value in values.items():
        if re.fullmatch(r"\d+", value) is None:
            raise OptionError(f"SLURM_ARRAY_TASK_{name}: must be a whole number, got {value!r}")
    task, count, first, step = (int(values[name]) for name in ("ID", "COUNT", "MIN", "STEP"))
    index = (task - first) // max(step, 1)
    if not 0 <= index < count:
        raise OptionError(f"SLURM_ARRAY_TASK_ID: must be one of {count} from {first}, got {task}")
    return Shard(index, count)
