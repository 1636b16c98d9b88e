"""Knows which kinds of model show their layers, their factors and their forward pass without being told."""

import os
from typing import Any

from flax import nnx

from signal_drift.conformance.framework import Framework, SigmaA
from signal_drift.conformance.of_keras import of_keras
from signal_drift.conformance.of_nnx import of_nnx
from signal_drift.conformance.of_peft import of_peft
from signal_drift.conformance.of_qwix import is_of_qwix
from signal_drift.errors import InputError
from signal_drift.errors.words import shown

KNOWN = (
    "a Framework, a flax.nnx model with nnx.LoRA, a model of PEFT or of Keras; "
    "of_qwix(model, rules, …) makes one of qwix's, Framework(…) one of any other"
)


def framework_of(model: Any, sigma_a: SigmaA | None = None) -> Framework:
    """Return a `Framework` as it is, or that of a model of a known kind. Raises `InputError` for any other.

    `sigma_a` is what is said of σ_A where a model of flax or Keras does not begin with its framework's default.
    """
    if isinstance(model, Framework):
        _check_unsaid(sigma_a, "the layers of a Framework say it themselves")
        return model
    if isinstance(model, nnx.Module):
        if is_of_qwix(model):
            raise InputError("framework: qwix keeps α in its rules; give of_qwix(model, rules, *inputs)")
        return of_nnx(model, sigma_a=sigma_a)
    if isinstance(model, str | os.PathLike):
        raise InputError(
            f"framework: {str(model)!r} has no forward pass; give certify_outputs what stored_layers reads of it and "
            "outputs with it and without"
        )
    packages = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    if "peft" in packages:
        _check_unsaid(sigma_a, "the settings of PEFT say it themselves, by init_lora_weights")
        return of_peft(model)
    if "keras" in packages:
        return of_keras(model, sigma_a=sigma_a)
    raise InputError(f"framework: must be {KNOWN}; got {type(model).__module__}.{type(model).__qualname__}")


def _check_unsaid(sigma_a: SigmaA | None, why: str) -> None:
    if sigma_a is not None:
        raise InputError(f"sigma_a: must not be given, got {shown(sigma_a)}: {why}")
