"""Lists what each field of PEFT's `LoraConfig` does to the map θ ↦ w, and what an audit does about it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from signal_drift.errors import InputError
from signal_drift.errors.words import shown

CONFIG = "adapter_config.json"


class Setting(NamedTuple):
    """Says how a field is treated where it is set, and why in words.

    `unset` is a value besides null, false and empty that sets nothing.
    """

    treatment: Literal["neutral", "handled", "noted", "refused"]
    reason: str
    unset: Any = None


SETTINGS = {
    "task_type": Setting("neutral", "what the model is for"),
    "peft_type": Setting("handled", "must be LORA"),
    "auto_mapping": Setting("neutral", "the class of the base model"),
    "peft_version": Setting("handled", "said beside a field that is not in this table"),
    "base_model_name_or_path": Setting("neutral", "the base model"),
    "revision": Setting("neutral", "the base model"),
    "inference_mode": Setting("neutral", "whether the factors are frozen when they are loaded"),
    "r": Setting("handled", "the rank"),
    "target_modules": Setting("neutral", "which layers have factors; the keys of the tensors say it"),
    "exclude_modules": Setting("neutral", "which layers have none"),
    "lora_alpha": Setting("handled", "s = lora_alpha/r"),
    "lora_dropout": Setting("neutral", "drops inputs in training, and none afterwards"),
    "fan_in_fan_out": Setting("noted", "W₀ is stored transposed, A and B are not"),
    "bias": Setting("noted", "biases of the base model are trained too", unset="none"),
    "use_rslora": Setting("handled", "s = lora_alpha/√r"),
    "modules_to_save": Setting("noted", "whole modules are trained too, beside the factors"),
    "init_lora_weights": Setting("handled", "how A was drawn"),
    "layers_to_transform": Setting("neutral", "which layers have factors"),
    "layers_pattern": Setting("neutral", "which layers have factors"),
    "rank_pattern": Setting("handled", "the rank of a layer"),
    "alpha_pattern": Setting("handled", "the α of a layer"),
    "megatron_config": Setting(
        "refused", "a file of tensor-parallel layers may hold one process's share of them; gather them, then save"
    ),
    "megatron_core": Setting("neutral", "where Megatron's layers are imported from"),
    "trainable_token_indices": Setting("noted", "rows of the embedding are trained too"),
    "loftq_config": Setting("neutral", "how A was drawn; init_lora_weights names it"),
    "eva_config": Setting("neutral", "how A was drawn; the ranks and α it chose are in the patterns"),
    "corda_config": Setting("neutral", "how A was drawn; init_lora_weights names it"),
    "lora_ga_config": Setting("neutral", "how A was drawn; init_lora_weights names it"),
    "use_dora": Setting("noted", "DoRA rescales the rows of W₀ + s·BA: s·BA is not the whole update"),
    "velora_config": Setting("noted", "the gradient of A was of compressed inputs; the rules take it to be exact"),
    "alora_invocation_tokens": Setting("noted", "s·BA acts from these tokens on, not before them"),
    "use_qalora": Setting("handled", "A acts on means over groups of inputs"),
    "qalora_group_size": Setting("handled", "how many inputs a mean is over"),
    "monteclora_config": Setting("noted", "noise was added to A in training, and is not afterwards"),
    "layer_replication": Setting("noted", "layers are numbered as they are after replication"),
    "runtime_config": Setting("neutral", "where computations run"),
    "lora_bias": Setting("noted", "B has a bias, which is no part of s·BA"),
    "target_parameters": Setting("handled", "each expert has factors of its own"),
    "use_bdlora": Setting("handled", "A or B is block-diagonal"),
    "arrow_config": Setting("refused", "a router mixes several adapters anew for each token: ΔW is no one matrix"),
    "kasa_config": Setting("refused", "ΔW = s·B·diag(lora_diag)·A, and small singular values of W₀ are dropped too"),
    "ensure_weight_tying": Setting("noted", "tied layers share their factors"),
}
"""Every field of PEFT 0.21, with those of its base classes."""


def setting_notes(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what the fields that are set do, and which are not in the table; raise `InputError` for one refused."""
    chosen = {name: x for name, x in SETTINGS.items() if stored.get(name) and stored[name] != x.unset}
    for name, setting in chosen.items():
        if setting.treatment == "refused":
            raise InputError(f"{CONFIG}: {name} is set, which has no formula here: {setting.reason}")
    notes = [f"{name}: {setting.reason}" for name, setting in chosen.items() if setting.treatment == "noted"]
    unknown = [name for name, value in stored.items() if value and name not in SETTINGS]
    if unknown:
        version = stored.get("peft_version")
        by = f" (written by PEFT {shown(version)})" if version else ""
        notes.append(f"{some(unknown)} of {CONFIG}: not known here{by}; s·BA may not be the whole update")
    return tuple(notes)


def some(names: list[str]) -> str:
    """Write the first three names, and how many there are besides."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(shown, names[:3])) + more
