"""Knows which kinds of model show their layers, their factors and their forward pass without being told."""

import os
from collections.abc import Callable
from typing import Any

from flax import nnx

from signal_drift.conformance.framework import Framework
from signal_drift.conformance.of_keras import of_keras
from signal_drift.conformance.of_nnx import of_nnx
from signal_drift.conformance.of_peft import of_peft
from signal_drift.conformance.of_qwix import is_of_qwix
from signal_drift.errors import InputError

KINDS: dict[str, Callable[[Any], Framework]] = {"peft": of_peft, "keras": of_keras}
"""What makes a `Framework` of a model, by the package that its class, or one it inherits from, is of."""
KNOWN = (
    "a Framework, a flax.nnx model with nnx.LoRA, a model of PEFT or of Keras; "
    "of_qwix(model, rules, …) makes one of qwix's, Framework(…) one of any other"
)


def framework_of(model: Any) -> Framework:
    """Return a `Framework` as it is, or that of a model of a known kind. Raises `InputError` for any other."""
    if isinstance(model, Framework):
        return model
    if isinstance(model, nnx.Module):
        if is_of_qwix(model):
            raise InputError("framework: qwix keeps α in its rules; give of_qwix(model, rules, *inputs)")
        return of_nnx(model)
    if isinstance(model, str | os.PathLike):
        raise InputError(
            f"framework: {str(model)!r} has no forward pass; give certify_outputs what stored_layers reads of it and "
            "outputs with it and without"
        )
    for kind in type(model).__mro__:
        make = KINDS.get(kind.__module__.partition(".")[0])
        if make is not None:
            return make(model)
    raise InputError(f"framework: must be {KNOWN}; got {type(model).__module__}.{type(model).__qualname__}")
