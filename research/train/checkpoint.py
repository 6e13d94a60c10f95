"""Checkpoints through orbax, written while training goes on; and the variables that a finished run was scored with."""

import contextlib
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import absl.logging
import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from research.pretrained import runs


class Checkpoints:
    """The checkpoints of one run: the whole training state, and what the loop needs to go on (`meta`, plain JSON).

    The newest two are kept. A kill during a save leaves an unfinished folder that orbax ignores. A checkpoint that cannot be
    read is kept aside, in `checkpoints.unreadable`, and the one before it is taken. Errors of a save in the background are
    raised by the next save or by `close`.

    Raises:
      OSError: from `save` and `close`, when the disk is full and the like.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._manager: ocp.CheckpointManager | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:  # a short run that saves nothing does without its threads
            absl.logging.set_verbosity(absl.logging.FATAL)  # orbax logs an error six times, and then raises it
            options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True, cleanup_tmp_directories=True)
            self._manager = ocp.CheckpointManager(self._directory, options=options, item_names=('state', 'meta'))
        return self._manager

    def save(self, step: int, state: Any, meta: dict[str, Any], wait: bool = False) -> None:
        """Saves in the background; the arrays of `state` must stay untouched. `wait` returns when it is on disk."""
        manager = self._open()
        if manager.latest_step() == step:
            return  # a kill came right after it; the state is the same, bit for bit
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with _system_errors(self._directory):
            manager.save(step, args=args, force=True)
            if wait:
                manager.wait_until_finished()

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest complete checkpoint as (state, meta), or None.

        Args:
          like: a tree of arrays or shapes as the state has them.
        """
        here = SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
        while self._directory.exists() and (step := self._open().latest_step()) is not None:
            try:
                restored = self._open().restore(step, args=args)
                return restored['state'], restored['meta']
            except Exception as error:  # whatever orbax and its storage make of a torn file
                self._keep_aside(step, error)
        return None

    def _keep_aside(self, step: int, error: Exception) -> None:
        self.close()
        bad, aside = self._directory / str(step), self._directory.with_name(f'{self._directory.name}.unreadable')
        aside.mkdir(exist_ok=True)
        kept = next(path for i in itertools.count(1) if not (path := aside / f'{step}-{i}').exists())
        bad.rename(kept)
        why = (str(error).splitlines() or [''])[0]
        print(
            f'{bad} cannot be read ({type(error).__name__}: {why:.200}); kept as {kept}. The run goes on from the checkpoint '
            'before it, or else from its start.'
        )

    def close(self) -> None:
        """Waits for what is being written, and raises its errors."""
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with _system_errors(self._directory):
                manager.close()


@contextlib.contextmanager
def _system_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns what orbax's storage raises back into the system's error that it was."""
    try:
        yield
    except ValueError as error:
        if match := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from error
        raise


def remove(directory: pathlib.Path) -> None:
    """Deletes all checkpoints of a run, if it has any; a kill meanwhile leaves no half one that would be restored."""
    aside = directory.with_name(f'.{directory.name}')
    if directory.exists():
        shutil.rmtree(aside, ignore_errors=True)
        directory.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def save_variables(directory: pathlib.Path, variables: Any) -> None:
    """Keeps the variables that a run was scored with, as host arrays: they load on any number of devices."""
    with _system_errors(directory), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory.absolute(), jax.device_get(variables), force=True)


def load_variables(directory: pathlib.Path) -> Any:
    """The variables of `save_variables`, as arrays on the first device; raises as `runs.variables` does."""
    return jax.device_put(runs.variables(directory), jax.local_devices()[0])
