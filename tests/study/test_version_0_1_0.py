"""A finished study of version 0.1.0 (the commit before fields had names) still reports and loads."""

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import research.study
from research import data
from research.config import overrides
from research.report import pages, records, tables
from research.study import trained


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('old') / 'study'
    shutil.copytree(pathlib.Path(__file__).with_name('version_0_1_0'), folder)
    return folder


def test_it_reports_every_run_with_the_recorded_scores(workdir):
    summary = pages.write(workdir)
    scores = {variant['name']: variant['scores'] for variant in summary['variants']}
    assert scores['baseline'] == [130 / 360, 179 / 360]
    assert len(summary['seeds']) == 2 and not summary['problems'] and not summary['unfinished']
    assert 'gap to training data' not in tables.quality(summary)['headings']  # nobody measured it then
    assert 'virtual' in (workdir / 'report.md').read_text()


def test_a_model_loads_and_scores_what_its_record_says(workdir):
    module, variables = research.study.load(str(workdir), 'virtual', 0)
    study = records.read_study(workdir)
    dataset = data.load(overrides.defaults()['data'] | study['config']['data'])  # which has fewer fields
    images = dataset.arrays['image'][dataset.splits['test']].astype(np.float32)
    logits = module.apply(variables, jnp.asarray((images - dataset.facts['mean'][0]) / dataset.facts['std'][0]))
    right = np.asarray(logits).argmax(-1) == dataset.arrays['label'][dataset.splits['test']]
    recorded = records.read(workdir).results['virtual'][0]
    assert trained.module(records.config(workdir, recorded['id'])).norm == {'name': 'virtual_batch'}
    assert right.mean() == pytest.approx(
        recorded['metrics']['test/accuracy'], abs=1.5 / 360
    )  # another processor rounds otherwise
