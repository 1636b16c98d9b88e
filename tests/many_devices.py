"""Computes what the tests of sharding compare, as a program of its own: on four devices, or on two processes.

python tests/many_devices.py NUMBERS.npz [ADDRESS PROCESSES PROCESS]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial

import signal_drift as sd
from signal_drift.operators.mesh import map_rows, mesh_axis

SCALING, RATE, STEPS = 0.6, 0.1, 5
V = np.random.default_rng(3).standard_normal((44, 6))  # a block of 6 vectors, which 4 does not divide


def mlp_loss(X, Y, weights):
    *hidden, last = sorted(weights)
    for layer in hidden:
        X = jax.nn.silu(X @ weights[layer].T)
    return jnp.mean((X @ weights[last].T - Y) ** 2)


def problem():
    """(X, Y), base and adapters of an MLP: 8 samples, D = 41, which 2 and 4 do not divide, and p = 44."""
    rng = np.random.default_rng(11)
    data, base, adapters = (rng.standard_normal((8, 4)), rng.standard_normal((8, 2))), {}, {}
    for layer, (d_out, d_in) in {"a": (5, 4), "b": (3, 5), "c": (2, 3)}.items():
        base[layer] = jnp.asarray(rng.standard_normal((d_out, d_in)) / np.sqrt(d_in))
        A, B = rng.standard_normal((2, d_in)), 0.5 * rng.standard_normal((d_out, 2))
        adapters[layer] = sd.Adapter(jnp.asarray(A), jnp.asarray(B))
    return data, base, adapters


def loss_of(data):
    return Partial(mlp_loss, *map(jnp.asarray, data))


def parts_of(data, base, adapters):
    return sd.decompose(loss_of(data), base, adapters, SCALING)


def from_columns(parts):
    """Whatever takes its columns from several devices."""
    return {
        **{name: getattr(parts, name).dense() for name in ("jacobian", "task")},
        "diagonal": parts.task.diagonal(),
        "block": parts.lora @ jnp.asarray(V),
        "eigenvalues": sd.eigenvalues(parts.task),
    }


def from_batch(data, base, adapters):
    """Use a loss of sharded data for what it is for: an operator, its extremes, training."""
    lora = parts_of(data, base, adapters).lora
    run = sd.train(loss_of(data), base, adapters, SCALING, optax.sgd(RATE), STEPS)
    ends = sd.extreme_eigenvalues(lora, k=2, which="both")
    return {
        "lora": lora.dense(),
        "extremes": ends.values,
        "residuals": ends.residuals,
        "loss": run.loss,
        "signal norm": run.signal_norm,
    }


def check_shares(data, base, mesh, H):
    """Every device has its own columns and its own samples, and a gradient is a sum over devices."""
    shares, place = [], mesh_axis(mesh, "columns")
    jax.eval_shape(
        lambda rows: map_rows(place, lambda _, mine: shares.append(mine.shape) or mine, (), rows), jnp.arange(41)
    )
    assert shares == [(21,)]
    assert [shard.data.shape for shard in H.addressable_shards] == [(22, 44)] * 4
    X, Y = sd.shard_data(data, mesh, "batch")
    assert [shard.data.shape for shard in X.addressable_shards] == [(4, 4)] * 4
    gradient = jax.jit(jax.grad(lambda weights, X, Y: mlp_loss(X, Y, weights))).lower(base, X, Y).compile().as_text()
    assert "all-reduce" in str(gradient)


def main(out, address="", processes="1", process="0"):
    jax.config.update("jax_enable_x64", True)
    if address:
        jax.distributed.initialize(address, int(processes), int(process))
    devices = np.array(jax.devices())
    assert len(devices) == 4
    grid = Mesh(devices.reshape(2, 2), ("columns", "batch"))
    line = jax.make_mesh((4,), ("all",))  # its axis is explicit, of which a loss knows nothing
    data, base, adapters = problem()
    columns = from_columns(sd.shard_columns(parts_of(data, base, adapters), line))
    batch = from_batch(sd.shard_data(data, line), base, adapters)
    both = sd.shard_columns(parts_of(sd.shard_data(data, grid, "batch"), base, adapters).lora, grid, "columns").dense()
    if not address:
        check_shares(data, base, grid, both)
    results = {"columns": columns, "batch": batch, "both": {"lora": both}}
    flat = {f"{how} {name}": np.asarray(x) for how, values in results.items() for name, x in values.items()}
    if jax.process_index() == 0:
        np.savez(out, allow_pickle=False, **flat)


if __name__ == "__main__":
    main(*sys.argv[1:])
