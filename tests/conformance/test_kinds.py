"""Frameworks as they are: flax live; PEFT, Keras and qwix by outputs that they gave, or by stand-ins; and files."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance_outputs import ALPHA, D_IN, D_OUT, RANK, STORED
from flax import nnx
from problems import rejects
from safetensors.numpy import save_file
from stored import adapter, factors
from torch_models import peers, torch_model

from signal_drift.conformance import (
    Certificate,
    Factors,
    Layer,
    Observation,
    certify,
    certify_outputs,
    of_keras,
    of_nnx,
    of_peft,
    of_qwix,
    stored_layers,
)

OUTPUTS = json.loads(STORED.read_text(encoding="utf-8"))
KAIMING, HE = "kaiming_uniform, 1/√(3 d_in) (PEFT, kohya, mlx)", "he_uniform, √(2/d_in) (flax, qwix, Keras)"
EXPECTED = {
    "PEFT": (ALPHA / RANK, KAIMING),
    "PEFT, rsLoRA": (ALPHA / RANK**0.5, KAIMING),
    "PEFT, gaussian": (ALPHA / RANK, "gaussian, 1/r (PEFT)"),
    "PEFT, patterns": (6 / 3, KAIMING),
    "Keras": (ALPHA / RANK, HE),
    "qwix": (ALPHA / RANK, HE),
}


def replayed(name: str, **said: Any) -> Certificate:
    """The outputs that the tool gave, with something else said of it."""
    stored = OUTPUTS[name]
    layers = {k: Layer(**layer | {"shape": tuple(layer["shape"])} | said) for k, layer in stored["layers"].items()}
    outputs = {
        k: Observation(**{field: np.array(x) for field, x in seen.items()}) for k, seen in stored["outputs"].items()
    }
    start = {k: Factors(*(np.array(x) for x in pair)) for k, pair in stored["start"].items()}
    return certify_outputs(name, layers, outputs, start)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_tools_gave_is_what_they_say(name: str) -> None:
    """By hand: s of the documented formula, the documented draw of A, B = 0, float32."""
    found = replayed(name)
    assert found.holds, found.contradictions
    s, drawn = EXPECTED[name]
    x = next(x for x in found.layers if x.layer.split("/")[-1] == "layer")
    assert x.said.shape == (D_OUT, D_IN)
    assert x.s == pytest.approx(s, rel=1e-6)
    assert drawn in x.drawn
    assert x.dtype == ("float32",)
    assert x.starts_at_zero


@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_tools_gave_is_not_what_something_else_says(name: str) -> None:
    """rsLoRA where there is none and none where there is, another α, the other draw of A."""
    was = next(iter(OUTPUTS[name]["layers"].values()))
    assert "as if it were α/" in replayed(name, rslora=not was["rslora"]).contradictions[0]
    assert "and is said to be α/" in replayed(name, alpha=1.01 * was["alpha"]).contradictions[0]
    other = was["sigma_a"] * (6**-0.5 if EXPECTED[name][1] == HE else 6**0.5)
    assert "σ_A is" in replayed(name, sigma_a=other).contradictions[0]


# flax


class Adapted(nnx.Module):
    def __init__(self, **options: Any) -> None:
        rngs = nnx.Rngs(0)
        self.around = nnx.LoRA(64, 8, 32, base_module=nnx.Linear(64, 32, rngs=rngs), rngs=rngs, **options)
        self.inside = nnx.LoRALinear(32, 64, lora_rank=8, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.inside(jnp.tanh(self.around(x)))


class Scaled(nnx.LoRALinear):
    """α/r = 8, by a subclass that does not say so."""

    def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
        return nnx.Linear.__call__(self, x) + 8 * self.lora(x)


def test_flax_conforms() -> None:
    model = Adapted()
    before = nnx.state(model)
    found = certify(model)
    assert found.holds, found.contradictions
    assert [x.layer for x in found.layers] == ["around.base_module", "inside"]
    for x in found.layers:
        assert x.s == pytest.approx(1, rel=1e-6)
        assert HE in x.drawn
        assert KAIMING not in x.drawn
        assert x.dtype == ("float32",)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, nnx.state(model)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_flax_computes_in_the_dtype_that_is_asked_for(dtype: Any) -> None:
    assert certify(Adapted(dtype=dtype)).layers[0].dtype == (jnp.dtype(dtype).name,)


def test_flax_with_an_alpha_of_its_own_or_another_draw() -> None:
    found = certify(Scaled(64, 32, lora_rank=4, rngs=nnx.Rngs(0)))
    assert found.contradictions[0] == "layer '': s is 8, and is said to be α/r = 4/4 = 1"
    kaiming = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    (line,) = certify(Adapted(a_initializer=kaiming)).contradictions
    assert "layer 'around.base_module': σ_A is" in line
    assert KAIMING in line
    assert certify(of_nnx(Adapted(a_initializer=kaiming), trained=True)).holds


def kaiming_sigma(d_in: int, r: int) -> float:
    return (3 * d_in) ** -0.5


def test_another_draw_that_is_said() -> None:
    """The initialiser that `translate --to nnx` prints: a variance of 1/(3 d_in)."""
    kaiming = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    model = nnx.LoRALinear(64, 32, lora_rank=8, a_initializer=kaiming, rngs=nnx.Rngs(0))
    assert certify(model, sigma_a=kaiming_sigma).holds
    assert certify(model, sigma_a=(3 * 64) ** -0.5).holds
    for sigma_a in (None, lambda d_in, r: 1.2 * kaiming_sigma(d_in, r)):
        assert "σ_A is" in certify(model, sigma_a=sigma_a).contradictions[0]
    word: Any = "he_uniform"
    with rejects("sigma_a: must be a number, or a function of d_in and r that gives one, got 'he_uniform'"):
        certify(model, sigma_a=word)
    with rejects("sigma_a: must not be given, got 0.1: the layers of a Framework say it themselves"):
        certify(of_nnx(model), sigma_a=0.1)


def test_another_draw_that_is_said_of_qwix_and_keras() -> None:
    """Their A is he_uniform's here, so that PEFT's is not what they begin with."""
    rules, x = [Rule("first|second", 8, 4.0)], jnp.ones((2, 64))
    asked = of_qwix(QwixModel(Rule(".*", 8, 4.0)), rules, x, sigma_a=kaiming_sigma)
    assert "σ_A is" in certify(asked).contradictions[0]
    assert certify(Model(Dense()), sigma_a=lambda d_in, r: (2 / d_in) ** 0.5).holds
    assert "σ_A is" in certify(Model(Dense()), sigma_a=kaiming_sigma).contradictions[0]


def test_flax_stacks_are_refused() -> None:
    @nnx.split_rngs(splits=2)
    @nnx.vmap(in_axes=0, out_axes=0)
    def layers(rngs: nnx.Rngs) -> nnx.LoRA:
        return nnx.LoRA(4, 2, 3, rngs=rngs)

    with rejects("framework: 'base_module' is a stack of layers"):
        certify(layers(nnx.Rngs(0)))
    with rejects("model: has no nnx.LoRA"):
        certify(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))


# qwix adds factors to a layer only while the model that it returned runs; so does this.

RUNNING: list[Any] = []


class QwixLinear(nnx.Linear):
    kernel_lora_a: Any
    kernel_lora_b: Any

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        y = super().__call__(inputs)
        if not RUNNING or not hasattr(self, "kernel_lora_a"):
            return y
        return y + inputs @ self.kernel_lora_a[...] @ self.kernel_lora_b[...] * (RUNNING[-1].alpha / RUNNING[-1].rank)


class QwixModel(nnx.Module):
    def __init__(self, rule: Any, ndim: int = 2) -> None:
        rngs, self.rule = nnx.Rngs(0), rule
        self.first, self.second, self.frozen = (QwixLinear(m, n, rngs=rngs) for m, n in ((64, 32), (32, 64), (64, 4)))
        for layer in (self.first, self.second):
            a = jax.nn.initializers.he_uniform()(rngs(), (layer.in_features, rule.rank), jnp.float32)
            layer.kernel_lora_a = nnx.LoRAParam(a.reshape(a.shape[:1] + (1,) * (ndim - 2) + a.shape[1:]))
            layer.kernel_lora_b = nnx.LoRAParam(jnp.zeros((rule.rank, layer.out_features)))

    def __call__(self, x: jax.Array) -> jax.Array:
        RUNNING.append(self.rule)
        try:
            return self.frozen(self.second(jnp.tanh(self.first(x))))
        finally:
            RUNNING.pop()


class Rule(nnx.Pytree):
    def __init__(self, module_path: str, rank: Any, alpha: Any) -> None:
        self.module_path, self.rank, self.alpha = module_path, rank, alpha


def test_layers_of_qwix_are_asked_while_the_model_runs() -> None:
    model, x, call = QwixModel(Rule(".*", 8, 4.0)), jnp.ones((2, 64)), QwixLinear.__call__
    found = certify(of_qwix(model, [Rule("first|second", 8, 4.0)], x))
    assert found.holds, found.contradictions
    assert [(y.layer, round(y.s, 6)) for y in found.layers] == [("first", 0.5), ("second", 0.5)]
    assert QwixLinear.__call__ is call
    wrong = certify(of_qwix(model, [Rule("second", 8, 4.0), Rule(".*", 8, 32.0)], x))
    assert wrong.contradictions[0] == (
        "layer 'first': s is 0.5, and is said to be α/r = 32/8 = 4: as if it were α/r² (divided by r twice); "
        "1 of 2 layers have the s that is said"
    )


def test_bad_input_for_qwix() -> None:
    model, x = QwixModel(Rule(".*", 8, 4.0)), jnp.ones((2, 64))
    with rejects("framework: qwix keeps α in its rules; give of_qwix(model, rules, *inputs)"):
        certify(model)
    with rejects("rules: none has a module_path that matches 'first'"):
        of_qwix(model, [Rule("third", 8, 4.0)], x)
    with rejects("rules: the rule for 'first' has no alpha"):
        of_qwix(model, [Rule(".*", 8, None)], x)
    with rejects("framework: the factors of 'first' must be matrices"):
        of_qwix(QwixModel(Rule(".*", 8, 4.0), ndim=3), [Rule(".*", 8, 4.0)], x)
    with rejects("framework: has no kernel_lora_a of qwix, got Adapted"):
        of_qwix(Adapted(), [], x)


# A stand-in for a Dense of Keras, as its documentation has it: W = kernel + lora_alpha/lora_rank · a b.


class Variable:
    def __init__(self, value: np.ndarray) -> None:
        self.value = np.asarray(value, np.float32)

    shape = property(lambda self: self.value.shape)

    def assign(self, value: np.ndarray) -> None:
        self.value = np.asarray(value, np.float32)

    def numpy(self) -> np.ndarray:
        return self.value


class Dense:
    __module__ = "keras.src.layers.core.dense"
    lora_enabled, compute_dtype, name = True, "float32", "dense"

    def __init__(self, d_in: int = 64, units: int = 32, rank: int = 8, s: float = 0.5) -> None:
        draws, limit = np.random.default_rng(0), (6 / d_in) ** 0.5
        self.units, self.lora_rank, self.lora_alpha, self.s = units, rank, 4, np.float32(s)
        self._kernel = Variable(draws.standard_normal((d_in, units)) / 8)
        self.lora_kernel_a = Variable(draws.uniform(-limit, limit, (d_in, rank)))
        self.lora_kernel_b = Variable(np.zeros((rank, units)))
        self.activation = np.tanh

    def call(self, x: np.ndarray) -> np.ndarray:
        y = x @ (self._kernel.value + self.s * (self.lora_kernel_a.value @ self.lora_kernel_b.value))
        return y if self.activation is None else self.activation(y)


class Model:
    __module__ = "keras.src.models.functional"

    def __init__(self, *layers: Any) -> None:
        self.layers = layers

    def _flatten_layers(self) -> Any:
        return iter((self, *self.layers))


def test_dense_layers_of_keras_are_asked_before_their_activation() -> None:
    layer = Dense()
    begins = layer.lora_kernel_a.value
    found = certify(Model(layer))
    assert found.holds, found.contradictions
    assert found.layers[0].s == pytest.approx(0.5, rel=1e-6)
    assert layer.activation is np.tanh
    assert np.array_equal(layer.lora_kernel_a.value, begins)
    assert "as if it were α (not divided by r)" in certify(Model(Dense(s=4.0))).contradictions[0]
    assert "does not change with B: s = 0" in certify(Model(Dense(s=0.0))).contradictions[0]


def test_bad_input_for_keras() -> None:
    with rejects("framework: has no layer with LoRA, got Model; layer.enable_lora(rank) first"):
        certify(Model())
    odd = Dense()
    odd.lora_kernel_a = Variable(np.zeros((4, 2, 8)))
    with rejects("framework: 'dense' is a Dense, and only LoRA of a Dense layer is known"):
        of_keras(odd)


# Files


def outputs_of(folder: Path, times: float = 1.0) -> dict[str, Observation]:
    """A linear layer that multiplies by `times` the s that the file says, with the factors of the file."""
    layers, stored = stored_layers(folder)
    draws, found = np.random.default_rng(0), {}
    for name, layer in layers.items():
        x, (A, B) = draws.standard_normal((6, layer.shape[1])), stored[name]
        plain = x @ draws.standard_normal(layer.shape).T
        found[name] = Observation(x, A, B, plain, plain + times * layer.s * (x @ A.T @ B.T))
    return found


def kohya(folder: Path, alpha: float | None, r: int = 4) -> Path:
    draws = np.random.default_rng(1)
    tensors = {
        "lora_unet_mid_to_q.lora_down.weight": draws.uniform(-1, 1, (r, 48)) / 48**0.5,
        "lora_unet_mid_to_q.lora_up.weight": draws.standard_normal((16, r)),
    } | ({} if alpha is None else {"lora_unet_mid_to_q.alpha": np.array(alpha)})
    folder.mkdir()
    data = {k: np.asarray(x, np.float32) for k, x in tensors.items()}
    save_file(data, folder / "pytorch_lora_weights.safetensors", metadata={"ss_network_module": "networks.lora"})
    return folder


@pytest.mark.parametrize(("alpha", "s"), [(2.0, 0.5), (0.0, 1.0), (None, 1.0)])
def test_kohya_and_diffusers_files_say_their_s(tmp_path: Path, alpha: float | None, s: float) -> None:
    """α of a tensor over r; kohya takes 0 as r, diffusers a missing one as s = 1. Read as 0 it is a contradiction."""
    folder = kohya(tmp_path / "a", alpha)
    layers, _ = stored_layers(folder)
    assert layers["lora_unet_mid_to_q"].s == s
    assert layers["lora_unet_mid_to_q"].sigma_a == pytest.approx((3 * 48) ** -0.5)
    assert certify_outputs("kohya", layers, outputs_of(folder)).holds
    (line,) = certify_outputs("kohya", layers, outputs_of(folder, 0.0)).contradictions
    assert line.startswith("layer 'lora_unet_mid_to_q': its output does not change with B: s = 0")


def test_peft_files_say_their_s_and_their_start(tmp_path: Path) -> None:
    tensors = {k: x * ("lora_A" in k) for k, x in factors({"q_proj": (8, 256)}).items()}
    folder = adapter(tmp_path / "a", tensors, use_rslora=True, alpha_pattern={"q_proj": 6})
    layers, start = stored_layers(folder)
    assert layers["q_proj"][1:] == (4, 6.0, True, pytest.approx(768**-0.5), True, "", "")
    draws = np.random.default_rng(0)
    B = {"q_proj": Factors(start["q_proj"].A, draws.standard_normal((8, 4)))}
    x = draws.standard_normal((5, 256))
    right = {"q_proj": Observation(x, *B["q_proj"], np.zeros((5, 8)), 3.0 * x @ B["q_proj"].A.T @ B["q_proj"].B.T)}
    assert certify_outputs("PEFT", layers, right, start).holds
    assert "B is not 0 at the start" in certify_outputs("PEFT", layers, right, B).contradictions[0]


@pytest.mark.parametrize("init", [False, "pissa"])
def test_B_that_the_settings_do_not_set_to_0(tmp_path: Path, init: Any) -> None:
    layers, start = stored_layers(adapter(tmp_path / "a", init_lora_weights=init))
    assert not any(layer.b_is_zero for layer in layers.values())
    assert certify_outputs("PEFT", layers, outputs_of(tmp_path / "a"), start).holds


def test_files_of_another_map_are_refused(tmp_path: Path) -> None:
    with rejects("use_dora: is set, and DoRA is not y = W₀x + s·BAx"):
        stored_layers(adapter(tmp_path / "a", use_dora=True))
    names = ("base_model.model.wte.lora_embedding_A", "base_model.model.wte.lora_embedding_B")
    with rejects("folder: 'wte' is an embedding"):
        stored_layers(adapter(tmp_path / "b", dict(zip(names, (np.zeros((4, 9)), np.ones((3, 4))), strict=True))))


# The real PEFT, where it is installed.


def peft_model(settings: dict[str, Any]) -> Any:
    torch, peft = peers()
    torch.manual_seed(0)
    config = peft.LoraConfig(**{"r": 8, "lora_alpha": 4, "target_modules": ["up", "down"]} | settings)
    return peft.get_peft_model(torch_model({"up": (32, 64), "down": (64, 32)}, bias=True), config)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"init_lora_weights": "pissa"}], ids=str
)
def test_peft_conforms(settings: dict[str, Any], tmp_path: Path) -> None:
    model = peft_model(settings)
    found = certify(model)
    assert found.holds, found.contradictions
    assert [x.dtype for x in found.layers] == [("float32",)] * 2
    for module in (model.base_model.model.up, model.base_model.model.down):
        module.lora_B["default"].weight.data.normal_()
    model.save_pretrained(tmp_path)
    assert certify(of_peft(model, trained=True), saved=tmp_path).holds


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("autocast", [True, False])
def test_peft_over_a_base_of_half_the_digits(autocast: bool) -> None:
    """A and B in float32 over bfloat16, as PEFT makes them, or all in bfloat16: the output has the fewer digits."""
    torch, peft = peers()
    base = torch_model({"up": (32, 64), "down": (64, 32)}, bias=True).to(torch.bfloat16)
    config = peft.LoraConfig(r=8, lora_alpha=4, target_modules=["up", "down"])
    found = certify(peft.get_peft_model(base, config, autocast_adapter_dtype=autocast))
    assert found.holds, found.contradictions
    assert [(x.said.dtype, x.dtype) for x in found.layers] == [("bfloat16", ("bfloat16",))] * 2
    with rejects("sigma_a: must not be given, got 0.1: the settings of PEFT say it themselves"):
        certify(peft_model({}), sigma_a=0.1)


@pytest.mark.filterwarnings("ignore")
def test_bad_input_for_peft() -> None:
    with rejects("forward: is not deterministic", "is dropout on?"):
        certify(peft_model({"lora_dropout": 0.1}))
    assert certify(peft_model({"lora_dropout": 0.1}).eval()).holds
    merged = peft_model({})
    merged.merge_adapter()
    with rejects("framework: the adapters of 'up' are merged already"):
        certify(merged)
    with rejects("use_dora: is set"):
        certify(peft_model({"use_dora": True}))
