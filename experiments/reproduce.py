"""Every experiment in turn, then summary.md and the ledger. What is already there is not computed again."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments import reproduce_minilm as minilm
from experiments.benchmark import experiment as benchmark
from experiments.curvature import (
    algebra,
    asymmetric_scaling,
    density_check,
    purification,
    residual_curvature,
    transformer_curvature,
    transformer_scaling,
)
from experiments.curvature import at_scale as spectra_at_scale
from experiments.curvature import suppression as spectral_suppression
from experiments.dynamics import along_training as spectra_along_training
from experiments.dynamics import (
    gauge_breaking,
    optimizer_gauge,
    readings,
    signal_descent,
    stability,
    transformer_dynamics,
    transformer_updates,
    update_scaling,
)
from experiments.dynamics import trajectories as dynamics
from experiments.lab.experiment import Device, Report, default_out, exit_on_bad_input, from_store, prepare, table
from experiments.lab.files import replacing
from experiments.ledger import ledger, pages
from experiments.ledger.summary import QUICK, run_all, summary
from experiments.tuning import magnitudes, protocol_comparison, rank_law

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
    """Run, report and write summary.md and the ledger. What needs `make minilm` is reported where it has been run."""
    prepare(options.device)
    out, start = options.out or default_out(options.quick), time.perf_counter()
    reports = {**run_all(EXPERIMENTS, out, options.quick), **minilm.reports(out, options.quick)}
    print(table([row for report in reports.values() for row in report.rows]))
    with replacing(out / "summary.md") as temporary:
        temporary.write_text(QUICK * options.quick + summary("Summary", reports), encoding="utf-8")
    entries = ledger.ledger(out, options.quick)
    ledger.write(entries, out)
    pages.write_pages(entries, out / "figures", out, speed(out, options.quick))
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in pages.counts(entries).items()))
    written = ", ".join(
        str(out / name) for name in ("report.html", "report.md", "ledger.json", "summary.md", "figures")
    )
    print(f"{written} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    ledger.check_controls(entries, options.quick)


def speed(out: Path, quick: bool) -> Report | None:
    """What the benchmark says, which is run by itself, on a machine that does nothing else."""
    config = benchmark.EXPERIMENT.at(quick)
    found = from_store(benchmark.EXPERIMENT, config, out)
    return None if found.data is None else benchmark.EXPERIMENT.report(config, found.data)


if __name__ == "__main__":
    exit_on_bad_input(lambda: reproduce(tyro.cli(Options)))
