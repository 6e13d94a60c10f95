"""The tables of what happened in training: what steps observed, and runs that did not finish."""

from collections.abc import Mapping
from typing import Any

from research.report import words

_OBSERVED = {
    'clip/steps': 'steps on which clipping acted',
    'clip/entries': 'entries of the gradient that it changed',
    'clip/examples': 'examples whose own gradient was clipped',
    'scale/skipped': 'steps that loss scaling skipped',
    'noise/scale': 'gradient noise scale, in examples',
    'gradient/norm': 'norm of the gradient',
}
_SHARES = ('clip/steps', 'clip/entries', 'clip/examples', 'scale/skipped')
_STEPS = ('noise/signal', 'noise/trace')  # towards noise/scale


def observed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """headings, rows of text and caption: what training steps observed; no rows if nothing."""
    variants = [variant for variant in summary['variants'] if variant['observed']]
    known = [key for key in dict.fromkeys(key for v in variants for key in v['observed']) if key not in _STEPS]
    keys = sorted(known, key=lambda key: list(_OBSERVED).index(key) if key in _OBSERVED else len(_OBSERVED))
    body = [[v['name'], *(words.observation(v['observed'].get(key), key in _SHARES) for key in keys)] for v in variants]
    return {
        'headings': ['variant', *(_OBSERVED.get(key, key) for key in keys)],
        'rows': body if keys else [],
        'caption': 'Means over the steps of each run, then over the seeds that finished.',
    }


def unfinished(summary: Mapping[str, Any]) -> dict[str, Any]:
    """headings and rows of text: runs that diverged or failed, where and why."""
    body = []
    for run in summary['unfinished']:
        diverged = run['diverged'] or {}
        saved = diverged.get('checkpoint_step') if diverged else words.MISSING
        norms = ', '.join('not finite' if norm is None else f'{norm:.3g}' for norm in diverged.get('gradient_norms', []))
        message = run['message'] or ''
        cells = [run['variant'], str(run['seed']), run['status']]
        cells += [str(diverged.get(key, words.MISSING)) for key in ('step', 'layer')]
        cells += [norms or words.MISSING, 'none' if saved is None else str(saved)]
        body.append([*cells, message.partition(';')[0] if diverged else message])
    headings = ['run', 'seed', 'status', 'step', 'first seen in', 'norms of its last gradients', 'last good checkpoint, step']
    return {'headings': [*headings, 'message'], 'rows': body}
