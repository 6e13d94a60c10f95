"""Parameters by path: '/'-joined names, and shell patterns over them."""

import fnmatch
from collections.abc import Iterable
from typing import Any

import jax

from research import catalogue


def path_of(path: tuple[Any, ...]) -> str:
    """A key path of jax as text, such as 'block1_conv1/kernel'."""
    return '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path)


def matches(path: tuple[Any, ...], pattern: str) -> bool:
    """Whether a shell pattern matches a key path of jax."""
    return fnmatch.fnmatchcase(path_of(path), pattern)


def reaches(pattern: str, params: Any) -> bool:
    """Whether a shell pattern matches any parameter."""
    return any(matches(path, pattern) for path, _ in jax.tree_util.tree_leaves_with_path(params))


def refuse_unmatched(field: str, patterns: Iterable[str], params: Any) -> None:
    """Raises ConfigError for a pattern of a config's field that matches no parameter, with the nearest path."""
    for pattern in patterns:
        if not reaches(pattern, params):
            near = catalogue.nearest(pattern, (path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)))
            raise catalogue.ConfigError(f"{field}: '{pattern}' matches no parameter.{near}")
