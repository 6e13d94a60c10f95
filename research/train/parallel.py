"""Two engines with one signature and the same numbers: jit over a mesh, and pmap.

A program is written once, for the whole batch, with three hooks: `rows` takes index rows to the device that works on them,
`total` adds over devices what was summed per device, `whole` brings rows back together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research import catalogue

AXIS = 'data'

# One program for a whole tree: one a leaf took 57 MiB and a second for the 90 shapes of MobileNetV2.
_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
_first = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree))


class Jit:
    """jit over a one-axis mesh: the batch is sharded, statistics and gradients are global because the program says so."""

    axis_name = None  # norm layers see the whole batch

    def __init__(self, devices: list[jax.Device]):
        self.devices = devices
        self._mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
        self._everywhere = NamedSharding(self._mesh, PartitionSpec())

    def rows(self, x: jax.Array, axis: int = 0) -> jax.Array:
        """[B, ...] -> the same, sharded over the devices; rows are along `axis`."""
        if len(self.devices) == 1:
            return x
        spec = PartitionSpec(*[None] * (axis % x.ndim), AXIS)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self._mesh, spec))

    reference_rows = rows

    def total(self, tree: Any) -> Any:
        """Sums are global already."""
        return tree

    def whole(self, x: jax.Array, axis: int = 0) -> jax.Array:
        """Rows are whole already."""
        del axis
        return x

    def replicate(self, tree: Any, may_alias: bool = False) -> Any:
        """Host arrays -> arrays on every device, which with `may_alias` may use the host's memory: it must not change."""
        return jax.tree.map(lambda x: jax.device_put(x, self._everywhere, may_alias=may_alias or None), tree)

    def shaped(self, tree: Any) -> Any:
        """Shapes on one device -> as `replicate` would give them."""
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=self._everywhere), tree)

    def host(self, tree: Any) -> Any:
        """Device arrays, as one copy that survives donation."""
        return _copy(tree)

    def read(self, tree: Any) -> Any:
        """A program's outputs as NumPy arrays."""
        return jax.device_get(tree)

    def jit(self, function: Callable[..., Any], donate: tuple[int, ...] = ()) -> Any:
        """The function compiled when called or lowered; every argument and result is replicated."""
        return jax.jit(function, donate_argnums=donate, out_shardings=self._everywhere)


class Pmap:
    """pmap: every device runs the program on its own rows; norm layers get the axis, sums are added by psum."""

    axis_name = AXIS

    def __init__(self, devices: list[jax.Device]):
        self.devices = devices

    def rows(self, x: jax.Array, axis: int = 0) -> jax.Array:
        """[B, ...] -> [B/D, ...], the rows of this device; rows are along `axis`."""
        size = x.shape[axis] // len(self.devices)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(AXIS) * size, size, axis)

    def reference_rows(self, x: jax.Array) -> jax.Array:
        """Every device works on the whole reference batch, so that its statistics need no exchange."""
        return x

    def total(self, tree: Any) -> Any:
        """Sums over the rows of every device."""
        return jax.tree.map(lambda x: jax.lax.psum(x, AXIS), tree)

    def whole(self, x: jax.Array, axis: int = 0) -> jax.Array:
        """[B/D, ...] -> [B, ...]; rows are along `axis`."""
        return jax.lax.all_gather(x, AXIS, axis=axis, tiled=True)

    def replicate(self, tree: Any, may_alias: bool = False) -> Any:
        """Host arrays -> [D, ...], one copy a device; `may_alias` as in `Jit`."""
        mesh = jax.make_mesh((len(self.devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
        sharding = NamedSharding(mesh, PartitionSpec(AXIS))

        def spread(x: Any) -> jax.Array:
            copies = [jax.device_put(x[None], device, may_alias=may_alias or None) for device in self.devices]
            return jax.make_array_from_single_device_arrays((len(copies), *x.shape), sharding, copies)

        return jax.tree.map(spread, tree)

    def shaped(self, tree: Any) -> Any:
        """Shapes on one device -> as `replicate` would give them."""
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct((len(self.devices), *s.shape), s.dtype), tree)

    def host(self, tree: Any) -> Any:
        """The first device's copy."""
        return _first(jax.tree.map(lambda x: x.addressable_data(0), tree))

    def read(self, tree: Any) -> Any:
        """A program's outputs as NumPy arrays, the first device's."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], tree)

    def jit(self, function: Callable[..., Any], donate: tuple[int, ...] = ()) -> Any:
        """The function compiled when called or lowered; every argument and result has a leading device axis."""
        return jax.pmap(function, axis_name=AXIS, devices=self.devices, donate_argnums=donate)


ENGINES = {'jit': 'research.train.parallel:Jit', 'pmap': 'research.train.parallel:Pmap'}


def create(name: str, count: int) -> Jit | Pmap:
    """The engine `name` over the first `count` devices (0: all).

    Raises:
      ConfigError: unknown engine, more devices than there are.
    """
    devices = jax.devices()
    if count > len(devices):
        raise catalogue.ConfigError(f"'train.devices' is {count}, but jax sees {len(devices)}; lower it, or 0 takes all.")
    return catalogue.resolve('engine', name, ENGINES)(devices[: count or len(devices)])


def check_shares(engine: Jit | Pmap, size: int) -> None:
    """Raises ConfigError: under pmap a (micro-)batch that the devices cannot share evenly."""
    count = len(engine.devices)
    if isinstance(engine, Pmap) and size % count:
        raise catalogue.ConfigError(
            f"Under pmap {count} devices share a batch evenly, but it has {size} examples: use a multiple, or 'jit'."
        )
