"""Pose reinforcement by reward (Sec. 5.4), GRPO: a decoder that adds right sometimes is trained by what it says."""

from experiments.problems.policy.language_model import LanguagePolicy
from experiments.problems.policy.problem import Policy

__all__ = ["PROBLEMS", "LanguagePolicy", "Policy"]

PROBLEMS = [Policy(), LanguagePolicy()]
