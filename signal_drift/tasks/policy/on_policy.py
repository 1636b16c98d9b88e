"""Makes GRPO a loss on batches of questions, which are answered anew at the weights of every step."""

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key

from signal_drift.errors import InputError
from signal_drift.errors.arguments import function, whole
from signal_drift.lora.adapters import Weights
from signal_drift.models.bridge import Forward
from signal_drift.models.llama import LlamaConfig
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy.prompts import AfterPrompts, after_prompts
from signal_drift.tasks.policy.rewards import Scorer, rewarded
from signal_drift.tasks.policy.rollouts import rolled_out
from signal_drift.tasks.policy.surrogate import Experience, check_beta, experienced, surrogate_loss

T = TypeVar("T")


class Asked(NamedTuple):
    """Holds the questions of a step and the key by which they are answered.

    `prompts` are what each of the questions follows, read once for all its completions; None where nothing does.
    """

    questions: Chats
    key: Key[Array, "*steps"]
    prompts: Int[Array, "*steps n p"] | None = None


@dataclass(frozen=True)
class Rules:
    """Sets how completions are drawn and rewarded, ready to be compiled: G, the token that ends one, who scores."""

    config: LlamaConfig
    scorer: Scorer
    group: int
    end: int
    beta: float = 0.0

    def __post_init__(self) -> None:
        """Raise `InputError` for rules that make no loss."""
        function("scorer", self.scorer)
        whole("group", self.group, least=2)
        whole("end", self.end, least=0)
        check_beta(self.beta)


def on_policy_loss(forward: Forward, rules: Rules, start: Weights | None = None) -> Partial:
    """Make the map (w, batch of `Asked`) ↦ the surrogate at completions that the policy of w itself draws.

    Every step answers its questions G times and takes one step: at ρ = 1 no ratio is clipped, and the gradient is
    −mean A ∇log π over tokens, plus β times that of the KL's estimate from the `start`. No derivative goes through the
    drawing. The scorer is traced. Raises `InputError` for a β without a start.
    """
    if rules.beta and start is None:
        raise InputError(f"start: needed where beta is not 0, got None and {rules.beta}")
    return Partial(_OnBatch(rules), forward, start)


@dataclass(frozen=True)
class _OnBatch:
    rules: Rules

    def __call__(self, forward: Forward, start: Weights | None, weights: Weights, batch: Asked) -> Float[Array, ""]:
        fixed = jax.tree.map(jax.lax.stop_gradient, dict(weights))
        experience = experience_of(forward, self.rules, fixed, batch, start if self.rules.beta else None)
        return surrogate_loss(reader(forward, self.rules, batch), experience, beta=self.rules.beta)(weights)


def experience_of(
    forward: Forward, rules: Rules, weights: Weights, batch: Asked, start: Weights | None = None
) -> Experience:
    """Answer the questions of a batch at `weights`, and reward the answers.

    Completions are drawn in float32 whatever the precision of the weights: weights that agree to float32 draw the same.
    Raises `InputError` as `rolled_out` and `rewarded` do.
    """
    reading = reader(forward, rules, batch)
    drawing, at = _single((reading, dict(weights)))
    if isinstance(drawing, AfterPrompts):
        drawing = drawing.at(at)
    said = rolled_out(drawing, rules.config, at, batch.questions, rules.group, rules.end, batch.key)
    return experienced(reading, weights, said, rewarded(rules.scorer, said, batch.questions), start)


def reader(forward: Forward, rules: Rules, batch: Asked) -> Forward:
    """Return what maps (w, completions of a batch) to logits: `forward`, after the prompts where there are any."""
    if batch.prompts is None:
        return forward
    return after_prompts(forward, rules.config, batch.prompts, rules.group)


def _single(tree: T) -> T:
    """Convert every floating array to float32."""
    return jax.tree.map(lambda x: x.astype("float32") if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
