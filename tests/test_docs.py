"""What the documentation says of the code is so: tables are those of the catalogues, links lead somewhere."""

import pathlib
import re
import runpy

import pytest
import techniques

from research import cli
from research.catalogue import ConfigError
from research.config import base
from research.train.steps import players

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')])
written = runpy.run_path(str(ROOT / 'docs/write.py'))


@pytest.mark.parametrize('name', ['techniques', 'networks'])
def test_the_tables_are_those_of_the_catalogues(name):
    def ours(text):  # another optax may have other optimizers
        return [line for line in text.splitlines() if not line.startswith('From optax')]

    path, before, tables = written['page'](name)
    assert ours(path.read_text()) == ours(before + tables), 'run python docs/write.py'


# All but ways to run the same thing.
TECHNIQUES = [technique for technique in techniques.TECHNIQUES if technique.name not in ('streaming', 'pmap')]


@pytest.mark.parametrize('technique', TECHNIQUES, ids=lambda technique: technique.name)
def test_every_technique_has_a_line(technique):
    text = (ROOT / 'docs/techniques.md').read_text()
    key, value = next(iter(technique.on.items()))
    if isinstance(value, dict):
        key, value = f'{key}.name', value['name']
    assert (f'`{value}`' if key.endswith('.name') else f'`{key} = ') in text


def test_what_two_players_refuse_is_said():
    fields = {line.split(' = ')[0]: line.split(' = ')[1].strip("'") for line in written['FIELDS']}
    for field, value in (fields | {f'{choice}.name': 'any' for choice in written['CHOICES']}).items():
        config = base.get_config()
        config.task.name, config.model.name = 'generation', 'dcgan'
        *groups, last = field.split('.')
        node = config
        for group in groups:
            node = node.get(group, {})
        node[last] = value
        try:
            players._check(config)
            refused = False
        except ConfigError:
            refused = True
        said = field.removesuffix('.name') in written['ONE_NETWORK']
        assert refused == (said and not field.startswith('task.')), field  # arguments of other tasks


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link, heading in re.findall(r'\]\(([^)#]*)#?([^)]*)\)', page.read_text()):
        target = page.parent / link if link else page
        assert link.startswith('http') or target.exists(), link
        if heading:
            titles = re.findall('^#+ (.*)', target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r'[^\w -]', '', title).lower().replace(' ', '-') for title in titles}, heading


def test_changelog_and_citation_are_of_this_version():
    assert re.search(r'^## ([\d.]+)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)[1] == cli.VERSION
    assert f'\nversion: {cli.VERSION}\n' in (ROOT / 'CITATION.cff').read_text()
