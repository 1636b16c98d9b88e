"""Bad files cannot hurt: 300 mutated adapter folders end in an audit or in one printable line, and touch no other."""

import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import rejects
from safetensors.numpy import save
from stored import CONFIG, factors

from signal_drift.__main__ import as_json, as_table
from signal_drift.errors import InputError
from signal_drift.files import tensors
from signal_drift.peft import audit_adapter, open_adapter, settings

CASES = 300
SECONDS = 5.0
WEIGHTS, SETTINGS, INDEX = "adapter_model.safetensors", "adapter_config.json", "adapter_model.safetensors.index.json"
ESCAPES = ["\x1b[2J", "\x9b31m", "\x07", "\n", "\r", "\u202e", "\ud800", "../", "/", "\\", "$x^{", "\x00", "é", "\x7f"]
"""What a name may hold that commands a terminal, forges a line, leaves a folder or is no text."""
BOMBS = [
    "(a+)+",
    "(.*)*",
    "(a|a)*",
    ".*.*.*.*.*.*.*.*x",
    "((a?)?)?" * 20,
    "(a|b|ab)" * 40,
    "a{1,50}{1,50}",
    "[[a",
    "(?P<x>a)\\1+",
]
NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 10**400, 0.5, 1e308, 5e-324, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        "x" * 10_000,
        *ESCAPES,
        [],
        [1],
        [[]],
        {},
        {"": 1},
        {"a": None},
        ["x"] * 1000,
        {"nblocks": 2},
        {"nblocks": 0},
    ),
    *({"target_modules_bd_a": ["q"], "nblocks": 3}, {"target_modules_bd_b": ["q", "\x1b"], "nblocks": 2}, ["q_proj.w"]),
]

Folder = dict[str, bytes]


def header(stored: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(stored[:8], "little")
    return json.loads(stored[8 : 8 + size]), stored[8 + size :]


def with_header(text: str | dict[str, Any], data: bytes) -> bytes:
    raw = (text if isinstance(text, str) else json.dumps(text)).encode()
    return len(raw).to_bytes(8, "little") + raw + data


# Each mutation takes the files and draws what it does to them.


def cut(files: Folder, draws: np.random.Generator) -> None:
    name = draws.choice(list(files))
    files[name] = files[name][: draws.integers(len(files[name]))]


def flip(files: Folder, draws: np.random.Generator) -> None:
    name = draws.choice(list(files))
    raw = bytearray(files[name])
    for i in draws.integers(len(raw) // 3 if draws.random() < 0.7 else len(raw), size=draws.integers(1, 4)):
        raw[i] = draws.integers(256)
    files[name] = bytes(raw)


def lie_about_size(files: Folder, draws: np.random.Generator) -> None:
    size = int(draws.choice([0, 1, 7, 2**31, 2**62, 2**63 - 1])) + int(draws.integers(3))
    files[WEIGHTS] = size.to_bytes(8, "little") + files[WEIGHTS][8:]


def lie_in_header(files: Folder, draws: np.random.Generator) -> None:
    found, data = header(files[WEIGHTS])
    entry = found[draws.choice([key for key in found if key != "__metadata__"])]
    lies: dict[str, list[Any]] = {
        "shape": [[], [0], [2**40], [2**63], [-1], [1] * 100, [4, 2**60], ["4"], None, [1.5], {}],
        "dtype": ["F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "nope", 3, None],
        "data_offsets": [[0, 2**60], [2**63, 2**63], [8, 0], [-8, 0], [0], None, ["0", "80"], [0, 80]],
    }
    field = draws.choice(list(lies))
    entry[field] = lies[field][draws.integers(len(lies[field]))]
    files[WEIGHTS] = with_header(found, data)


def retype(files: Folder, draws: np.random.Generator) -> None:
    """Call the bytes something of the same width: integers, halves of them, other floats."""
    found, data = header(files[WEIGHTS])
    for entry in found.values():
        if draws.random() < 0.3:
            entry["dtype"] = str(draws.choice(["I32", "U32"]))
    files[WEIGHTS] = with_header(found, data)


def repeat_a_key(files: Folder, draws: np.random.Generator) -> None:
    if draws.random() < 0.5:
        found, data = header(files[WEIGHTS])
        key = next(iter(found))
        files[WEIGHTS] = with_header(f"{json.dumps(found)[:-1]}, {json.dumps(key)}: {json.dumps(found[key])}}}", data)
    else:
        files[SETTINGS] = files[SETTINGS].rstrip()[:-1] + b', "r": 3}'


def odd_numbers(files: Folder, draws: np.random.Generator) -> None:
    found, data = header(files[WEIGHTS])
    values = np.frombuffer(data, np.float32).copy()
    values[draws.integers(len(values), size=3)] = draws.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45, 0.0], size=3)
    files[WEIGHTS] = with_header(found, values.tobytes())


def rename(files: Folder, draws: np.random.Generator) -> None:
    """Put what is no part of a name into names of layers, at any place."""
    found, data = header(files[WEIGHTS])

    def renamed(key: str) -> str:
        at = int(draws.integers(len(key)))
        return key[:at] + str(ESCAPES[draws.integers(len(ESCAPES))]) + key[at:]

    layer = str(draws.choice(["q_proj", "o_proj", "model"]))
    new = layer[:1] + "".join(draws.choice(ESCAPES, size=2)) + layer[1:]
    alike = draws.random() < 0.7
    found = {key.replace(layer, new) if alike else renamed(key): entry for key, entry in found.items()}
    files[WEIGHTS] = with_header(found, data)


def set_fields(files: Folder, draws: np.random.Generator) -> None:
    found = json.loads(files[SETTINGS])
    fields = [
        *settings.SETTINGS,
        "lora_parameters",
        "fine_tune_type",
        "\x1b[31munknown",
        "r",
        "lora_alpha",
        "use_bdlora",
    ]
    for field in draws.choice(fields, size=draws.integers(1, 4)):
        found[str(field)] = NASTY[draws.integers(len(NASTY))]
    files[SETTINGS] = json.dumps(found).encode()


def patterns(files: Folder, draws: np.random.Generator) -> None:
    keys = [*BOMBS, *ESCAPES, "(", "*", "^model.*q_proj", "a" * 5000]
    chosen = {
        str(keys[i]): NASTY[draws.integers(8)] if draws.random() < 0.2 else 4 for i in draws.integers(len(keys), size=3)
    }
    found = json.loads(files[SETTINGS]) | {str(draws.choice(["rank_pattern", "alpha_pattern"])): chosen}
    files[SETTINGS] = json.dumps(found).encode()


def deepen(files: Folder, draws: np.random.Generator) -> None:
    """Nest as deep as no parser follows, or just so deep that it does and a `repr` might not."""
    depth = int(draws.choice([10, 300, 900, 990, 100_000]))
    nested = "[" * depth + "]" * depth if draws.random() < 0.5 else '{"r":' * depth + "1" + "}" * depth
    if draws.random() < 0.3:
        _, data = header(files[WEIGHTS])
        files[WEIGHTS] = with_header(f'{{"a": {nested}}}', data)
    else:
        field = draws.choice(["r", "rank_pattern", "use_bdlora", "init_lora_weights", "unknown", "peft_type"])
        files[SETTINGS] = files[SETTINGS].rstrip()[:-1] + f', "x{field}": 1, "y{field}": {nested}}}'.encode()
        if draws.random() < 0.5:
            files[SETTINGS] = f'{{"peft_type": "LORA", "{field}": {nested}}}'.encode()


def other_text(files: Folder, draws: np.random.Generator) -> None:
    texts = [b"", b"\xff\xfe", b"null", b"[]", b'"LORA"', b"{", b"nan", b"\x00" * 9, "\ufeff{}".encode(), b"9" * 5000]
    files[str(draws.choice([SETTINGS, WEIGHTS]))] = texts[draws.integers(len(texts))]


def shards(files: Folder, draws: np.random.Generator) -> None:
    found, _ = header(files[WEIGHTS])
    whole = files.pop(WEIGHTS)
    names = [
        "a.safetensors",
        "../outside/secret.safetensors",
        "/dev/zero",
        "..",
        ".",
        "",
        "a\x00.safetensors",
        "\x1b.safetensors",
    ]
    names += ["b/c.safetensors", "x" * 300 + ".safetensors", "~/.safetensors"]
    files["a.safetensors"] = whole
    weight_map: dict[str, Any] = dict.fromkeys(found, "a.safetensors")
    if draws.random() < 0.9:
        weight_map[str(draws.choice(list(found)))] = names[draws.integers(len(names))]
    index = {"weight_map": weight_map if draws.random() < 0.9 else NASTY[draws.integers(len(NASTY))]}
    files[INDEX] = json.dumps(index).encode()


def other_layout(files: Folder, draws: np.random.Generator) -> None:
    """Give the same tensors the names of kohya or mlx, with an odd α or scale."""
    found, data = header(files[WEIGHTS])
    value = NASTY[draws.integers(len(NASTY))]
    if draws.random() < 0.5:
        del files[WEIGHTS], files[SETTINGS]
        kohya = {key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): x for key, x in found.items()}
        kohya = {key.removeprefix("base_model.model."): x for key, x in kohya.items()}
        alpha = np.asarray(draws.choice([np.nan, np.inf, -1, 0, 1e-45, 3e38, 2]), np.float32).tobytes()
        layer = next(iter(kohya)).partition(".lora_")[0]
        kohya[f"{layer}.alpha"] = {"dtype": "F32", "shape": [], "data_offsets": [len(data), len(data) + 4]}
        said = {"lora_adapter_metadata": json.dumps({f"model.{draws.choice(['r', 'lora_alpha'])}": value})}
        kohya |= {"__metadata__": said} if draws.random() < 0.5 else {}
        files[f"k{ESCAPES[draws.integers(6)]}.safetensors"] = with_header(kohya, data + alpha)
    else:
        mlx = {key.replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b"): x for key, x in found.items()}
        for entry in mlx.values():
            entry["shape"] = entry["shape"][::-1]
        files["adapters.safetensors"] = with_header(mlx, data)
        del files[WEIGHTS]
        key = str(draws.choice(["rank", "scale", "alpha"]))
        files[SETTINGS] = json.dumps({"lora_parameters": {"rank": 4, key: value}, "fine_tune_type": "lora"}).encode()


MUTATIONS: list[Callable[[Folder, np.random.Generator], None]] = [
    *(cut, flip, lie_about_size, lie_in_header, retype, repeat_a_key, odd_numbers, rename, set_fields, patterns),
    *(deepen, other_text, shards, other_layout),
]


def link(folder: Path, draws: np.random.Generator, outside: Path) -> None:
    """Put a link, a folder or a pipe in the place of a file."""
    path = folder / str(draws.choice([name for name in (WEIGHTS, SETTINGS) if (folder / name).exists()] or [SETTINGS]))
    path.unlink(missing_ok=True)
    kind = draws.integers(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    else:
        targets = [outside / path.name, path, "/dev/zero", Path("../outside") / path.name]
        path.symlink_to(targets[kind - 2])


def write(folder: Path, files: Folder) -> None:
    folder.mkdir()
    for name, raw in files.items():
        if "/" not in name and "\x00" not in name and name.isprintable() | name.isascii():
            (folder / name).write_bytes(raw)


ORIGINAL = {
    SETTINGS: json.dumps(CONFIG | {"rank_pattern": {"o_proj": 4}}).encode(),
    WEIGHTS: save({key: x.astype(np.float32) for key, x in factors().items()}),
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Every file that Python or safetensors opens; a hook cannot be removed, and so it is told when to rest."""
    found, safe_open, noting = [], tensors.safe_open, [True]

    def note(event: str, arguments: tuple) -> None:
        if noting and event == "open" and isinstance(arguments[0], str | Path):
            found.append(Path(arguments[0]))

    def noted(path: Path, **options: Any) -> Any:
        found.append(path)
        return safe_open(path, **options)

    monkeypatch.setattr(tensors, "safe_open", noted)
    sys.addaudithook(note)
    yield found
    noting.clear()


def contents(folder: Path) -> dict[str, bytes | str]:
    def content(path: Path) -> bytes | str:
        return os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "no file"

    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


def test_mutated_folders_end_in_an_audit_or_in_one_line(tmp_path: Path, opened: list[Path], untyped: None) -> None:
    """Half of them at least are refused, some are audited: the mutations reach both."""
    outside = tmp_path / "outside"
    write(outside, ORIGINAL)
    (outside / "secret.safetensors").write_bytes(ORIGINAL[WEIGHTS])
    refused, before = [], contents(outside)
    for case in range(CASES):
        draws, files, folder = np.random.default_rng(case), dict(ORIGINAL), tmp_path / f"{case}"
        for _ in range(1 + (case % 7 == 0)):
            if WEIGHTS in files and len(files[WEIGHTS]) > 8:
                try:
                    MUTATIONS[case % len(MUTATIONS)](files, draws)
                except ValueError:  # the second mutation finds no JSON any more
                    break
        write(folder, files)
        linked = case % 10 == 9
        if linked:
            link(folder, draws, outside)
        inside = contents(folder)
        opened.clear()
        start = time.process_time()
        try:
            found = audit_adapter(folder)
            text = [*as_table(found).split("\n"), *as_json(found).split("\n")]
            assert not linked, case
        except InputError as error:
            text = [str(error)]
            refused.append(case)
        assert time.process_time() - start < SECONDS, case
        assert all(line.isprintable() for line in text), (case, text)
        paths = {path.resolve() for path in opened} - {tmp_path, folder}
        ours = {path for path in paths if path.is_relative_to(tmp_path) or path.is_relative_to("/dev")}
        assert all(path.parent == folder for path in ours), (case, ours)
        assert contents(folder) == inside
    assert contents(outside) == before
    assert CASES / 2 < len(refused) < CASES - 20


@pytest.mark.parametrize("name", [SETTINGS, WEIGHTS])
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    """Readers differ in which of the two they take."""
    found, data = header(ORIGINAL[WEIGHTS])
    key, entry = next(iter(found.items()))
    twice = with_header(f"{json.dumps(found)[:-1]}, {json.dumps(key)}: {json.dumps(entry)}}}", data)
    bad = {SETTINGS: ORIGINAL[SETTINGS][:-1] + b', "r": 4}', WEIGHTS: twice}
    write(tmp_path / "a", ORIGINAL | {name: bad[name]})
    with rejects(f"{name}: has the key", "'r' twice" if name == SETTINGS else f"{key!r} twice"):
        open_adapter(tmp_path / "a")


def test_a_header_that_claims_a_terabyte_costs_no_memory(tmp_path: Path) -> None:
    found, data = header(ORIGINAL[WEIGHTS])
    end = len(data)
    found["base_model.model.x.lora_A.weight"] = {
        "dtype": "F32",
        "shape": [4, 2**36],
        "data_offsets": [end, end + 2**40],
    }
    write(tmp_path / "a", ORIGINAL | {WEIGHTS: with_header(found, data)})
    tracemalloc.start()
    with rejects("adapter_model.safetensors: is damaged"):
        open_adapter(tmp_path / "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_wide_rank_costs_no_more_than_its_factors(tmp_path: Path) -> None:
    """r = 2,000 beside 2 inputs and 3 outputs: r² numbers would be 32 MB."""
    draws, r = np.random.default_rng(0), 2_000
    A, B = (draws.standard_normal(shape).astype(np.float32) for shape in ((r, 2), (3, r)))
    names = ("base_model.model.x.lora_A.weight", "base_model.model.x.lora_B.weight")
    text = json.dumps(CONFIG | {"r": r}).encode()
    write(tmp_path / "a", {SETTINGS: text, WEIGHTS: save(dict(zip(names, (A, B), strict=True)))})
    tracemalloc.start()
    (found,) = audit_adapter(tmp_path / "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * (A.nbytes + B.nbytes)
    wanted = np.linalg.svd(8 / r * B.astype(float) @ A.astype(float), compute_uv=False)
    np.testing.assert_allclose(found.singular_values, wanted, rtol=1e-6)


def test_a_configuration_of_a_million_keys_is_read(tmp_path: Path, untyped: None) -> None:
    """And a header with twenty thousand tensors beside the pairs."""
    many = ",".join(f'"k{i}":1' for i in range(10**6))
    text = ORIGINAL[SETTINGS].rstrip()[:-1] + f",{many}}}".encode()
    found, data = header(ORIGINAL[WEIGHTS])
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    found |= {f"beside.{i}": empty for i in range(2 * 10**4)}
    write(tmp_path / "a", {SETTINGS: text, WEIGHTS: with_header(found, data)})
    start = time.process_time()
    notes = audit_adapter(tmp_path / "a").notes()
    assert time.process_time() - start < SECONDS
    assert any("'k0', 'k1', 'k2' and 999997 more" in note for note in notes)
    assert any("and 19997 more" in note for note in notes)


@pytest.mark.parametrize(
    "pattern", [f"({x}{y})" for x in BOMBS[:3] for y in ("", "x")] + BOMBS[3:5] + ["(a|b|ab)" * 20]
)
def test_a_pattern_that_may_never_end_is_refused(tmp_path: Path, pattern: str) -> None:
    name = "a" * 60
    pair = {key.replace("model.layers.0.q_proj", name): x for key, x in factors().items() if "0.q" in key}
    text = json.dumps(CONFIG | {"rank_pattern": {pattern: 3}}).encode()
    write(tmp_path / "a", {SETTINGS: text, WEIGHTS: save(pair)})
    with rejects(f"adapter_config.json: the pattern {pattern!r} may take for ever"):
        open_adapter(tmp_path / "a")
