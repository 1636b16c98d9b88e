"""Opens the one door: `python -m experiments` lists what there is, `python -m experiments NAME …` runs it."""

import sys
from collections.abc import Callable, Sequence

import tyro

from experiments.catalogue import ALONE, EXPERIMENTS, find
from experiments.doors.check import Options as Checking
from experiments.doors.check import check
from experiments.doors.costs import spent
from experiments.doors.error_rates import Options as ErrorRates
from experiments.doors.error_rates import write_rates
from experiments.doors.gpu_check.check import Options as GpuCheck
from experiments.doors.gpu_check.check import gpu_check
from experiments.doors.keep import keep_long
from experiments.doors.reproduce import Options as Reproduction
from experiments.doors.reproduce import reproduce
from experiments.doors.rerun import Options as Rerun
from experiments.doors.rerun import show
from experiments.doors.verify import Options as Verification
from experiments.doors.verify import verify
from experiments.lab.command_line import default_out, exit_on_bad_input, main
from experiments.lab.experiment import Experiment
from experiments.problems import PROBLEMS
from experiments.problems.fetch import Options as Fetching
from experiments.problems.fetch import cache, fetch, needed


def door(arguments: Sequence[str]) -> None:
    """Do what is named first, with the other arguments, or list what there is."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
    elif name in COMMANDS:
        COMMANDS[name][1](rest)
    else:
        main(find(name), PROBLEMS, rest)


def _reproduce(arguments: Sequence[str]) -> None:
    reproduce(tyro.cli(Reproduction, args=arguments, prog="python -m experiments reproduce"))


def _verify(arguments: Sequence[str]) -> None:
    verify(tyro.cli(Verification, args=arguments, prog="python -m experiments verify"))


def _ledger(arguments: Sequence[str]) -> None:
    show(tyro.cli(Rerun, args=arguments, prog="python -m experiments ledger"))


def _check(arguments: Sequence[str]) -> None:
    check(tyro.cli(Checking, args=arguments, prog="python -m experiments check"))


def _keep(arguments: Sequence[str]) -> None:
    print("\n".join(keep_long(default_out(quick=False))))


def _error_rates(arguments: Sequence[str]) -> None:
    write_rates(tyro.cli(ErrorRates, args=arguments, prog="python -m experiments error-rates"))


def _gpu_check(arguments: Sequence[str]) -> None:
    gpu_check(tyro.cli(GpuCheck, args=arguments, prog="python -m experiments gpu-check"))


def _fetch(arguments: Sequence[str]) -> None:
    options = tyro.cli(Fetching, args=arguments, prog="python -m experiments fetch")
    fetch(needed(options.problem), cache())
    print(cache())


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "reproduce": ("every experiment in turn, then the ledger and its report", _reproduce),
    "ledger": ("every claim and its verdict (--list), or one claim measured again", _ledger),
    "verify": ("the claims on your own model: path/to/file.py:problem", _verify),
    "check": ("a ledger.json that someone quotes: its schema, its digests, its verdicts", _check),
    "keep": ("put the records that took long into docs/records", _keep),
    "error-rates": ("how often a verdict is wrong, simulated, into docs/error_rates.md", _error_rates),
    "gpu-check": ("an accelerator's numbers against the CPU's, and its times against its own floors", _gpu_check),
    "fetch": ("what the problem minilm or smollm needs, once, into the cache folder", _fetch),
}


def listing() -> str:
    """List every experiment with a sentence, the problems it can be asked of, and what it cost."""
    lines = ["python -m experiments NAME [--problem PROBLEM] [--quick] [--help]", ""]
    lines += [f"  {name:24} {words}" for name, (words, _) in COMMANDS.items()]
    for experiment in (*EXPERIMENTS, *ALONE):
        lines += ["", f"  {experiment.name:24} {experiment.title}", *_asked(experiment)]
    return "\n".join([*lines, "", "Problems:", *(f"  {name:24} {p.label}" for name, p in PROBLEMS.items())])


def _asked(experiment: Experiment) -> list[str]:
    """The problems of an experiment, its homes first, and the seconds that it took where that is known."""
    fit = [name for name, problem in PROBLEMS.items() if not experiment.refuses(problem)]
    names = [*experiment.homes, *(name for name in fit if name not in experiment.homes)]
    known = spent(experiment.name)
    cost = ", ".join(f"{name} {known[name]:.0f} s" for name in names if name in known)
    return [f"  {'':24} on {', '.join(names)}" + (f"; took {cost}" if cost else "")]


if __name__ == "__main__":
    exit_on_bad_input(lambda: door(sys.argv[1:]))
