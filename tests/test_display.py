"""Results show themselves: their numbers, in a few lines, whatever they hold."""

import html
import re
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import signal_drift as sd
from signal_drift import display
from signal_drift.display import Table, as_html, as_text, number, span
from signal_drift.propositions import check_all, update_has_no_remainder
from signal_drift.propositions.subject import Instance

pytestmark = pytest.mark.xdist_group("display")  # one worker computes the results once

WIDE = 200
"""Characters of a line that a terminal of usual size still shows in two."""


def model() -> tuple[Any, dict, dict]:
    base = {"in": jnp.arange(12.0).reshape(4, 3) / 12, "out": jnp.ones((2, 4))}
    adapters = sd.init_adapters(jax.random.key(0), base, {"in": 2, "out": 5})

    def loss(weights: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.tanh(weights["out"] @ jnp.tanh(weights["in"] @ jnp.ones((3, 6)))) ** 2)

    return loss, base, adapters


def everything() -> dict[str, Any]:
    """One of each kind of result."""
    loss, base, adapters = model()
    parts = sd.decompose(loss, base, adapters, 2.0)
    criterion = sd.composite(lambda weights: weights["out"] @ weights["in"], lambda y: jnp.sum(y**2))
    trained = jax.tree.map(lambda x: x + 0.1, adapters)
    instance = Instance(loss, base, trained, 2.0, adapters)
    module = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    lora = nnx.LoRALinear(3, 4, lora_rank=2, rngs=nnx.Rngs(0))
    return {
        "parts": parts,
        "operator": parts.lora,
        "jacobian": parts.jacobian,
        "gauss_newton": sd.gauss_newton(criterion, base, adapters, 2.0),
        "adapter": adapters["in"],
        "run": sd.train(loss, base, adapters, 2.0, optax.adam(1e-2), 7),
        "runs": jax.vmap(lambda s: sd.train(loss, base, adapters, s, optax.sgd(1e-2), 7))(jnp.arange(3.0)),
        "no steps": sd.train(loss, base, adapters, 2.0, optax.adam(1e-2), 0),
        "update": sd.decompose_update(trained, adapters, 2.0),
        "extremes": sd.extreme_eigenvalues(parts.lora, which="both"),
        "sharpness": sd.critical_sharpness(loss, base, base),
        "trace": sd.estimate_trace(parts.lora, probes=9),
        "density": sd.spectral_density(parts.lora, probes=3, steps=5),
        "views": sd.layer_views(parts, adapters),
        "instance": instance,
        "check": update_has_no_remainder(instance),
        "checks": check_all(instance),
        "forward": sd.base_and_forward(module)[1],
        "lora": sd.lora_and_forward(lora),
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return everything()


def test_every_result_is_a_few_lines_without_arrays_or_addresses(results: dict[str, Any]) -> None:
    for name, result in results.items():
        text = repr(result)
        assert len(text.splitlines()) <= display.LINES + 3, name
        assert max(map(len, text.splitlines())) <= WIDE, name
        assert not re.search(r"Array\(|0x[0-9a-f]{6}|ShapeDtypeStruct|<function", text), name


def test_reprs_name_shapes_ranks_and_norms(results: dict[str, Any]) -> None:
    A, B = results["instance"].adapters["out"]
    line = next(line for line in repr(results["instance"]).splitlines() if line.split()[0] == "out")
    norms = [f"{np.sqrt(np.sum(np.square(x))):.3g}" for x in (np.ones((2, 4)), A, B)]
    assert line.split() == ["out", "2×4", norms[0], "5", "2", *norms[1:]]
    assert repr(results["parts"]).startswith("Decomposition, float64: .jacobian 20×44, .task 20×20, .signal 44×44")
    assert repr(results["operator"]).startswith("SymmetricOperator 44×44, float64: H_LoRA = ∇²_θ ℓ(w(θ))")
    assert repr(results["adapter"]).endswith("B 4×2, ‖B‖ 0; float64)")
    assert "7 steps, float64" in repr(results["run"])
    assert repr(results["runs"]).splitlines()[0].endswith("7 steps, float64, 3 of them")
    first, last = (f"{results['run'].loss[i]:.3g}" for i in (0, -1))
    assert repr(results["run"]).splitlines()[2].split()[:3] == ["loss", first, last]


def test_reprs_give_verdicts(results: dict[str, Any]) -> None:
    assert repr(results["check"]).startswith("P1-update holds")
    blind = sum(check.applicable and not check.refutes_control for check in results["checks"])
    assert blind > 0  # the step has ΔB = 0, so that what has no drift is told from nothing
    assert f" none fails, {blind} without power where" in repr(results["checks"])
    assert repr(results["checks"]).count("holds, without power") == blind
    loss, base, adapters = model()
    theta = jax.tree.map(lambda x: x + 0.1, adapters)

    def tanh(base: Any, theta: Any, s: Any) -> dict[str, jax.Array]:
        return {k: base[k] + s * jnp.tanh(B @ A) for k, (A, B) in theta.items()}

    bent = Instance(loss, base, theta, 2.0, theta, tanh)
    failing = type(results["checks"])([update_has_no_remainder(bent)])
    assert "1 FAIL where" in repr(failing)
    assert repr(failing).splitlines()[-1].split()[-3] == "FAILS"
    ends = results["extremes"]
    assert ", converged after" in repr(ends)
    assert "NOT converged" in repr(ends._replace(converged=False))
    values = [float(line.split()[0]) for line in repr(ends).splitlines()[2:]]
    np.testing.assert_allclose(values, ends.values, rtol=1e-9)


def test_repr_of_what_jit_traces_has_dashes_for_numbers() -> None:
    loss, base, adapters = model()
    seen = []

    @jax.jit
    def traced(theta: dict) -> jax.Array:
        run = sd.train(loss, base, theta, 2.0, optax.sgd(0.1), 2)
        parts: Any = sd.decompose(loss, base, theta, 2.0)
        sharpness = sd.critical_sharpness(lambda x: jnp.sum(x**2), theta["in"].A, -theta["in"].A)
        seen.extend([repr(parts), repr(run), repr(sharpness), repr(theta["in"]), parts._repr_html_()])
        return run.loss

    traced(adapters)
    assert all("–" in text and "Tracer" not in text for text in seen)


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in {"td", "th"}:
            self.cells.append(data)


def test_html_has_the_cells_of_the_text(results: dict[str, Any]) -> None:
    for name in ("parts", "run", "extremes", "views", "checks", "lora"):
        reader = Cells()
        reader.feed(results[name]._repr_html_())
        assert not reader.open
        assert {w for cell in reader.cells for w in cell.split()} == set(
            " ".join(repr(results[name]).splitlines()[1:]).split()
        )


def test_html_escapes_what_a_user_named() -> None:
    table = Table("<b>", ("a",), [("<script>",)])
    assert html.escape("<script>") in as_html(table)
    assert "<script>" not in as_html(table)
    assert as_html(Table("<b>")) == "<code>&lt;b&gt;</code>"


def test_long_tables_are_cut_and_say_so() -> None:
    table = Table("t", ("layer", "n"), [(f"layer {i}", str(i)) for i in range(display.LINES + 7)])
    assert as_text(table).splitlines()[-1].strip() == "… and 7 more"
    assert len(as_text(table).splitlines()) == display.LINES + 3
    assert as_html(table).endswith("<div>… and 7 more</div>")


def test_words_are_aligned_to_the_left_and_numbers_to_the_right() -> None:
    text = as_text(Table("t", ("layer", "n", "x"), [("a", "1", "nan"), ("long name", "100", "2.5")]))
    assert text.splitlines()[1:] == ["  layer        n    x", "  a            1  nan", "  long name  100  2.5"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 1.0], "1"), ([2.0, -1.0], "-1 … 2"), ([np.nan, 1.0], "nan"), ([np.inf, 0], "0 … inf")],
)
def test_span(values: list[float], expected: str) -> None:
    assert span(np.array(values)) == expected


def test_number_of_what_is_none_is_a_dash() -> None:
    assert number(jax.ShapeDtypeStruct((), jnp.float64)) == "–"
    assert number(np.float64(0.12345)) == "0.123"
