"""A paper that lives outside: config, data, network, norm, optimizer and more by import path, and the trained model back."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from test_launch import ROOT

import research.study
from research import data
from research.catalogue import ConfigError
from research.report import records
from research.study import launch

PARTS = '''
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from research.layers import norm as norms


def load(path):
    """Ten patterns with noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 160, (10, 6, 6))
    labels = np.arange(600) % 10
    images = (patterns[labels] + rng.integers(0, 95, (600, 6, 6))).astype(np.uint8)
    return {'train': (images[:400], labels[:400]), 'test': (images[400:], labels[400:])}


class Scale(nn.Module):
    factor: float = 1.0

    @nn.compact
    def __call__(self, x):
        return x * self.param('scale', nn.initializers.constant(self.factor), (x.shape[-1],))[None]


class Net(nn.Module):
    num_classes: int
    units: tuple[int, ...] = (8,)
    norm: str = 'fork_parts:Scale'

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        for i, width in enumerate(self.units):
            x = nn.relu(norms.create(self.norm, name=f'norm{i}')(nn.Dense(width, name=f'hidden{i}')(x)))
        return nn.Dense(self.num_classes, name='head')(x)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def halved(position, total, convert, floor=0.5):
    return np.where(position < total / 2, 1.0, floor)


def descent(learning_rate, power=1.0):
    return optax.chain(optax.scale(power), optax.sgd(learning_rate))


def by_value(limit):
    return optax.clip(limit)


def shaded(keys, images, strength=1.0):
    return (images * strength).astype(images.dtype)


def seen(params, masks, factor=1.0):
    import jax
    return jax.tree.map(lambda p: p * factor, params)


def gradient(factor=1.0):
    return lambda base, loss_fn, engine, keys: base
'''

CONFIG = '''"""Question: does a paper need this repository's files?"""
from research.config import base


def get_config():
    config = base.get_config()
    config.task.loss = 'fork_parts:cross_entropy'
    config.data.name = 'fork_parts:load'
    config.augment = {'names': ('fork_parts:shaded',), 'shaded': {'strength': 1.0}}
    config.model.name = 'fork_parts:Net'
    config.model.units = (16,)
    config.compress = {'name': 'fork_parts:seen', 'factor': 1.0}
    config.gradient.name = 'fork_parts:gradient'
    config.optimizer.name = 'fork_parts:descent'
    config.optimizer.clip = {'name': 'fork_parts:by_value', 'limit': 1.0}
    config.schedule.name = 'fork_parts:halved'
    config.train.devices = 1
    config.study.budget = '60st'
    config.study.seeds = 1
    config.study.latency = (1,)
    config.study.variants = {
        'cnn': {'model.name': 'cnn', 'model.widths': (4,), 'model.hidden': (), 'model.norm.name': 'virtual_batch'},
    }
    return config
'''


@pytest.fixture(scope='module')
def paper(tmp_path_factory):
    """The folder of a paper, its study finished."""
    folder = tmp_path_factory.mktemp('paper')
    (folder / 'fork_parts.py').write_text(PARTS)
    (folder / 'study.py').write_text(CONFIG)
    assert launch.launch(str(folder / 'study.py'), str(folder / 'runs'), {}) == 0
    return folder


def test_every_name_may_be_an_import_path(paper):
    found = records.read(paper / 'runs')
    assert {len(runs) for runs in found.results.values()} == {1} and not found.problems
    assert {r['status'] for runs in found.results.values() for r in runs.values()} == {'finished'}
    assert all(r['metrics']['test/accuracy'] > 0.5 for r in found.results['baseline'].values())


@pytest.mark.parametrize('variant', ['baseline', 'null', 'cnn'])
def test_a_loaded_model_gives_the_recorded_accuracy(paper, variant):
    study = records.read_study(paper / 'runs')
    dataset = data.load(study['config']['data'])
    test = dataset.splits['test']
    mean, std = dataset.facts['mean'], dataset.facts['std']
    images = (dataset.arrays['image'][test].astype(np.float32) - np.float32(mean)) / np.float32(std)
    module, variables = research.study.load(paper / 'runs', variant, 0)
    logits = module.apply(variables, jnp.asarray(images))
    right = np.asarray(logits).argmax(-1) == dataset.arrays['label'][test]
    result = records.read(paper / 'runs').results[variant][0]
    assert right.mean() == result['metrics']['test/accuracy']
    np.testing.assert_array_equal(right, records.correct(paper / 'runs', result))


def test_a_fresh_process_finds_the_papers_modules(paper):
    code = f'import research.study; print(research.study.load({str(paper / "runs")!r}, "baseline", 0)[0])'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 'units = (16,)' in done.stdout, done.stderr


@pytest.mark.parametrize(
    ('variant', 'seed', 'message'),
    [
        ('basline', 0, "No variant 'basline' in .* Did you mean 'baseline'?"),
        ('cnn', 2, "No seed 2 of 'cnn'"),
    ],
)
def test_a_model_that_is_not_there(paper, variant, seed, message):
    with pytest.raises(ConfigError, match=message):
        research.study.load(paper / 'runs', variant, seed)
    with pytest.raises(ConfigError, match='study.json is missing'):
        research.study.load(paper, variant, seed)


def test_what_a_forks_code_raises_is_told_by_its_line(paper, capsys):
    (paper / 'broken.py').write_text(CONFIG.replace("'fork_parts:load'", "'fork_wrong:load'"))
    (paper / 'fork_wrong.py').write_text('def load(path):\n    return {}[path]\n')
    assert launch.launch(str(paper / 'broken.py'), str(paper / 'other'), {}) == launch.REFUSED
    assert f"KeyError: '' ({paper}/fork_wrong.py:2)" in capsys.readouterr().err
