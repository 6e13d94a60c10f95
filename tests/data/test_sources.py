"""Data sets in memory: digits, and functions by their import path."""

import subprocess
import sys

import numpy as np
import pytest
import synthetic

from research import data
from research.catalogue import ConfigError
from research.data.dataset import NUMBERS


def test_digits_are_all_there_once():
    import sklearn.datasets

    dataset = data.load({**synthetic.BASE, 'name': 'digits', 'validation': 0.1})
    assert {part: len(examples) for part, examples in dataset.splits.items()} == {'train': 1293, 'validation': 144, 'test': 360}
    assert np.array_equal(np.sort(np.concatenate(list(dataset.splits.values()))), np.arange(1797))
    assert dataset.facts['classes'] == 10
    assert dataset.fields == {'image': data.Field((8, 8, 1), np.dtype(np.uint8)), 'label': data.Field((), np.dtype(np.int32))}
    ours = dataset.arrays
    assert np.bincount(ours['label'][dataset.splits['test']]).tolist() == [36] * 10
    theirs, their_labels = sklearn.datasets.load_digits(return_X_y=True)
    rows = np.column_stack([ours['image'][:].reshape(-1, 64), ours['label']])
    their_rows = np.column_stack([theirs, their_labels])
    assert np.array_equal(rows[np.lexsort(rows.T)], their_rows[np.lexsort(their_rows.T)])


def test_the_test_split_of_digits_is_frozen():
    dataset = data.load({**synthetic.BASE, 'name': 'digits'})
    assert dataset.checksum == '9c968094e8cc05a5', (
        'Other images are tested than before: no score compares with older ones. '
        'Change it back, or call the new cut by another name.'
    )


def test_a_function_of_ones_own_by_its_import_path():
    dataset = data.load({**synthetic.BASE, 'name': 'synthetic:load', 'validation': 10, 'examples': 30})
    parts = synthetic.load('')
    arrays = dataset.arrays
    assert {part: len(examples) for part, examples in dataset.splits.items()} == {'train': 30, 'validation': 10, 'test': 17}
    assert np.array_equal(arrays['image'][dataset.splits['test']][..., 0], parts['test'][0])
    assert np.array_equal(arrays['label'][: synthetic.TRAIN], parts['train'][1])
    assert arrays['label'].dtype == np.int32


def test_facts_are_of_the_training_split_alone():
    config = {**synthetic.BASE, 'name': 'synthetic:load', 'validation': 10}
    dataset = data.load(config)
    images, labels = (dataset.arrays[field][dataset.splits['train']] for field in ('image', 'label'))
    facts = dataset.facts
    assert facts['counts'] == tuple(int((labels == k).sum()) for k in range(10))
    np.testing.assert_allclose(facts['mean'], images.mean((0, 1, 2), np.float64), rtol=1e-12)
    np.testing.assert_allclose(facts['std'], images.std((0, 1, 2), np.float64), rtol=1e-12)
    other = data.load({**config, 'split_seed': 1}).facts
    assert {name for name in facts if facts[name] != other[name]} == {'counts', 'mean', 'std'} < {*NUMBERS}
    assert hash(tuple(facts.items()))
    assert {type(x) for value in facts.values() for x in (value if isinstance(value, tuple) else [value])} == {int, float}


def test_mean_and_deviation_are_frozen():
    """Sums of whole numbers are exact in float64, so these are the bits on any machine."""
    facts = data.load({**synthetic.BASE, 'name': 'synthetic:load'}).facts
    assert (facts['mean'], facts['std']) == ((126.86373165618448,), (73.92120206257897,)), 'Programs see other constants.'


def colour(path):
    images = np.ones((4, 2, 2, 3), np.float32)
    return {'train': (images, np.arange(4)), 'test': (images[:2], np.array([0, 7]))}


def test_a_constant_channel_is_not_divided_by_zero():
    facts = data.load({**synthetic.BASE, 'name': f'{__name__}:colour'}).facts
    assert (facts['mean'], facts['std']) == ((1.0,) * 3, (1.0,) * 3)


def test_classes_that_only_the_test_data_has_are_counted():
    facts = data.load({**synthetic.BASE, 'name': f'{__name__}:colour'}).facts
    assert (facts['classes'], facts['counts']) == (8, (1, 1, 1, 1, 0, 0, 0, 0))


@pytest.mark.parametrize(
    'returned, said',
    [
        ([1], 'returned list'),
        ({'test': 1}, "returned ['test']"),
        ({'train': 1, 'dev': 1}, "returned ['dev', 'train']"),
        ({'train': 1, 'test': 1}, "'train' is a int, expected (images, labels)"),
        ({'train': (np.zeros((3, 2)), np.zeros(3, int)), 'test': 0}, 'images are float64 (3, 2)'),
        ({'train': (np.zeros((3, 2, 2), np.uint8), np.zeros(2, int)), 'test': 0}, 'beside 3 images'),
        ({'train': (np.zeros((3, 2, 2), np.uint8), np.zeros(3)), 'test': 0}, 'labels are float64'),
        (
            {
                'train': (np.zeros((3, 2, 2), np.uint8), np.zeros(3, int)),
                'test': (np.zeros((3, 2, 3), np.uint8), np.zeros(3, int)),
            },
            'the same of both',
        ),
    ],
)
def test_what_is_no_data_is_refused(monkeypatch, returned, said):
    if isinstance(returned, dict) and returned.get('test') == 0:
        returned['test'] = returned['train']
    monkeypatch.setattr(synthetic, 'load', lambda path: returned)
    with pytest.raises(ConfigError) as caught:
        data.load({**synthetic.BASE, 'name': 'synthetic:load'})
    assert said in str(caught.value)


def without_path():
    raise AssertionError('called')


@pytest.mark.parametrize(
    'change, said',
    [
        ({'name': 'digit'}, "Did you mean 'digits'?"),
        ({'name': 'fashion_mnst'}, "Did you mean 'fashion_mnist'?"),
        ({'name': 'digits', 'path': '/nowhere'}, 'Leave it empty'),
        ({'name': 'digits', 'examples': 1438}, '0 (all) to 1437'),
        ({'name': 'digits', 'validation': 1437}, 'leaves none'),
        ({'name': 'no_such_paper.data:load'}, 'Cannot import'),
        ({'name': 'synthetic:lod'}, 'Cannot import'),
        ({'name': f'{__name__}:without_path'}, "no argument 'path'"),
        ({'name': 'mnist', 'path': '/nowhere'}, 'is not a folder'),
    ],
)
def test_bad_input_is_answered_at_the_door(change, said):
    with pytest.raises(ConfigError) as caught:
        data.load({**synthetic.BASE, **change})
    assert said in str(caught.value)


def test_digits_do_not_need_tfds():
    code = (
        f'import sys\nfrom research import data\ndata.load({ {**synthetic.BASE, "name": "digits"} })\n'
        "print([name for name in ('tensorflow', 'tensorflow_datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
