"""The code that a run executes: the static import closure of its modules, compared as syntax trees.

What other code a process has imported does not matter, nor do files that nothing imports, comments and docstrings.
"""

import ast
import functools
import hashlib
import importlib
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORT_PATH = re.compile(r'[A-Za-z_][\w.]*:[A-Za-z_][\w.]*')


def package(start: Iterable[str], names: Iterable[str], folder: pathlib.Path) -> dict[str, str]:
    """The modules of this package that a run executes: file -> 8 hexadecimal digits over its syntax tree.

    Catalogues import by name when asked: an entry counts if its name stands in the config, or is a default in code that counts.

    Args:
      start: modules that every run executes.
      names: texts in the run's config.
      folder: that the package lies in.
    """
    names, known, todo = set(names), {}, set(start)
    while todo:
        found = _closure(todo, folder, 'research')
        known |= found
        names = names.union(*(_read(path, path.stat().st_mtime_ns).names for path in found.values()))
        catalogues = [module for module, path in known.items() if _read(path, path.stat().st_mtime_ns).catalogue]
        entries = {entry.partition(':')[0] for module in catalogues for key, entry in _entries(module) if key in names}
        # Of this package alone: an installed one has the libraries of its catalogues beside it, in the same folder.
        todo = {m for m in entries if m.startswith('research.') and m not in known and _file(m, folder) is not None}
    return _digests(known.values(), folder)


def fork(modules: Iterable[str]) -> dict[str, str]:
    """The same of modules of the user's own, with what these import from their package, or from their folder if in none."""
    digests: dict[str, str] = {}
    for name in modules:
        top = name.partition('.')[0]
        module, outer = sys.modules.get(name), sys.modules.get(top)
        if module is None or not getattr(module, '__file__', None):
            continue
        packaged = hasattr(outer, '__path__')
        folder = pathlib.Path(next(iter(outer.__path__)) if packaged else module.__file__).parent
        digests |= _digests(_closure({name}, folder, top if packaged else '').values(), folder)
    return digests


def _closure(start: Iterable[str], folder: pathlib.Path, top: str) -> dict[str, pathlib.Path]:
    """Modules under `folder`, in the package `top` unless it is '', that these import, themselves included -> their files."""
    todo, found = list(start), {}
    while todo:
        name = todo.pop()
        path = _file(name, folder)
        if name in found or path is None or top not in ('', name.partition('.')[0]):
            continue
        found[name] = path
        inside = name if path.name == '__init__.py' else name.rpartition('.')[0]
        for level, module, members in _read(path, path.stat().st_mtime_ns).imports:
            base = '.'.join(inside.split('.')[: len(inside.split('.')) - level + 1]) if level else ''
            whole = '.'.join(filter(None, (base, module)))
            todo += [*_parents(whole), *(f'{whole}.{member}' for member in members)]
        todo += _parents(name)
    return found


def _parents(name: str) -> list[str]:
    parts = name.split('.')
    return ['.'.join(parts[: i + 1]) for i in range(len(parts))]


def _file(name: str, folder: pathlib.Path) -> pathlib.Path | None:
    path = folder.joinpath(*name.split('.'))
    return next((p for p in (path / '__init__.py', path.with_name(f'{path.name}.py')) if p.is_file()), None)


def _entries(module: str) -> Iterator[tuple[str, str]]:
    """The entries of the catalogues in a module: name -> 'module:attribute'."""
    for value in list(vars(importlib.import_module(module)).values()):
        if isinstance(value, dict):
            yield from (
                (k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, str) and _IMPORT_PATH.fullmatch(v)
            )


class _Code(NamedTuple):
    """What a file says: a digest of its syntax tree, imports as (level, module, members), texts that are defaults, and whether
    it names modules of this package in texts."""

    digest: str
    imports: list[tuple[int, str, list[str]]]
    names: set[str]
    catalogue: bool


@functools.cache
def _read(path: pathlib.Path, changed: int) -> _Code:
    """The content of a file that was last `changed` then."""
    del changed
    tree, imports, names, catalogue = ast.parse(path.read_bytes()), [], set(), False
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or '', [alias.name for alias in node.names]))
        defaults = [*node.defaults, *node.kw_defaults] if isinstance(node, ast.arguments) else []
        defaults += [node.value] if isinstance(node, ast.keyword | ast.AnnAssign) else []
        text = node.value if isinstance(node, ast.Constant) else None
        catalogue = catalogue or isinstance(text, str) and text.startswith('research.')
        names |= {d.value for d in defaults if isinstance(d, ast.Constant) and isinstance(d.value, str)}
    return _Code(hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:8], imports, names, catalogue)


def _digests(files: Iterable[pathlib.Path], folder: pathlib.Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): _read(path, path.stat().st_mtime_ns).digest for path in sorted(files)}
