"""Define what a statement is tested on: weights, a loss whose curvature is taken, a training stream, judges.

Open this file to add one: a module in experiments/problems that defines `PROBLEM` (or `PROBLEMS`), a frozen dataclass
of its sizes that inherits from `Problem`. No experiment and no claim is edited for it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from experiments.lab.errors import check_positive
from signal_drift.lora.adapters import Adapter, init_adapters

Dtype = Literal["float32", "float64"]
T = TypeVar("T")
DENSE = 6000
"""Rows of a Hessian up to which its full spectrum is affordable: at 5120 an eigenproblem takes about ten seconds."""


class Drawn(NamedTuple):
    """Hold one draw of a problem but for its adapters: W₀ of every adapted layer, and ℓ(w) on a fixed sample."""

    base: dict[str, Array]
    loss: Partial


class Training(NamedTuple):
    """Holds what a run sees and what it is judged by.

    `loss` is a function of the weights where `batches` is None (full batch), and of (weights, batch) otherwise, with
    `batches` a tree of arrays whose first axis is the step. `fit` gives the training loss of a run from its weights;
    `scores` are further judges of the weights (held out, out of domain), higher is better.
    """

    loss: Partial
    batches: Any
    fit: Partial
    scores: Mapping[str, Partial]


@dataclass(frozen=True)
class Tuning:
    """Set the sizes of the runs and sweeps by which a problem is tuned (Sec. 2, 4)."""

    steps: int = 100
    """Training steps of a run."""
    seeds: int = 5
    """Independent draws."""
    fft_rates: tuple[float, ...] = tuple(10.0 ** (k / 4) for k in range(-20, -3))
    """Learning rates of the full fine-tuning sweep that finds η_FFT."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Ranks r of the sweep over α at η_FFT (F1c)."""
    grid_ranks: tuple[int, ...] = (1, 8, 64)
    """Ranks of the two paths (F1b) and of the (α, η) grid (F1a)."""
    protocol_ranks: tuple[int, ...] = (4, 32)
    """Ranks at which the methods are compared: where V2 is neither α = r nor 2r nor rsLoRA's at d = 256 (Eq. 5)."""
    rate_shares: tuple[float, ...] = (1.0, 0.1)
    """Learning rates of the comparison over η_FFT: the protocol's 1, and one far from where training is unstable."""
    own_rates: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    """Learning rates of the comparison over η_FFT among which every method has its own best one."""
    alphas: tuple[float, ...] = tuple(2.0 ** (k / 2) for k in range(-4, 25))
    """Values of α at η_FFT, half octaves; m·α₀ along one path, with m·η_FFT at α₀ for the same m along the other."""
    over_v2: tuple[float, ...] = tuple(2.0**k for k in range(-4, 5))
    """Values of α over V2 at which the comparison runs LoRA, to say what any α could reach."""
    grid_alphas: tuple[float, ...] = tuple(0.2 * 4.0**k for k in range(-1, 6))
    """Values of α of the (α, η) grid in units of 1/σ_A, which is V2/√r: 0.2 is where α₀ = 16 lies on Llama-3 1B
    (d_in = 2048, Kaiming-uniform A); empty where the grid is not affordable."""
    grid_rates: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-6, 5))
    """Values of η of the grid, as multiples of η_FFT."""


@dataclass(frozen=True)
class Problem(ABC):
    """Declare the interface; every field is a size, so that two problems are the same exactly where all sizes are."""

    rank: int = 16
    """r of every adapter, where an experiment does not vary it."""

    paper: ClassVar[bool] = False
    """Whether it is the paper's own model: it comes first in every list, and figures of it bear no name."""
    reproduced: ClassVar[tuple[str, ...]] = ()
    """Experiments that `make reproduce` runs on it beside those whose home it is."""
    tuning: ClassVar[Tuning | None] = None
    """How it is tuned; None where no training run on it can be judged."""
    start_of_trajectories: ClassVar[tuple[float, float]] = (1e-4, 1.0)
    """(η₀, α₀) of Adam from which the trajectories of F2 start."""
    costly: ClassVar[bool] = False
    """Whether it takes longer than a reproduction affords: run only where it is named, reported where stored."""

    def __post_init__(self) -> None:
        check_positive(self, "rank")

    @property
    @abstractmethod
    def name(self) -> str:
        """Name it on the command line, in the ledger and in the folders of results."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Say in a few words what it is, as titles of figures and the report do."""

    @property
    @abstractmethod
    def dense(self) -> bool:
        """Tell whether the full spectra of its Hessians are affordable."""

    @abstractmethod
    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        """Draw everything random from `seed`, except the adapters."""

    @abstractmethod
    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        """Return what a run of so many steps sees, and its judges."""

    def adapters(self, seed: int, rank: int | None = None, dtype: Dtype = "float64") -> dict[str, Adapter]:
        """Draw A ~ N(0, 1/d_in) and set B = 0."""
        key = jax.random.fold_in(jax.random.key(seed), 2)
        return init_adapters(key, self.draw(seed, dtype).base, rank or self.rank)

    def sigma_a(self) -> dict[str, float]:
        """Return the standard deviation of the entries of A, layer by layer: 1/√d_in."""
        return {layer: d_in**-0.5 for layer, d_in in self.fan_in().items()}

    def fan_in(self) -> dict[str, int]:
        """Return d_in of every adapted layer."""
        return {layer: W0.shape[1] for layer, W0 in self.draw(0).base.items()}

    def typical_sigma(self) -> float:
        """Return the geometric mean of σ_A over layers: σ_A itself where all layers have the same."""
        return math.exp(sum(map(math.log, self.sigma_a().values())) / len(self.sigma_a()))

    def scaling(self, alpha: float, rank: int | None = None) -> float:
        """Return the factor s = α/r before BA."""
        return alpha / (rank or self.rank)

    def resized(self, width: int) -> Self:
        """Return the same at another width, or itself where the size is given by the data or the model."""
        return self

    @abstractmethod
    def tiny(self) -> Self:
        """Return the same at the size used in tests."""


@dataclass(frozen=True)
class Setting:
    """Configure an experiment on one problem."""

    problem: Problem
    """What the statement is tested on."""
    seeds: int = 5
    """Independent draws of all that is random."""

    def __post_init__(self) -> None:
        check_positive(self, "seeds")

    @property
    def over_seeds(self) -> str:
        """Say how many seeds there are, as titles of figures do."""
        return f"{self.seeds} seeds" if self.seeds > 1 else "1 seed"


def cast(tree: T, dtype: str) -> T:
    """Convert every floating array of a tree to one precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
