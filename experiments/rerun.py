"""Look at the ledger, or measure one claim again: `python -m experiments ledger --list`, `… ledger P3-trace`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.claims import CLAIMS
from experiments.lab.command_line import Device, default_out, prepare
from experiments.lab.errors import OptionError
from experiments.ledger.claim import Claim
from experiments.ledger.ledger import ledger, rerun
from experiments.problems import PROBLEMS


@dataclass(frozen=True)
class Options:
    """Measure one claim again and print it, or list the claims."""

    claim: tyro.conf.Positional[str | None] = None
    """Its id."""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """List the claims with their verdicts in the store."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """The tiny size used in tests."""
    out: Path | None = None
    """Where results are [default: results, or results/quick]."""
    device: Device = "auto"
    """Where JAX computes; auto takes an accelerator where there is one."""


def show(options: Options) -> None:
    """Do what the options say."""
    out = options.out or default_out(options.quick)
    if options.claim is None and not options.list:
        raise OptionError("claim: give the id of a claim, or --list")
    claim = find(options.claim) if options.claim else None
    prepare(options.device)
    if claim is None:
        entries = ledger(CLAIMS, PROBLEMS, out, options.quick)
        print("\n".join(f"{e['id']:20} {e['verdict']:13} {e['statement']}" for e in entries))
    else:
        print(as_text(rerun(claim, PROBLEMS, out, options.quick)))


def find(name: str) -> Claim:
    """Return the claim of that id. Raises `OptionError` for one that is unknown, with the ids there are."""
    known = {claim.id: claim for claim in CLAIMS}
    if name not in known:
        raise OptionError(f"claim: unknown {name!r}; the claims are {', '.join(known)}")
    return known[name]


def as_text(e: Mapping[str, Any]) -> str:
    """Write one entry for the terminal."""
    lines = [f"{e['id']}: {e['verdict']}", f"  {e['statement']}  ({e['source']})", f"  {e['sentence']}"]
    lines += [f"  assumed: {'; '.join(e['assumptions'])}"] * bool(e["assumptions"])
    lines += [_line(f) for f in e["findings"]]
    lines += [f"  narrowest true statement tried: {e['narrowest']}"] * bool(e["narrowest"])
    lines += [f"  reading ({r['name']}): {r['verdict']}: {r['statement']}" for r in e["readings"]]
    lines += [f"  control: {e['control']['verdict']}: {e['control']['statement']}"] * bool(e["control"])
    lines += [f"  power: {e['power']:.3g}"] * (e["power"] is not None)
    return "\n".join(lines)


def _line(f: Mapping[str, Any]) -> str:
    low, high = ("unbounded" if x is None else f"{x:.4g}" for x in f["interval"] or (None, None))
    measured = "–" if f["measured"] is None else f"{f['measured']:.4g}"
    interval = f" [{low}, {high}]" if f["interval"] else ""
    return f"  {f['verdict']}: {f['quantity']}: {measured}{interval}, predicted {f['predicted']}"
