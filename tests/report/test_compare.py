"""Studies side by side: the numbers are each study's own, and what makes them no common question is said."""

import fabricate
import pytest

from research import cli
from research.catalogue import ConfigError
from research.config import overrides
from research.report import compare, pages

EFFECTS = {'baseline': 0.0, 'null': 0.0, 'tiny': -0.05}


@pytest.fixture
def folders(tmp_path, without_plots):
    config = overrides.apply(overrides.defaults(), {'study.name': 'paper'})
    other = overrides.apply(config, {'data.name': 'mnist', 'study.budget': '10ep', 'data.path': '/elsewhere'})
    fabricate.study(tmp_path / 'digits', EFFECTS | {'adam': 0.03}, evaluations=1, config=config)
    fabricate.study(tmp_path / 'mnist', EFFECTS | {'clip': 0.0}, 8, evaluations=1, config=other)
    return [tmp_path / 'digits', tmp_path / 'mnist']


def test_each_study_keeps_its_own_numbers(folders):
    found = {(row['variant'], row['study']): row for row in compare.rows(compare.read(folders))}
    assert set(found) == {(v, s) for v in EFFECTS for s in ('digits', 'mnist')} | {('adam', 'digits'), ('clip', 'mnist')}
    for folder in folders:
        for contrast in pages.write(folder, remembers=False)['contrasts']:
            row = found[contrast['name'], folder.name]
            assert all(row[key] == contrast[key] for key in ('difference', 'interval', 'p_corrected', 'verdict'))
    assert found['baseline', 'mnist']['verdict'] is None and found['baseline', 'mnist']['n'] == 8


def test_what_makes_them_two_questions_is_named(folders, tmp_path):
    told = compare.notes(compare.read(folders))
    assert told[0].startswith('The baselines are not the same')
    assert told[1:] == ['data.name: "digits" (digits), "mnist" (mnist)', 'study.budget: "20ep" (digits), "10ep" (mnist)']
    config = overrides.apply(overrides.defaults(), {'study.name': 'paper'})
    fabricate.study(
        tmp_path / 'b', EFFECTS, evaluations=1, config=config, variants=dict.fromkeys(EFFECTS, {}) | {'tiny': {'a': 1}}
    )
    (told,) = compare.notes(compare.read([folders[0], tmp_path / 'b']))[-1:]
    assert told.startswith("'tiny' is not the same change everywhere: ")


def test_the_command_prints_a_row_a_study_in_80_columns(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    assert cli.run(['compare', *map(str, folders)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    at = next(number for number, line in enumerate(printed) if line.strip() == 'tiny')
    assert [line.split()[0] for line in printed[at + 1 : at + 3] if 'worse' in line] == ['digits', 'mnist']
    assert 'data.name: "digits" (digits), "mnist" (mnist)' in printed
    assert cli.run(['compare', str(folders[0])]) == 2
    fabricate.study(tmp_path / 'loss', EFFECTS, evaluations=1, metric='test/loss', config=overrides.defaults())
    with pytest.raises(ConfigError, match='no common unit'):
        compare.read([folders[0], tmp_path / 'loss'])
