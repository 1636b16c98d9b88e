"""Set a pretrained language model, SmolLM2-135M, on sums of reasoning-gym that it solves sometimes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from experiments.lab.errors import check_positive
from experiments.lab.problem import Drawn, Dtype, Training, Tuning, cast
from experiments.problems.policy.judges import (
    Near,
    asked,
    check_rules,
    cost,
    differ,
    failed,
    first_experience,
    first_of,
    key_of,
    solved,
    variance,
)
from experiments.problems.policy.learner import Learner, Reading, learner
from experiments.problems.pretrained import AFFORDED, RANDOM, Pretrained
from experiments.problems.smollm import FAN_IN, SMOLLM
from signal_drift.tasks.answers.chats import Chats
from signal_drift.tasks.policy import Asked, Rules, on_policy_loss, reader, surrogate_loss


@dataclass(frozen=True)
class LanguagePolicy(Pretrained):
    """Adapt seven matrices of every layer by reward; embeddings, norms and the head, the embedding again, are frozen.

    A question is a sum or difference of two digits, after two others with their values: all 198 that `chain_sum` asks,
    of which a fifth is held out. A step asks `questions` of them and answers each `group` times at the weights that it
    begins with; a completion is right if it is the number and its line ends there. Loss and scores are those of
    `policy`: the exact π(right answer), in training the rate of failure; out of domain are sums of three digits,
    and products. Beside the share of groups that differ stands the variance of a reward within a group, p(1 − p).
    """

    rank: int = 8
    """r of every adapter, where an experiment does not vary it."""
    model: str = SMOLLM
    """SmolLM2-135M-Instruct as `make smollm` fetched it, the folder of another Llama or Qwen2 in Hugging Face form, or
    "random": a tiny one that knows sums of three, for tests."""
    questions: int = 4
    """Questions in a training step."""
    group: int = 8
    """G, completions of every question."""
    judged: int = 24
    """Questions of each kind by which a trained model is judged; its training is judged by twice as many."""
    beta: float = 0.0
    """β, the weight of k₃, the estimate of the KL to the start."""

    known: ClassVar[dict[str, dict[str, int]]] = {SMOLLM: FAN_IN}
    reproduced: ClassVar[tuple[str, ...]] = ("rates", "protocol_comparison", "where_alpha_pays")
    tuning: ClassVar[Tuning | None] = replace(
        AFFORDED,
        steps=12,
        seeds=2,
        fft_rates=tuple(10.0 ** (k / 2) for k in range(-11, -6)),
        ranks=(8,),
        protocol_ranks=(8,),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "questions", "judged")
        check_rules(self.group, self.beta)

    @property
    def name(self) -> str:
        return "grpo"

    @property
    def label(self) -> str:
        known = {SMOLLM: "SmolLM2-135M (4-bit-rounded) on sums by GRPO", RANDOM: "tiny decoder on sums by GRPO"}
        return known.get(self.model, f"{Path(self.model).name} on sums by GRPO")

    def learner(self, dtype: Dtype) -> tuple[Learner, Reading]:
        """Load it in either precision. Raises `OptionError` if it is not there, `InputError` if it is no decoder."""
        found, reading = learner(self.model, self.judged)
        return cast(found, dtype), reading

    def base(self, dtype: Dtype) -> dict[str, Array]:
        return self.learner(dtype)[0].base

    def _rules(self, reading: Reading) -> Rules:
        return Rules(reading.config, cost, self.group, reading.end, self.beta)

    def draw(self, seed: int, dtype: Dtype = "float64") -> Drawn:
        start, reading = self.learner(dtype)
        rules, stream = self._rules(reading), self._stream(seed, 1)
        experience = first_experience(start.forward, rules, start.base, stream, seed)
        reads = reader(start.forward, rules, first_of(stream))
        return Drawn(start.base, surrogate_loss(reads, experience, beta=self.beta))

    def training(self, seed: int, steps: int, dtype: Dtype = "float64") -> Training:
        start, reading = self.learner(dtype)
        rules = self._rules(reading)
        kept = _after(Asked(start.held_out.at(jnp.arange(self.questions)), key_of(1)), reading.prompt)
        scores = {f"right, {name}": Partial(solved, *quiz) for name, quiz in start.judged.items()}
        scores |= {
            "groups that differ": Partial(differ, *start.fit, jnp.asarray(self.group)),
            "variance of a reward": Partial(variance, *start.fit),
            "less KL to the start": Partial(Near(rules), start.forward, kept, start.base),
        }
        loss = on_policy_loss(start.forward, rules, start.base)
        return Training(loss, self._stream(seed, steps), Partial(failed, *start.fit), scores)

    def _stream(self, seed: int, steps: int) -> Asked:
        start, reading = self.learner("float32")
        return _after(asked(start.trained, seed, steps, self.questions), reading.prompt)

    def tiny(self) -> Self:
        return replace(self, model=RANDOM, questions=8, group=4, judged=8, rank=2)


def _after(stream: Asked, prompt: int) -> Asked:
    """Divide questions after all but the last token of their prompts, which are read once for all completions."""
    read = prompt - 1
    left = Chats(*(x[..., read:] for x in stream.questions))
    return Asked(left, stream.key, stream.questions.tokens[..., :read])
