"""Open this before an adapter is trained: what its configuration and one gradient tell of its α, and what is known.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> import numpy as np
>>> from safetensors.numpy import save_file
>>> config = '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}'
>>> with TemporaryDirectory() as folder:
...     _ = Path(folder, "adapter_config.json").write_text(config, encoding="utf-8")
...     save_file({"layers.0.q_proj.weight": 3 * np.eye(12, dtype=np.float32)}, f"{folder}/gradient.safetensors")
...     (layer,) = advise_from_gradient(folder, f"{folder}/gradient.safetensors").layers
>>> layer.gradient_norm, layer.drift_largest, round(layer.v2, 6)  # σ₁(G), s·σ₁(G), √(r·3 d_in)
(3.0, 6.0, 12.0)

`advise_on_text(folder, model, text)` adds λmax[H_Signal] and the crossover of both, α_c. `read_ledger(path)` quotes
the verdicts of a ledger on the rules.
"""

from signal_drift.advice.advise import Advice, LayerAdvice, advise_from_gradient, advise_on_text
from signal_drift.advice.known import Known, read_ledger

__all__ = ["Advice", "Known", "LayerAdvice", "advise_from_gradient", "advise_on_text", "read_ledger"]
