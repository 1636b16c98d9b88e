"""Write what `advise` reads: the configuration of an adapter, and the gradient of a small classifier's loss, by

python docs/examples/adapter_and_gradient.py results/advise
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

import signal_drift as sd

jax.config.update("jax_enable_x64", True)  # before the weights are made

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["layers.0", "layers.1"]}
(folder / "adapter_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

base, forward = sd.base_and_forward(sd.MLP([32, 64, 3], rngs=nnx.Rngs(0)))  # {"layers.0": W0 of shape (64, 32), …}
x = jax.random.normal(jax.random.key(1), (50, 32))
labels = jnp.argmax(x[:, :3], axis=1)


def loss(weights: dict[str, jax.Array]) -> jax.Array:
    """Return the mean cross-entropy of the 50 samples."""
    return -jnp.mean(jax.nn.log_softmax(forward(weights, x))[jnp.arange(50), labels])


gradient = jax.grad(loss)(base)
save_file({layer: np.asarray(G) for layer, G in gradient.items()}, folder / "gradient.safetensors")
