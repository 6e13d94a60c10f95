"""Every command and every snippet of the documentation works as it stands, from the top of its page to the end.

A page is one session of its reader, in a folder with `configs` and no more. Studies are cut down to a run of four steps on
digits; in the default suite only the quickstart is trained, and of the others what they ask is looked at.
"""

import configparser
import functools
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import techniques
from safetensors.numpy import save_file

from research import cli, models
from research.config import overrides
from research.study import plan

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [page for page in (*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')) if '```' in page.read_text()]
# What a block's first line says that it is called, its language, its text.
BLOCK = re.compile(r'^ *```(\w+)\n(?:# (my_paper/\w+\.py)\n)?(.*?)^ *```$', re.MULTILINE | re.DOTALL)
SMALL = {
    'data.name': 'digits',
    'data.validation': 0.1,
    'study.variants': {},
    'study.contrasts': {},
    'study.seeds': 1,
    'study.budget': '4st',
    'study.latency': (),
    'study.null': False,
    'train.devices': 1,
}


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """What a page's snippets find: files in the folder, and names. Studies are small."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    images = np.zeros((200, 8, 8, 1), np.uint8)
    images[::2, :4] = 9
    labels = np.arange(200) % 2
    np.savez(tmp_path / 'mine.npz', x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
    (tmp_path / 'mine.tsv').write_text('text\tlabel\n' + 200 * 'a cat\tpet\na bear\twild\n')
    noise = np.random.default_rng(0).integers(0, 256, (2, 100, 8, 8), np.uint8)
    for kind, pictures in zip(('cat', 'dog'), noise, strict=True):
        (tmp_path / 'mine' / kind).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            PIL.Image.fromarray(picture).save(tmp_path / 'mine' / kind / f'{number}.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', (tmp_path / 'mlruns').as_uri())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(overrides, 'load', lambda spec, changes, load=overrides.load: load(spec, SMALL | dict(changes)))
    yield {'images': images[:2]}
    for name in [name for name in sys.modules if name.partition('.')[0] == 'my_paper']:
        del sys.modules[name]


def blocks(page):
    """(language, name, text) of each block."""
    return [match.groups() for match in BLOCK.finditer(page.read_text())]


def test_no_block_is_left_out():
    for page in PAGES:
        assert len(blocks(page)) * 2 == page.read_text().count('```'), page
        assert {language for language, _, _ in blocks(page)} <= {'sh', 'python', 'text'}, page


@pytest.mark.parametrize('trains', [False, pytest.param(True, marks=pytest.mark.long)], ids=['looked at', 'trained'])
@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_commands_and_snippets_work(page, trains, reader, tmp_path, monkeypatch):
    if not trains:
        monkeypatch.setattr(cli, 'launch', functools.partial(looked_at, page.stem, launch=cli.launch))
    for language, name, text in blocks(page):
        if language == 'sh':
            for line in text.splitlines():
                for command in line.split('&&'):
                    typed(shlex.split(command, comments=True), command, trains)
        elif name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        elif language == 'python' and (trains or 'pretrained.load' not in text):
            if 'pretrained.load' in text:
                weights(tmp_path / 'model.safetensors')
                reader['images'] = np.zeros((1, 32, 32, 3), np.float32)
            exec(compile(text, page.name, 'exec'), reader)


def typed(words, line, trains):
    """A command: run, or looked at where it would install, test, or read what has not been trained."""
    if words[:2] == ['python', 'launch.py']:
        words = ['frugal', *words[2:]]
    if words[0] == 'frugal':
        reads = words[1] in ('compare', 'upload')
        if not reads or trains and (words[1] == 'compare' or importlib.util.find_spec(words[2])):
            assert cli.run(words[1:]) == 0, line
    elif words[:2] == ['pip', 'install']:
        setup = configparser.ConfigParser()
        setup.read(ROOT / 'setup.cfg')
        assert set(re.findall(r'\[(\w+)\]', line)) <= set(setup['options.extras_require']), line
    elif words[0] == 'pytest':
        assert all((ROOT / word).exists() for word in words if word.startswith('tests/')), line
        assert '-k' not in words or words[words.index('-k') + 1] in {row.name for row in techniques.TECHNIQUES}, line
    elif words[1:] != ['docs/write.py']:  # which test_docs.py runs
        environment = os.environ | {'PYTHONPATH': str(ROOT)}
        assert not subprocess.run([sys.executable, ROOT / words[1], *words[2:]], env=environment, check=False).returncode, line


def looked_at(page, config, workdir, changes, mode, stale, *others, launch):
    """In place of a launch, but for the README's quickstart: the exit status."""
    if page == 'README' and workdir == 'runs/quickstart':
        return launch(config, workdir, changes, mode, stale, *others)
    if config:
        plan.make(config, {key: overrides.parse_flag(key, text) for key, text in changes.items()})
    return 0


def weights(path):
    """ResNet-18 in timm's names, all ones."""
    import jax

    from research.pretrained import mapping

    module = models.create('resnet18')
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)))
    tensors, metadata = mapping.out_of(module, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes), 'timm')
    save_file(tensors, path, metadata)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_configs_are_studies_as_they_stand(page, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'my_paper').mkdir()
    for _, name, text in blocks(page):
        if name and 'get_config' in text:
            (tmp_path / name).write_text(text)
            assert len(plan.make(str(tmp_path / name), {}).variants) > 2
