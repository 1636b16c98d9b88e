"""Runs the command line: audits a stored LoRA adapter, or writes its configuration anew with another α.

It is run as `python -m signal_drift audit DIR` and `python -m signal_drift config DIR`; both explain their options with
`--help`.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from signal_drift.errors import InputError
from signal_drift.peft.audit import Audit, LayerAudit, audit_adapter
from signal_drift.peft.export import ScalingRule, as_python, he_sigma, qwix_scaling
from signal_drift.peft.files import open_adapter
from signal_drift.peft.rescale import Keep, linear_layers, rescaled, rescaled_config, stored_scaling


def audit_command(
    folder: tyro.conf.Positional[Path],
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    figure: Path | None = None,
) -> None:
    """Print rank, scaling, σ_A, V1, V2 and the spectrum of s·BA for every layer of an adapter.

    Args:
        folder: Where the adapter is, as PEFT or mlx stores it, or alone as one safetensors file of diffusers or kohya.
        json: Print everything, the singular values too, as JSON.
        figure: Draw α beside V1 and V2, and the singular values, into this file: as .png, .svg and .pdf.

    """
    found = audit_adapter(folder)
    print(as_json(found) if json else as_table(found))
    if figure is not None:
        from signal_drift.peft.figure import draw_audit

        drawing = draw_audit(found)
        for suffix in (".png", ".svg", ".pdf"):
            drawing.savefig(figure.with_suffix(suffix))


def config_command(
    folder: tyro.conf.Positional[Path],
    rule: ScalingRule | None = None,
    keep: Keep | None = None,
    rank: int | None = None,
    init: str | None = None,
    form: Literal["json", "python", "qwix"] = "json",
    rslora: bool = True,
    integers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Print the configuration of an adapter with another α: by V1 = 256√r, by V2 = √r/σ_A, or for another rank.

    All else in adapter_config.json stays, but inference_mode, which becomes false.

    Args:
        folder: Where adapter_config.json and adapter_model.safetensors are.
        rule: V1 or V2 [default: V2, unless --keep is given].
        keep: Keep s or s√r (s-sqrt-r is the same) of every layer as in the adapter, instead of a rule.
        rank: r of all layers [default: as in the adapter].
        init: Another init_lora_weights, true or gaussian, which V2 is then for [default: as in the adapter].
        form: A PEFT LoraConfig as JSON or Python, or the arguments of qwix rules.
        rslora: s = lora_alpha/√r instead of lora_alpha/r.
        integers: Round lora_alpha and alpha_pattern.

    """
    if rule and keep:
        raise InputError(f"keep: replaces the rule, got --keep {keep} and --rule {rule}")
    by, stored = keep or rule or "V2", open_adapter(folder)
    if form == "qwix":
        if init is not None:
            raise InputError(f"init: is for PEFT, qwix draws A by he_uniform, got --init {init}")
        layers = rescaled(linear_layers(stored_scaling(stored)), by, lambda d_in, _: he_sigma(d_in), rank)
        print(json.dumps(qwix_scaling(layers), indent=1))
        return
    initialiser = None if init is None else {"true": True, "false": False}.get(init.lower(), init)
    config = rescaled_config(stored, by, rank=rank, init_lora_weights=initialiser, use_rslora=rslora, integers=integers)
    print(as_python(config) if form == "python" else json.dumps(config, indent=1))


def as_table(found: Audit) -> str:
    """Write the table, cut where it is long, and what has to be known to read it."""
    notes = [f"note: {note} ({count} of {len(found)} layers)" for note, count in found.notes().items()]
    return "\n".join([repr(found), *notes])


def as_json(found: Audit) -> str:
    """Write every layer as an object; a number that does not exist is null, what commands a terminal is escaped."""
    text = json.dumps([_entry(layer) for layer in found], indent=1, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _entry(layer: LayerAudit) -> dict[str, Any]:
    values = layer._asdict() | {"singular_values": layer.singular_values.tolist(), "stable_rank": layer.stable_rank}
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in values.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a wrong argument or file ends in one line and exit status 2, a reader that leaves ends it."""
    commands = {"audit": audit_command, "config": config_command}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m signal_drift", args=arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the exit
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
