"""The shape of the house, read from its source: imports go down, nothing heavy comes early, all that is public is explained."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from research.config.overrides import defaults, flatten

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'research').rglob('*.py'))
# A package may import what stands in a lower row; itself; and the modules at the bottom.
ROWS = (
    ('__main__',),
    ('cli',),
    ('study', 'listing'),
    ('report', 'config.signatures'),
    ('train',),
    ('export', 'cost', 'pretrained'),
    ('compress',),
    ('tasks', 'gradients', 'optim'),
    ('models', 'data', 'augment', 'decoding'),
    ('layers',),
    ('config',),
)
BOTTOM = ('catalogue', 'durations', 'files', 'process')
HEIGHT = {package: -row for row, packages in enumerate(ROWS) for package in packages}

every_file = pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))


def imported(tree):
    """Dotted names that a module imports, at any depth of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'line {node.lineno}: a relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def parsed(file):
    return ast.parse(file.read_text())


def package_of(file):
    return file.relative_to(ROOT / 'research').with_suffix('').parts[0]


def place_of(parts):
    """The entry of ROWS that a module belongs to, from the parts of its name below `research`: its own, or its package's."""
    return next((name for name in ('.'.join(parts[:2]), parts[0]) if name in HEIGHT), parts[0])


@every_file
def test_imports_go_down(file):
    own = place_of(file.relative_to(ROOT / 'research').with_suffix('').parts)
    for name in imported(parsed(file)):
        top, *rest = name.split('.')
        assert top != 'configs', f'{name}: a wheel has no such package, and a user may have one'
        if top != 'research' or not rest or rest[0] in BOTTOM or place_of(rest) == own:
            continue
        assert place_of(rest) in HEIGHT, f'{name}: no package of the order in ROWS'
        assert own == '__init__' or own not in BOTTOM and HEIGHT[place_of(rest)] < HEIGHT[own], f'{name} is not below {own}'


@pytest.mark.parametrize('file', sorted((ROOT / 'research/report').glob('*.py')), ids=lambda file: file.name)
def test_a_report_reads_records_alone(file):
    """It takes as long as reading does, on a machine that cannot train."""
    for name in imported(parsed(file)):
        top, *rest = name.split('.')
        assert top not in ('jax', 'flax', 'optax', 'orbax'), name
        assert top != 'research' or place_of(rest) in ('report', 'config', *BOTTOM), name


def test_every_package_has_a_row():
    assert {package_of(file) for file in FILES} <= {*HEIGHT, *BOTTOM, '__init__'}


@every_file
def test_no_tensorflow(file):
    assert not [name for name in imported(parsed(file)) if name.split('.')[0] == 'tensorflow']


def modules_after(statement):
    code = f'import sys\n{statement}\nprint(*sorted({{name.partition(".")[0] for name in sys.modules}}))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_config_is_checked_before_jax_is_imported():
    """A misspelt key is answered at once."""
    loaded = modules_after('import research.study.launch, research.config.overrides')
    assert 'research' in loaded
    assert not {'jax', 'flax', 'optax', 'orbax', 'tensorflow_datasets', 'matplotlib', 'scipy'} & set(loaded)


def test_data_are_prepared_and_read_without_tensorflow():
    loaded = modules_after('import research.data.prepared, research.data.reader, research.study.execute')
    assert {'tensorflow_datasets', 'jax'} <= set(loaded)
    assert 'tensorflow' not in loaded


@every_file
def test_no_default_beside_the_configs(file):
    """research.config.base is the only place of defaults: code supplies none, by `.get(field, default)` or in any other way."""
    fields = {part for key in flatten(defaults()) for part in key.split('.')}
    for node in ast.walk(parsed(file)):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr='get'), args=[ast.Constant(value=key), _]):
                pass
            case ast.BoolOp(op=ast.Or(), values=[ast.Call(func=ast.Attribute(value=owner, attr='get'), args=[key_node]), *_]):
                key = ast.unparse(key_node).strip('\'"')
            case ast.Call(func=ast.Name(id='getattr'), args=[owner, ast.Constant(value=key), _]):
                pass
            case _:
                continue
        assert 'config' not in ast.unparse(owner) or key not in fields, f'line {node.lineno}: {ast.unparse(node)}'


def test_everything_public_is_explained():
    assert not [problem for file in FILES for problem in unexplained(file)]


def unexplained(file):
    """Public modules, classes, functions and methods without a docstring."""
    tree, name = parsed(file), file.relative_to(ROOT)
    if any(not isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body) and not ast.get_docstring(tree):
        yield str(name)
    for holder in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith('_'))):
        for node in holder.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_')
            if public and not ast.get_docstring(node):
                yield f'{name}:{node.lineno}: {node.name}'


@pytest.mark.parametrize('package', ['train', 'study', 'cost', 'gradients', 'optim'])
def test_what_trains_knows_no_field_by_name(package):
    """Only data, augmentations, tasks and models say what an example is made of; prose may speak of both."""
    named = re.compile(r'(?<![a-zA-Z])(image|label)s?(?![a-zA-Z])')
    for file in sorted((ROOT / 'research' / package).rglob('*.py')):
        tree = parsed(file)
        prose = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, _WITH_DOCSTRING)}
        for node in ast.walk(tree):
            words = [getattr(node, field, None) for field in ('id', 'attr', 'arg', 'name', 'value')]
            spoken = [word for word in words if isinstance(word, str) and word not in prose and named.search(word)]
            assert not spoken, f'{file.relative_to(ROOT)}:{node.lineno}: {spoken}'


_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef)
