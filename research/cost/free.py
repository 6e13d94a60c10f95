"""Bytes that are still free: on a device, or where devices are the host's own, in its memory and its control group."""

import contextlib
import pathlib

import jax

_PROC, _GROUPS = pathlib.Path('/proc'), pathlib.Path('/sys/fs/cgroup')
# Files of a memory controller, versions 2 and 1: limit, use, and the cached files among what is used, which it can drop.
_FILES = (
    ('memory.max', 'memory.current', ('active_file', 'inactive_file')),
    ('memory.limit_in_bytes', 'memory.usage_in_bytes', ('total_active_file', 'total_inactive_file')),
)


def room(device: jax.Device) -> int | None:
    """Bytes that new arrays on a device may take; None where the system keeps no account."""
    if device.platform == 'cpu':
        return min((free for free in (_available(), *_groups()) if free is not None), default=None)
    stats = device.memory_stats()
    return stats['bytes_limit'] - stats['bytes_in_use'] if stats else None


def _available() -> int | None:
    with contextlib.suppress(OSError):
        for line in (_PROC / 'meminfo').read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return None


def _groups() -> list[int]:
    """What each control group around this process leaves it."""
    left = []
    with contextlib.suppress(OSError):
        for line in (_PROC / 'self' / 'cgroup').read_text().splitlines():
            _, controllers, path = line.split(':', 2)
            if controllers not in ('', 'memory'):
                continue
            folder = _GROUPS / controllers / path.lstrip('/')
            for group in (folder, *folder.parents):
                left += [free for files in _FILES if (free := _left(group, *files)) is not None]
    return left


def _left(group: pathlib.Path, limit: str, used: str, cached: tuple[str, ...]) -> int | None:
    try:
        most, now = int((group / limit).read_text()), int((group / used).read_text())
        stat = dict(line.split() for line in (group / 'memory.stat').read_text().splitlines())
    except (OSError, ValueError):  # no such group, or 'max'
        return None
    return most - now + sum(int(stat.get(name, 0)) for name in cached)
