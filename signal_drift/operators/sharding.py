"""Spreads the columns of an operator and the samples of a data set over the devices of a `jax.sharding.Mesh`.

JAX computes where the data are, so that only they are placed here; the rest follows, on one process or on several.
"""

from dataclasses import replace
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from signal_drift.errors import InputError
from signal_drift.errors.arguments import leaves
from signal_drift.operators.mesh import mesh_axis
from signal_drift.operators.operator import LinearOperator

T = TypeVar("T")


def shard_columns(operators: T, mesh: Mesh, axis: str | None = None) -> T:
    """Let the devices along an axis of the mesh compute the columns of an operator, or of a tuple or dict of them.

    That is those of `op.dense()`, `op.diagonal()` and of `op @ V` for a block V (n, k), any number of them: each device
    takes an equal share, the last one less. They stay there, except that on a mesh of several processes every one
    gets all. `axis` may be left out where the mesh has only one. Raises `InputError` for an unknown axis.
    """
    place = mesh_axis(mesh, axis)

    def spread(op: LinearOperator) -> LinearOperator:
        if not isinstance(op, LinearOperator):
            raise InputError(f"operators: must be operators of a decomposition, got {type(op).__name__}")
        return replace(op, place=place)

    leaves("operators", operators)
    return jax.tree.map(spread, operators, is_leaf=lambda x: isinstance(x, LinearOperator))


def shard_data(data: T, mesh: Mesh, axis: str | None = None) -> T:
    """Divide the samples of a tree of arrays (their first axis) among the devices along an axis of the mesh.

    A loss of these arrays then has its gradients, its Hessian products and its training data-parallel. It must have
    them as arguments of a `jax.tree_util.Partial`: arrays that a function closes over are constants to the compiler.
    On several processes each passes the same data. Raises `InputError` for an unknown axis and for samples that
    cannot be divided equally.
    """
    place = mesh_axis(mesh, axis)
    for path, leaf in leaves("data", data):
        name, samples = f"data{jax.tree_util.keystr(path)}", jnp.shape(leaf)[:1]
        if not samples or samples[0] % place.size:
            what = f"{samples[0]} samples" if samples else "no axis of samples"
            raise InputError(f"{name}: must divide among the {place.size} devices of axis {place.name!r}, got {what}")
    return jax.device_put(data, place.first)
