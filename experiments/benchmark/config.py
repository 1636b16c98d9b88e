"""Set the sizes of the benchmark, and what ends the search for how far a tool gets."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from experiments.lab.problem import Dtype, Setting
from experiments.problems.mlp import MLP

ANSWERS = 16
"""Numbers of a result that are kept, to see that all ways computed the same."""


@dataclass(frozen=True)
class Config(Setting):
    """Set widths up to that of F2, and what ends the search for how far a tool gets."""

    problem: MLP
    """The MLP, which is taken at every width in turn."""
    widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Values of d; the rank is that of the problem, or d/2 where that is less."""
    pipeline_widths: tuple[int, ...] = (32,)
    """Values of d at which all spectra are computed at every α."""
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 256.0)
    """Values of α of the pipeline."""
    steps: int = 100
    """Steps of a trajectory."""
    tolerance: float = 1e-8
    """Residual bound of an extreme eigenvalue over the norm."""
    probes: int = 60
    """Products for a trace."""
    repeats: int = 5
    """Timed calls after the first: fewer where they take over ten seconds in all, more where less than one."""
    seconds: float = 100.0
    """A way that takes longer at one width, for the first call or for the others, is ended."""
    gigabytes: float = 16.0
    """A process that grows larger is ended."""

    dtype: ClassVar[Dtype] = "float64"
    """What all but the trajectories, which are in float32, are computed in."""

    def at(self, width: int) -> Self:
        """Return the same at one width."""
        return replace(self, problem=self.problem.resized(width))


class Single(Config):
    """Compute everything in float32; what is exact in full refuses it."""

    dtype: ClassVar[Dtype] = "float32"
