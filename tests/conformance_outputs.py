"""What PEFT, Keras and qwix give for factors of our own, with what they say of themselves: run it to store it anew.

Needs the extra frameworks (`pip install -e '.[frameworks]'`). Stored with PEFT 0.21.2, Keras 3.15.1 and qwix 0.1.8.
"""

import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from signal_drift.conformance import Framework, of_keras, of_peft, of_qwix
from signal_drift.conformance.probes import observe

STORED = Path(__file__).parent / "conformance" / "outputs.json"
D_IN, D_OUT, RANK, ALPHA = 24, 10, 8, 4.0


def models() -> Iterator[tuple[str, Framework]]:
    """One layer of each tool, as it makes it."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    torch, peft, keras, qwix = (import_module(name) for name in ("torch", "peft", "keras", "qwix"))
    nnx, jnp = import_module("flax.nnx"), import_module("jax.numpy")
    for name, settings in (
        ("PEFT", {}),
        ("PEFT, rsLoRA", {"use_rslora": True}),
        ("PEFT, gaussian", {"init_lora_weights": "gaussian"}),
        ("PEFT, patterns", {"alpha_pattern": {"layer": 6}, "rank_pattern": {"layer": 3}}),
    ):
        torch.manual_seed(0)
        model = torch.nn.Sequential()
        model.add_module("layer", torch.nn.Linear(D_IN, D_OUT))
        config = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=["layer"], **settings)
        yield name, of_peft(peft.get_peft_model(model, config))
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(D_OUT, activation="relu", name="layer")
    layer.build((None, D_IN))
    layer.enable_lora(RANK, lora_alpha=ALPHA)
    yield "Keras", of_keras(layer)
    rules = [qwix.LoraRule(module_path=".*", rank=RANK, alpha=ALPHA)]

    class Two(nnx.Module):
        def __init__(self) -> None:
            self.layer = nnx.Linear(D_IN, D_OUT, rngs=nnx.Rngs(0))
            self.after = nnx.Linear(D_OUT, 3, rngs=nnx.Rngs(1))

        def __call__(self, x: Any) -> Any:
            return self.after(jnp.tanh(self.layer(x)))

    x = jnp.ones((2, D_IN))
    provider = qwix.LoraProvider(rules)
    yield "qwix", of_qwix(qwix.apply_lora_to_model(Two(), provider, x, rngs=nnx.Rngs(2)), rules, x)


def stored(framework: Framework) -> dict[str, Any]:
    """Return what is said of every layer, its factors at the start, and outputs with B and without."""
    probes = observe(framework)
    return {
        "layers": {k: layer._asdict() for k, layer in framework.layers.items()},
        "start": {k: [_digits(x) for x in pair] for k, pair in framework.state.items()},
        "outputs": {k: {name: _digits(x) for name, x in p.full._asdict().items()} for k, p in probes.items()},
    }


def _digits(x: np.ndarray) -> Any:
    """Nine of each number, as many as float32 has."""
    return [[float(f"{value:.9g}") for value in row] for row in x]


if __name__ == "__main__":
    found = {name: stored(framework) for name, framework in models()}
    STORED.write_text(json.dumps(found) + "\n", encoding="utf-8")
