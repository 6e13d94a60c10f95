"""Bytes: the compiler's prediction for one call, and the measured peak of a block of code."""

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from typing import Any

import jax

_KINDS = {
    'arguments': 'argument_size_in_bytes',
    'outputs': 'output_size_in_bytes',
    'aliases': 'alias_size_in_bytes',
    'temporaries': 'temp_size_in_bytes',
    'generated_code': 'generated_code_size_in_bytes',
}


def memory(fn: Any, *args: Any) -> dict[str, int]:
    """Bytes of one call by kind, from the compiler's analysis. Nothing is computed.

    `total` is arguments + outputs - aliases + temporaries, an alias being an output in the memory of a donated argument.
    The compiler's own peak is not used: on CPU it is only the arguments. The analysis omits scratch memory of
    library kernels, and the growth of a process has been measured at 1.4 to 1.7 times the predicted temporaries.

    Args:
      fn: a function, jitted or not; or what `.lower(...)` or `.compile()` of it returned, then without args.
      args: its arguments; arrays may be `jax.ShapeDtypeStruct`.

    Raises:
      NotImplementedError: the backend offers no analysis.
    """
    compiled = _compile(fn, args)
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise NotImplementedError(f'{jax.default_backend()} offers no memory analysis; use peak_memory().')
    kinds = {kind: int(getattr(analysis, attribute)) for kind, attribute in _KINDS.items()}
    kinds['total'] = kinds['arguments'] + kinds['outputs'] - kinds['aliases'] + kinds['temporaries']
    return kinds


def _compile(fn: Any, args: tuple[Any, ...]) -> Any:
    if hasattr(fn, 'memory_analysis'):
        return fn
    if not hasattr(fn, 'compile'):
        fn = (fn if hasattr(fn, 'lower') else jax.jit(fn)).lower(*args)
    return fn.compile()


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, Any]]:
    """Measures the highest use of memory while the block runs; block on the results inside it.

    Yields a dict that is filled when the block ends:
      bytes: the peak: on CPU the resident memory of the whole process, on accelerators that of the fullest local device by
        its own account; None where it keeps none.
      before: what was in use when the block began, in the same terms.
      since: 'block' or 'process'. Accelerators, and other systems than Linux, cannot reset their peak: there it is the
        block's where it is the highest since the process started, and else not known.
    """
    peak: dict[str, Any] = {}
    on_cpu = jax.default_backend() == 'cpu'
    own = on_cpu and _reset_resident_peak()
    before, highest = _in_use(on_cpu)
    yield peak
    _, reached = _in_use(on_cpu)
    risen = reached is not None and reached > highest
    peak.update(bytes=reached, before=before, since='block' if own or risen else 'process')


def held(tree: Any) -> int:
    """Bytes of memory that arrays hold, in the terms of `peak_memory`: of all local devices on CPU, else of the fullest."""
    by_device: dict[jax.Device, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            by_device[shard.device] = by_device.get(shard.device, 0) + shard.data.nbytes
    return (sum if jax.default_backend() == 'cpu' else max)(by_device.values())


def _in_use(on_cpu: bool) -> tuple[int | None, int | None]:
    """Bytes in use now, and at the highest since the process started or its peak was reset."""
    if on_cpu:
        return _status('VmRSS'), _resident_peak()
    return _on_devices('bytes_in_use'), _on_devices('peak_bytes_in_use')


def _reset_resident_peak() -> bool:
    gc.collect()
    try:
        # What the allocator keeps for later counts as resident, and would hide as much of the block's own use.
        ctypes.CDLL('libc.so.6').malloc_trim(0)
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')
    except (OSError, AttributeError):
        return False
    return True


def _status(key: str) -> int | None:
    """An entry of /proc/self/status in bytes; None if there is none."""
    try:
        with open('/proc/self/status') as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f'{key}:')), None)
    except OSError:
        return None


def _resident_peak() -> int:
    unit = 1 if sys.platform == 'darwin' else 1024
    return _status('VmHWM') or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _on_devices(key: str) -> int | None:
    """Bytes of the fullest local device; None if the allocator keeps no account."""
    accounts = [device.memory_stats() for device in jax.local_devices()]
    return max(account[key] for account in accounts) if all(accounts) else None
