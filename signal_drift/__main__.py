"""Runs the command line: audits a LoRA adapter, gives it another α, advises before training, translates its settings.

It is run as `python -m signal_drift audit DIR`, `… config DIR`, `… advise DIR` and `… translate DIR --to TOOL`; all
explain their options with `--help`.
"""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from signal_drift.advice.advise import Advice, advise_from_gradient, advise_on_text
from signal_drift.advice.known import Known, as_paragraphs, conclusion, read_ledger
from signal_drift.display import span
from signal_drift.errors import InputError
from signal_drift.errors.readers import while_it_is_read
from signal_drift.errors.words import printable
from signal_drift.peft.audit import Audit, LayerAudit, audit_adapter
from signal_drift.peft.export import ScalingRule, as_python, he_sigma, qwix_scaling
from signal_drift.peft.files import open_adapter
from signal_drift.peft.rescale import Keep, linear_layers, rescaled, rescaled_config, stored_scaling
from signal_drift.peft.translate import as_tool, translate
from signal_drift.text_audit import LayerCurvature, TextAudit, audit_on_text

WITHOUT_LEDGER = (
    "What is known of each rule is not quoted: --ledger takes docs/ledger.json of this project, or the ledger.json "
    "that python -m experiments verify writes about a problem of your own."
)


def audit_command(
    folder: tyro.conf.Positional[Path],
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    figure: Path | None = None,
    model: Path | None = None,
    text: Path | None = None,
) -> None:
    """Print rank, scaling, σ_A, V1, V2 and the spectrum of s·BA for every layer of an adapter.

    With --model and --text also λmax of H_Drift and of H_Signal in every layer, and signal to drift of one Adam step.

    Args:
        folder: Where the adapter is, as PEFT or mlx stores it, or alone as one safetensors file of diffusers or kohya.
        json: Print everything, the singular values too, as JSON.
        figure: Draw α beside V1 and V2, and the singular values, into this file: as .png, .svg and .pdf.
        model: The Llama or Qwen2 that it was trained for, a Hugging Face folder with its tokenizer.json.
        text: A file in UTF-8, whose mean next-token loss it is judged by.

    """
    found = audit_adapter(folder)
    on_text = None if model is None and text is None else audit_on_text(folder, *_model_and_text(model, text))
    print(as_json(found, on_text) if json else as_table(found, on_text))
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


def advise_command(
    folder: tyro.conf.Positional[Path],
    gradient: Path | None = None,
    model: Path | None = None,
    text: Path | None = None,
    ledger: Path | None = None,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Print, for every layer where training begins, σ₁(G), s·σ₁(G) = λmax[H_Drift], V1, V2 and the first step's size.

    With --model and --text also λmax[H_Signal] and α_c, the α at which both are equal. With --ledger what is known of
    each rule, quoted; no rule is recommended beyond what is supported there.

    Args:
        folder: Where PEFT's adapter_config.json is, alone or beside the factors.
        gradient: The loss's gradient at W₀, (d_out, d_in) of each layer: one safetensors file, or a folder of shards.
        model: The Llama or Qwen2 that it is for, a Hugging Face folder with its tokenizer.json.
        text: A file in UTF-8, whose mean next-token loss is taken.
        ledger: A ledger.json, as in docs/ of this project or as `python -m experiments verify` writes it.
        json: Print everything as JSON.

    """
    if (gradient is None) == (model is None and text is None):
        got = "neither" if gradient is None else f"--gradient {gradient} with the others"
        raise InputError(f"gradient: is needed, or model and text in its place, got {got}")
    known = None if ledger is None else read_ledger(ledger)
    with tqdm(unit="layer", disable=None, leave=False) as bar:  # shown in a terminal alone

        def seen(_: str, count: int) -> None:
            bar.total = count
            bar.update()

        if gradient is not None:
            found = advise_from_gradient(folder, gradient, seen)
        else:
            found = advise_on_text(folder, *_model_and_text(model, text), seen)
    print(advice_as_json(found, known) if json else advice_as_text(found, known))


def translate_command(folder: tyro.conf.Positional[Path], to: str) -> None:
    """Print the settings of another tool with which training moves the weights as PEFT does with this adapter's.

    Beside them, as JSON: α, r, σ_A and by what the rates of A and B are multiplied, under which optimizers, and what
    cannot be carried over. The factors begin anew, at B = 0.

    Args:
        folder: Where adapter_config.json and adapter_model.safetensors are.
        to: What trains instead of PEFT: qwix, nnx (flax's nnx.LoRA), keras, kohya (its scripts), or peft-rslora.

    """
    tool = as_tool(to)
    print(_escaped(translate(open_adapter(folder), tool).as_dict()))


def _model_and_text(model: Path | None, text: Path | None) -> tuple[Path, str]:
    if model is None or text is None:
        given = f"--model {model} without --text" if text is None else f"--text {text} without --model"
        raise InputError(f"model and text: each needs the other, got {given}")
    try:
        return model, text.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"text: {str(text)!r} cannot be read ({type(error).__name__})") from None


def as_table(found: Audit, on_text: TextAudit | None = None) -> str:
    """Write the tables, cut where they are long, and what has to be known to read the first."""
    notes = [f"note: {note} ({count} of {len(found)} layers)" for note, count in found.notes().items()]
    return "\n".join([repr(found), *notes, *([] if on_text is None else [repr(on_text)])])


def as_json(found: Audit, on_text: TextAudit | None = None) -> str:
    """Write every layer as an object; a number that does not exist is null, what commands a terminal is escaped."""
    beside = {} if on_text is None else {x.layer: _on_text_entry(x, on_text) for x in on_text.layers}
    entries = [_finite(_entry(layer) | beside.get(layer.layer, {})) for layer in found]
    return _escaped(entries)


def advice_as_text(found: Advice, known: tuple[Known, ...] | None = None) -> str:
    """Write the table, what has to be known to read it, and what is known of each rule."""
    lines = [repr(found), *(f"note: {printable(note)}" for note in found.notes)]
    if known is None:
        return "\n".join([*lines, WITHOUT_LEDGER])
    drawn = [x for x in found.layers if math.isfinite(x.v2)] or found.layers
    columns = np.array([[x.rank, 1 / x.sigma, x.v2 / x.rank] for x in drawn]).T
    r, deviation, over = map(span, columns)
    here = f"Here r is {r}, 1/σ_A {deviation} and V2/r {over}; how like yours its problems are was not measured."
    return "\n".join([*lines, f"What is known of each rule. {here}", as_paragraphs(known), conclusion(known)])


def advice_as_json(found: Advice, known: tuple[Known, ...] | None = None) -> str:
    """Write all of it as one object; a number that does not exist is null."""
    of_rules = None if known is None else [_of_rule(x) for x in known]
    layers = [_finite(x._asdict()) for x in found.layers]
    return _escaped({**vars(found), "layers": layers, "known": of_rules})


def _of_rule(x: Known) -> dict[str, Any]:
    problems = {label: y._asdict() for label, y in x.problems.items()}
    return {"claim": x.claim, "statement": x.statement, **x.judged._asdict(), "problems": problems} | {
        "recommended": x.recommended
    }


def _escaped(entries: Any) -> str:
    text = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _entry(layer: LayerAudit) -> dict[str, Any]:
    return layer._asdict() | {"singular_values": layer.singular_values.tolist(), "stable_rank": layer.stable_rank}


def _on_text_entry(x: LayerCurvature, found: TextAudit) -> dict[str, Any]:
    return x._asdict() | {"crossover": x.crossover, "loss": found.loss, "predicted": found.predicted}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in values.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a wrong value or file ends in one line and exit status 2, a reader that leaves ends it.

    What tyro cannot parse, such as a missing option, ends in its own words and the same status.
    """
    commands = {
        "audit": audit_command,
        "config": config_command,
        "advise": advise_command,
        "translate": translate_command,
    }
    try:
        with while_it_is_read():
            tyro.extras.subcommand_cli_from_dict(commands, prog="python -m signal_drift", args=arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
