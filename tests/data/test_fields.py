"""Examples of named fields: what a loader may return, and what is made of it."""

import dataclasses
import hashlib
import re

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from research import data
from research.catalogue import ConfigError
from research.data.arrays import checksum, from_arrays
from research.data.dataset import Column, cut, take

CUT = {**synthetic.BASE, 'validation': 6}
N = synthetic.TRAIN + synthetic.TEST


def of(train, test=None):
    return cut(from_arrays('mine', {'train': train, 'test': train if test is None else test}), synthetic.BASE)


def test_texts_go_through():
    dataset, parts = data.load({**synthetic.BASE, 'name': 'synthetic:load_texts', 'validation': 6}), synthetic.load_texts('')
    assert dataset.fields == {
        'tokens': data.Field((5,), np.dtype(np.int32), 0),
        'mask': data.Field((5,), np.dtype(bool), 0),
        'label': data.Field((), np.dtype(np.int32), 0),
    }
    for field, array in dataset.arrays.items():
        np.testing.assert_array_equal(array, np.concatenate([parts['train'][field], parts['test'][field]]))
        assert array.dtype == dataset.fields[field].dtype
    assert set(dataset.facts) == {'classes', 'counts'}, 'there is no image'
    assert sum(dataset.facts['counts']) == len(dataset.splits['train']) == synthetic.TRAIN - 6
    assert {len(array) for array in dataset.arrays.values()} == {N}


def test_a_pair_is_a_mapping_of_image_and_label():
    parts = synthetic.load('')
    named = {part: dict(zip(('label', 'image'), pair[::-1], strict=True)) for part, pair in parts.items()}
    pair, mapping = (cut(from_arrays('mine', given), CUT) for given in (parts, named))
    assert (pair.facts, pair.fields, pair.checksum) == (mapping.facts, mapping.fields, mapping.checksum)
    for field in pair.fields:
        np.testing.assert_array_equal(pair.arrays[field], mapping.arrays[field])


@pytest.mark.parametrize(
    'given, kept',
    [
        (np.int64, np.int32),
        (np.uint64, np.uint32),
        (np.float64, np.float32),
        ('>f4', '=f4'),
        (np.float16, np.float16),
        (np.int8, np.int8),
        (bool, bool),
    ],
)
def test_of_64_bits_32_are_kept(given, kept):
    dataset = of({'x': np.array([[1, 0], [0, 1]], given)})
    assert dataset.arrays['x'].dtype == dataset.fields['x'].dtype == np.dtype(kept)
    np.testing.assert_array_equal(dataset.arrays['x'], [[1, 0], [0, 1]] * 2)
    assert not dataset.facts


@pytest.mark.parametrize(
    'field, array, facts',
    [
        ('label', np.zeros(3, np.int64), {'classes', 'counts'}),
        ('label', np.zeros(3), {'label_mean', 'label_std'}),
        ('label', np.zeros((3, 2), int), set()),
        ('image', np.zeros((3, 2, 2), np.uint8), {'mean', 'std'}),
        ('image', np.zeros((3, 2, 2, 4)), {'mean', 'std'}),
        ('image', np.zeros((3, 2), np.uint8), set()),
        ('image', np.zeros((3, 2, 2), int), set()),
        ('features', np.zeros((3, 2)), {'features', 'mean', 'std'}),
        ('features', np.zeros((3, 2), int), set()),
        ('labels', np.zeros((3, 2), int), {'labels'}),
        ('tags', np.zeros((3, 2), np.int8), {'tags'}),
        ('tags', np.zeros((3, 2)), set()),
    ],
)
def test_only_fields_that_a_task_knows_have_facts(field, array, facts):
    assert set(of({field: array}).facts) == facts


def test_there_are_as_many_tags_as_the_largest_of_any_part_says():
    assert of({'tags': np.array([[0, 2], [1, -1]])}, {'tags': np.array([[4, -1]])}).facts == {'tags': 5}


def test_answers_are_yes_or_no_in_every_split():
    good = np.array([[0, 1], [1, 0], [1, 1]])
    for bad in (good * 2, good - 1, good * 0.5):
        with pytest.raises(
            ConfigError, match="The field 'labels' of 'mine' has .* at train example .* other numbers than 0 and 1"
        ):
            of({'labels': bad})
        with pytest.raises(ConfigError, match='at test example'):
            of({'labels': good.astype(bad.dtype)}, {'labels': bad})
    assert of({'labels': good > 0}).facts == of({'labels': good * 1.0}).facts == {'labels': 2}


@pytest.mark.parametrize('asked', [{'test': 1}, {'test': 0.02}, {'validation': 1}, {'validation': 0.02}, {'validation': 0.001}])
def test_a_split_of_one_example_is_refused_where_it_was_asked_for(asked):
    with pytest.raises(ConfigError, match=f'The {[*asked][0]} split of .* has [01] examples .* expected at least 2'):
        data.load({**synthetic.BASE, 'name': 'synthetic:load', **asked})


IDS = np.arange(3)


@pytest.mark.parametrize(
    'train, test, said',
    [
        ({}, None, 'empty mapping'),
        ({'x': 1}, None, "field 'x' of 'train' is a single int64"),
        ({'valid': IDS}, None, "field 'valid' of 'train' has a name that it cannot have"),
        ({'x': IDS, 'position': IDS}, None, "field 'position'"),
        ({3: IDS}, None, "field '3'"),
        ({'x': np.array([[1], [2, 3]], object)}, None, "field 'x' of 'train' is object"),
        ({'x': [[1], [2, 3]]}, None, 'pad them'),
        ({'x': ['a', 'b']}, None, 'Turn texts into numbers'),
        ({'x': IDS.astype(complex)}, None, 'complex128'),
        ({'x': IDS.astype(np.longdouble)}, None, 'expected bool'),
        ({'x': IDS + 2**40}, None, '1099511627776 to 1099511627778'),
        ({'x': IDS[:0]}, None, "{'x': 0} examples"),
        ({'x': IDS, 'y': IDS[:2]}, None, "{'x': 3, 'y': 2} examples"),
        ({'x': IDS}, {'y': IDS}, "['x', 'y'] is in one alone"),
        ({'x': IDS}, {'x': IDS[:, None]}, "field 'x' is int32 () in the training data, int32 (1,)"),
        ({'x': IDS}, {'x': IDS * 1.5}, "field 'x' is int32 () in the training data, float32 ()"),
        ({'label': IDS - 1}, None, 'is in -1 to 1, expected 0 to 2147483647, classes'),
    ],
)
def test_fields_that_cannot_be_are_refused(train, test, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        of(train, test)


def digest(*parts):
    whole = hashlib.sha256()
    for text, array in parts:
        whole.update(text.encode() + np.asarray(array).tobytes())
    return whole.hexdigest()[:16]


def test_the_checksum_of_images_and_labels_is_frozen():
    """As it was before fields had names: finished runs are compared by it."""
    dataset = data.load({**synthetic.BASE, 'name': 'synthetic:load'})
    image, label = dataset.arrays['image'], dataset.arrays['label']
    assert dataset.checksum == digest((f'({N}, 6, 6, 1)|u1', image), (f'({N},)<i4', label))
    assert checksum({'label': label, 'image': image}) == dataset.checksum


def test_a_checksum_is_of_names_and_content_and_not_of_their_order():
    x, y = Column(np.arange(3)), Column(np.ones(3))
    one = checksum({'x': x, 'y': y})
    assert one == checksum({'y': y, 'x': x})
    assert len({one, checksum({'x': y, 'y': x}), checksum({'x': x, 'z': y}), checksum({'x': x, 'y': Column(np.zeros(3))})}) == 4


TEXTS = cut(from_arrays('mine', synthetic.load_texts('')), CUT)
TEXTS = dataclasses.replace(TEXTS, fields={**TEXTS.fields, 'tokens': TEXTS.fields['tokens']._replace(fill=7)})


@given(rows=st.lists(st.lists(st.integers(-1, N - 1), min_size=2, max_size=2), max_size=6), pairs=st.booleans())
def test_rows_are_taken_from_every_part_and_empty_ones_are_filled(rows, pairs):
    rows = np.array(rows, np.int64).reshape(-1, 2)
    rows = rows if pairs else rows[:, 0]
    taken, whole = take(TEXTS, rows), synthetic.load_texts('')
    for field, (shape, dtype, fill) in TEXTS.fields.items():
        assert taken[field].shape == (*rows.shape, *shape)
        assert taken[field].dtype == dtype
        both = np.concatenate([whole['train'][field], whole['test'][field]])
        for place in np.ndindex(rows.shape):
            expected = fill if rows[place] == -1 else both[rows[place]]
            np.testing.assert_array_equal(taken[field][place], np.broadcast_to(expected, shape))
