"""Set what a policy is adapted to, by which completions, and what it is judged by."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

import signal_drift as sd
from experiments.lab.errors import OptionError, check_positive
from experiments.lab.problem import DENSE, Drawn, Dtype, Problem, Training, Tuning, cast
from experiments.problems.policy.judges import (
    Near,
    asked,
    check_rules,
    cost,
    differ,
    failed,
    first_experience,
    key_of,
    solved,
)
from experiments.problems.policy.speaker import Sizes, Speaker, speaker
from signal_drift.tasks.policy import END, Asked, Rules, on_policy_loss, surrogate_loss


@dataclass(frozen=True)
class Policy(Problem):
    """Adapt all matrices of the layers by reward; embeddings, norms and head are frozen.

    A step asks `questions` sums of three numbers, drawn by the seed, and answers each `group` times at the weights that
    it begins with; a completion is right if it is the number and ends there. The loss whose curvature is taken is the
    surrogate on the first of these steps, its completions kept; its value at the start, as that of the loss of every
    step, is the share of wrong completions (`cost`).

    The loss by which runs are compared is the rate of failure on all sums that are trained on, 1 − mean π(right answer)
    over questions: since one answer alone is rewarded, it is 1 less the expected reward, exactly and without a draw.
    The surrogate would not do: away from the weights that drew it is no rate, and it may be negative.
    The scores are the same probability on sums kept apart, on sums of four numbers, never seen, and on differences,
    which were learned before; the share of groups whose rewards differ, 1 − p^G − (1 − p)^G, as only they have a
    gradient; and the KL to the start, negative, a nat a token.
    """

    rank: int = 4
    """r of every adapter, where an experiment does not vary it."""
    width: int = 16
    """d_model."""
    heads: int = 2
    """Attention heads."""
    layers: int = 2
    """Layers of attention and feed-forward; the latter is twice as wide."""
    largest: int = 9
    """The largest number that is added."""
    pretraining: int = 400
    """Steps of pre-training, after which a sum of three is solved with probability 0.31 to 0.34, as rounding has it."""
    questions: int = 16
    """Questions in a training step."""
    group: int = 8
    """G, completions of every question."""
    beta: float = 0.0
    """β, the weight of k₃, the estimate of the KL to the start."""

    reproduced: ClassVar[tuple[str, ...]] = (
        *("purification", "spectra_at_scale", "is_it_curvature"),
        *("rates", "protocol_comparison", "where_alpha_pays"),
    )
    tuning: ClassVar[Tuning | None] = Tuning(
        steps=200, ranks=(1, 2, 8), grid_ranks=(2,), protocol_ranks=(2, 8), rate_shares=(1.0,)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "width", "heads", "layers", "largest", "pretraining", "questions")
        if self.width % (2 * self.heads):
            raise OptionError(f"heads: twice as many must divide the width {self.width}, got {self.heads}")
        if self.largest > 9:
            raise OptionError(f"largest: must be one digit, got {self.largest}")
        check_rules(self.group, self.beta)

    @property
    def name(self) -> str:
        return "policy"

    @property
    def label(self) -> str:
        return "sums of three numbers by GRPO"

    @property
    def dense(self) -> bool:
        return 10 * self.layers * self.width**2 <= DENSE

    @property
    def sizes(self) -> Sizes:
        """Return what the pre-trained model depends on."""
        return Sizes(self.width, self.heads, self.layers, self.largest, self.pretraining)

    @property
    def rules(self) -> Rules:
        """Return how completions are drawn and rewarded."""
        return Rules(self.sizes.config, cost, self.group, END, self.beta)

    def speaker(self, dtype: Dtype) -> Speaker:
        """Return the pre-trained model with its questions, the same for every seed."""
        return cast(speaker(self.sizes), dtype)

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        start = self.speaker(dtype)
        experience = first_experience(start.forward, self.rules, start.base, self._stream(seed, 1), seed)
        return Drawn(start.base, surrogate_loss(start.forward, experience, beta=self.beta))

    def fan_in(self) -> dict[str, int]:
        """Return d_in of every adapted matrix, without the pre-training that a draw takes."""
        inputs = {f"attention.{x}": self.width for x in "qkvo"} | {
            f"feed_forward.{x}": self.width for x in ("gate", "up")
        }
        inputs["feed_forward.down"] = 2 * self.width
        return {f"layers.{i}.{name}": d_in for i in range(self.layers) for name, d_in in inputs.items()}

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        start = self.speaker(dtype)
        forward = start.forward
        scores = {
            "right, held-out sums": Partial(solved, forward, start.held_out),
            "right, sums of four": Partial(solved, forward, start.longer),
            "right, differences": Partial(solved, forward, start.differences),
            "groups that differ": Partial(differ, forward, start.trained, jnp.asarray(self.group)),
            "less KL to the start": Partial(Near(self.rules), forward, Asked(start.held_out, key_of(1)), start.base),
        }
        loss = on_policy_loss(forward, self.rules, start.base)
        return Training(loss, self._stream(seed, steps), Partial(failed, forward, start.trained), scores)

    def _stream(self, seed: int, steps: int) -> Asked:
        return asked(self.speaker("float32").trained, seed, steps, self.questions)

    def adapters(self, seed: int, rank: int | None = None, dtype: Dtype = "float64") -> dict[str, sd.Adapter]:
        """Draw A ~ N(0, 1/d_in) anew for every rank."""
        r = rank or self.rank
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), r)
        return sd.init_adapters(key, self.speaker(dtype).base, r)

    def tiny(self) -> Self:
        return replace(self, width=8, layers=1, largest=2, pretraining=60, questions=8, group=4, rank=2)
