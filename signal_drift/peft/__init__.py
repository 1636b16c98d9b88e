"""Open this for adapters on disk: audit or rescale what PEFT stored, write V1 and V2 as settings, or write an adapter.

>>> shapes = {"q_proj": (64, 48), "v_proj": (16, 48)}  # (d_out, d_in) of each layer
>>> settings = peft_config(shapes, rank=16, rule="V2")
>>> settings["lora_alpha"], settings["use_rslora"]  # 1/σ_A = √(3·48), with s = lora_alpha/√r
(12, True)
>>> settings["target_modules"]
'q_proj|v_proj'
>>> rule_alpha("V1", rank=16, sigma_a=1 / 12)
1024.0

`audit_adapter(folder)` reads a folder that PEFT, mlx, diffusers or kohya wrote, `signal_drift.peft.figure` draws what
it found, `rescaled_config` makes its configuration anew, and `translate` that of another tool. A folder that PEFT
loads, for W = W₀ + s·BA:

>>> from tempfile import TemporaryDirectory
>>> import jax, jax.numpy as jnp, signal_drift as sd
>>> adapters = sd.init_adapters(jax.random.key(0), {"q_proj": jnp.ones((64, 48), jnp.float32)}, rank=4)
>>> with TemporaryDirectory() as parent:
...     write(adapters, f"{parent}/tuned", scaling=2.0)
...     adapter = open_adapter(f"{parent}/tuned")
...     rescaled_config(adapter, "s", rank=16)["lora_alpha"]  # s = lora_alpha/√16 is kept
8
>>> adapter.config.scaling("q_proj")
2.0
"""

from signal_drift.peft.audit import Audit, LayerAudit, audit_adapter, singular_values
from signal_drift.peft.config import LoraConfig, initial_sigma, not_drawn, read_config
from signal_drift.peft.export import (
    LayerScaling,
    NnxLoRA,
    ScalingRule,
    as_python,
    fold,
    nnx_lora,
    peft_config,
    peft_scaling,
    qwix_rules,
    qwix_scaling,
    rule_alpha,
)
from signal_drift.peft.files import AdapterFiles, open_adapter
from signal_drift.peft.maps import StoredLayer
from signal_drift.peft.rescale import Keep, rescaled_config
from signal_drift.peft.translate import Gauge, Tool, Translation, translate
from signal_drift.peft.writer import write

__all__ = [
    "AdapterFiles",
    "Audit",
    "Gauge",
    "Keep",
    "LayerAudit",
    "LayerScaling",
    "LoraConfig",
    "NnxLoRA",
    "ScalingRule",
    "StoredLayer",
    "Tool",
    "Translation",
    "as_python",
    "audit_adapter",
    "fold",
    "initial_sigma",
    "nnx_lora",
    "not_drawn",
    "open_adapter",
    "peft_config",
    "peft_scaling",
    "qwix_rules",
    "qwix_scaling",
    "read_config",
    "rescaled_config",
    "rule_alpha",
    "singular_values",
    "translate",
    "write",
]
