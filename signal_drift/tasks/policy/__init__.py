"""Open this to train a language model by the rewards of what it says itself: GRPO, with its surrogate as a loss.

>>> import jax, jax.numpy as jnp
>>> from flax import nnx
>>> from signal_drift.models import Llama, LlamaConfig, base_and_forward
>>> sums = tokenise_sums(["1+2", "4-3"], length=8)
>>> config = LlamaConfig(len(SYMBOLS), 8, 8, 1, num_attention_heads=1, num_key_value_heads=1, head_dim=8)
>>> base, forward = base_and_forward(Llama(config, rngs=nnx.Rngs(0)))
>>> said = rolled_out(forward, config, base, sums, group=3, end=END, key=jax.random.key(0))
>>> said.tokens.shape  # three completions of every question
(6, 8)
>>> rewards = jnp.array([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])  # or `rewarded(exact_match, said, sums)`
>>> [round(float(A), 3) for A in group_advantages(rewards).ravel()]
[-0.707, 1.414, -0.707, 0.0, 0.0, 0.0]
>>> loss = surrogate_loss(forward, experienced(forward, base, said, rewards))
>>> loss(base).shape  # a function of the weights, as everything in signal_drift takes it
()
"""

from signal_drift.tasks.policy.advantages import group_advantages, unequal_groups
from signal_drift.tasks.policy.chain_sums import END, SYMBOLS, tokenise_sums
from signal_drift.tasks.policy.on_policy import Asked, Rules, experience_of, on_policy_loss, reader
from signal_drift.tasks.policy.prompts import after_prompts
from signal_drift.tasks.policy.rewards import exact_match, rewarded
from signal_drift.tasks.policy.rollouts import completion_probabilities, log_probabilities, rolled_out
from signal_drift.tasks.policy.surrogate import CLIP, Experience, experienced, kl_estimate, surrogate, surrogate_loss

__all__ = [
    "CLIP",
    "END",
    "SYMBOLS",
    "Asked",
    "Experience",
    "Rules",
    "after_prompts",
    "completion_probabilities",
    "exact_match",
    "experience_of",
    "experienced",
    "group_advantages",
    "kl_estimate",
    "log_probabilities",
    "on_policy_loss",
    "reader",
    "rewarded",
    "rolled_out",
    "surrogate",
    "surrogate_loss",
    "tokenise_sums",
    "unequal_groups",
]
