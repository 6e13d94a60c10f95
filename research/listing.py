"""`frugal list`: what a config may name, read from the catalogues' own source, so that nothing heavy is imported first."""

import ast
import importlib
import inspect
import io
import pathlib
import re
import shutil
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from research.catalogue import ConfigError, nearest
from research.config import base, examples

_PACKAGE = pathlib.Path(__file__).parent
_WIDEST = 100  # columns, in which a line is still read at a glance


class Item(NamedTuple):
    """What is listed: its names, what it is in a line, where to read, and its lines in a config."""

    names: tuple[str, ...]
    line: str
    where: str
    settings: tuple[str, ...] = ()


def text(kind: str = '', part: str = '') -> str:
    """What `frugal list KIND PART` prints.

    Args:
      kind: of `KINDS`; '' lists the kinds.
      part: of a name; of the fields, a group or a field.

    Raises:
      ConfigError: no such kind, or nothing with such a name.
    """
    if not kind:
        items = [Item((name,), line, '') for name, (line, _) in KINDS.items()]
        return _printed(items, 'frugal list KIND prints one of these, frugal list KIND NAME what has NAME in its name:')
    if kind not in KINDS:
        raise ConfigError(f"Nothing is listed under '{kind}'.{nearest(kind, KINDS)}")
    line, listed = KINDS[kind]
    found = list(listed())
    items = [item for item in found if _asked(kind, part, item)]
    if not items:
        names = {name.partition('.')[0] if kind == 'fields' else name for item in found for name in item.names}
        raise ConfigError(f"No {kind} with '{part}' in the name.{nearest(part, names)}")
    return _printed(items, f'{line[:1].upper()}{line[1:]}')


def _asked(kind: str, part: str, item: Item) -> bool:
    if kind != 'fields':
        return any(part in name for name in item.names)
    return not part or any(f'{name}.'.startswith(f'{part}.') or f'{name} '.startswith(f'{part} =') for name in item.names)


def _printed(items: Sequence[Item], head: str) -> str:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    lines = [*textwrap.wrap(head, width), '']
    for item in items:
        names = textwrap.wrap(', '.join(item.names), width, break_long_words=False, break_on_hyphens=False)
        apart = len(names[-1]) + 2 + len(item.where) > width
        lines += [*names, f'    {item.where}'] if apart else [*names[:-1], f'{names[-1]:<24}  {item.where}'.rstrip()]
        for paragraph in (item.line, *item.settings):
            lines += textwrap.wrap(paragraph, width, initial_indent='    ', subsequent_indent='    ', break_on_hyphens=False)
    if any(item.where for item in items):
        lines += ['', f'Files are in {_PACKAGE.parent}.']
    return '\n'.join(lines)


def _catalogue(file: str, *names: str) -> Callable[[], Iterator[Item]]:
    """The entries 'module:attribute' of a file's values of these names; those with the same line are one item."""

    def items() -> Iterator[Item]:
        values: dict[str, Any] = {}
        for node in _tree(_PACKAGE / file).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names:
                exec(compile(ast.Module([node], []), file, 'exec'), values)  # literals, and comprehensions over them
        for entries in ({k: v for k, v in values[name].items() if isinstance(v, str)} for name in names):
            yield from _entries(entries)

    return items


def _layers() -> Iterator[Item]:
    for kind, catalogue in (('norm', 'NORMS'), ('conv', 'CONVS'), ('activation', 'ACTIVATIONS')):
        for item in _catalogue(f'layers/{kind}.py', catalogue)():
            yield item._replace(names=tuple(f'{kind} {name}' for name in item.names))


def _optimizers() -> Iterator[Item]:
    from research.optim import optimizers

    refused = f'{optimizers.__name__}:{optimizers.asks_for_more.__name__}'
    return _entries({name: target for name, target in optimizers.entries().items() if target != refused})


def _entries(entries: Mapping[str, str]) -> Iterator[Item]:
    merged: dict[tuple[str, str], list[str]] = {}
    files = [target.partition(':')[0] for target in entries.values()]
    for name, target in entries.items():
        module, _, attribute = target.partition(':')
        own = attribute.lower() == name or files.count(module) > 1
        merged.setdefault(_told(module, attribute, own), []).append(name)
    return (Item(tuple(names), *told) for told, names in merged.items())


def _told(module: str, attribute: str, own: bool) -> tuple[str, str]:
    """(a line about an entry, where to read): of its own docstring if it has one and is asked for it, else of its file's."""
    if not module.startswith(f'{_PACKAGE.name}.'):
        return _first(inspect.getdoc(getattr(importlib.import_module(module), attribute))), f'{module}.{attribute}'
    place = _PACKAGE.joinpath(*module.split('.')[1:])
    path = place / '__init__.py' if place.is_dir() else place.with_suffix('.py')
    tree = _tree(path)
    node = next((node for node in tree.body if getattr(node, 'name', None) == attribute), None)
    if own and node is not None and (line := ast.get_docstring(node)):
        return _first(line), f'{_where(path)}:{node.lineno}'
    return _first(ast.get_docstring(tree)), _where(path)


def _techniques() -> Iterator[Item]:
    """Every file whose docstring is a card: it says which lines of a config turn it on."""
    for path in sorted(_PACKAGE.rglob('*.py')):
        card = ast.get_docstring(_tree(path)) or ''
        if found := re.search(r'\bConfig: .*?(?=\n\n|\Z)', card, re.DOTALL):
            settings = re.findall(r"\{'[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", found[0])
            yield Item((path.stem,), _first(card), _where(path), tuple(' '.join(setting.split()) for setting in settings))


def _studies() -> Iterator[Item]:
    for name, path in examples.paths().items():
        question = (ast.get_docstring(_tree(path)) or '').partition('\n\n')[0]
        yield Item((name,), ' '.join(question.split()), _where(path))


def _fields() -> Iterator[Item]:
    """Every field of research.config.base, with its default as it is written there and the comment in its line."""
    path = pathlib.Path(base.__file__)
    source = path.read_text()
    comments = {
        token.start[0]: token.string.lstrip('# ')
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }

    def walk(prefix: str, group: ast.Dict) -> Iterator[Item]:
        for key, value in zip(group.keys, group.values, strict=True):
            name = f'{prefix}{ast.literal_eval(key)}'
            inner = value.args[0] if isinstance(value, ast.Call) else value
            if isinstance(inner, ast.Dict) and inner.keys:
                yield from walk(f'{name}.', inner)
            else:
                yield Item((f'{name} = {ast.unparse(value)}',), comments.get(key.lineno, ''), '')

    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.args[0], ast.Dict):
            target = ast.unparse(node.targets[0]).partition('.')[2]
            yield from walk(f'{target}.' if target else '', node.value.args[0])


def _first(docstring: str | None) -> str:
    return (docstring or '').partition('\n')[0]


def _where(path: pathlib.Path) -> str:
    return str(path.relative_to(_PACKAGE.parent))


def _tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


# kind -> what it is, and its items.
KINDS: dict[str, tuple[str, Callable[[], Iterable[Item]]]] = {
    'models': (
        'networks: model.name, their arguments beside it, or an import path such as my_paper.nets:Net',
        _catalogue('models/__init__.py', 'FAMILIES', 'MODELS', 'GENERATORS'),
    ),
    'layers': ('layers that every network takes: model.norm.name, model.conv.name, model.activation', _layers),
    'optimizers': ('optimizers: optimizer.name, their arguments beside it; also those of optax', _optimizers),
    'schedules': (
        'learning rates over the run: schedule.name, their arguments beside it',
        _catalogue('optim/schedules.py', 'SCHEDULES'),
    ),
    'techniques': ('what a variant may turn on, and the lines of a config that do it', _techniques),
    'tasks': ('losses and metrics: task.name', _catalogue('tasks/__init__.py', 'TASKS')),
    'data': (
        "data sets: data.name; also any name in TFDS's catalogue, such as mnist, fashion_mnist or cifar10, or an import path "
        'of a function',
        _catalogue('data/sources.py', 'ARRAYS'),
    ),
    'configs': ('studies that come along: --config=NAME', _studies),
    'fields': ('fields of a config: default and meaning; frugal list fields GROUP for one group', _fields),
}
