"""A study on disk that nobody ran: what a report reads, with effects that the caller chooses."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

EXAMPLES, TRAIN = 360, 1293
EFFECTS = {'baseline': 0.0, 'null': 0.0, 'adam': 0.03, 'cosine': 0.005, 'tiny': -0.05, 'clip': 0.0}
OVERRIDES = {
    'baseline': {},
    'null': {'data.redraw': 1},
    'adam': {'optimizer.name': 'adam', 'optimizer.learning_rate': 0.002},
    'cosine': {'schedule.name': 'cosine', 'schedule.warmup': '0.1run'},
    'tiny': {'model.features': [4, 8]},
    'clip': {'optimizer.clip': {'name': 'global_norm', 'max_norm': 1.0}},
}


def study(
    workdir,
    effects=EFFECTS,
    seeds=10,
    evaluations=10,
    contrasts=None,
    status=None,
    finished=None,
    metric='test/accuracy',
    correct=True,
    memory=True,
    pinned=None,
    name='quickstart',
    copies=None,
    **fields,
):
    """Writes study.json, runs/ and latency.json under `workdir` and returns it as a Path.

    Args:
      effects: variant -> its true difference from the baseline, as a fraction of accuracy.
      contrasts: name -> weights; each variant but the null minus the baseline when None.
      status: {(variant, seed): 'diverged' | 'failed'} for runs that did not finish.
      finished: {variant: number of its seeds that have a result}; all when left out.
      metric: what decides; 'test/loss' takes 1 - accuracy.
      correct: whether per-example correctness was kept.
      memory: whether the runs could measure what they took.
      pinned: {variant: the budget in its runs' config.json}; that of the study when None.
      copies: {variant: another before it, whose losses, scores and answers it has bit for bit}.
      fields: further or other entries of study.json.
    """
    workdir, rng = Path(workdir), np.random.default_rng(7)
    difficulty = rng.normal(3.8, 1.5, EXAMPLES)
    luck = rng.normal(0, 0.12, seeds)
    steps = np.linspace(0, 1, evaluations + 1)[1:]
    runs = {}
    for variant, effect in effects.items():
        runs[variant] = {str(seed): _id(name, variant, seed) for seed in range(seeds)}
        for seed in range(seeds):
            draw = rng.normal(0, 0.08) + rng.logistic(size=EXAMPLES)
            hits = difficulty + luck[seed] + 35 * effect + draw > 0
            if seed >= (finished or {}).get(variant, seeds):
                continue
            folder = workdir / 'runs' / runs[variant][str(seed)]
            folder.mkdir(parents=True)
            told = {'study': {'name': name, 'budget': (pinned or {}).get(variant, fields.get('budget', '30ep'))}}
            (folder / 'config.json').write_text(json.dumps(told))
            ended = (status or {}).get((variant, seed), 'finished')
            run(folder, name, variant, seed, hits, steps, rng, ended, metric, memory)
            if correct:
                np.save(folder / 'correct.npy', np.packbits(hits))
            if original := (copies or {}).get(variant):
                _copy(workdir / 'runs' / runs[original][str(seed)], folder)
    if contrasts is None:
        contrasts = {v: {v: 1, 'baseline': -1} for v in effects if v not in ('baseline', 'null')}
    content = {
        'study': name,
        'question': 'What does each trick buy on handwritten digits?',
        'metric': metric,
        'higher_is_better': metric.endswith('accuracy'),
        'alpha': 0.05,
        'margin': 0.0,
        'budget': '30ep',
        'budget_note': 'equal examples: 38790',
        'score': 'last',
        'seeds': list(range(seeds)),
        'variants': {v: OVERRIDES.get(v, {'optimizer.learning_rate': 0.05}) for v in effects},
        'contrasts': contrasts,
        'config': {
            'data': {'name': 'digits', 'batch_size': 64, 'redraw': 0},
            'model': {'name': 'cnn', 'features': [16, 32]},
            'optimizer': {'name': 'momentum', 'learning_rate': 0.05, 'clip': {'name': 'none'}},
            'schedule': {'name': 'constant', 'warmup': '0st'},
        },
        'runs': runs,
        'platform': 'cpu',
        'command': f'python launch.py --config=configs/{name}.py --workdir=runs/{name}',
        'environment': {
            'git_commit': '0123456789abcdef',
            'git_diff_file': 'uncommitted.diff',
            'packages_file': 'packages.txt',
            'device': 'cpu',
            'cores': 2,
            'platform': 'Linux x86_64',
            'python': '3.11',
            'jax': '0.10.2',
        },
        'rules': '1.0',
        'notes': [],
        'schedules': {
            v: [[0, 19000, 38790], [0.05, 0.05 if v != 'cosine' else 0.025, 0.05 if v != 'cosine' else 0.0]] for v in effects
        },
        **fields,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'study.json').write_text(json.dumps(content))
    (workdir / 'latency.json').write_text(
        json.dumps(
            {
                runs[v]['0']: {
                    b: {'p10': 0.9 * t, 'p50': t, 'p90': 1.2 * t, 'mean': t, 'n': 50} for b, t in (('1', 2e-4), ('64', 3e-3))
                }
                for v in effects
                if runs[v]
            }
        )
    )
    return workdir


def tune(workdir, worth, seeds=(1000,), diverged=(), chosen=None, metric='validation/accuracy', **entries):
    """Adds tuning to a study of `study`.

    Args:
      worth: variant -> the score of each of its points; None for one without a record.
      diverged: pairs (variant, point) that did not finish.
      chosen: variant -> point; {} when None, as long as tuning is not over.
      entries: further ones of each record.
    """
    content = json.loads((workdir / 'study.json').read_text())
    variants = {}
    for variant, scores in worth.items():
        variants[variant] = []
        for point, score in enumerate(scores):
            values = {'optimizer.learning_rate': round(0.05 * 2.0**point, 4)}
            runs = {str(seed): _id(content['study'], f'{variant} {point}', seed) for seed in seeds}
            variants[variant].append({'overrides': values if point else {}, 'values': values, 'runs': runs})
            for number, (seed, name) in enumerate(runs.items()):
                if score is None:
                    continue
                status = 'diverged' if (variant, point) in diverged else 'finished'
                result = {
                    **{'id': name, 'variant': variant, 'seed': int(seed), 'study': content['study'], 'status': status},
                    'tuning_point': point,
                    'metrics': {metric: score + 0.01 * (number - (len(runs) - 1) / 2)} if status == 'finished' else {},
                    'cost': {'train_seconds': 2.0, 'compile_seconds': 1.0},
                    'fingerprint': {},
                    **entries,
                }
                (workdir / 'runs' / name).mkdir(parents=True, exist_ok=True)
                (workdir / 'runs' / name / 'result.json').write_text(json.dumps(result))
        content['variants'][variant] |= variants[variant][(chosen or {}).get(variant, 0)]['overrides']
    content['tuning'] = {
        **{'points': max(map(len, worth.values())), 'seeds': list(seeds), 'metric': metric, 'budget': '5ep'},
        'space': {variant: {'optimizer.learning_rate': ['log', 1e-3, 1.0]} for variant in worth},
        'variants': variants,
        'chosen': chosen or {},
    }
    (workdir / 'study.json').write_text(json.dumps(content))


def amend(workdir, variant, seed, **entries):
    """Changes entries of a run's result.json and returns its folder."""
    content = json.loads((workdir / 'study.json').read_text())
    folder = workdir / 'runs' / content['runs'][variant][str(seed)]
    result = json.loads((folder / 'result.json').read_text())
    (folder / 'result.json').write_text(json.dumps(result | entries))
    return folder


def run(folder, name, variant, seed, hits, steps, rng, status, metric, memory):
    """One run's metrics.jsonl and result.json."""
    accuracy, seconds = float(np.mean(hits)), 2.0 * (0.6 if variant == 'tiny' else 1.0) * rng.lognormal(0, 0.03)
    done = steps if status == 'finished' else steps[: len(steps) // 2]
    learned = [accuracy - 0.6 * np.exp(-6 * s) + rng.normal(0, 0.004) for s in done]
    (folder / 'metrics.jsonl').write_text(
        ''.join(
            json.dumps(
                {
                    'position': int(38790 * s),
                    'step': int(606 * s),
                    'train/loss': 1.5 * np.exp(-5 * s),
                    'validation/accuracy': a,
                    'validation/loss': 1 - a,
                    'learning_rate': 0.05,
                    'train_seconds': seconds * s,
                }
            )
            + '\n'
            for s, a in zip(done, learned, strict=True)
        )
    )
    final = {
        'test/accuracy': accuracy,
        'test/loss': 1 - accuracy,
        'validation/accuracy': learned[-1],
        'validation/loss': 1 - learned[-1],
        'train/loss': 0.01,
    }
    if status != 'finished':
        final = {metric: float('nan')} if status == 'diverged' else {}
    size = 0.3 if variant == 'tiny' else 1.0
    (folder / 'result.json').write_text(
        json.dumps(
            {
                'id': folder.name,
                'variant': variant,
                'seed': seed,
                'study': name,
                'status': status,
                'message': None if status == 'finished' else f'{status} at step 300',
                'metrics': final,
                'test_examples': EXAMPLES,
                'cost': {
                    'parameters': int(25000 * size),
                    'train_flops': int(1.2e8 * size),
                    'train_multiply_adds': int(6e7 * size),
                    'inference_flops': int(6e5 * size),
                    'inference_multiply_adds': int(3e5 * size),
                    'train_seconds': seconds,
                    'compile_seconds': 3.6 if seed == 0 else 0.0,
                    'evaluate_seconds': 0.2,
                    'checkpoint_seconds': 0.1,
                    'seconds_per_step': seconds / 606,
                    'examples': 38790,
                    'steps': 606,
                    'predicted_bytes': int(4e6 * size),
                    'scored_step': 606,
                    **({'peak_growth_bytes': int(6e6 * size) + 1000 * seed} if memory else {}),
                },
                'fingerprint': {'code': 'c0de', 'versions': 'jax 0.10.2', 'data': 'da7a', 'device': 'cpu', 'cores': 2},
            }
        )
    )


def _copy(original, folder):
    """Gives a run the numbers of another one, in its own time."""
    for file in original.glob('correct.npy'):
        shutil.copy(file, folder)
    lines = [[json.loads(line) for line in (of / 'metrics.jsonl').read_text().splitlines()] for of in (original, folder)]
    taken = [numbers | {'train_seconds': own['train_seconds']} for numbers, own in zip(*lines, strict=True)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in taken))
    result, numbers = (json.loads((of / 'result.json').read_text()) for of in (folder, original))
    (folder / 'result.json').write_text(json.dumps(result | {'metrics': numbers['metrics']}))


def _id(name, variant, seed):
    return hashlib.sha256(f'{name}/{variant}/{seed}'.encode()).hexdigest()[:12]
