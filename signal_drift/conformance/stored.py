"""Reads what adapter files say: those of PEFT, mlx, diffusers and kohya, by the reader that the audit has."""

import math
from pathlib import Path

import numpy as np

from signal_drift.conformance.framework import Factors, Layer
from signal_drift.errors import InputError
from signal_drift.peft.config import LoraConfig, initial_sigma, not_drawn
from signal_drift.peft.files import open_adapter


def stored_layers(folder: str | Path) -> tuple[dict[str, Layer], dict[str, Factors]]:
    """Return what a stored adapter says of every layer, and its factors.

    Raises `InputError` where `open_adapter` does, for DoRA, and for an embedding, whose A and B have other places.
    """
    layers, factors = {}, {}
    for x in open_adapter(folder).layers():
        if x.embedding:
            raise InputError(f"folder: {x.layer!r} is an embedding, which is not y = W₀x + s·BAx of numbers x")
        (r, d_in), s = x.A.shape, x.scaling
        layers[x.layer] = said_by(x.config, (len(x.B), d_in), r, s)._replace(sigma_a=x.sigma_set)
        factors[x.layer] = Factors(np.asarray(x.A, float), np.asarray(x.B, float))
    return layers, factors


def said_by(config: LoraConfig, shape: tuple[int, int], r: int, s: float) -> Layer:
    """Return what settings say of a layer to which they give this r and s; raise `InputError` for DoRA."""
    if config.use_dora:
        raise InputError("use_dora: is set, and DoRA is not y = W₀x + s·BAx: it rescales the rows of W₀ + s·BA")
    init = config.init_lora_weights
    return Layer(
        shape=shape,
        r=r,
        alpha=s * (math.sqrt(r) if config.use_rslora else r),
        rslora=config.use_rslora,
        sigma_a=initial_sigma(init, shape[1], r),
        b_is_zero=init is not False and not not_drawn(init),
    )
