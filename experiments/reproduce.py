"""Every experiment in turn, then summary.md and the ledger. What is already there is not computed again."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from experiments import (
    algebra,
    asymmetric_scaling,
    benchmark,
    density_check,
    dynamics,
    gauge_breaking,
    ledger,
    magnitudes,
    minilm_curvature,
    minilm_layers,
    minilm_paths,
    minilm_protocol,
    minilm_rates,
    optimizer_gauge,
    pages,
    protocol_comparison,
    purification,
    rank_law,
    readings,
    residual_curvature,
    signal_descent,
    spectra_along_training,
    spectra_at_scale,
    spectral_suppression,
    stability,
    transformer_curvature,
    transformer_dynamics,
    transformer_scaling,
    transformer_updates,
    update_scaling,
)
from experiments.experiment import (
    Device,
    Experiment,
    Report,
    default_out,
    exit_on_bad_input,
    from_store,
    prepare,
    run,
    table,
)
from experiments.ledger import HIDDEN
from experiments.record import replacing

EXPERIMENTS = [
    module.EXPERIMENT
    for module in (
        algebra,
        magnitudes,
        spectral_suppression,
        purification,
        residual_curvature,
        asymmetric_scaling,
        density_check,
        spectra_at_scale,
        dynamics,
        readings,
        update_scaling,
        signal_descent,
        stability,
        spectra_along_training,
        optimizer_gauge,
        gauge_breaking,
        rank_law,
        protocol_comparison,
        transformer_curvature,
        transformer_scaling,
        transformer_dynamics,
        transformer_updates,
    )
]

EXTRA = [module.EXPERIMENT for module in (minilm_rates, minilm_protocol, minilm_paths, minilm_layers, minilm_curvature)]
"""Reported where they have been run, each by its own script: they need what `make minilm` fetches."""

QUICK = "**Tiny size (`--quick`): shows that everything runs, and is evidence of nothing.**\n\n"


@dataclass(frozen=True)
class Options:
    """Run all experiments of the paper, or report them if they have been run."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests, in a folder of its own."""
    out: Path | None = None
    """Where results go [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def reproduce(options: Options) -> None:
    """Run, report and write summary.md."""
    prepare(options.device)
    out, start = options.out or default_out(options.quick), time.perf_counter()
    reports = {}
    with tqdm(EXPERIMENTS, desc="reproduce", unit="experiment", dynamic_ncols=True) as progress:
        for experiment in progress:
            reports[experiment.title] = run(experiment, _config(experiment, options.quick), out)
    for experiment in EXTRA:
        if from_store(experiment, _config(experiment, options.quick), out).data is not None:
            reports[experiment.title] = run(experiment, _config(experiment, options.quick), out)
    print(table([row for report in reports.values() for row in report.rows]))
    with replacing(out / "summary.md") as temporary:
        temporary.write_text(QUICK * options.quick + summary(reports), encoding="utf-8")
    entries = ledger.ledger(out, options.quick)
    ledger.write(entries, out)
    pages.write_pages(entries, out / "figures", out, speed(out, options.quick))
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in pages.counts(entries).items()))
    written = ", ".join(
        str(out / name) for name in ("report.html", "report.md", "ledger.json", "summary.md", "figures")
    )
    print(f"{written} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    ledger.check_controls(entries, options.quick)


def _config(experiment: Experiment, quick: bool) -> Any:
    return experiment.quick if quick else experiment.paper


def speed(out: Path, quick: bool) -> Report | None:
    """What the benchmark says, which is run by itself, on a machine that does nothing else."""
    experiment = benchmark.EXPERIMENT
    config = _config(experiment, quick)
    found = from_store(experiment, config, out)
    return None if found.data is None else experiment.report(config, found.data)


def summary(reports: dict[str, Report]) -> str:
    """The whole as Markdown: each experiment's table, words and figures, and where its numbers were computed."""
    parts = ["# Summary"]
    for title, report in reports.items():
        where = ", ".join(f"{name} {value}" for name, value in report.provenance.items() if name not in HIDDEN)
        parts += [f"## {title}", table(report.rows), *report.sentences]
        parts += [f"![{name}](figures/{name}.png)" for name in report.figures]
        parts += [f"*{where}*"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    exit_on_bad_input(lambda: reproduce(tyro.cli(Options)))
