"""Runs the command line: audits a stored LoRA adapter, or writes a configuration that scales its layers by V1 or V2.

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
from signal_drift.peft.export import ScalingRule, as_python, peft_config, qwix_rules
from signal_drift.peft.files import open_adapter


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
    rule: ScalingRule = "V2",
    form: Literal["json", "python", "qwix"] = "json",
    rank: int | None = None,
    rslora: bool = True,
    integers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Print a configuration that scales the layers of an existing adapter by V1 = 256√r or V2 = √r/σ_A.

    Args:
        folder: Where adapter_config.json and adapter_model.safetensors are; only their headers matter.
        rule: V1 or V2.
        form: A PEFT LoraConfig as JSON or Python, or the arguments of qwix rules.
        rank: r of all layers [default: as in the adapter].
        rslora: s = lora_alpha/√r instead of lora_alpha/r.
        integers: Round lora_alpha and alpha_pattern.

    """
    stored = open_adapter(folder)
    layers = {x.layer: x for x in stored.layers() if not x.embedding}
    shapes = {k: (len(x.B), x.A.shape[1]) for k, x in layers.items()}
    ranks = {k: len(x.A) if rank is None else rank for k, x in layers.items()}
    if form == "qwix":
        print(json.dumps(qwix_rules(shapes, ranks, rule), indent=1))
        return
    init = stored.config.init_lora_weights
    config = peft_config(shapes, ranks, rule, init_lora_weights=init, use_rslora=rslora, integers=integers)
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
