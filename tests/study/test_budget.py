"""Budgets are rewritten before anything is built; data of one's own are known by their content."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from config_file import written

from research.catalogue import ConfigError
from research.study import budget, plan
from research.train import experiment, flops
from research.train.program import Session

TINY = 'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\nconfig.study.null = False\n'


def settled(folder, body, session=None):
    """(as asked, as settled)."""
    asked = plan.make(str(written(folder, TINY + body)), {})
    return asked, budget.settle(asked, folder / 'study', session or Session())


def test_a_plan_without_such_a_budget_stays_as_it_is(tmp_path):
    asked, after = settled(tmp_path, 'config.study.budget = "2st"')
    assert after.runs == asked.runs


def test_flops_buy_what_a_step_costs_and_the_run_keeps_its_name(tmp_path):
    session = Session()
    asked, after = settled(tmp_path, 'config.study.budget = "2.5e7flops"\nconfig.study.seeds = 1', session)
    run = after.runs[0]
    built = experiment.build(run.config, session, run.key)
    one, _ = flops.train(run.config, built.dataset, built.batch_size, built.total)
    assert built.steps > 3
    assert built.steps * one <= 2.5e7 < (built.steps + 1) * one
    assert (run.id, run.key) == (asked.runs[0].id, asked.runs[0].key)


def test_seconds_are_measured_once_a_program_and_pinned(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, '_seconds_per_step', lambda built: 0.01)
    (tmp_path / 'study').mkdir()
    _, after = settled(tmp_path, 'config.study.budget = "0.3s"\nconfig.study.seeds = 2')
    assert {run.config['study']['budget'] for run in after.runs} == {f'{30 * 64}ex'}
    assert set(json.loads((tmp_path / 'study' / 'budget.json').read_text()).values()) == {30 * 64}
    monkeypatch.setattr(budget, '_seconds_per_step', lambda built: pytest.fail('measured again'))
    assert settled(tmp_path, 'config.study.budget = "0.3s"\nconfig.study.seeds = 2')[1].runs == after.runs


@pytest.mark.parametrize(('text', 'step'), [('1e3flops', r'\d\.\d+e\+05 FLOPs'), ('0.004s', '0.01 s here')])
def test_a_budget_below_a_step_is_refused_with_both_numbers(tmp_path, monkeypatch, text, step):
    monkeypatch.setattr(budget, '_seconds_per_step', lambda built: 0.01)
    with pytest.raises(ConfigError, match=f"'{text}' holds no step, which takes {step}"):
        settled(tmp_path, f'config.study.budget = "{text}"\nconfig.study.seeds = 1')


@pytest.mark.long
def test_memory_is_settled_as_a_micro_batch_that_the_record_shows(tmp_path):
    session = Session()
    body = 'config.study.budget = "2st"\nconfig.study.seeds = 2\nconfig.train.memory_budget = "160MiB"'
    asked, after = settled(tmp_path, body, session)
    run = after.runs[0]
    assert run.memory_plan.need.bytes <= 160 * 2**20
    assert run.config['gradient']['micro_batch'] == run.memory_plan.micro_batch
    assert run.config['train']['memory_budget'] == '' and run.config['train']['remat'] == run.memory_plan.remat
    assert run.id == asked.runs[0].id and run.key != asked.runs[0].key
    assert not session.programs  # those that were only looked at are let go


def test_a_budget_of_memory_leaves_nothing_else_to_choose(tmp_path):
    with pytest.raises(ConfigError, match='leave them at 0'):
        settled(tmp_path, 'config.train.memory_budget = "1GiB"\nconfig.gradient.micro_batch = 8\nconfig.study.budget = "2st"')


OWN = 'config.data.name = "test_budget:load"\nconfig.study.budget = "2st"\nconfig.study.seeds = 1\n'


def load(path):
    """Noise, drawn by the number in the file `path`/seed."""
    draw = np.random.default_rng(int(pathlib.Path(path, 'seed').read_text()))
    return {part: (draw.integers(0, 255, (40, 4, 4)).astype(np.uint8), np.arange(40) % 2) for part in ('train', 'test')}


@pytest.fixture
def folders(tmp_path):
    for name, seed in (('a', 1), ('b', 2), ('copy_of_a', 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'seed').write_text(str(seed))
    return tmp_path


def test_two_folders_are_two_runs_and_a_copy_is_the_same_one(folders):
    ids = {}
    for name in ('a', 'b', 'copy_of_a'):
        run = settled(folders, f'{OWN}config.data.path = "{folders / name}"')[1].runs[0]
        ids[name] = run.id
        assert len(run.config['data']['checksum']) == 16
    assert ids['a'] == ids['copy_of_a'] != ids['b']


def test_two_folders_may_be_variants_of_one_study(folders):
    variants = {'other': {'data.path': str(folders / 'b')}}
    _, after = settled(folders, f'{OWN}config.data.path = "{folders / "a"}"\nconfig.study.variants = {variants}')
    assert len({run.id for run in after.runs}) == 2


def test_other_data_than_a_record_names_are_refused(folders):
    asked, _ = settled(folders, f'{OWN}config.data.path = "{folders / "a"}"')
    run = asked.runs[0]
    run = dataclasses.replace(run, config={**run.config, 'data': {**run.config['data'], 'checksum': '0' * 16}})
    with pytest.raises(ConfigError, match="data.checksum is '0000000000000000', and the data .* it is other data"):
        budget.settle(dataclasses.replace(asked, runs=[run]), folders / 'study', Session())
        experiment.load_data(run.config, Session())


def test_a_copy_of_the_same_folder_is_no_variant(folders):
    variants = {'copy': {'data.path': str(folders / 'copy_of_a')}}
    with pytest.raises(ConfigError, match="Variant 'copy' is the same as 'baseline'"):
        settled(folders, f'{OWN}config.data.path = "{folders / "a"}"\nconfig.study.variants = {variants}')


def test_flops_of_a_batch_that_grows_are_spent(tmp_path):
    session = Session()
    body = 'config.study.budget = "1e8flops"\nconfig.study.seeds = 1\nconfig.data.batch.name = "grow"'
    run = settled(tmp_path, body, session)[1].runs[0]
    built = experiment.build(run.config, session, run.key)
    mean, _ = flops.train(run.config, built.dataset, built.batch_size, built.total)
    assert 0.9 < mean * built.steps / 1e8 <= 1
