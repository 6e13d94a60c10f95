"""Configs and overrides: what a key may be, what a value may be, and where the message says that it stands."""

import json
import re

import pytest
from config_file import written
from hypothesis import given
from hypothesis import strategies as st

from research.catalogue import ConfigError
from research.config import overrides
from research.config.files import ConfigFile


def load(folder, body='', changes=None, arg=''):
    return overrides.load(f'{written(folder, body)}{arg}', changes or {})


def refused(folder, body='', changes=None):
    with pytest.raises(ConfigError) as caught:
        load(folder, body, changes)
    assert caught.value.__cause__ is not None or 'No config file' in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ('line', 'key', 'message'),
    [
        ('config.optmizer = 3', 'optmizer', "Unknown key 'optmizer'"),
        ('config.train.engin = "jit"', 'train.engin', "Did you mean 'train.engine'?"),
        ('config.study.budgett = "3ep"', 'study.budgett', "Did you mean 'study.budget'?"),
        ('config.optimizer.learning_rate = "high"', '', "is 'high' (str), expected float"),
        ('config.optimizer.learning_rate = None', '', 'is None (NoneType), expected float'),
        ('config.data.batch_size = True', '', 'is True (bool), expected int'),
        ('config.data.batch_size = 2.5', '', 'is 2.5 (float), expected int'),
        ('config.data.batch_size = "5ep"', '', "is '5ep' (str), expected int"),
        ('config.data.batch_size = -1', '', 'expected at least 0'),
        ("config.optimizer.rate_multipliers = ('head/*', 0.1)", '', "such as (('head/*', 0.1),)"),
        ("config.optimizer.decay_multipliers = (('head/*', -1),)", '', 'factor from 0'),
        ('config.data.eval_batch_size = 0', '', 'expected at least 1'),
        ('config.data.examples = -1', '', 'expected at least 0'),
        ('config.data.validation = -0.1', '', 'expected at least 0'),
        ('config.data = 3', '', 'expected fields of it'),
        ('config.augment = {}', '', 'expected fields of it'),
        ('config.model = "resnet20"', '', 'expected fields of it'),
        ('config.data.streaming = "yes"', '', "is 'yes'. Valid: False, True, auto"),
        ('config.train.seed = 4', '', "a study sets it from 'study.seeds'"),
        ('config.model.init = lambda key: 0', 'model.init', 'code is named by its import path'),
        ('config.model.sizes = {1: 2}', 'model.sizes', 'expected texts as keys'),
        ('config.study.seeds = 0', '', 'expected a count from 1'),
        ('config.study.seeds = -3', '', 'expected a count from 1'),
        ('config.study.seeds = ()', '', 'expected a count from 1'),
        ('config.study.seeds = (1, 1)', '', 'expected a count from 1'),
        ('config.study.seeds = (0, -1)', '', 'expected a count from 1'),
        ('config.study.seeds = (0, 1.5)', '', 'expected a count from 1'),
        ('config.study.seeds = (0, 2**32)', '', 'below 2**32'),
        ('config.study.seeds = "all"', '', 'expected int or tuple'),
        ('config.study.alpha = 0.0', '', 'expected above 0 and below 1'),
        ('config.study.alpha = 1', '', 'expected above 0 and below 1'),
        ('config.study.alpha = float("nan")', '', 'expected a finite number, above 0 and below 1'),
        ('config.study.margin = -0.01', '', 'expected at least 0'),
        ('config.study.margin = float("nan")', '', 'expected a finite number, at least 0'),
        ('config.study.score = "lst"', '', "Did you mean 'last'?"),
        ('config.study.keep = "everything"', '', 'Valid: all, scored.'),
        ('config.study.platform = "gpus"', '', "Did you mean 'gpu'?"),
        ('config.study.metric = "accuracy"', '', "expected 'test/NAME'"),
        ('config.study.metric = "test/loss"', '', "'study.higher_is_better' is True"),
        ('config.study.latency = (1, 0)', '', 'expected batch sizes from 1'),
        ('config.study.null = None', '', 'expected bool'),
        ('config.study.variants = [1]', '', 'expected dict'),
    ],
)
def test_a_bad_field_is_refused_with_its_line(tmp_path, line, key, message):
    text = refused(tmp_path, 'pass\n' + line)
    assert text.startswith(f'{tmp_path}/paper.py:10: '), text
    assert message in text
    assert (key or re.search(r'config\.([\w.]+)', line)[1]) in text


@pytest.mark.parametrize(
    ('variant', 'message'),
    [
        ({'optimizer.lr.x': 1, 'train.sed': 1}, "Unknown key 'train.sed'"),
        ({'optmizer.name': 'adam'}, "Did you mean 'optimizer.name'?"),
        ({'optimizer.learning_rate': '1e-3'}, 'expected float'),
        ({'optimizer.learning_rate': None}, 'expected float'),
        ({'optimizer.learning_rate': True}, 'is True (bool), expected float'),
        ({'optimizer.learning_rate.peak': 1}, "'optimizer.learning_rate' is a single value"),
        ({'data.batch_size': -4}, 'expected at least 0'),
        ({'model': {}}, 'expected fields of it'),
        ({'study.seeds': 3}, 'belongs to the whole study'),
        ({'study': {'budget': '3ep'}}, 'belongs to the whole study'),
        ({'train.seed': 3}, 'belongs to the whole study'),
        ({'': 3}, "Unknown key ''"),
        ({'data.': 3}, "Unknown key 'data.'"),
        ([], 'expected a dict of dotted overrides'),
        ('adam', 'expected a dict of dotted overrides'),
    ],
)
def test_a_bad_variant_is_refused_by_name(tmp_path, variant, message):
    text = refused(tmp_path, f"config.study.variants = {{'fine': {{}},\n 'mine': {variant!r}}}")
    assert message in text
    assert "Variant 'mine'" in text
    assert re.match(rf'{tmp_path}/paper.py:(9|10): ', text), text


def test_the_line_is_the_variants_own(tmp_path):
    text = refused(
        tmp_path,
        'config.study.variants = {\n "a": {"data.batch_size": 8},\n "b": {\n  "data.batch_size": -1},\n}',
    )
    assert text.startswith(f"{tmp_path}/paper.py:12: Variant 'b'"), text


@pytest.mark.parametrize('name', ['baseline', 'null', '', ' ', 'two\nlines', 'bell\a'])
def test_names_that_no_variant_may_have(tmp_path, name):
    refused(tmp_path, f'config.study.variants = {{{name!r}: {{"data.batch_size": 8}}}}')


@pytest.mark.parametrize('name', ['a/b', '<b>&amp;', 'ünï', '100 % $x$_{1}', "it's", 'a"b', 'a.b', '..', '\\relax', '日本'])
def test_names_that_any_variant_may_have(tmp_path, name):
    config, _, _ = load(tmp_path, f'config.study.variants = {{{name!r}: {{"data.batch_size": 8}}}}')
    assert config['study']['variants'] == {name: {'data.batch_size': 8}}


@pytest.mark.parametrize(
    ('contrasts', 'message'),
    [
        ({'c': {'a': 1, 'b': -0.5}}, 'its weights sum to 0.5, expected 0'),
        ({'c': {'a': 1, 'bb': -1}}, "names no variant of this study: 'bb'. Did you mean 'b'?"),
        ({'c': {'a': 1, 'null': -1}}, "names no variant of this study: 'null'"),
        ({'c': {}}, 'expected a dict of weights'),
        ({'c': ['a', 'b']}, 'expected a dict of weights'),
        ({'c': {'a': '1', 'b': -1}}, "is '1', expected a number"),
        ({'c': {'a': True, 'b': -1}}, 'is True, expected a number'),
        ({'c': {'a': 0, 'b': 0}}, 'is 0, expected a number other than 0'),
        ({'c': {'a': float('inf'), 'b': float('-inf')}}, 'expected a number'),
        ({'null': {'a': 1, 'b': -1}}, 'this name is taken'),
    ],
)
def test_a_bad_contrast_is_refused(tmp_path, contrasts, message):
    body = 'inf = float("inf")\nconfig.study.variants = {"a": {"data.batch_size": 8}, "b": {"data.batch_size": 9}}\n'
    text = refused(tmp_path, f'{body}config.study.contrasts = {contrasts!r}')
    assert message in text and text.startswith(f'{tmp_path}/paper.py:'), text


def test_leave_one_out_and_do_two_add_up(tmp_path):
    body = (
        'config.study.variants = {"a": {"data.batch_size": 8}, "b": {"data.batch_size": 9}, "both": {"data.batch_size": 7}}\n'
    )
    body += 'config.study.contrasts = {"sum": {"both": 1, "a": -1, "b": -1, "baseline": 1},'
    body += ' "third": {"a": 1, "b": -1/3, "both": -2/3}}'
    config, _, _ = load(tmp_path, body)
    assert set(config['study']['contrasts']) == {'sum', 'third'}


@pytest.mark.parametrize(
    ('content', 'message', 'line'),
    [
        ('def get_config(:\n', 'SyntaxError', 1),
        ('x = 1\nraise ValueError("two\\nlines")\n', 'ValueError: two lines', 2),
        ('from research.config import base\ndef get_config():\n    return base.get_config().optimiser\n', 'AttributeError', 3),
        (
            'from research.config import base\ndef get_config():\n    return base.get_config().optimizer.lerning_rate\n',
            'learning_rate',
            3,
        ),
        ('import no_such_module_at_all\n', 'No module named', 1),
        (
            'def get_config():\n    import ml_collections\n    return ml_collections.ConfigDict({"a": 1 / 0})\n',
            'ZeroDivision',
            3,
        ),
        ('x = 1\n', 'it has no function get_config', 0),
        ('get_config = 3\n', 'it has no function get_config', 0),
        ('def get_config():\n    pass\n', 'get_config returned None', 0),
        ('def get_config(arg):\n    return {}\n', 'missing 1 required positional argument', 0),
        ('\0', 'null bytes', 0),
    ],
)
def test_a_broken_config_file_is_told_by_its_line(tmp_path, content, message, line):
    path = tmp_path / 'broken.py'
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        overrides.load(str(path), {})
    text = str(caught.value)
    assert message in text and '\n' not in text
    assert text.startswith(f'{path}:{line}: ' if line else f'{path}')


def test_a_relative_path_has_its_line_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.py').write_text('x = 1\ny = x / 0\n')
    with pytest.raises(ConfigError, match='^broken.py:2: ZeroDivisionError'):
        overrides.load('broken.py', {})


def test_a_missing_config_file_has_a_nearest_one(tmp_path):
    path = written(tmp_path, '', 'quickstart.py')
    with pytest.raises(ConfigError, match=f"No config file .* Did you mean '{path}'"):
        overrides.load(str(tmp_path / 'quikstart.py'), {})
    for nowhere in (tmp_path, tmp_path / 'no' / 'folder.py'):
        with pytest.raises(ConfigError, match='No config file'):
            overrides.load(str(nowhere), {})


def test_the_argument_of_a_config_goes_to_get_config(tmp_path):
    config, _, question = load(tmp_path, 'config.study.name = arg or "none"', arg=':wide')
    assert config['study']['name'] == 'wide' and question == 'Question: why?'
    assert load(tmp_path, 'config.study.name = arg or "none"')[0]['study']['name'] == 'none'


def test_a_study_is_named_after_its_file(tmp_path):
    assert load(tmp_path)[0]['study']['name'] == 'paper'


def test_a_group_set_as_a_whole_keeps_the_other_fields(tmp_path):
    config, _, _ = load(tmp_path, 'config.data = {"name": "mnist", "batch_size": 8}')
    assert config['data'] == overrides.defaults()['data'] | {'name': 'mnist', 'batch_size': 8}


def test_values_of_numpy_lists_and_references_become_plain(tmp_path):
    config, _, _ = load(
        tmp_path,
        'config.model.widths = [4, 8]\n'
        'config.model.hidden = np.array([16])\n'
        'config.optimizer.learning_rate = np.float32(0.5)\n'
        'config.data.batch_size = np.int64(32)\n'
        'config.study.seeds = list(range(3))\n'
        'config.data.eval_batch_size = config.data.get_ref("batch_size") * 2\n'
        'config.model.norm = ml_collections.ConfigDict({"name": "batch"})\n'
        'config.study.variants = {"wide": {"model.widths": np.array([8, 8]), "data.validation": np.float64(0.25)}}',
    )
    assert config['model'] == {
        'name': 'cnn',
        'num_classes': 0,
        'init_from': '',
        'widths': (4, 8),
        'hidden': (16,),
        'norm': {'name': 'batch'},
    }
    assert config['data']['eval_batch_size'] == 64 and type(config['data']['batch_size']) is int
    assert config['study']['seeds'] == (0, 1, 2)
    assert json.loads(json.dumps(config))['study']['variants'] == {'wide': {'model.widths': [8, 8], 'data.validation': 0.25}}


def test_a_placeholder_must_be_filled(tmp_path):
    text = refused(tmp_path, 'config.data.batch_size = ml_collections.config_dict.placeholder(int)')
    assert "'data.batch_size' is None" in text


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        (('optimizer.learning_rat.x', '3'), "Unknown key 'optimizer.learning_rat.x'"),
        (('study.seed', '3'), "Did you mean 'study.seeds'?"),
        (('data.batch_size', '5ep'), "is '5ep' (str)"),
        (('study.variants.mine.data', '3'), "'study.variants' is a single value"),
        (('study.null', 'false'), 'such as True'),
    ],
)
def test_what_a_flag_gets_wrong_is_told_by_the_flag(tmp_path, flag, message):
    key, text = flag
    changes = {key: overrides.parse_flag(key, text)}
    if key == 'optimizer.learning_rat.x':  # arguments of a named group may be dicts; signatures tell later
        load(tmp_path, '', changes)
        return
    told = refused(tmp_path, '', changes)
    assert told.startswith(f'--config.{key}: ') and message in told, told


@pytest.mark.parametrize(
    ('key', 'text', 'value'),
    [
        ('study.seeds', '1,2,3', (1, 2, 3)),
        ('study.seeds', '(7,)', (7,)),
        ('study.seeds', '1e1', 10),
        ('data.batch_size', '1e3', 1000),
        ('optimizer.learning_rate', '1', 1.0),
        ('study.name', '123', '123'),
        ('model.widths', '[4, 8]', (4, 8)),
        ('study.variants', "{'a.b': {'data.batch_size': 8}}", {'a.b': {'data.batch_size': 8}}),
        ('study.null', 'False', False),
    ],
)
def test_flags_are_python_literals_or_text(tmp_path, key, text, value):
    config, _, _ = load(
        tmp_path, 'config.study.variants = {"old": {"data.batch_size": 9}}', {key: overrides.parse_flag(key, text)}
    )
    found = overrides.flatten(config)[key]
    assert found == value and type(found) is type(value)


def test_another_name_drops_the_arguments_of_the_old_one_alone():
    config = overrides.apply(
        overrides.defaults(),
        {'optimizer.momentum': 0.8, 'optimizer.learning_rate': 0.3, 'optimizer.clip': {'name': 'global_norm', 'max_norm': 2.0}},
    )
    for changes in ({'optimizer.b1': 0.8, 'optimizer.name': 'adam'}, {'optimizer.name': 'adam', 'optimizer.b1': 0.8}):
        assert overrides.apply(config, changes)['optimizer'] == {
            'name': 'adam',
            'learning_rate': 0.3,
            'weight_decay': 0.0,
            'b1': 0.8,
            'layer_decay': 1.0,
            'rate_multipliers': (),
            'decay_multipliers': (),
            'average': {'name': 'none'},
            'clip': {'name': 'global_norm', 'max_norm': 2.0},
        }
    assert overrides.apply(config, {'optimizer.clip.name': 'none'})['optimizer']['clip'] == {'name': 'none'}
    assert overrides.apply(config, {'optimizer.name': 'momentum'}) == config


def test_an_argument_in_short_grows_into_a_group():
    config = overrides.apply(overrides.defaults(), {'model.norm': 'batch'})
    assert overrides.apply(config, {'model.norm.momentum': 0.8})['model']['norm'] == {'name': 'batch', 'momentum': 0.8}
    assert overrides.apply(config, {'model.norm.name': 'none'})['model']['norm'] == {'name': 'none'}


def test_apply_leaves_its_arguments_alone():
    config, changes = overrides.defaults(), {'model.norm': {'name': 'batch'}}
    overrides.apply(overrides.apply(config, changes), {'model.norm.momentum': 0.5})
    assert config == overrides.defaults() and changes == {'model.norm': {'name': 'batch'}}


FLAT = st.sampled_from(sorted(k for k in overrides.flatten(overrides.defaults()) if not k.startswith('study')))


@given(st.dictionaries(FLAT, st.none(), max_size=6))
def test_the_defaults_over_themselves_change_nothing(keys):
    flat = overrides.flatten(overrides.defaults())
    assert overrides.apply(overrides.defaults(), {k: flat[k] for k in keys}) == overrides.defaults()


def test_every_default_passes_its_own_checks():
    overrides.check(overrides.defaults())


def test_a_source_says_file_where_it_knows_no_line(tmp_path):
    path = written(tmp_path, '')
    assert ConfigFile(path, {}).at('nowhere.to.be_found') == f'{path}: '
    assert ConfigFile(path, {'data.path': '/x'}).mentions("no folder '/x'") == '--config.data.path: '
