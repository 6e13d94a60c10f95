"""forest.png and forest.pdf show every row of the forest plot, as the page has them."""

import json
import re
import zlib

import fabricate
import matplotlib.axes
import pytest

from research.report import figures, pages


@pytest.fixture
def written(monkeypatch):
    """Texts that were drawn, with their colours."""
    texts, draw = {}, matplotlib.axes.Axes.text

    def recorded(axes, x, y, text, **options):
        texts.setdefault(text, []).append(options['color'])
        return draw(axes, x, y, text, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, 'text', recorded)
    monkeypatch.setattr(figures, 'pareto', lambda chart, workdir: None)
    return texts


def test_every_row_stands_once_under_its_group_with_its_numbers(tmp_path, written):
    effects = {'baseline': 0.0, 'null': 0.0, 'hurts': -0.08} | {f'row {i}': 0.0 for i in range(18)}
    workdir = fabricate.study(tmp_path, effects=effects, evaluations=2, status={('row 17', 2): 'diverged'})
    summary = pages.write(workdir)
    assert all(len(written[name]) == 1 for name in effects if name not in ('baseline', 'null'))
    hurts = next(contrast for contrast in summary['contrasts'] if contrast['name'] == 'hurts')
    assert f'−{100 * abs(hurts["difference"]):.2f}' in written and '1 of 10 diverged' in written
    assert {'Hurts', 'Failed', 'No effect shown'} <= written.keys() and '95 % interval over 10 paired seeds' in ''.join(written)
    assert written['Hurts'] != written['No effect shown']
    png = (workdir / 'forest.png').read_bytes()
    assert int.from_bytes(png[16:20], 'big') == 1600 and int.from_bytes(png[20:24], 'big') > 800


def test_text_in_the_pdf_is_text(tmp_path, written):
    workdir = fabricate.study(tmp_path, seeds=3, evaluations=2)
    pages.write(workdir)
    pdf = (workdir / 'forest.pdf').read_bytes()
    streams = [zlib.decompress(data) for data in re.findall(rb'FlateDecode.*?stream\r?\n(.*?)\r?\nendstream', pdf, re.S)]
    assert any(stream.count(b' TJ') + stream.count(b' Tj') > 20 for stream in streams)
    assert b'/CIDFontType2' in pdf and b'/Type3' not in pdf


def test_where_there_is_nothing_to_compare_no_picture_is_made_or_shown(tmp_path, written):
    workdir = fabricate.study(tmp_path, effects={'baseline': 0.0}, seeds=2, evaluations=2)
    pages.write(workdir)
    assert not (workdir / 'forest.png').exists() and 'forest' not in (workdir / 'report.md').read_text() and not written


def test_costs_that_do_not_differ_have_no_column(tmp_path, written):
    workdir = fabricate.study(tmp_path, effects={'baseline': 0.0, 'clip': 0.0}, seeds=2, evaluations=2, memory=False)
    for variant in ('baseline', 'clip'):
        for seed in range(2):
            folder = fabricate.amend(workdir, variant, seed)
            cost = json.loads((folder / 'result.json').read_text())['cost']
            fabricate.amend(workdir, variant, seed, cost=cost | {'train_seconds': 2.0, 'seconds_per_step': 0.01})
    pages.write(workdir)
    assert 'clip' in written and not any('ratio' in text or text.startswith('×') for text in written)
