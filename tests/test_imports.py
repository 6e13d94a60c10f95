"""The shape of the house, read from its source: imports go down, nothing heavy comes in early, everything public is explained."""

import ast
import pathlib
import subprocess
import sys

import pytest

from research.study.overrides import defaults, flatten

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'research').rglob('*.py'))
# A package may import what stands in a lower row; itself; and the modules at the bottom.
ROWS = (
    ('study',),
    ('train',),
    ('export', 'cost', 'pretrained'),
    ('tasks', 'compress', 'gradients', 'optim'),
    ('models', 'data', 'augment'),
    ('layers',),
)
BOTTOM = ('catalogue', 'durations', 'process')
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


@every_file
def test_imports_go_down(file):
    own = package_of(file)
    for name in imported(parsed(file)):
        top, *rest = name.split('.')
        if top == 'configs':
            assert own == 'study', f'{name}: configs are read by study alone'
        if top != 'research' or not rest or rest[0] in (own, *BOTTOM):
            continue
        assert rest[0] in HEIGHT, f'{name}: no package of the order in ROWS'
        assert own == '__init__' or own not in BOTTOM and HEIGHT[rest[0]] < HEIGHT[own], f'{name} is not below {own}'


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
    loaded = modules_after('import research.study.launch, research.study.overrides')
    assert 'research' in loaded
    assert not {'jax', 'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets', 'matplotlib', 'scipy'} & set(loaded)


def test_data_are_prepared_and_read_without_tensorflow():
    loaded = modules_after('import research.data.prepared, research.data.reader, research.study.execute, grain')
    assert {'tensorflow_datasets', 'jax'} <= set(loaded)
    assert 'tensorflow' not in loaded


@every_file
def test_no_default_beside_the_configs(file):
    """configs/base.py is the only place of defaults: code never supplies one by `.get` or `getattr`."""
    fields = {part for key in flatten(defaults()) for part in key.split('.')}
    for node in ast.walk(parsed(file)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        key = None
        if isinstance(node.func, ast.Attribute) and node.func.attr == 'get':
            key, owner = node.args[0], ast.unparse(node.func.value)
        elif isinstance(node.func, ast.Name) and node.func.id == 'getattr' and len(node.args) == 3:
            key, owner = node.args[1], ast.unparse(node.args[0])
        if isinstance(key, ast.Constant) and 'config' in owner:
            assert key.value not in fields, f'line {node.lineno}: {ast.unparse(node)}'


@every_file
def test_everything_public_is_explained(file):
    tree = parsed(file)
    if any(not isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        assert ast.get_docstring(tree), 'the module'
    for holder in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith('_'))):
        for node in holder.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
                assert ast.get_docstring(node), f'line {node.lineno}: {node.name}'
