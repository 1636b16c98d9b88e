"""The guide pages of docs/: their links, names, commands, examples and tables are those of the code."""

import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from pages_of_docs import GUIDES, PAGES, ROOT, blocks, commands, links, read, rows, spoken

from experiments import __main__ as door
from experiments.benchmark import experiment as benchmark
from experiments.benchmark import growth
from experiments.benchmark.report import HEADINGS, report
from experiments.catalogue import EXPERIMENTS
from experiments.claims import CLAIMS
from experiments.doors import reproduce, rerun, verify
from experiments.doors.gpu_check import check as gpu_check
from experiments.lab import command_line
from experiments.lab.experiment import table
from experiments.lab.reference import take
from experiments.lab.runner import Stored, from_store
from experiments.lab.side_by_side import as_markdown
from experiments.ledger.verdict import EXPONENT, FRACTION, MAGNITUDE, VERDICTS
from experiments.problems import PROBLEMS
from experiments.problems.smollm import SmolLM
from experiments.tuning.methods import COMMON, FULL, TENFOLD, V1, V2, methods
from signal_drift.__main__ import main as audit_door
from signal_drift.propositions import PROPOSITIONS, random_instance

DOCS = ROOT / "docs"
FOLDERS = ("signal_drift", "experiments", "tests", "docs", "notebooks")
ELSEWHERE = {"git", "python3", ".venv/bin/pip"}
"""First words of commands that are not ours."""
BENCHED = benchmark.EXPERIMENT.at(PROBLEMS["mlp"])
DOORS = (reproduce.Options, verify.Options, rerun.Options, gpu_check.Options)
"""What commands that are no experiments can be told."""
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def resolve(name: str) -> Any:
    """The object or module of a dotted name; one without a prefix is a proposition."""
    if "." not in name:
        return getattr(import_module("signal_drift.propositions"), name)
    module, _, attribute = re.sub(r"^sd\b", "signal_drift", name).rpartition(".")
    parent = import_module(module)
    return getattr(parent, attribute) if hasattr(parent, attribute) else import_module(f"{module}.{attribute}")


@each_page
def test_links_and_named_files_exist(page: Path) -> None:
    named = [ROOT / text for text in spoken(page) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", text)]
    for path in (*links(page), *named):
        assert path.exists(), path


@each_page
def test_names_exist(page: Path) -> None:
    for text in spoken(page):
        for name in re.findall(r"(?<![\w/.])(?:sd|signal_drift|experiments)(?:\.[A-Za-z_]\w*)+", text):
            assert resolve(name) is not None


def options(*shapes: Any) -> Iterator[str]:
    """The options that dataclasses make on a command line, those of their fields' own fields too."""
    for shape in shapes:
        for field in dataclasses.fields(shape):
            yield f"--{field.name.replace('_', '-')}"
            value = getattr(shape, field.name, None)
            if dataclasses.is_dataclass(value):
                yield from options(value)


def audit_help(command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        audit_door([command, "--help"])
    return text.getvalue()


@each_page
def test_options_within_the_text_exist(page: Path) -> None:
    asked = [e.at(p) for e in EXPERIMENTS for p in PROBLEMS.values() if not e.refuses(p)]
    known = {"--problem", *options(*asked, command_line.Run, *DOORS)}
    known |= set(re.findall(r"--[\w-]+", "".join(map(audit_help, ("audit", "config", "advise", "translate")))))
    elsewhere = {"--gpus-per-task"}  # of srun
    for text in spoken(page):
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", text):
            assert option in known | elsewhere, option


@each_page
def test_commands_can_be_given(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed to their end, and not run."""
    for module, name in ((command_line, "_run"), *((door, name) for name in ("reproduce", "verify", "gpu_check"))):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(door, "show", lambda options: rerun.find(options.claim) if options.claim else None)
    for words in commands(page):
        check_command(words)


def check_command(words: list[str]) -> None:
    if words[0] in ("srun", "sbatch"):
        wrapped = " ".join(words)
        if "python -m" not in wrapped:
            return
        words = wrapped[wrapped.index("python -m") :].split()
    if words[0] == "make":
        check_make(words[1:])
    elif words[:4] == ["python", "-m", "experiments", "ledger"]:
        for claim in words[4:]:
            assert claim in {"--list", *(claim.id for claim in CLAIMS)}
    elif words[:3] == ["python", "-m", "experiments"]:
        parsed(lambda: door.door(words[3:]), "--help" in words)
    elif words[:3] == ["python", "-m", "signal_drift"]:
        text = audit_help(words[3])
        assert all(word in text for word in words[4:] if word.startswith("--"))
    elif words[0] == "python" and words[1].startswith("docs/"):
        assert (ROOT / words[1]).is_file(), words
    else:
        assert words[0] in ELSEWHERE, words


def parsed(command: Any, helps: bool) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if helps:
            with pytest.raises(SystemExit) as stop:
                command()
            assert stop.value.code == 0
        else:
            command()


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, assigned, _ = word.partition("=")
        pattern = rf"\$\((?:if \$\()?{name}\b" if assigned else rf"^{name}:"
        assert re.search(pattern, makefile, re.MULTILINE), word


@pytest.mark.parametrize(
    "page", [p for p in GUIDES if any(b.language == "python" for b in blocks(p))], ids=lambda p: p.name
)
def test_examples_run_in_order(page: Path) -> None:
    code = "\n".join(block.text for block in blocks(page) if block.language == "python")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    if "check_all" in code:
        *checks, counterexample = [line for line in done.stdout.splitlines() if re.match(r"[PLKX]\d", line)]
        assert len(checks) == len(PROPOSITIONS)
        assert counterexample.startswith("P1-update FAILS")


@each_page
def test_findings_quoted_are_those_of_the_reference_run(page: Path) -> None:
    reference = read(DOCS / "report.md")
    for sentence in re.findall(r"^> (.+)$", read(page), re.MULTILINE):
        assert sentence in reference


def test_statements_are_indexed_with_their_equations_and_experiments() -> None:
    index = rows(DOCS / "statements.md", "claim")
    assert [row[0] for row in index] == [claim.id for claim in CLAIMS]
    order = [experiment.name for experiment in EXPERIMENTS]
    for (_, equation, _, asked, _), claim in zip(index, CLAIMS, strict=True):
        pairs = [reading for evidence in claim.evidence for reading in evidence if reading]
        names = {reading.experiment.name for reading in (*pairs, *claim.readings)}
        assert (equation, asked) == (claim.source, ", ".join(f"`{n}`" for n in sorted(names, key=order.index)))


def test_every_proposition_is_indexed_under_the_claim_that_it_checks() -> None:
    indexed = {row[0]: re.findall(r"`([\w.]+)`", row[2]) for row in rows(DOCS / "statements.md", "claim")}
    x = random_instance("quadratic", seed=0, alpha=1.0, begins=False)
    checked: dict[str, list[str]] = {}
    for proposition in PROPOSITIONS:
        name = getattr(proposition, "func", proposition).__name__
        checked.setdefault(proposition(x).claim, []).append(name)
    for claim, functions in indexed.items():
        assert all(callable(resolve(name)) for name in functions)
        assert [n for n in functions if "." not in n] == list(dict.fromkeys(checked.get(claim, [])))


@pytest.mark.parametrize("header", ["claim", "what"])
def test_tests_that_are_indexed_test_what_they_stand_beside(header: str) -> None:
    for cells in rows(DOCS / "statements.md", header):
        names = [
            cells[0],
            *(name.rpartition(".")[2] for cell in cells[1:-1] for name in re.findall(r"`([^`]+)`", cell)),
        ]
        for path in re.findall(r"\]\(\.\./(tests/[\w/.]+)\)", cells[-1]):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert any(re.search(rf"\b{re.escape(name)}\b", text) for name in names), (path, names)


def test_parts_that_are_indexed_exist() -> None:
    for _, where, _ in rows(DOCS / "statements.md", "what"):
        for name in re.findall(r"`([^`]+)`", where):
            assert resolve(name) is not None


def test_problems_and_verdicts_and_margins_are_those_of_the_code() -> None:
    named = [name for row in rows(DOCS / "experiments.md", "problem") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(PROBLEMS)
    page = DOCS / "ledger.md"
    assert [row[0] for row in rows(page, "verdict")] == list(VERDICTS)
    assert f"exponents to ±{EXPONENT:g}, equal averages to ±{FRACTION:.0%}" in read(page)
    assert MAGNITUDE == 10**0.5
    assert "a factor √10" in read(page)


def test_every_package_and_every_notebook_has_its_line() -> None:
    listed = set(spoken(DOCS / "contributing.md"))
    for folder in ("signal_drift", "experiments"):
        packages = {f"{folder}/{init.parent.name}" for init in (ROOT / folder).glob("*/__init__.py")}
        assert packages <= listed, packages - listed
    assert {path for path in links(DOCS / "notebooks.md") if path.suffix == ".ipynb"} == set(
        (ROOT / "notebooks").glob("*.ipynb")
    )


def test_what_goes_wrong_is_said_in_the_words_that_are_tested() -> None:
    tested = (ROOT / "tests" / "experiments" / "doors" / "test_verify.py").read_text(encoding="utf-8")
    for says, _ in rows(DOCS / "your-own-model.md", "it says"):
        assert says.strip("`").partition("…")[0] in tested
    assert f"{verify.Options.budget:g} by default" in read(DOCS / "your-own-model.md")


def test_table_of_where_alpha_pays_is_that_of_the_reference_run() -> None:
    report, page = read(DOCS / "report.md"), read(DOCS / "where-alpha-pays.md")
    found = report.partition("<summary>Where V2 pays</summary>")[2].partition("</details>")[0].splitlines()
    told = [line for line in page.splitlines() if line.startswith("|")]
    assert len(told) > 10
    assert told == [line for line in found if line.startswith("|")]
    quoted = [line[2:] for line in page.splitlines() if line.startswith("> ")]
    assert sum(line.startswith("Rank correlation") for line in quoted) == 2
    for line in quoted:
        of_the_table = line.startswith(("Of ", "Rank correlation"))
        assert f"- {line}" in (found if of_the_table else report.splitlines())


def compared(problem: str, *points: str) -> list[xr.Dataset]:
    """Read the methods side by side from docs/records, at η_FFT."""
    with zipfile.ZipFile(DOCS / "records" / "protocol_comparison" / f"{problem}.zip") as kept:
        assert {name for name in kept.namelist() if name.endswith(".nc")} == set(points)
        return [xr.load_dataset(io.BytesIO(kept.read(x)), engine="h5netcdf").sel(share=1.0) for x in points]


def test_what_is_said_of_the_language_model_is_in_its_record() -> None:
    """Ln loss of the methods at η_FFT, what of the gap each closes, and what it answers right."""
    problem, page = SmolLM(), " ".join(read(DOCS / "where-alpha-pays.md").split())
    (data,) = compared("smollm", "rank=16_seed=0.nc")
    ends = {str(name): float(data.log_loss.sel({"method": name})) for name in data.method.values}
    common, root, full = ends[COMMON], ends["rsLoRA, s = √r"], ends[FULL]
    closed = {name: f"{(common - x) / (common - full):.0%}" for name, x in ends.items()}
    right = {
        (name, use): float(data.score.sel({"method": name, "judge": f"answered right, {use}"})) * problem.judged
        for name in (COMMON, V1, V2, FULL)
        for use in ("held out", "unseen templates")
    }
    assert list(right.values()) == [0, 0, 2, 0, 2, 0, 3, 1]
    tokens = data.score.sel(judge="tokens right, unseen templates")
    assert str(tokens.idxmax("method").item()) == COMMON
    steps = json.loads(data.attrs["config"])["steps"]
    for words in (
        f"in {steps} steps, at r = 16, with one seed",
        f"−{-common:.3f} with α = r",
        f"−{-root:.2f} with rsLoRA, which is α = 64",
        f"−{-ends[V2]:.2f} with V2",
        f"−{-ends[TENFOLD]:.2f} with α = r and ten times the rate",
        f"−{-ends[V1]:.2f} with V1, which is α = 1024",
        f"with full fine-tuning at −{-full:.2f}",
        f"V2 closes {closed[V2]} of what separates α = r from that, ten times the rate {closed[TENFOLD]}, "
        f"and V1 {closed[V1]}",
        f"is highest with α = r, {float(tokens.max()):.3f}",
        f"was {float(data.start_score.sel(judge='tokens right, unseen templates')):.3f} before",
        f"is {float(tokens.sel({'method': FULL})):.3f} after full fine-tuning",
        f"is asked of {problem.judged} questions",
        f"answers 3 of {problem.judged} held out and one of {problem.judged} on unseen templates",
    ):
        assert words in page, words
    chosen = methods(16, {"narrow": 576**-0.5, "wide": 1536**-0.5})
    assert chosen["rsLoRA, s = √r"].scaling["narrow"] == 64 / 16
    assert chosen[V1].scaling["narrow"] == 1024 / 16
    assert [round(16 * s) for s in chosen[V2].scaling.values()] == [96, 157]
    assert min((x, name) for name, x in ends.items() if name != FULL)[1] == V1
    assert round(1024 / (16**0.5 / problem.typical_sigma())) == 10
    assert 2 * 0.5**6 < 0.05 < 2 * 0.5**5


def test_what_is_said_of_the_language_model_by_reward_is_in_its_record() -> None:
    """Means over its two seeds: what is right before and after, how far from the start, and which groups differ."""
    page = " ".join(read(DOCS / "where-alpha-pays.md").split())
    both = compared("grpo", "rank=8_seed=0.nc", "rank=8_seed=1.nc")
    setting = json.loads(both[0].attrs["config"])
    mean = xr.concat(both, "seed").mean("seed")

    def after(judge: str, method: str) -> str:
        return f"{float(mean.score.sel({'judge': judge, 'method': method})):.0%}"

    def before(judge: str) -> str:
        return f"{float(mean.start_score.sel(judge=judge)):.0%}"

    own, products, sums, differ = (
        "right, held-out sums",
        "right, products",
        "right, sums of three",
        "groups that differ",
    )
    moved = {name: -float(mean.score.sel({"judge": "less KL to the start", "method": name})) for name in (V1, V2, FULL)}
    assert (setting["steps"], setting["problem"]["questions"], setting["problem"]["group"]) == (12, 4, 8)
    for words in (
        f"is {before(own)} before adaptation, and {after(own, COMMON)} with α = r, {after(own, V2)} with V2",
        f"{after(own, TENFOLD)} with ten times the rate, {after(own, 'LoRA+, ratio 16')} with LoRA+, "
        f"{after(own, V1)} with V1",
        f"and {after(own, FULL)} with full fine-tuning",
        f"{before(products)} and {before(sums)} before",
        *(f"{after(products, m)} and {after(sums, m)} with {x}" for m, x in ((V2, "V2"), (V1, "V1"))),
        f"{after(products, FULL)} and {after(sums, FULL)} with full fine-tuning",
        f"{moved[V2]:.2f} nats a token with V2, {moved[V1]:.2f} with V1, {moved[FULL]:.2f} with full fine-tuning",
        f"are {before(differ)} of all before and with V2, and {after(differ, V1)} and {after(differ, FULL)} with the",
    ):
        assert words in page, words
    assert after(differ, V2) == before(differ)
    chosen = methods(8, {"narrow": 576**-0.5, "wide": 1536**-0.5})
    assert [round(8 * s) for s in chosen[V2].scaling.values()] == [68, 111]
    assert round(8 * chosen[V1].scaling["narrow"]) == 724


@pytest.fixture
def growth_record(tmp_path: Path) -> Stored:
    config = growth.EXPERIMENT.at(PROBLEMS["mlp"])
    take(growth.EXPERIMENT, config, tmp_path)
    return from_store(growth.EXPERIMENT, config, tmp_path)


@pytest.fixture
def grown(growth_record: Stored) -> xr.Dataset:
    assert growth_record.data is not None, growth_record.reason
    return growth_record.data


def test_table_of_growth_is_that_of_its_record(grown: xr.Dataset) -> None:
    _, *lines = as_markdown(growth.table(growth.EXPERIMENT.at(PROBLEMS["mlp"]), grown)).splitlines()
    told = read(DOCS / "growth.md").partition("Growth of time and memory:")[2].splitlines()[:-1]
    assert [line for line in told if line] == [line for line in lines if line]


def test_what_is_said_of_growth_is_in_its_record(growth_record: Stored, grown: xr.Dataset) -> None:
    def at(what: str, kernel: str, size: int, axis: str = "width") -> xr.DataArray:
        return grown[what].sel(kernel=kernel, size=size, axis=axis).dropna("way")

    def of_others(what: str, kernel: str, size: int) -> str:
        taken = at(what, kernel, size).drop_sel(way="ours") / (1 if what == "seconds" else 1e6)
        return f"{_three_digits(taken.min())} to {_three_digits(taken.max())}"

    def ours(what: str, kernel: str, size: int, axis: str = "width") -> str:
        return _three_digits(at(what, kernel, size, axis).sel(way="ours") / (1e6 if what == "memory" else 1))

    def times(kernel: str, size: int, other: str, axis: str = "width") -> str:
        seconds = at("seconds", kernel, size, axis)
        return f"{float(seconds.sel(way=other) / seconds.sel(way='ours')):.1f}"

    grid = grown.sel(kernel="trajectories", axis="width").drop_sel(size=[2, 4, 2048, 4096, 8192])
    faster = grid.sel(way="ours") < grid.sel(way="peft")
    assert faster.seconds.values.tolist() == [True] * 7 + [False]
    assert grid["size"][faster["first"]].values.tolist() == [256]
    wide = grid.sel(size=1024)
    called = {x: [_three_digits(wide[x].sel(way=way)) for way in ("ours", "peft")] for x in ("seconds", "first")}
    page, seconds = " ".join(read(DOCS / "growth.md").split()), growth_record.seconds
    assert seconds is not None
    for words in (
        f"takes about {round(seconds / 600)}0 minutes",
        f"with JAX {grown.attrs['jax']} and torch ",
        f"in {ours('seconds', 'dense', 64)} s and {ours('memory', 'dense', 64)} MB beyond the matrix",
        f"{of_others('memory', 'dense', 32)} MB beyond it",
        f"{times('dense', 16, 'chunked', 'depth')} times the time at 16 layers",
        f"{ours('seconds', 'product', 4096)} s and {ours('memory', 'product', 4096)} MB here, "
        f"{of_others('seconds', 'product', 4096)} s and {of_others('memory', 'product', 4096)} MB elsewhere",
        f"d = 2048 takes {ours('seconds', 'extremes', 2048)} s",
        f"at 1024, where it takes {times('extremes', 1024, 'eigenthings')} times as long, and curvlinops at 256, "
        f"where it takes {times('extremes', 256, 'curvlinops')} times as long",
        f"takes {ours('first', 'product', 256, 'depth')} s, "
        f"each further one {ours('seconds', 'product', 256, 'depth')} s",
        "at d = 1024: {} s for {} s.".format(*called["seconds"]),
        "at every d but 256, {} s for {} s at 1024".format(*called["first"]),
    ):
        assert words in page, words


@pytest.fixture
def sped(tmp_path: Path) -> xr.Dataset:
    take(benchmark.EXPERIMENT, BENCHED, tmp_path)
    found = from_store(benchmark.EXPERIMENT, BENCHED, tmp_path)
    assert found.data is not None, found.reason
    return found.data


def test_table_of_speed_is_that_of_its_record(sped: xr.Dataset) -> None:
    told, page = report(BENCHED, sped), read(DOCS / "speed.md")
    assert f"\n\n{table(told.rows, HEADINGS)}\n\n" in page
    assert page.endswith("\n\n".join(["", *told.sentences, "Back to [README](../README.md).\n"]))


def test_what_is_said_of_speed_is_in_its_record(sped: xr.Dataset) -> None:
    def at(kernel: str, way: str, width: int, what: str = "seconds") -> float:
        return float(sped[what].sel(kernel=kernel, way=way, width=width))

    def ratio(kernel: str, way: str, other: str, width: int) -> str:
        return f"{at(kernel, way, width) / at(kernel, other, width):.2f}"

    products, each = at("extremes", "ours", 256, "products"), at("product", "ours", 256)
    alone = products * each / min(at("extremes", way, 256) for way in ("curvlinops", "curvlinops-1"))
    page = " ".join(read(DOCS / "speed.md").split())
    for words in (
        f"with JAX {sped.attrs['jax']} and torch ",
        f"takes {ratio('product', 'ours', 'merged', 256)} of the time through merged weights, "
        f"and {ratio('product', 'hand', 'merged', 256)} by hand",
        f"{ratio('dense', 'ours', 'hand', 32)} times the time that it takes by hand",
        f"takes {ratio('spectrum', 'linalg', 'ours', 32)} of our time",
        f"the {products:.0f} products alone take {alone:.2f} of",
    ):
        assert words in page, words


def _three_digits(x: xr.DataArray) -> str:
    """Write a number as the page does."""
    return f"{float(f'{float(x):.3g}'):,.0f}" if x >= 1000 else f"{float(x):#.3g}".rstrip(".")
