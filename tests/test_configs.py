"""Every config and each of its variants is built, and its training step typed, without computing anything."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from research.config import overrides
from research.data.idx import FILES
from research.optim.plateau import START
from research.study import plan, verify
from research.tasks.generation import Generation
from research.train import judge
from research.train.chunks import train_chunk
from research.train.experiment import build
from research.train.feed import Feed
from research.train.program import Session
from research.train.state import Variables

CONFIGS = sorted(path for path in pathlib.Path(__file__).parents[1].glob('configs/*.py') if path.stem != '__init__')
IDX, WORDNET = ('fashion_mnist', 'mnist'), ('wordnet', 'wordnet_texts')


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Files as Fashion-MNIST has them, with 11,000 training images, as WordNet, with 5,200 texts, and 2,000 sentence pairs."""
    folder = tmp_path_factory.mktemp('idx')
    for part, count in (('train', 11000), ('test', 40)):
        # Patches: neither junk nor copies of one another, and by the first one of a class.
        patches = np.random.default_rng(count).integers(0, 256, (count, 7, 7), np.uint8)
        patches[:, 0, 0] = np.arange(count) % 10 * 25
        images = patches.repeat(4, 1).repeat(4, 2)
        for name, array in zip(FILES[part], (images, (np.arange(count) % 10).astype(np.uint8)), strict=True):
            sizes = np.array(array.shape, '>i4').tobytes()
            (folder / name).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    drawn = np.random.default_rng(0)
    for theme in ('elementary', 'faenza', 'gnome', 'mate'):
        for kind in range(7):
            (folder / theme / f'class{kind}').mkdir(parents=True)
            for i in range(20):
                PIL.Image.fromarray(drawn.integers(0, 256, (8, 8, 3), np.uint8)).save(
                    folder / theme / f'class{kind}' / f'{i}.png'
                )
    for part, name in enumerate(('noun', 'verb', 'adj', 'adv')):
        (folder / f'data.{name}').write_text(''.join(f'{i} 0{part} n 01 | text {i} of {name}s\n' for i in range(1300)))
    said = [[''.join(drawn.choice([*'abcdefgh'], 5)) for _ in range(10)] for _ in range(2000)]
    rows = ['en\tde', *(f'{" ".join(words[:5])}\t{" ".join(words[5:])}' for words in said)]
    (folder / 'pairs.tsv').write_text('\n'.join(rows))
    return folder


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    """Where TFDS keeps what it prepared from them."""
    return tmp_path_factory.mktemp('tfds')


@pytest.mark.parametrize(
    'path',
    [pytest.param(path, marks=() if path.stem in ('base', 'quickstart') else pytest.mark.long) for path in CONFIGS],
    ids=lambda path: path.stem,
)
def test_every_variant_is_built_and_typed(path, folder, prepared, monkeypatch, plain):
    monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
    made = plan.make(f'{path}:{folder}' if path.stem == 'icons' else str(path), {})
    if made.config['data']['name'] in IDX + WORDNET:
        made = plan.make(str(path), {'data.path': str(folder)})
    if made.config['data']['name'] == 'parallel':
        made = plan.make(str(path), {'data.path': str(folder / 'pairs.tsv'), 'data.examples': 0})
    session = Session()
    built = verify.verify(made, session)
    assert set(built) == {'baseline', *made.study['variants'], *['null'] * made.config['study']['null']}
    typed = set()
    for experiment in built.values():
        assert experiment.rates(np.arange(0, experiment.total, experiment.batch_size)).max() > 0
        program, feed = experiment.program, Feed(experiment)
        phase = experiment.phases.at(0, 0)
        if (id(program), phase) in typed:  # what another variant trains with
            continue
        typed.add((id(program), phase))
        chunk = feed.chunk(0, 0, 1, phase.batch_size, START)
        state, sums = jax.eval_shape(functools.partial(train_chunk, program.step, phase), program.shapes, chunk)
        assert shapes(state) == shapes(program.shapes)
        assert {value.shape for value in sums.values()} == {(feed.capacity(phase.batch_size),)}

        data, block = next(feed.blocks(experiment.dataset.splits['validation']))
        if isinstance(program.step.task, Generation):
            data['constants']['judge'] = seat(experiment, session)
        variables = Variables(state.params, state.masks, state.collections)
        sums, rows = jax.eval_shape(program.step.evaluate, variables, data, jax.tree.map(jnp.asarray, block))
        assert {values.shape[:2] for values in rows.values()} <= {block.rows.shape}


def seat(experiment, session):
    """What the judge of an experiment would be."""
    data = {f'data.{key}': experiment.config['data'][key] for key in ('name', 'path')}
    own = build(overrides.apply(overrides.defaults(), {**judge.OVERRIDES, **data}), session, 'judge')
    state = own.program.shapes
    return {'variables': {'params': state.params, **state.collections}, **own.data['constants']}


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.stem != 'base'], ids=lambda path: path.stem)
def test_every_experiment_says_what_it_asks_and_how_to_run_it(path):
    config, _, text = overrides.load(str(path), {})
    assert text.startswith('Question: ')
    assert '?' in text.partition('\n\n')[0]
    assert f'python launch.py --config=configs/{path.name} --workdir=' in text
    assert config['study']['variants']
