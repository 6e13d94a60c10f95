"""Parameters by path: '/'-joined names, and shell patterns over them."""

import fnmatch
from collections.abc import Iterable
from typing import Any

import jax

from research import catalogue


def path_of(path: tuple[Any, ...]) -> str:
    """'block1_conv1/kernel' of a key path of jax."""
    return '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path)


def matches(path: tuple[Any, ...], pattern: str) -> bool:
    """Whether a shell pattern takes a key path of jax."""
    return fnmatch.fnmatchcase(path_of(path), pattern)


def refuse_unmatched(field: str, patterns: Iterable[str], params: Any) -> None:
    """Raises ConfigError for a pattern of a config's field that matches no parameter, with the nearest path."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not any(matches(path, pattern) for path in paths):
            near = catalogue.nearest(pattern, map(path_of, paths))
            raise catalogue.ConfigError(f"{field}: '{pattern}' matches no parameter.{near}")
