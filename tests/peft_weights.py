"""The weights that PEFT merges for each of its adapters, with the adapters' own tensors: run it to store them anew.

Needs torch and PEFT (`pip install -e '.[peers]'`). Stored with PEFT 0.21.2.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

STORED = Path(__file__).parent / "maps" / "peft_weights.json"
RANK, ALPHA = 2, 3.0
SHAPE = (12, 10)


def configs(peft: Any) -> dict[str, Any]:
    """One layer, called `layer`, at rank 2 and α = 3."""
    common: dict[str, Any] = {"target_modules": ["layer"]}
    lora = common | {"r": RANK, "lora_alpha": ALPHA}
    lycoris = common | {"r": RANK, "alpha": ALPHA}
    return {
        "lora": peft.LoraConfig(**lora),
        "rslora": peft.LoraConfig(**lora, use_rslora=True),
        "dora": peft.LoraConfig(**lora, use_dora=True),
        "vera": peft.VeraConfig(**common, r=RANK),
        "loha": peft.LoHaConfig(**lycoris),
        "lokr": peft.LoKrConfig(**lycoris, decompose_factor=2),
        "ia3": peft.IA3Config(**common, feedforward_modules=[]),
    }


def merged(peft: Any, torch: Any) -> dict[str, dict[str, Any]]:
    """W₀, all tensors of an adapter, drawn anew, and the W that PEFT makes of them."""
    found = {}
    for name, config in configs(peft).items():
        torch.manual_seed(0)
        model = torch.nn.Sequential()
        model.add_module("layer", torch.nn.Linear(SHAPE[1], SHAPE[0], bias=False))
        model = model.to(torch.float64)
        W0 = model.layer.weight.detach().clone()
        adapted = peft.get_peft_model(model, config).to(torch.float64)
        with torch.no_grad():
            tensors = {k: x for k, x in adapted.state_dict().items() if "base_layer" not in k}
            for x in tensors.values():
                x.copy_(torch.randn(x.shape, dtype=x.dtype))
        layer = adapted.base_model.model.layer
        stored = {k.split("layer.")[-1]: x.tolist() for k, x in tensors.items()}
        layer.merge()
        found[name] = {"W0": W0.tolist(), "tensors": stored, "W": layer.base_layer.weight.tolist()}
    return found


if __name__ == "__main__":
    peft, torch = (import_module(name) for name in ("peft", "torch"))
    STORED.write_text(json.dumps(merged(peft, torch)) + "\n", encoding="utf-8")
