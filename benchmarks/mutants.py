"""Breaks the code in 49 places, one after the other, and runs the tests named for each: which break does no test notice?

Run: python benchmarks/mutants.py [--only TEXT] [--list]
     7 minutes of a core. Each break is made in a copy of the tree.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Mutant(NamedTuple):
    """One break.

    Attributes:
      what: is wrong with it.
      file: under research/.
      old, new: text, `old` once in the file.
      tests: arguments of pytest; at least one test of the default suite among them has to fail.
    """

    what: str
    file: str
    old: str
    new: str
    tests: str


PLAIN, STEP, TEXT = (
    'tests/train/test_plain.py',
    'tests/train/test_step.py',
    'tests/train/test_text.py',
)

MUTANTS = (
    # The step.
    Mutant(
        'a halved gradient', 'train/steps/network.py', 'lambda g: g / count', 'lambda g: g / (2 * count)', f'{PLAIN} -k default'
    ),
    Mutant(
        'frozen layers move under momentum',
        'train/steps/network.py',
        'jax.tree.map(jnp.zeros_like, u) if name in phase.frozen else u',
        'u',
        f'{PLAIN} -k frozen',
    ),
    Mutant(
        'noise is added on every device',
        'train/steps/network.py',
        'g + noise * scale',
        'g + engine.total(noise) * scale',
        f'{PLAIN} -k noise',
    ),
    Mutant(
        'every step draws the same noise',
        'layers/example.py',
        "fold_in(key_of(self.rng, f'gradient {purpose}'), self.step)",
        "fold_in(key_of(self.rng, f'gradient {purpose}'), 0)",
        f'{PLAIN} -k noise',
    ),
    Mutant(
        'batch statistics of weights that are not scored',
        'train/steps/supervised.py',
        'seen, collections = self.weights(params, state.masks), state.collections',
        'seen, collections = self.weights(state.params, state.masks), state.collections',
        f'{PLAIN} -k average',
    ),
    Mutant(
        'the reference batch is the first batch',
        'train/placing.py',
        "seed = config['train']['seed'] + (zlib.crc32(b'reference') << 32)",
        'seed = experiment.order_seed',
        f'{PLAIN} -k reference',
    ),
    Mutant(
        'a state that goes on after NaN',
        'train/chunks.py',
        ' & jnp.isfinite(watched).all()',
        '',
        'tests/train/test_divergence.py -k state_stays',
    ),
    Mutant('the input is not divided by its deviation', 'tasks/__init__.py', " / constants['std']", '', f'{PLAIN} -k default'),
    Mutant(
        'no progressive resizing',
        'train/steps/supervised.py',
        'resize.resized(task.inputs(batch, constants), phase.side)',
        'task.inputs(batch, constants)',
        'tests/train/test_phases.py',
    ),
    Mutant(
        'draws do not know their purpose',
        'layers/example.py',
        'purpose_key = key_of(rng, purpose)',
        'purpose_key = rng',
        f'{STEP} -k keys',
    ),
    Mutant(
        'positions stop at 2^32',
        'train/batches.py',
        'high = start[0] + (low < start[1]).astype(jnp.uint32)',
        'high = start[0] + jnp.zeros_like(low)',
        f'{STEP} -k carry',
    ),
    Mutant(
        'an empty row is the last row',
        'train/batches.py',
        'jnp.where(there, values, jnp.asarray(fields[name].fill, values.dtype))',
        'values',
        f'{TEXT} -k several',
    ),
    Mutant(
        'draws of an evaluation go by place',
        'train/steps/supervised.py',
        'self.engine.rows(block.numbers[i])',
        'self.engine.rows(block.rows[i])',
        f'{TEXT} -k draws',
    ),
    Mutant(
        'pmap takes means for sums', 'train/parallel.py', 'jax.lax.psum(x, AXIS)', 'jax.lax.pmean(x, AXIS)', f'{PLAIN} -k noise'
    ),
    Mutant(
        'auxiliary heads do not count',
        'train/steps/supervised.py',
        'loss += self.auxiliary_weight * ',
        'loss += 0 * ',
        'tests/train/test_auxiliary.py',
    ),
    Mutant(
        'outputs stay in 16 bits',
        'train/steps/network.py',
        'return self.whole(self._apply(seen, collections, inputs, train=False, **options))',
        'return self._apply(seen, collections, inputs, train=False, **options)',
        f'{PLAIN} -k precision',
    ),
    # Gradients and updates.
    Mutant(
        'accumulation forgets running statistics',
        'gradients/accumulated.py',
        "total, gradient), aux['collections']), (",
        'total, gradient), collections), (',
        'tests/gradients',
    ),
    Mutant(
        'selective backpropagation keeps the easy ones',
        'gradients/selective_backprop.py',
        '-losses, jnp.inf',
        'losses, jnp.inf',
        'tests/gradients',
    ),
    Mutant(
        'sharpness-aware minimization steps down',
        'gradients/sam.py',
        '(p + scale * g)',
        '(p - scale * g)',
        'tests/gradients -k sam',
    ),
    Mutant(
        'weight decay reaches biases',
        'optim/multipliers.py',
        "getattr(path[-1], 'key', None) == 'kernel'",
        "getattr(path[-1], 'key', None) in ('kernel', 'bias')",
        'tests/optim/test_optimizers.py',
    ),
    Mutant(
        'an average that remembers its start',
        'optim/averaging.py',
        'np.minimum(decay, (1 + updates) / (10 + updates))',
        'decay + 0 * updates',
        'tests/optim/test_averaging.py',
    ),
    Mutant(
        'an equal score counts as a failure',
        'optim/plateau.py',
        'gain >= min_delta',
        'gain > min_delta',
        'tests/train/test_phases.py -k shrinks',
    ),
    Mutant(
        'loss scaling is not taken back',
        'optim/scaling.py',
        'lambda g: g / scale.astype(g.dtype), updates',
        'lambda g: g, updates',
        'tests/optim/test_scaling.py',
    ),
    Mutant(
        'the rate follows a batch the wrong way',
        'data/batch_sizes.py',
        "'linear': size / batch_size",
        "'linear': batch_size / size",
        'tests/data/test_batch_sizes.py',
    ),
    # Tasks.
    Mutant(
        'padding counts as correct',
        'tasks/classification.py',
        "jnp.sum(correct(logits, batch) * batch['valid'])",
        'jnp.sum(correct(logits, batch))',
        'tests/tasks/test_classification.py',
    ),
    Mutant(
        'an evaluation smooths labels',
        'tasks/classification.py',
        'sums=functools.partial(sums, judged)',
        'sums=functools.partial(sums, losses)',
        'tests/tasks/test_classification.py',
    ),
    Mutant(
        'deferred weights know half of the position',
        'tasks/balancing.py',
        'high * 2.0**32 + low',
        'low',
        'tests/tasks/test_balancing.py',
    ),
    Mutant(
        'logits are shifted the wrong way',
        'tasks/balancing.py',
        '(logit_adjustment * np.log(prior))',
        '(-logit_adjustment * np.log(prior))',
        'tests/tasks/test_balancing.py',
    ),
    Mutant(
        'recall and precision are exchanged',
        'tasks/confusion.py',
        'label * classes + answer',
        'answer * classes + label',
        'tests/tasks/test_confusion.py',
    ),
    Mutant(
        'every epoch begins a class anew',
        'data/balanced.py',
        'seed, epoch * quota, (epoch + 1) * quota, len',
        'seed, 0, quota, len',
        'tests/data/test_balanced.py',
    ),
    Mutant(
        'thinned subsets do not nest',
        'data/imbalance.py',
        "order.drawn(config['split_seed'], len(rows), order.KEPT)",
        "order.drawn(config['split_seed'] + int(most.sum()), len(rows), order.KEPT)",
        'tests/data/test_imbalance.py',
    ),
    Mutant(
        'half of the Fréchet distance', 'tasks/generation.py', '- 2 * between', '- between', 'tests/tasks/test_generation.py'
    ),
    Mutant(
        "the generator is trained on the discriminator's latents",
        'train/steps/adversarial.py',
        "self._latents(state.rng, 'generator', batch['position'])",
        "self._latents(state.rng, 'discriminator', batch['position'])",
        'tests/train/test_adversarial.py',
    ),
    # The loop.
    Mutant(
        'the test split steers',
        'train/loop.py',
        "self.evaluator.score(variables, 'validation', writes=self.writes)",
        "self.evaluator.score(variables, 'test', writes=self.writes)",
        'tests/train/test_loop.py',
    ),
    Mutant(
        'the worst is kept as the best',
        'train/loop.py',
        'score > self.at.best if self.higher',
        'score < self.at.best if self.higher',
        'tests/train/test_loop.py',
    ),
    Mutant(
        'a change of phase is no boundary',
        'train/calendar.py',
        '        if (change := self.phases.next_change(position)) is not None:\n            following.append(change)\n',
        '',
        'tests/train/test_calendar.py',
    ),
    Mutant(
        'sums depend on how steps fell into chunks',
        'train/progress.py',
        'float(np.cumsum([total.get(name, 0.0), *values])[-1])',
        'total.get(name, 0.0) + float(np.sum(values))',
        'tests/train/test_calendar.py',
    ),
    Mutant(
        'rates are read at the end of a step',
        'train/feed.py',
        'experiment.controls(starts, updates',
        'experiment.controls(starts + batch_size, updates',
        f'{PLAIN} -k rate_of_a_step',
    ),
    # Data.
    Mutant(
        'every cut of a source is placed anew',
        'train/placing.py',
        'return id(dataset.arrays), len(kept)',
        'return id(dataset), len(kept)',
        'tests/train/test_placing.py -k one_copy',
    ),
    Mutant(
        'an evaluation reads the row of the same number',
        'train/feed.py',
        'self._places[numbers], numbers',
        'numbers, numbers',
        'tests/train/test_placing.py -k only_rows',
    ),
    Mutant(
        'a checkpoint that cannot be read ends the run',
        'train/checkpoint.py',
        'torn file\n                self._keep_aside(step, error)',
        'torn file\n                raise',
        'tests/train/test_checkpoint.py -k index',
    ),
    Mutant(
        'the code of a run is what it imports directly',
        'study/closure.py',
        'todo += [*_parents(whole)',
        'todo += [] and [*_parents(whole)',
        'tests/study/test_identity.py -k executes',
    ),
    Mutant(
        'training reads validation data',
        'data/sampling.py',
        "Shuffled(dataset.splits['train'])",
        "Shuffled(np.union1d(dataset.splits['train'], dataset.splits['validation']))",
        f'tests/data/test_sampling.py {STEP} -k training or sampler',
    ),
    Mutant(
        "the null variant has the baseline's order",
        'data/order.py',
        '(operator.index(redraw) << 32)',
        '0 * operator.index(redraw)',
        'tests/train/test_experiment.py -k null',
    ),
    Mutant(
        'two folders are one run',
        'study/budget.py',
        'checksum=experiments.load_data(run.config, session).checksum',
        "checksum=''",
        'tests/study/test_budget.py',
    ),
    # Reports.
    Mutant(
        'a crossed interval that takes the interaction for examples',
        'report/statistics.py',
        ' - interaction / seeds',
        '',
        'tests/report/test_statistics.py -k crossed',
    ),
    Mutant(
        'Holm is no step-down', 'report/statistics.py', '(len(made) - rank)', '1', 'tests/report/test_statistics.py -k holm'
    ),
    Mutant(
        'the gap of a loss has the wrong sign',
        'report/summary.py',
        "1 if records.study['higher_is_better'] else -1",
        '1',
        'tests/report/test_summary.py -k gap',
    ),
    Mutant(
        'files are written where they are read',
        'files.py',
        "temporary = path.with_name(f'.{path.name}.tmp-{os.getpid()}')",
        'temporary = path',
        'tests/test_files.py',
    ),
)


def main() -> int:
    """Prints a line a mutant and the table's end; 1 where more than two survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', metavar='TEXT', help='mutants whose file or description has it')
    parser.add_argument('--list', action='store_true', help='name them, and check that each still applies')
    flags = parser.parse_args()
    chosen = [m for m in MUTANTS if flags.only in f'{m.file} {m.what}']
    for mutant in chosen:
        count = (ROOT / 'research' / mutant.file).read_text().count(mutant.old)
        if count != 1:
            print(f'{mutant.what}: its text stands {count} times in {mutant.file}, expected once')
            return 1
        if flags.list:
            print(f'{mutant.file}: {mutant.what}')
    if flags.list:
        return 0
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder, 'tree')
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns('.git', 'runs', '__pycache__', '.hypothesis'))
        for mutant in chosen:
            noticed, by = _noticed(tree, mutant)
            survived += [] if noticed else [mutant]
            print(f'| {mutant.what} | {mutant.file} | {by if noticed else "**survived**"} |', flush=True)
    print(f'{len(chosen) - len(survived)} of {len(chosen)} noticed')
    return int(len(survived) > 2)


def _noticed(tree: pathlib.Path, mutant: Mutant) -> tuple[bool, str]:
    """Whether a test fails in the tree with the break, and which one did first."""
    file = tree / 'research' / mutant.file
    sound = file.read_text()
    paths, _, keyword = mutant.tests.partition(' -k ')
    command = [sys.executable, '-m', 'pytest', '-n0', '-q', '-x', '--tb=no', *paths.split()]
    try:
        file.write_text(sound.replace(mutant.old, mutant.new))
        done = subprocess.run(
            [*command, *(['-k', keyword] if keyword else [])], cwd=tree, capture_output=True, text=True, check=False
        )
    finally:
        file.write_text(sound)
    failed = [line for line in done.stdout.splitlines() if line.startswith(('FAILED', 'ERROR'))]
    if done.returncode not in (0, 1):  # nothing was collected: that proves nothing
        raise SystemExit(f'{mutant.what}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}')
    return bool(failed), failed[0].split(' - ')[0].partition(' ')[2] if failed else ''


if __name__ == '__main__':
    sys.exit(main())
