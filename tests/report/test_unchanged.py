"""A change that changed no bit is told apart from one whose effect is not shown, and no correction counts it."""

import json

import fabricate
import numpy as np
import pytest

from research.layers import low_rank
from research.report import records, statistics, summary, tables, words

EFFECTS = {'baseline': 0.0, 'null': 0.0, 'adam': 0.011, 'tiny': -0.004, 'clip': 0.0}


def summarize(workdir):
    read = records.read(workdir)
    found = summary.summarize(read, summary.read_evaluations(read))
    return found, {contrast['name']: contrast for contrast in found['contrasts']}


def said(found, contrast):
    return words.answer(contrast, tables.unit(found), found)


@pytest.mark.parametrize('seeds', [1, 7])
def test_equal_bit_for_bit_did_nothing_and_is_not_counted(tmp_path, seeds):
    """However few the seeds: equal losses are no chance. The other contrasts are corrected as if it had not been asked."""
    fabricate.study(tmp_path, EFFECTS, seeds, 1, copies={'clip': 'baseline'})
    found, contrasts = summarize(tmp_path)
    clip, others = contrasts['clip'], [contrasts['adam'], contrasts['tiny']]
    assert clip['verdict'] == 'did nothing' and (clip['p_value'], clip['p_corrected'], clip['detectable']) == (None,) * 3
    assert (clip['difference'], clip['interval'], clip['descriptive']) == (0.0, (0.0, 0.0), False)
    assert [c['p_corrected'] for c in others] == statistics.holm([c['p_value'] for c in others])
    assert ('interval' in said(found, contrasts['adam'])) == (seeds > 1)  # one seed has none
    every = 'each of 7 seeds' if seeds > 1 else 'its one seed'
    assert said(found, clip) == (
        f"Every loss, score and answer equals the baseline's bit for bit in {every}, so no correction counts it. "
        'It sets optimizer.clip.name global_norm, optimizer.clip.max_norm 1.0.'
    )


@pytest.mark.parametrize('changed', ['a loss', 'a score', 'an answer', 'no losses', 'no result'])
def test_one_bit_of_one_seed_makes_it_a_comparison(tmp_path, changed):
    fabricate.study(tmp_path, EFFECTS, 7, 1, copies={'clip': 'baseline'})
    folder = fabricate.amend(tmp_path, 'clip', 3)
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    result = json.loads((folder / 'result.json').read_text())
    if changed == 'a loss':
        lines[0]['train/loss'] = float(np.nextafter(lines[0]['train/loss'], 1))
    if changed == 'a score':
        result['metrics']['test/loss'] += 1e-16
    if changed == 'an answer':
        packed = np.load(folder / 'correct.npy')
        np.save(folder / 'correct.npy', packed ^ np.eye(packed.size, dtype=np.uint8)[0])
    if changed == 'no losses':
        for variant in ('clip', 'baseline'):
            (fabricate.amend(tmp_path, variant, 3) / 'metrics.jsonl').unlink()
    else:
        (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    fabricate.amend(tmp_path, 'clip', 3, metrics=result['metrics'], **({'status': 'failed'} if changed == 'no result' else {}))
    _, contrasts = summarize(tmp_path)
    assert contrasts['clip']['verdict'] == (
        'failed (1 of 7 ended in an error)' if changed == 'no result' else 'no effect shown'
    )


def test_the_same_numbers_at_another_cost(tmp_path):
    variants = {'baseline': {}, 'tiny': {'train.remat': 'block'}}
    fabricate.study(tmp_path, dict.fromkeys(variants, 0.0), 2, 1, copies={'tiny': 'baseline'}, variants=variants)
    found, contrasts = summarize(tmp_path)
    assert contrasts['tiny']['verdict'] == 'same numbers, other cost'
    text = said(found, contrasts['tiny'])
    assert 'It sets train.remat block: ×0.3 parameters, ×0.3 FLOPs a training step' in text
    assert '×0.3 predicted memory, for' in text and '% less training time' in text


def test_a_named_contrast_of_runs_that_cancel(tmp_path):
    """Two variants that are one, and an interaction whose parts are each the other's copy."""
    named = {'two': {'adam': 1, 'tiny': -1}, 'add up': {'both': 1, 'adam': -1, 'clip': -1, 'baseline': 1}}
    copies = {'tiny': 'adam', 'clip': 'baseline', 'both': 'adam'}
    fabricate.study(tmp_path, {**EFFECTS, 'both': 0.0}, 7, 1, contrasts=named, copies=copies)
    found, contrasts = summarize(tmp_path)
    assert contrasts['two']['verdict'] == 'same numbers, other cost'  # tiny is smaller
    assert contrasts['add up']['verdict'] == 'did nothing'
    cancel = 'Runs that are equal bit for bit cancel in each of 7 seeds, so this is 0 and no correction counts it.'
    assert said(found, contrasts['two']) == said(found, contrasts['add up']) == cancel


def test_causes_that_are_known(tmp_path):
    """What a field says by itself, and what training steps observed: also where another program moved the last bits."""
    overrides = {**fabricate.OVERRIDES, 'cosine': {'model.low_rank': 0.25}, 'clip2': fabricate.OVERRIDES['clip']}
    effects = {'baseline': 0.0, 'null': 0.0, 'cosine': 0.0, 'clip': 0.0, 'clip2': 0.0}
    variants = {name: overrides[name] for name in effects}
    fabricate.study(tmp_path, effects, 7, 1, variants=variants, copies=dict.fromkeys(('cosine', 'clip'), 'baseline'))
    for name in ('clip', 'clip2'):
        for seed in range(7):
            fabricate.amend(tmp_path, name, seed, observed={'clip/steps': 0.0})
    found, contrasts = summarize(tmp_path)
    why = f'Likely cause: low_rank found no layer of {low_rank.LARGE:,} weights or more that it makes smaller.'
    assert said(found, contrasts['cosine']).endswith(f'It sets model.low_rank 0.25. {why}')
    assert said(found, contrasts['clip']).endswith('Likely cause: clipping acted on 0 % of steps.')
    assert contrasts['clip2']['verdict'] == 'no effect shown' and contrasts['clip2']['note'] == 'clipping acted on 0 % of steps'


def test_a_null_that_changed_no_bit_measures_no_noise(tmp_path):
    fabricate.study(tmp_path, {'baseline': 0.0, 'null': 0.0}, 2, 1, copies={'null': 'baseline'})
    found, contrasts = summarize(tmp_path)
    assert 'changed no bit' in words.null(contrasts['null'], tables.unit(found), found)
