"""Maps rows over the devices along one axis of a `jax.sharding.Mesh`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from signal_drift.errors import InputError
from signal_drift.errors.words import shown


class MeshAxis(NamedTuple):
    """Name the devices along one axis of a mesh."""

    mesh: Mesh
    name: str

    @property
    def size(self) -> int:
        """Count the devices along the axis."""
        return self.mesh.shape[self.name]

    @property
    def first(self) -> NamedSharding:
        """Spread the first axis of an array over these devices, all of it on every device of the other axes."""
        return NamedSharding(self.mesh, PartitionSpec(self.name))

    @property
    def whole(self) -> NamedSharding:
        """Put all of an array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())


def mesh_axis(mesh: Mesh, axis: str | None) -> MeshAxis:
    """Return the axis of that name, or the only one, as XLA takes it: it decides how results are sharded.

    Raises `InputError` for an unknown axis, and for none where there are several.
    """
    if not isinstance(mesh, Mesh):
        raise InputError(f"mesh: must be a jax.sharding.Mesh, as of jax.make_mesh, got {shown(mesh)}")
    names = mesh.axis_names
    name = str(names[0]) if axis is None and len(names) == 1 else axis
    if not isinstance(name, str) or name not in names:
        raise InputError(f"axis: must be one of {names}, got {shown(axis)}")
    return MeshAxis(Mesh(mesh.devices, names), name)


def map_rows(place: MeshAxis | None, f: Callable[[Any, Array], Array], shared: Any, rows: Array) -> Array:
    """Return the rows f(shared, rows), of which every device along the axis computes its own share; f maps row to row.

    Zero rows fill up the last shares, and their images are dropped. The result stays where it was computed, unless
    other processes have a part of it: then all of it is on every device.
    """
    if place is None:
        return f(shared, rows)
    n, shares = len(rows), place.first.spec
    filled = jnp.pad(rows, [(0, -n % place.size)] + [(0, 0)] * (rows.ndim - 1))
    spread = jax.shard_map(
        f,
        mesh=place.mesh,
        in_specs=(PartitionSpec(), shares),
        out_specs=shares,
        axis_names={place.name},
        check_vma=False,  # f may contain a scan of the user's, which starts from a constant
    )
    images = spread(shared, filled)[:n]
    return jax.lax.with_sharding_constraint(images, place.whole) if place.mesh.is_multi_process else images
