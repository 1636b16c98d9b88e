"""Open this for adapters on disk: audit what PEFT stored, or write V1 and V2 as the settings of PEFT, qwix or nnx.LoRA.

>>> shapes = {"q_proj": (64, 48), "v_proj": (16, 48)}  # (d_out, d_in) of each layer
>>> settings = peft_config(shapes, rank=16, rule="V2")
>>> settings["lora_alpha"], settings["use_rslora"]  # 1/σ_A = √(3·48), with s = lora_alpha/√r
(12, True)
>>> settings["target_modules"]
'q_proj|v_proj'
>>> rule_alpha("V1", rank=16, sigma_a=1 / 12)
1024.0

`audit_adapter(folder)` reads a folder that PEFT, mlx, diffusers or kohya wrote; `signal_drift.peft.figure` draws
what it found.
"""

from signal_drift.peft.audit import Audit, LayerAudit, audit_adapter, singular_values
from signal_drift.peft.config import LoraConfig, initial_sigma, not_drawn, read_config
from signal_drift.peft.export import (
    NnxLoRA,
    ScalingRule,
    as_python,
    fold,
    nnx_lora,
    peft_config,
    qwix_rules,
    rule_alpha,
)
from signal_drift.peft.files import AdapterFiles, open_adapter
from signal_drift.peft.maps import StoredLayer

__all__ = [
    "AdapterFiles",
    "Audit",
    "LayerAudit",
    "LoraConfig",
    "NnxLoRA",
    "ScalingRule",
    "StoredLayer",
    "as_python",
    "audit_adapter",
    "fold",
    "initial_sigma",
    "nnx_lora",
    "not_drawn",
    "open_adapter",
    "peft_config",
    "qwix_rules",
    "read_config",
    "rule_alpha",
    "singular_values",
]
