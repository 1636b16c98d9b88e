"""Every experiment on the pretrained encoder in turn, then minilm.md: what they say, and what the ledger makes of it.

They need what `make minilm` fetches. `make reproduce` reports them too, where they have been run in the same folder.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.claims import minilm as claims
from experiments.curvature import layers as minilm_layers
from experiments.curvature import minilm_curvature
from experiments.lab.experiment import Device, Report, default_out, exit_on_bad_input, from_store, prepare, run
from experiments.lab.files import replacing
from experiments.ledger import ledger
from experiments.ledger.summary import QUICK, run_all, summary
from experiments.tuning import minilm_paths, minilm_protocol
from experiments.tuning import rates as minilm_rates

EXPERIMENTS = [
    module.EXPERIMENT for module in (minilm_rates, minilm_protocol, minilm_paths, minilm_layers, minilm_curvature)
]


@dataclass(frozen=True)
class Options:
    """Run every experiment on MiniLM, or report them if they have been run."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests, in a folder of its own, with a tiny encoder that needs no fetching."""
    out: Path | None = None
    """Where results go [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def reports(out: Path, quick: bool) -> dict[str, Report]:
    """Of the experiments whose every point is stored."""
    stored = [e for e in EXPERIMENTS if from_store(e, e.at(quick), out).data is not None]
    return {experiment.title: run(experiment, experiment.at(quick), out) for experiment in stored}


def verdicts(out: Path, quick: bool) -> str:
    """Every reading on MiniLM, its verdict and its numbers, as a Markdown table."""
    read, lines = (
        ledger.store(out, quick),
        ["| claim | reading | verdict | measured [interval], allowed |", "|---|---|---|---|"],
    )
    for claim, readings in claims.READINGS.items():
        for reading in readings:
            verdict, findings = ledger.judge(reading, read(reading.experiment), quick)
            numbers = (f"{f.quantity}: {f.estimate} {f.estimate.interval()}, {f.band}" for f in findings)
            cells = (claim, reading.statement, verdict, "; ".join(numbers).replace("|", "\\|"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    prepare(options.device)
    out, start = options.out or default_out(options.quick), time.perf_counter()
    found = run_all(EXPERIMENTS, out, options.quick)
    page = summary("MiniLM", found) + f"\n## What the ledger makes of it\n\n{verdicts(out, options.quick)}\n"
    with replacing(out / "minilm.md") as temporary:
        temporary.write_text(QUICK * options.quick + page, encoding="utf-8")
    print(verdicts(out, options.quick), *(line for report in found.values() for line in report.sentences), sep="\n")
    print(f"{out / 'minilm.md'} in {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    exit_on_bad_input(lambda: main(tyro.cli(Options)))
