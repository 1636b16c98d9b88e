"""Every kernel that the library launches is lowered for CUDA on a machine without one, and never leaves the device.

`jax.export` refuses a custom call that it does not know to be stable; what is known is listed below, by hand. A float64
number in the program of float32 operands would be computed at a sixty-fourth of the speed on most cards, and a callback
would leave the device at every step.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import Array, export
from jax.sharding import Mesh

import signal_drift as sd
from signal_drift.models import FlowTransformer, TransformerClassifier
from signal_drift.models.llama import Llama, LlamaConfig, continued
from signal_drift.operators import operator
from signal_drift.spectra import basis

SOLVER = {"cusolver_syevd_ffi", "cusolver_geqrf_ffi"}
"""Custom calls of CUDA's own library; nothing else may be called."""
ARRAY_IN_FLOAT64 = r"tensor<\d[^>]*xf64>"
PRECISIONS = ("float32", "float64")
Program = tuple[Callable[..., Any], tuple[Any, ...]]


def parts(dtype: str) -> sd.Decomposition:
    base, forward = sd.base_and_forward(sd.MLP([3, 4, 2], rngs=nnx.Rngs(0)))
    loss = jax.tree_util.Partial(_squared, forward, jnp.ones((5, 3)))
    loss, base = jax.tree.map(lambda x: x.astype(dtype), (loss, base))
    return sd.decompose(loss, base, sd.init_adapters(jax.random.key(2), base, rank=2), 2.0)


def _squared(forward: Any, x: Array, weights: dict[str, Array]) -> Array:
    return jnp.mean(forward(weights, x) ** 2)


def product(name: str, dtype: str) -> Program:
    """A product with an operator, from its point: the linearisation with it."""
    op = getattr(parts(dtype), name)
    return lambda point, v: op.linearise(point)(v), (op.point, jnp.ones(op.shape[1], dtype))


def columns(dtype: str) -> Program:
    return operator._columns, (parts(dtype).task,)


def lower_columns(dtype: str) -> Program:
    return operator._lower_columns, (parts(dtype).task,)


def share_of_columns(dtype: str) -> Program:
    mesh = Mesh(np.array(jax.devices()[:1]), ("all",))
    return operator._columns, (sd.shard_columns(parts(dtype).task, mesh),)


def eigenvalues(dtype: str) -> Program:
    return lambda H: jnp.linalg.eigvalsh(H, symmetrize_input=False), (jnp.eye(6, dtype=dtype),)


def orthogonalisation(dtype: str) -> Program:
    return basis._swept, (jnp.ones((basis.rows_of_block(6), 6), dtype), jnp.ones(6, dtype))


def restart(dtype: str) -> Program:
    blocks = [jnp.ones((basis.rows_of_block(6), 6), dtype)] * 2
    return basis._recombined, (blocks, jnp.ones((2 * basis.rows_of_block(6), basis.rows_of_block(6)), dtype))


def training(dtype: str) -> Program:
    point = parts(dtype).lora.point

    def run(loss: Any, base: Any, adapters: Any) -> Any:
        return sd.train(loss, base, adapters, 2.0, optax.adam(0.01), 3)[:-2]

    return run, (point.loss, point.base, point.adapters)


def of_model(model: nnx.Module, *inputs: Array) -> Program:
    """The gradient of a model's output in its adapted weights, attention and all."""
    base, forward = sd.base_and_forward(model)
    return jax.grad(lambda weights, *x: jnp.sum(forward(weights, *x) ** 2)), (base, *inputs)


def transformer(dtype: str) -> Program:
    model = TransformerClassifier(8, 3, tokens=4, width=8, heads=2, blocks=1, rngs=nnx.Rngs(0), dtype=dtype)
    return of_model(model, jnp.ones((2, 8), dtype))


def flow(dtype: str) -> Program:
    model = FlowTransformer(4, 3, patch=2, width=8, heads=2, blocks=1, rngs=nnx.Rngs(0), dtype=dtype)
    return of_model(model, jnp.ones((2, 16), dtype), jnp.ones(2, dtype), jnp.ones(2, int))


CONFIG = LlamaConfig(11, 8, 12, 1, num_attention_heads=2, num_key_value_heads=1, head_dim=4)


def continuation(dtype: str) -> Program:
    """Two prompts with their keys and values kept, drawn token by token."""
    base, forward = sd.base_and_forward(Llama(CONFIG, rngs=nnx.Rngs(0), dtype=dtype))
    prompts, lengths, key = jnp.ones((2, 3), int), jnp.array([2, 3]), jax.random.key(0)

    def drawn(weights: Any, prompts: Array, lengths: Array) -> Any:
        return continued(forward, CONFIG, weights, prompts, lengths, length=6, end=0, key=key)

    return drawn, (base, prompts, lengths)


def decoder(dtype: str) -> Program:
    return of_model(Llama(CONFIG, rngs=nnx.Rngs(0), dtype=dtype), jnp.ones((2, 4), int))


KERNELS: dict[str, Callable[[str], Program]] = {
    **{f"product with {x}": lambda dtype, x=x: product(x, dtype) for x in sd.Decomposition._fields},
    "dense": columns,
    "dense by symmetry": lower_columns,
    "share of a dense matrix": share_of_columns,
    "eigenvalues": eigenvalues,
    "orthogonalisation": orthogonalisation,
    "restart": restart,
    "training": training,
    "transformer": transformer,
    "flow transformer": flow,
    "decoder": decoder,
    "continuation": continuation,
}


def lowered(program: Program) -> export.Exported:
    function, arguments = program
    leaves, tree = jax.tree.flatten(arguments)

    def of_leaves(*leaves: Array) -> Any:
        return jax.tree.leaves(function(*tree.unflatten(leaves)))

    known = [export.DisabledSafetyCheck.custom_call(name) for name in SOLVER]
    return export.export(jax.jit(of_leaves), platforms=("cuda",), disabled_checks=known)(*leaves)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_is_lowered_for_cuda(name: str, dtype: str) -> None:
    text = lowered(KERNELS[name](dtype)).mlir_module()
    assert "callback" not in text
    assert bool(re.search(ARRAY_IN_FLOAT64, text)) == (dtype == "float64")


def test_a_callback_and_an_array_in_float64_would_be_noticed() -> None:
    """Constants of Python are scalars in float64 and no arrays: the compiler folds them."""

    def called(x: Array) -> Array:
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(ValueError, match="lowering platform cuda"):
        lowered((called, (jnp.ones(3),)))
    halved = lowered((lambda x: (x * np.float64(0.5) * np.ones(3)).astype("float32"), (jnp.ones(3, "float32"),)))
    assert re.search(ARRAY_IN_FLOAT64, halved.mlir_module())
    assert not re.search(ARRAY_IN_FLOAT64, lowered((lambda x: x / 3, (jnp.ones(3, "float32"),))).mlir_module())
