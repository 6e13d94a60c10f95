"""Links to events are named as the study names its runs, whatever a variant is called."""

from research.study import folder


def test_events_are_found_by_variant_and_seed(tmp_path):
    runs = {'baseline': {'0': 'aaa', '1': 'bbb'}, 'a/b': {'0': 'ccc'}, '..': {'0': 'ddd'}, 'é é': {'0': 'eee'}}
    for run in ('aaa', 'bbb', 'ccc', 'ddd', 'eee'):
        (tmp_path / 'runs' / run / 'tensorboard').mkdir(parents=True)
        (tmp_path / 'runs' / run / 'tensorboard' / 'events').write_text(run)
    folder.link_events(tmp_path, runs)
    links = {str(path.relative_to(tmp_path / 'tensorboard')): path for path in (tmp_path / 'tensorboard').glob('*/*')}
    assert set(links) == {'baseline/0', 'baseline/1', 'a%2Fb/0', '%2E./0', '%C3%A9 %C3%A9/0'}
    assert (links['baseline/1'] / 'events').read_text() == 'bbb' and (links['%2E./0'] / 'events').read_text() == 'ddd'

    moved = tmp_path.rename(tmp_path.with_name('moved'))
    assert (moved / 'tensorboard/a%2Fb/0/events').read_text() == 'ccc'
    folder.link_events(moved, {'renamed': runs['baseline']})
    assert [path.name for path in (moved / 'tensorboard').iterdir()] == ['renamed']
    assert (moved / 'runs/ccc/tensorboard/events').read_text() == 'ccc'
