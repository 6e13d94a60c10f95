"""Groups that are scored apart: from a field or a column to the metrics of a run and its record."""

import json

import numpy as np
import pytest
import synthetic
from config_file import written

from research import data
from research.catalogue import ConfigError
from research.config import overrides
from research.data import sampling
from research.study import launch

TEXTS = {**overrides.defaults()['data'], 'name': 'texts', 'validation': 0, 'group': 'source'}


def part(count, seed, name='group'):
    draw = np.random.default_rng(seed)
    images, label = synthetic.images(count, seed), draw.integers(0, 2, count)
    images[:, :3] = 255 * label[:, None, None]
    return {'image': images, 'label': label, name: np.where(draw.random(count) < 0.9, 7, -2)}


def load(path):
    return {'train': part(200, 1), 'test': part(60, 2)}


def renamed(path):
    return {'train': part(200, 1, 'background'), 'test': part(60, 2, 'background')}


def test_a_field_of_another_name_becomes_the_groups():
    plain = data.load({**synthetic.BASE, 'name': 'test_groups:load'})
    named = data.load({**synthetic.BASE, 'name': 'test_groups:renamed', 'group': 'background'})
    assert plain.facts['groups'] == named.facts['groups'] == 2 and named.checksum == plain.checksum
    with pytest.raises(ConfigError, match="data.group is 'sky'.*background, image, label"):
        data.load({**synthetic.BASE, 'name': 'test_groups:renamed', 'group': 'sky'})
    with pytest.raises(ConfigError, match='has the fields image, label: expected one more'):
        data.load({**synthetic.BASE, 'name': 'digits', 'group': 'label'})


def test_groups_are_sampled_evenly():
    dataset = data.load({**synthetic.BASE, 'name': 'test_groups:load'})
    drawn = sampling.create({'sampling': {'name': 'group_balanced'}, 'repeats': 1}, dataset, 8)
    assert np.unique_counts(dataset.arrays['group'][drawn(0, 0, 200)]).counts.tolist() == [100, 100]


def test_groups_of_a_table_are_a_column(tmp_path):
    rows = [('fine words', 'good', 'web'), ('bad words', 'poor', 'mail'), ('other words', 'poor', 'web')]
    for name, lines in (('train', rows * 4), ('test', [*rows, ('new words', 'good', 'book')])):
        (tmp_path / f'{name}.tsv').write_text('\n'.join('\t'.join(line) for line in [('text', 'label', 'source'), *lines]))
    dataset = data.load({**TEXTS, 'path': str(tmp_path)})
    assert dataset.group_names == ('book', 'mail', 'web') and dataset.class_names == ('good', 'poor')
    assert dataset.arrays['group'][dataset.splits['test']].tolist() == [2, 1, 2, 0]
    with pytest.raises(ConfigError, match="no column 'origin'"):
        data.load({**TEXTS, 'path': str(tmp_path), 'group': 'origin'})
    (tmp_path / 'lines.txt').write_text('some words\n')
    with pytest.raises(ConfigError, match="expected data.group '', not 'source'"):
        data.load({**TEXTS, 'path': str(tmp_path / 'lines.txt')})


@pytest.mark.long
def test_a_run_is_judged_by_its_worst_group(tmp_path, without_plots):
    body = (
        'config.data.name = "test_groups:load"\n'
        'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\n'
        'config.study.budget = "6st"\nconfig.study.seeds = 1\nconfig.study.null = False\nconfig.study.latency = ()\n'
        'config.study.metric = "test/worst_group_accuracy"\n'
    )
    assert launch.launch(str(written(tmp_path, body)), str(tmp_path / 'study'), {}) == 0
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / 'study').glob('runs/*/result.json'))
    worst = min(right / count for _, count, right in result['groups'])
    assert result['metrics']['test/worst_group_accuracy'] == worst
    assert [group for group, _, _ in result['groups']] == [-2, 7]
    assert np.sum(result['confusion']) == sum(count for _, count, _ in result['groups']) == 60
    assert '## Groups' in (tmp_path / 'study' / 'report.md').read_text()
