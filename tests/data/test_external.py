"""Rows from elsewhere: which join the training split, in which classes, how often they are seen, and which are left out."""

import dataclasses
import pathlib
import re
import time

import numpy as np
import pytest
import synthetic
from scipy import ndimage

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import balanced, curation, external, sampling, sources
from research.data.arrays import from_arrays
from research.data.dataset import External, take
from research.train import experiment, program

NAMES = ('ant', 'bee', 'cat', 'dog', 'eel', 'fox', 'gnu', 'hen', 'ibis', 'jay')


def parts(seed, train=40, test=20, shape=(7, 7)):
    draw, made = np.random.default_rng(seed), {}
    for part, count in (('train', train), ('test', test)):
        images = ndimage.gaussian_filter(draw.uniform(0, 255, (count, *shape)), (0, 0.6, 0.6, 0)[: 1 + len(shape)])
        made[part] = images.astype(np.uint8), np.arange(count) % 10
    return made


def store(seed, class_names=(), **more):
    made = from_arrays(f'number_{seed}', parts(seed, **more))
    return made if not class_names else made.__class__(**{**vars(made), 'class_names': class_names})


def joined(sources_of, main=None, **config):
    """The data set of `store(0)` with others; each of these is a mapping whose name is a store."""
    config = {**synthetic.BASE, 'sampling': {'name': 'shuffled'}, 'pack': False, **config}
    config['external'] = tuple({**one, 'name': one['name'].name} for one in sources_of)
    by_name = {one['name'].name: one['name'] for one in sources_of}
    return data.cut(external.join(main or store(0), config, lambda group: by_name[group['name']]), config)


def test_without_sources_nothing_is_done(monkeypatch):
    monkeypatch.setattr(curation.duplicates, 'find', None)
    plain = store(0)
    assert external.join(plain, {**synthetic.BASE}, None) is plain
    assert data.cut(plain, synthetic.BASE).card == {}


def test_rows_join_the_training_split_alone():
    plain, dataset = data.cut(store(0), {**synthetic.BASE, 'validation': 8}), joined([{'name': store(1)}], validation=8)
    for split in ('validation', 'test'):
        np.testing.assert_array_equal(dataset.splits[split], plain.splits[split])
    assert len(dataset.splits['train']) == 32 + 40
    rows = dataset.splits['train'][-40:]
    np.testing.assert_array_equal(take(dataset, rows)['image'][..., 0], parts(1)['train'][0])
    np.testing.assert_array_equal(take(dataset, rows)['label'], parts(1)['train'][1])
    images = np.concatenate([take(plain, plain.splits['train'])['image'][..., 0], parts(1)['train'][0]])
    assert dataset.facts['mean'] == pytest.approx((images.mean(),)) and sum(dataset.facts['counts']) == 72
    assert dataset.checksum not in (plain.checksum, joined([{'name': store(2)}], validation=8).checksum)


def test_examples_and_imbalance_are_of_the_main_data():
    dataset = joined([{'name': store(1)}], examples=15, imbalance={'name': 'step', 'ratio': 100.0})
    assert dataset.card['sources'][0]['rows'] < 15 and dataset.card['sources'][1]['rows'] == 40


def test_a_count_is_drawn_by_the_split_seed():
    def drawn(seed):
        dataset = joined([{'name': store(1), 'count': 12}], split_seed=seed)
        return {image.tobytes() for image in take(dataset, dataset.splits['train'][-12:])['image']}

    assert len(drawn(0)) == 12 and drawn(0) != drawn(1) and drawn(0) == drawn(0)
    with pytest.raises(ConfigError, match="'count' is 41, and it has 40 training examples"):
        joined([{'name': store(1), 'count': 41}])


def test_classes_are_mapped_by_name_or_by_the_table_and_numbers_where_there_are_no_names():
    def labels(theirs, **source):
        dataset = joined([{'name': theirs, **source}], main=store(0, NAMES))
        return take(dataset, dataset.splits['train'][-40:])['label'].tolist()

    plain = (np.arange(40) % 10).tolist()
    assert labels(store(1)) == plain
    assert labels(store(1, NAMES[::-1])) == [9 - label for label in plain]
    table = {str(number): 'cat' if number else 'dog' for number in range(10)}
    assert labels(store(1), labels=table) == [2 if label else 3 for label in plain]


def test_the_numbers_of_a_table_may_be_whole_numbers():
    table = {number: 'cat' if number else 'dog' for number in range(10)}
    dataset = joined([{'name': store(1), 'labels': table}], main=store(0, NAMES))
    assert {*take(dataset, dataset.splits['train'][-40:])['label'].tolist()} == {2, 3}


def fields(seed, names=(), groups=(), **added):
    """`store(seed)` with further fields of its 40 training and 20 test examples."""
    given = {
        part: {'image': images, **{field: np.resize(of, (len(images), *of.shape[1:])) for field, of in added.items()}}
        for part, (images, _) in parts(seed).items()
    }
    return dataclasses.replace(from_arrays(f'number_{seed}', given), class_names=names, group_names=groups)


def told(dataset, field):
    return take(dataset, dataset.splits['train'][-40:])[field].tolist()


GROUP, TAGS, ANSWERS = np.array([0, 1, 2]), np.array([[0, 1, -1], [1, 0, 0]]), np.array([[1, 0], [1, 1]], np.uint8)


def test_groups_are_joined_by_name_and_may_be_new():
    ours = fields(0, groups=('bonn', 'kiel', 'ulm'), group=GROUP)
    dataset = joined([{'name': fields(1, groups=('kiel', 'rome', 'ulm'), group=GROUP)}], main=ours)
    assert dataset.group_names == ('bonn', 'kiel', 'ulm', 'rome') and dataset.facts['groups'] == 4
    assert told(dataset, 'group')[:4] == [1, 3, 2, 1]
    # A second source knows those that the first one brought; a name without an example is none.
    more = fields(2, groups=('none', 'rome'), group=np.array([1]))
    dataset = joined([{'name': fields(1, groups=('kiel', 'rome', 'ulm'), group=GROUP)}, {'name': more}], main=ours)
    assert dataset.group_names == ('bonn', 'kiel', 'ulm', 'rome') and {*told(dataset, 'group')} == {3}
    with pytest.raises(ConfigError, match="has groups without names, and those of the main data are 'bonn'"):
        joined([{'name': fields(1, group=GROUP)}], main=ours)
    with pytest.raises(ConfigError, match="has groups 'a', 'b', 'c', and those of the main data are without names"):
        joined([{'name': fields(1, groups=('a', 'b', 'c'), group=GROUP)}], main=fields(0, group=GROUP))
    assert told(joined([{'name': fields(1, group=GROUP - 7)}], main=fields(0, group=GROUP)), 'group')[:3] == [-7, -6, -5]


def test_yes_or_no_columns_and_tags_are_joined_by_name():
    dataset = joined([{'name': fields(1, ('ripe', 'red'), labels=ANSWERS)}], main=fields(0, ('red', 'ripe'), labels=ANSWERS))
    assert told(dataset, 'labels')[:2] == [[0, 1], [1, 1]]
    dataset = joined([{'name': fields(1, ('b', 'a'), tags=TAGS)}], main=fields(0, ('a', 'b'), tags=TAGS))
    assert told(dataset, 'tags')[:2] == [[1, 0, -1], [0, 1, 1]]
    for field, values, what in (('labels', ANSWERS, 'yes-or-no columns'), ('tags', TAGS, 'tags')):
        ours = fields(0, ('a', 'b'), **{field: values})
        with pytest.raises(ConfigError, match=f"has the {what} 'c', which are none of 'a', 'b'"):
            joined([{'name': fields(1, ('a', 'c'), **{field: values})}], main=ours)
        with pytest.raises(ConfigError, match=f'has {what} without names'):
            joined([{'name': fields(1, **{field: values})}], main=ours)


def test_three_columns_in_a_circle():
    answers = np.array([[1, 0, 0], [0, 1, 0]], np.uint8)
    dataset = joined([{'name': fields(1, ('c', 'a', 'b'), labels=answers)}], main=fields(0, ('a', 'b', 'c'), labels=answers))
    assert told(dataset, 'labels')[:2] == [[0, 0, 1], [1, 0, 0]]


def test_other_names_of_the_same_numbers_are_other_data():
    sums = {joined([{'name': store(1, names)}], main=store(0, NAMES)).checksum for names in (NAMES, NAMES[::-1])}
    groups = [fields(1, groups=names, group=GROUP) for names in (('a', 'b', 'c'), ('a', 'c', 'b'))]
    sums |= {joined([{'name': one}], main=fields(0, groups=('a', 'b', 'c'), group=GROUP)).checksum for one in groups}
    assert len(sums) == 4


def test_the_example_of_the_documentation_is_read():
    page = (pathlib.Path(__file__).parents[2] / 'docs/data.md').read_text()
    (block,) = (one for one in re.findall(r'^```python\n(.*?)^```', page, re.MULTILINE | re.DOTALL) if 'data.external' in one)
    read = {}
    exec(block, read)
    (source,) = read['config'].study.variants['scans']['data.external']
    scans = from_arrays('scans', {'train': (parts(1)['train'][0], np.arange(40) % 2)})
    scans = dataclasses.replace(scans, class_names=('boots', 'shirts'))
    names = sources.CLASS_NAMES[read['config'].data.name]
    dataset = joined([{**source, 'name': scans}], main=store(0, names))
    assert {names[label] for label in told(dataset, 'label')} == {'Shirt', 'Ankle boot'}


OTHER = ('cow', 'doe', *NAMES[2:])
WRONG = [
    ({'name': store(1, OTHER)}, "has the classes 'cow', 'doe', which 'number_0' has not. It has 'ant', 'bee'"),
    ({'name': store(1, OTHER), 'labels': {'cow': 'ant'}}, "says nothing of 'doe', 'cat'"),
    ({'name': store(1, OTHER), 'labels': {'cwo': 'ant'}}, "has 'cwo', which are none of its classes. Did you mean 'cow'?"),
    ({'name': store(1, OTHER), 'labels': {**dict.fromkeys(OTHER, 'ant'), 'doe': 'ewe'}}, "has the classes 'ewe'"),
    ({'name': store(1, shape=(7, 7, 3))}, r'turn grey into colour, or colour into grey'),
    (
        {'name': store(1, shape=(8, 8))},
        r'an example is image uint8 \(8, 8, 1\), label int32 \(\), and one of .* set data.resize',
    ),
    ({'name': from_arrays('f', {'train': {'image': parts(1)['train'][0], 'label': np.ones(40)}})}, 'label float32'),
]


@pytest.mark.parametrize('source, expected', WRONG, ids=range(len(WRONG)))
def test_what_does_not_fit_is_refused(source, expected):
    with pytest.raises(ConfigError, match=expected):
        joined([source], main=store(0, NAMES))


def leaking(copies):
    """Another source, in which rows 5 to 5 + n are the first n test images of `store(0)`, mirrored."""
    given = parts(1)
    given['train'][0][5 : 5 + copies] = parts(0)['test'][0][:copies, :, ::-1]
    return from_arrays('leaking', given)


def test_copies_of_what_is_scored_never_train_and_are_counted():
    main = parts(0)
    main['train'][0][3] = main['test'][0][7]
    dataset = joined([{'name': store(2)}, {'name': leaking(6)}], main=from_arrays('number_0', main))
    assert dataset.card['steps'] == [curation.LEAKED]
    removed = [source['removed'][curation.LEAKED] for source in dataset.card['sources']]
    assert removed == [1, 0, 6] and [source['kept'] for source in dataset.card['sources']] == [39, 40, 34]
    train = {image.tobytes() for image in take(dataset, dataset.splits['train'])['image']}
    test = take(dataset, dataset.splits['test'])['image']
    assert not train & {image.tobytes() for images in (test, test[:, :, ::-1]) for image in images}


def test_copies_of_validation_examples_never_train_either():
    main = parts(0)
    twice = np.concatenate([main['train'][0][:20], main['train'][0][:20, :, ::-1]]), np.tile(main['train'][1][:20], 2)
    dataset = joined([{'name': leaking(0)}], main=from_arrays('number_0', {**main, 'train': twice}), validation=8)
    train, validation = (take(dataset, dataset.splits[split])['image'] for split in ('train', 'validation'))
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in validation[:, :, ::-1]}
    pairs = len({min(image.tobytes(), image[:, ::-1].tobytes()) for image in validation})
    assert dataset.card['sources'][0]['kept'] == 2 * (20 - pairs)


def test_filters_look_at_what_is_left_in_their_order():
    given = parts(1)
    given['train'][0][:4] = 9
    given['train'][0][10:13] = parts(0)['train'][0][:3]
    elsewhere = from_arrays('elsewhere', given)
    dataset = joined([{'name': elsewhere}], filters=('duplicates', 'quality'))
    assert dataset.card['sources'][1]['removed'] == {curation.LEAKED: 0, 'duplicates': 6, 'quality': 1}
    dataset = joined([{'name': elsewhere}], filters=('quality', 'duplicates'))
    assert dataset.card['sources'][1]['removed'] == {curation.LEAKED: 0, 'quality': 4, 'duplicates': 3}
    assert dataset.card['sources'][0]['kept'] == 40  # the main data come first, so it is the others that are copies


def small(examples, labels, main):
    return (labels == 3) & main


def test_a_filter_of_ones_own_gets_labels_and_what_is_main():
    dataset = joined([{'name': store(1)}], filters=('test_external:small',))
    assert [source['removed']['test_external:small'] for source in dataset.card['sources']] == [4, 0]
    with pytest.raises(ConfigError, match='expected to be|expected some to be left'):
        joined([{'name': store(1)}], filters=('test_external:every',))
    with pytest.raises(ConfigError, match=r'returned int64 \[80\]|expected bool \[80\]'):
        joined([{'name': store(1)}], filters=('test_external:numbers',))


def every(examples, labels, main):
    return np.ones(len(examples), bool)


def numbers(examples, labels, main):
    return np.arange(len(examples))


def test_what_was_found_is_read_from_disk_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    first = joined([{'name': leaking(6)}])
    with monkeypatch.context() as patch:
        patch.setattr(curation.duplicates, 'find', None)
        again = joined([{'name': leaking(6)}])
        assert again.card == first.card
        np.testing.assert_array_equal(again.splits['train'], first.splits['train'])
        with pytest.raises(TypeError):  # other content is searched
            joined([{'name': leaking(5)}])
    assert joined([{'name': leaking(5)}]).card['sources'][1]['removed'][curation.LEAKED] == 5


def test_what_another_version_of_a_library_found_is_looked_for_anew(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(curation, '_version', {'numpy': '1', 'scikit-learn': '1', 'cleanlab': '1'}.get)
    joined([{'name': leaking(6)}])
    monkeypatch.setattr(curation.duplicates, 'find', None)
    joined([{'name': leaking(6)}])
    for package in ('cleanlab', 'scikit-learn'):
        with monkeypatch.context() as patch, pytest.raises(TypeError):
            versions = {'numpy': '1', 'scikit-learn': '1', 'cleanlab': '1', package: '2'}
            patch.setattr(curation, '_version', versions.get)
            joined([{'name': leaking(6)}])


def test_a_weight_is_the_share_of_every_epoch():
    dataset = joined([{'name': leaking(6), 'weight': 0.25}, {'name': store(2)}])
    n = len(dataset.splits['train'])
    sampler = sampling.create({'sampling': {'name': 'shuffled'}, 'repeats': 1}, dataset, 10)
    inside = dataset.external[0].rows
    for epoch in range(3):
        rows = sampler(0, epoch * n, (epoch + 1) * n)
        assert abs(((rows >= inside.start) & (rows < inside.stop)).sum() - 0.25 * n) < 1
        assert np.isin(rows, dataset.splits['train']).all()
    full = joined([{'name': store(1), 'weight': 0.5}, {'name': store(2), 'weight': 0.5}])
    rows = sampling.create({'sampling': {'name': 'shuffled'}, 'repeats': 1}, full, 10)(0, 0, 120)
    assert rows.min() >= 60 and len(rows) == 120  # none of the main data
    assert {*np.unique(rows, return_counts=True)[1]} <= {1, 2}


def weighted(rows, *weights):
    """A data set of 20 main rows and 10 of each weight, of which some `rows` are for training."""
    ranges = [range(20 + 10 * i, 30 + 10 * i) for i in range(len(weights))]
    given = [
        External(of, f'number_{i}', '', 0.0, weight) for i, (of, weight) in enumerate(zip(ranges, weights, strict=True), 1)
    ]
    return dataclasses.replace(data.cut(store(0), synthetic.BASE), splits={'train': np.array(rows)}, external=tuple(given))


def test_an_epoch_is_shared_out_without_rest():
    third = balanced.by_source(weighted(range(50), *[1 / 3] * 3))
    assert sum(third.quotas) == 50 and {*third.quotas[:3]} == {16, 17} and not sum(third.quotas[3:])
    half = balanced.by_source(weighted([0, *range(20, 27), *range(30, 37)], 0.5, 0.5))
    assert sum(half.quotas) == 15 and len(half(0, 0, 30)) == 30


def test_a_share_of_nothing_is_refused_by_its_name():
    assert len(balanced.by_source(weighted(range(20, 40), 0.5, 0.5))(0, 0, 40)) == 40
    for rows, weights, name in ((range(30), (0.3, 0.3), 'number_2'), (range(20, 40), (0.3, 0.3), 'number_0')):
        with pytest.raises(ConfigError, match=f"'{name}' has a share of 0.[34] of an epoch, and no training examples are left"):
            balanced.by_source(weighted(rows, *weights))


def test_the_price_is_of_what_was_taken():
    card = joined([{'name': leaking(6), 'price': 0.5, 'licence': 'CC0'}, {'name': store(2), 'price': 2.0, 'count': 3}]).card
    assert curation.spent(card) == 40 * 0.5 + 3 * 2.0 and card['sources'][1]['licence'] == 'CC0'
    assert curation.spent({}) == 0


def test_the_card_has_bytes_and_seconds_which_change_no_checksum():
    slow = dataclasses.replace(store(1), seconds=2.5)
    datasets = [joined([{'name': one, 'count': 8}], filters=('test_external:slowly',)) for one in (store(1), slow)]
    plain, timed = (dataset.card for dataset in datasets)
    assert [source['bytes'] for source in timed['sources']] == [40 * (49 + 4), 8 * (49 + 4)]
    assert [source['seconds'] for source in timed['sources']] == [0, 2.5] and plain['sources'][1]['seconds'] == 0
    assert timed['seconds'].keys() == {*timed['steps']} and timed['seconds']['test_external:slowly'] >= 0.05
    assert datasets[0].checksum == datasets[1].checksum
    assert sources.read({**synthetic.BASE, 'name': 'test_external:late', 'path': '1'}).seconds >= 0.05


def slowly(examples, labels, main):
    time.sleep(0.05)
    return np.zeros(len(examples), bool)


def late(path):
    time.sleep(0.05)
    return parts(int(path))


def test_data_without_images_or_texts_are_refused():
    tokens = from_arrays('tokens', synthetic.load_texts(''))
    with pytest.raises(ConfigError, match='has the fields label, mask, tokens: set them to'):
        joined([{'name': tokens}], main=tokens)


TABLE = {'text': ['one two three four five', 'six seven eight nine ten', 'a b c d e f'], 'label': [0, 1, 1]}


def test_texts_join_and_are_compared_as_texts():
    main = from_arrays('main', {'train': TABLE, 'test': {'text': ['red green blue pink'] * 2, 'label': [0, 1]}})
    more = {'text': ['Red, green; BLUE pink!', 'one  two three four five', 'snow in july again'], 'label': [0, 1, 0]}
    elsewhere = from_arrays('more', {'train': more})
    config = {'tokenizer': {'name': 'words', 'min_count': 1}, 'length': 8, 'filters': ('duplicates',)}
    dataset = joined([{'name': elsewhere}], main=main, **config)
    assert dataset.card['sources'][1] == {
        **{'name': 'more', 'licence': '', 'price': 0.0, 'weight': 0.0, 'seconds': 0.0, 'rows': 3, 'kept': 1},
        'bytes': sum(map(len, more['text'])) + 3 * 4,
        'removed': {curation.LEAKED: 1, 'duplicates': 1},
    }
    assert 'july' in dataset.tokenizer and len(dataset.splits['train']) == 4


def test_variants_share_what_they_can():
    session = program.Session()

    def loaded(**changes):
        config = overrides.apply(overrides.defaults(), {f'data.{key}': value for key, value in changes.items()})
        return experiment.load_data(config, session)

    more = ({'name': 'techniques:inverted', 'count': 50},)
    plain, one, other = loaded(), loaded(external=more), loaded(external=more, filters=('duplicates',))
    assert plain.arrays is loaded(examples=90).arrays and one.arrays is other.arrays and len(session.stores) < 6
    assert one.external == other.external and len(one.external[0].rows) == 50 and plain.external == ()
    assert loaded(external=more, split_seed=1).checksum != one.checksum


def test_sources_are_read_by_name_and_cut():
    config = {**synthetic.BASE, 'name': 'synthetic:load', 'sampling': {'name': 'shuffled'}, 'pack': False}
    dataset = sources.load({**config, 'external': ({'name': 'test_external:elsewhere', 'path': '9'},)})
    assert len(dataset.splits['train']) == synthetic.TRAIN + 40


def elsewhere(path):
    return parts(int(path), shape=(6, 6))
