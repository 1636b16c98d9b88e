"""V1 and V2 as settings of other tools: read back, every layer has the α of the rule; and PEFT itself agrees."""

import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import rejects
from stored import adapter
from torch_models import peers, torch_model

import signal_drift as sd
from signal_drift.peft.audit import audit_adapter
from signal_drift.peft.config import read_config
from signal_drift.peft.export import LayerScaling, as_python, fold, nnx_lora, peft_config, peft_scaling, qwix_rules

SHAPES = {"q": (8, 6), "block.q": (6, 10), "block.deep.q": (4, 6), "block.x-q": (5, 7), "blockxdeepxq": (3, 9)}
"""Names that end in one another, and two that differ in what a dot matches."""
RANKS = {"q": 2, "block.q": 2, "block.deep.q": 3, "block.x-q": 2, "blockxdeepxq": 5}


def alpha(rule: str, r: int, d_in: int, init: Any) -> float:
    sigma = 1 / r if init == "gaussian" else 1 / math.sqrt(3 * d_in)
    return 256 * math.sqrt(r) if rule == "V1" else math.sqrt(r) / sigma


@pytest.mark.parametrize("rule", ["V1", "V2"])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", [True, "gaussian"])
def test_every_layer_has_the_alpha_of_the_rule_in_any_order_of_patterns(
    tmp_path: Path, rule: Any, rslora: bool, init: Any
) -> None:
    config: dict[str, Any] = peft_config(SHAPES, RANKS, rule, init_lora_weights=init, use_rslora=rslora)
    for order in (sorted, lambda items: sorted(items, reverse=True)):
        for name in ("rank_pattern", "alpha_pattern"):
            config[name] = dict(order(config[name].items()))
        read = read_config(adapter(tmp_path / "a", **config))
        for layer, (_, d_in) in SHAPES.items():
            assert re.fullmatch(config["target_modules"], layer)
            assert read.rank(layer) == RANKS[layer]
            assert read.scaling(layer) * RANKS[layer] == pytest.approx(alpha(rule, RANKS[layer], d_in, init), rel=1e-14)


def test_an_unanchored_pattern_would_be_wrong(tmp_path: Path) -> None:
    """Control: without the anchor "q" decides for every layer that ends in .q."""
    config: dict[str, Any] = peft_config(SHAPES, 2, "V2")
    patterns = {"q": 1.0} | {k.removeprefix("^"): v for k, v in config["alpha_pattern"].items()}
    config["alpha_pattern"] = patterns
    read = read_config(adapter(tmp_path / "a", **config))
    assert read.scaling("block.deep.q") != pytest.approx(alpha("V2", 2, 6, True) / 2)


def test_V1_with_rslora_is_one_number() -> None:
    config = peft_config(SHAPES, RANKS, "V1")
    assert (config["use_rslora"], config["lora_alpha"], config["alpha_pattern"]) == (True, 256, {})


def test_integers_are_within_a_half() -> None:
    config = peft_config(SHAPES, 2, "V2", integers=True)
    values = {k: config["alpha_pattern"].get(f"^{re.escape(k)}", config["lora_alpha"]) for k in SHAPES}
    assert all(isinstance(value, int) for value in values.values())
    for layer, (_, d_in) in SHAPES.items():
        assert abs(values[layer] - math.sqrt(3 * d_in)) <= 0.5


@pytest.mark.parametrize("alpha", [math.inf, math.nan, 0.0, -1.0])
def test_an_alpha_that_is_no_positive_number_is_refused(alpha: float) -> None:
    with rejects("scaling: must give 'x' a positive and finite lora_alpha", alpha):
        peft_scaling({"x": LayerScaling(1, alpha)})


@pytest.mark.parametrize("init", ["pissa", "olora", False])
def test_an_initialiser_without_the_premise_of_the_rules_is_refused(init: Any) -> None:
    with rejects("init_lora_weights: must draw A at random and set B = 0", repr(init)):
        peft_config(SHAPES, 2, "V2", init_lora_weights=init)


def test_unknown_rule_is_refused() -> None:
    rule: Any = "V3"
    with rejects("rule: must be 'V1' or 'V2'", "V3"):
        peft_config(SHAPES, 2, rule)


def test_python_form_evaluates_to_the_same() -> None:
    config = peft_config(SHAPES, RANKS, "V2")

    class peft:  # noqa: N801
        LoraConfig = dict

    assert eval(as_python(config), {"peft": peft}) | {"peft_type": "LORA"} == config


def test_qwix_rules_have_the_alpha_of_he_uniform() -> None:
    """V2 for the variance 2/d_in of its A; one rule matches one module."""
    rules = qwix_rules(SHAPES, RANKS, "V2")
    for layer, (_, d_in) in SHAPES.items():
        (rule,) = [rule for rule in rules if re.fullmatch(rule["module_path"], layer.replace(".", "/"))]
        draws = jax.nn.initializers.he_uniform()(jax.random.key(0), (d_in, 20_000), jnp.float64)
        assert rule["alpha"] == pytest.approx(math.sqrt(RANKS[layer]) / float(jnp.std(draws)), rel=0.02)


def problem() -> tuple[Any, dict, dict]:
    base = {"x": jnp.linspace(-1, 1, 12).reshape(4, 3), "y": jnp.linspace(1, 2, 8).reshape(2, 4)}

    def loss(weights: dict) -> jax.Array:
        return jnp.mean((weights["y"] @ jnp.tanh(weights["x"] @ jnp.eye(3)) - 1.0) ** 2)

    return loss, base, sd.init_adapters(jax.random.key(3), base, 2)


def test_folded_factors_move_the_weights_alike() -> None:
    _, base, adapters = problem()
    theta = {k: sd.Adapter(A, jnp.ones_like(B)) for k, (A, B) in adapters.items()}
    s = {"x": 3.0, "y": 0.5}
    folded = fold(theta, s, onto=2.0)
    for before, after in zip(
        sd.effective_weights(base, theta, s).values(), sd.effective_weights(base, folded, 2.0).values(), strict=True
    ):
        np.testing.assert_allclose(before, after, rtol=1e-14)
    assert np.array_equal(folded["x"].A, theta["x"].A)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_nnx_lora_follows_the_trajectory_of_the_rule(factor: float) -> None:
    """X4, with Adam's ε out of the way: A s times as large and as fast at s = 1. Control: A moves 1.5 times as fast."""
    loss, base, adapters = problem()
    settings = nnx_lora({k: W.shape for k, W in base.items()}, 2, "V2")  # flax's σ_A = √(2/d_in)
    drawn = {k: a._replace(A=a.A / jnp.std(a.A) * math.sqrt(2 / base[k].shape[1])) for k, a in adapters.items()}
    s = {k: sd.alpha_base(2, math.sqrt(2 / W.shape[1])) / 2 for k, W in base.items()}
    moved = {k: a._replace(A=a.A * settings[k].sigma_a / math.sqrt(2 / base[k].shape[1])) for k, a in drawn.items()}

    def adam(rate_of_A: dict[str, float]) -> optax.GradientTransformation:
        labels = {k: sd.Adapter(f"{k}.A", f"{k}.B") for k in base}  # pyright: ignore[reportArgumentType]
        rates = {f"{k}.A": 1e-2 * rate_of_A[k] for k in base} | {f"{k}.B": 1e-2 for k in base}
        return optax.partition({k: optax.adam(v, eps=1e-300) for k, v in rates.items()}, labels)

    with_alpha = sd.train(loss, base, drawn, s, adam(dict.fromkeys(base, 1.0)), 20)
    without = sd.train(loss, base, moved, 1.0, adam({k: x.rate_a * factor for k, x in settings.items()}), 20)
    same = np.allclose(with_alpha.loss, without.loss, rtol=1e-9)
    assert same == (factor == 1.0)


# The real PEFT, where it is installed.


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", ["V1", "V2"])
@pytest.mark.parametrize("init", [True, "gaussian"])
def test_peft_loads_trains_and_saves_what_is_emitted(tmp_path: Path, rule: Any, init: Any) -> None:
    """Its scaling of every layer is the rule's; after a step of Adam and a save, ΔW read from disk is PEFT's own."""
    torch, peft = peers()
    model = torch_model(SHAPES)
    config = peft_config(SHAPES, RANKS, rule, init_lora_weights=init)
    del config["peft_type"]
    adapted: Any = peft.get_peft_model(model, peft.LoraConfig(**config))
    modules = {name.removeprefix("base_model.model."): m for name, m in adapted.named_modules() if hasattr(m, "lora_A")}
    modules = {name: m for name, m in modules.items() if name in SHAPES}
    assert set(modules) == set(SHAPES)
    for name, module in modules.items():
        wanted = alpha(rule, RANKS[name], SHAPES[name][1], init) / RANKS[name]
        assert module.scaling["default"] == pytest.approx(wanted)
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    torch.stack([(m(torch.eye(m.in_features)) ** 2).sum() for m in modules.values()]).sum().backward()
    optimizer.step()
    adapted.save_pretrained(tmp_path, safe_serialization=True)
    for x in audit_adapter(tmp_path):
        delta = modules[x.layer].get_delta_weight("default").detach().numpy()
        wanted = np.linalg.svd(delta.astype(float), compute_uv=False)[: len(x.singular_values)]
        np.testing.assert_allclose(x.singular_values, wanted, atol=1e-5 * wanted[0])
        assert x.norm > 0
        assert x.alpha == pytest.approx(alpha(rule, RANKS[x.layer], SHAPES[x.layer][1], init))


@pytest.mark.filterwarnings("ignore")
def test_peft_draws_A_as_stated(tmp_path: Path) -> None:
    """σ_A of 400·64 entries within five standard errors; 1/√d_in, without the 3, is 70 of them away."""
    torch, peft = peers()
    for init in (True, "gaussian"):
        model = torch.nn.Sequential(torch.nn.Linear(400, 3, bias=False))
        config = peft.LoraConfig(r=64, target_modules=["0"], init_lora_weights=init)
        peft.get_peft_model(model, config).save_pretrained(tmp_path / str(init), safe_serialization=True)
        (x,) = audit_adapter(tmp_path / str(init))
        assert abs(x.sigma_measured / x.sigma_set - 1) < 5 / math.sqrt(2 * 400 * 64)
        assert x.notes == ("B = 0: the adapter is as it was made",)
