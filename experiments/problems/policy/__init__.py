"""Pose reinforcement by reward (Sec. 5.4): a decoder that adds three numbers right sometimes is trained by GRPO."""

from experiments.problems.policy.problem import Policy

__all__ = ["PROBLEM", "Policy"]

PROBLEM = Policy()
