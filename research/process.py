"""Settings of the whole process, made once, when `research` is imported.

XLA reads its flags when the first backend starts, so after `import jax` is early enough, after the first array is not.
"""

import ctypes
import importlib.metadata
import os
import sys
import warnings

# jaxlib hands channels-last convolutions on CPU to YNNPACK, whose weight gradients are several times slower than the
# code it replaces (jaxlib 0.10.2; measured by benchmarks/step_rate.py). An unknown flag aborts the process, so it is
# set only for versions that it was tried with; others are warned of.
_YNN_FLAG = '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'
_YNN_VERSIONS = ('0.10.2',)

# glibc returns large buffers to the kernel after each call and faults them in again at the next.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _MALLOC_BYTES = -1, -3, 1 << 30


def configure() -> None:
    """Sets XLA's flags and the allocator's thresholds; warns where convolutions on CPU will be slow."""
    if 'xla_cpu_experimental_ynn_fusion_type' not in os.environ.get('XLA_FLAGS', ''):
        _disable_ynn()
    if sys.platform == 'linux':
        try:
            libc = ctypes.CDLL('libc.so.6')
            libc.mallopt(_M_MMAP_THRESHOLD, _MALLOC_BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, _MALLOC_BYTES)
        except OSError:
            pass  # not glibc: its allocator has other habits


def _disable_ynn() -> None:
    if (version := importlib.metadata.version('jaxlib')) not in _YNN_VERSIONS:
        message = (
            f'jaxlib {version} was not tried with {_YNN_FLAG}, without which convolutions on CPU may be slow. Set it in '
            f'XLA_FLAGS if this jaxlib knows it (an unknown flag ends the process), or install jaxlib {_YNN_VERSIONS[-1]}.'
        )
    elif _backend_is_up():
        message = (
            'research was imported after jax started a backend: XLA_FLAGS cannot be set any more, and '
            'convolutions on CPU will be slow. Import research first.'
        )
    else:
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_YNN_FLAG}'.strip()
        return
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _backend_is_up() -> bool:
    bridge = sys.modules.get('jax._src.xla_bridge')
    return bridge is not None and bridge.backends_are_initialized()
