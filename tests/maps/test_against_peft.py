"""W of every map that PEFT has, against the weight that it merges: stored numbers, and PEFT where it is installed."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft_weights
import pytest
from adapter_cases import CASES
from peft_weights import ALPHA, RANK, STORED
from problems import rounding

from signal_drift import maps
from signal_drift.lora import Adapter

EXAMPLES = json.loads(STORED.read_text(encoding="utf-8"))


def ours(name: str, t: Callable[[str], jax.Array]) -> Callable[[float], tuple[Any, Any]]:
    """α ↦ (map, θ), of PEFT's tensors by the beginnings of their names."""

    def lora() -> Adapter:
        return Adapter(t("lora_A"), t("lora_B"))

    makers: dict[str, Callable[[float], tuple[Any, Any]]] = {
        "lora": lambda alpha: (maps.lora(alpha / RANK), lora()),
        "rslora": lambda alpha: (maps.rslora(alpha), lora()),
        "dora": lambda alpha: (maps.dora(alpha / RANK), maps.Dora(*lora(), t("lora_magnitude_vector"))),
        "vera": lambda alpha: (
            maps.vera(t("vera_A"), t("vera_B")),
            maps.Vera(t("vera_lambda_b"), alpha / ALPHA * t("vera_lambda_d")),
        ),
        "loha": lambda alpha: (
            maps.loha(alpha / RANK),
            maps.Loha(*(Adapter(t(f"hada_{w}_b"), t(f"hada_{w}_a")) for w in ("w1", "w2"))),
        ),
        "lokr": lambda alpha: (
            maps.lokr(alpha / RANK),
            maps.Lokr(t("lokr_w1"), t("lokr_w2_b"), t("lokr_w2_a")),
        ),
        "ia3": lambda alpha: (maps.ia3, alpha / ALPHA * t("ia3_l")[:, 0]),
    }
    return makers[name]


def test_every_map_that_peft_has_is_stored():
    """It has neither LoRA-FA, which is LoRA with A frozen, nor MoRA."""
    assert EXAMPLES.keys() == CASES.keys() - {"lora_fa", "mora"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_weight_is_the_one_that_peft_merges(name):
    """To rounding; an α that is 1% off, or a tensor of VeRA and (IA)³, which have none, is told apart."""
    example = EXAMPLES[name]
    tensors = {k: jnp.asarray(x) for k, x in example["tensors"].items()}

    def tensor(begins: str) -> jax.Array:
        (found,) = (x for k, x in tensors.items() if k.startswith(f"{begins}."))
        return found

    W0, expected = jnp.asarray(example["W0"]), np.asarray(example["W"])
    for alpha, same in ((ALPHA, True), (1.01 * ALPHA, False)):
        f, theta = ours(name, tensor)(alpha)
        off = np.max(np.abs(f(W0, theta) - expected))
        assert (off <= rounding(20, expected)) == same, off
        assert same or off > 1e-3


def test_stored_numbers_are_peft_s():
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    for name, example in peft_weights.merged(peft, torch).items():
        for part in ("W0", "W"):
            np.testing.assert_allclose(example[part], EXAMPLES[name][part], rtol=0, atol=1e-12)
