"""One run from its first step to its outcome: what is counted, what steers it, where it stops and how it goes on."""

import contextlib
import json
import re
import time

import jax
import numpy as np
import pytest
import tiny
from scipy import special

from research import cost
from research.train import loop, record
from research.train.checkpoint import Checkpoints
from research.train.clock import Clock
from research.train.evaluation import Evaluator
from research.train.feed import Feed
from research.train.program import Compiled, Session


@pytest.fixture(scope='module')
def finished(session, tmp_path_factory):
    """An uninterrupted run: (experiment, outcome, folder)."""
    directory = tmp_path_factory.mktemp('finished')
    built = tiny.build(session)
    return built, tiny.train(built, directory), directory


@pytest.fixture
def single_steps(monkeypatch):
    """Chunks of one step, so that a run can be stopped anywhere."""
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_an_evaluation_counts_each_example_once(finished, split):
    """Against NumPy over the logits of the variables that were scored, in one batch without padding."""
    built, outcome, directory = finished
    examples = built.dataset.splits[split]
    assert len(examples) % built.config['data']['eval_batch_size']  # the last batch is padded
    images, labels = (built.dataset.arrays[name][examples] for name in ('image', 'label'))
    mean, std = (np.reshape(built.dataset.facts[name], (1, 1, 1, -1)) for name in ('mean', 'std'))
    logits = built.program.step.module.apply(tiny.scored(directory), ((images - mean) / std).astype(np.float32))
    right = np.asarray(logits).argmax(-1) == labels
    assert outcome.metrics[f'{split}/accuracy'] == right.sum() / len(examples)
    log_probabilities = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    assert outcome.metrics[f'{split}/loss'] == pytest.approx(loss, rel=1e-5)
    if split == 'test':
        np.testing.assert_array_equal(outcome.correct, right)


def test_a_programs_first_call_is_in_no_runs_training_seconds_and_changes_no_bit(finished, tmp_path, monkeypatch):
    """Where it stood in them, whichever variant was first seemed slower. The second run's program has been called before."""
    at, calls = [], []
    measure, call = Clock.measure, Compiled.__call__

    @contextlib.contextmanager
    def watched(self, kind):
        at.append(kind)
        with measure(self, kind):
            yield
        at.pop()

    def called(self, clock, *args):
        calls.append((self, at[-1] if at else None))
        return call(self, clock, *args)

    monkeypatch.setattr(Clock, 'measure', watched)
    monkeypatch.setattr(Compiled, '__call__', called)
    built = tiny.build(Session())
    outcomes = [tiny.train(built, tmp_path / name) for name in ('first', 'second')]
    chunk = built.program.chunk(built.phases.at(0, 0))
    kinds = [kind for program, kind in calls if program is chunk]
    assert kinds[:2] == [None] * 2 and set(kinds[2:]) == {'train'}
    assert outcomes[0].metrics == outcomes[1].metrics == finished[1].metrics


def test_the_training_loss_is_the_mean_since_the_last_evaluation(finished):
    built, outcome, directory = finished
    _, losses = tiny.steps(built, 60)
    found = [row['train/loss'] for row in tiny.rows(directory)]
    np.testing.assert_allclose(found, losses.reshape(3, 20).astype(np.float64).mean(1), rtol=1e-6)
    assert outcome.metrics['train/loss'] == found[-1]


def test_a_row_says_where_it_was_written(finished):
    built, _, directory = finished
    rows = tiny.rows(directory)
    assert [row['step'] for row in rows] == [20, 40, 60]
    assert [row['position'] for row in rows] == [640, 1280, 1920]
    assert {row['learning_rate'] for row in rows} == {0.0625}


def test_costs_add_up(finished):
    built, outcome, _ = finished
    spent = outcome.cost
    assert (spent['steps'], spent['examples']) == (60, 1920)
    assert spent['seconds_per_step'] == pytest.approx(spent['train_seconds'] / 60)
    assert all(spent[f'{kind}_seconds'] > 0 for kind in ('train', 'evaluate', 'checkpoint'))
    assert not any('second' in name for name in outcome.metrics)


def test_memory_is_that_of_steps_and_of_the_state_alone(session, tmp_path, monkeypatch):
    """Nothing is compiled or evaluated where the peak is measured, though each of two phases has a program of its own."""
    inside, peaks = [], iter((7_000, 9_000))

    @contextlib.contextmanager
    def peak_memory():
        inside.append('steps')
        found = {'before': 1_000, 'bytes': next(peaks), 'since': 'block'}
        yield found
        inside.append('over')

    def prepare(self, *arguments):
        assert self.executable is not None or inside[-1:] != ['steps'], 'compiled among the steps'
        return compiling(self, *arguments)

    def score(*arguments, **named):
        assert inside[-1:] != ['steps'], 'evaluated among the steps'
        return scoring(*arguments, **named)

    compiling, scoring = Compiled.prepare, Evaluator.score
    monkeypatch.setattr(cost, 'peak_memory', peak_memory)
    monkeypatch.setattr(Compiled, 'prepare', prepare)
    monkeypatch.setattr(Evaluator, 'score', score)
    grows = {'name': 'grow', 'milestones': ('0.5run',)}
    small = {'model.name': 'techniques:Small', 'study.budget': '4st', 'data.batch': grows}
    built = tiny.build(Session(datasets=session.datasets), small)
    outcome = tiny.train(built, tmp_path / 'run')
    assert inside == ['steps', 'over'] * 2
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(built.program.shapes))
    assert outcome.cost['peak_growth_bytes'] == 8_000 + state * len(built.program.engine.devices)


def test_the_test_split_is_read_once_and_last(session, tmp_path, monkeypatch):
    events, built = [], tiny.build(session)
    blocks, chunk = Feed.blocks, Feed.chunk

    def named(rows):
        return next((name for name, split in built.dataset.splits.items() if np.array_equal(rows, split)), 'some')

    monkeypatch.setattr(Feed, 'blocks', lambda self, rows: events.append(named(rows)) or blocks(self, rows))
    monkeypatch.setattr(Feed, 'chunk', lambda self, *where: events.append('train') or chunk(self, *where))
    tiny.train(built, tmp_path)
    assert events.count('test') == 1
    assert events.count('validation') >= 3
    assert 'train' in events
    assert 'train' not in events[events.index('test') :]


@pytest.mark.parametrize('higher_is_better', [True, False])
def test_validation_picks_the_best_parameters(session, tmp_path, single_steps, higher_is_better):
    """With lower as better the best ones are the first, which the last training steps have long left; a stop keeps them."""
    best = {'study.score': 'best', 'study.higher_is_better': higher_is_better}
    outcome = tiny.train(tiny.build(session, best), tmp_path / 'whole')
    rows = tiny.rows(tmp_path / 'whole')
    pick = max if higher_is_better else min
    row = pick(rows, key=lambda row: row['validation/accuracy'])
    assert outcome.metrics['validation/accuracy'] == row['validation/accuracy']
    assert outcome.metrics['validation/loss'] == pytest.approx(row['validation/loss'], rel=1e-6)
    assert higher_is_better or row['step'] < 60
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session, best), tmp_path / 'stopped', stop_at=47)
    resumed = tiny.train(tiny.build(session, best), tmp_path / 'stopped')
    assert resumed.metrics == outcome.metrics
    tiny.assert_same_bits(tiny.scored(tmp_path / 'stopped'), tiny.scored(tmp_path / 'whole'))


def test_a_run_that_diverges_says_when(session, tmp_path):
    built = tiny.build(session, {'optimizer.learning_rate': 1e30})
    _, losses = tiny.steps(built, 60)
    first = int(np.argmin(np.isfinite(losses)))
    assert 0 < first < 60
    outcome = tiny.train(built, tmp_path)
    assert outcome.status == 'diverged'
    message = rf'(loss|gradient) is (nan|inf) at step {outcome.diverged["step"]}, learning rate 1e\+30; first seen in '
    assert re.match(message, outcome.message)
    assert 0 < outcome.diverged['step'] <= first
    assert outcome.metrics == {}
    assert outcome.correct is None
    assert outcome.cost['steps'] <= first
    assert not (tmp_path / 'scored').exists()


def test_a_run_whose_last_step_breaks_the_network_has_diverged(session, tmp_path):
    """The loss of its only step is still finite; the evaluation after it meets confidences that are not."""
    outcome = tiny.train(tiny.build(session, {'optimizer.learning_rate': 1e30, 'study.budget': '1st'}), tmp_path)
    assert outcome.status == 'diverged' and outcome.metrics == {}
    assert outcome.message.startswith('validation loss is nan after step 1')


def test_a_stop_saves_everything_and_the_run_goes_on_from_there(finished, session, tmp_path, single_steps):
    built, outcome, directory = finished
    with pytest.raises(loop.Stopped):
        tiny.train(tiny.build(session), tmp_path, stop_at=33)
    assert not (tmp_path / 'scored').exists()
    assert tiny.rows(tmp_path) == tiny.rows(directory)[:1]

    run = loop._Run(tiny.build(session), tmp_path, lambda *_: None, lambda: False)
    state = run._restore()
    saved = newest(tmp_path, run, state)
    step = run.at.step
    assert 33 <= step < 36  # what was on its way is trained to its end
    expected, losses = tiny.steps(built, step)
    tiny.assert_same_bits(built.program.engine.host(state), expected)
    assert run.at.sums['count'] == (step - 20) * 32
    assert run.at.sums['loss'] == pytest.approx(losses[20:].sum() * 32, rel=1e-6)
    assert run.clock.seconds == saved['seconds']
    assert run.clock.seconds['train'] > 0
    run.checkpoints.close()

    resumed = tiny.train(tiny.build(session), tmp_path)
    assert resumed.metrics == outcome.metrics
    assert resumed.cost['train_seconds'] > saved['seconds']['train']
    assert (resumed.cost['steps'], resumed.cost['examples']) == (60, 1920)
    assert tiny.rows(tmp_path) == tiny.rows(directory)
    tiny.assert_same_bits(tiny.scored(tmp_path), tiny.scored(directory))


def newest(directory, run, state):
    """What lies beside the state in the newest checkpoint."""
    checkpoints = Checkpoints((directory / 'checkpoints').absolute())
    _, meta = checkpoints.restore({'state': run.engine.host(state), 'best': {}})
    checkpoints.close()
    return meta


def test_stopping_again_and_again_changes_nothing(finished, session, tmp_path, single_steps):
    _, outcome, directory = finished
    stops = 0
    for stop_at in (1, 20, 21, 50):
        with pytest.raises(loop.Stopped):
            tiny.train(tiny.build(session), tmp_path, stop_at=stop_at)
        stops += 1
    assert stops == 4
    assert tiny.train(tiny.build(session), tmp_path).metrics == outcome.metrics
    assert tiny.rows(tmp_path) == tiny.rows(directory)


def test_how_steps_fall_into_chunks_does_not_show(finished, session, tmp_path, single_steps):
    _, outcome, directory = finished
    assert tiny.train(tiny.build(session), tmp_path).metrics == outcome.metrics
    assert tiny.rows(tmp_path) == tiny.rows(directory)


@pytest.mark.parametrize(
    ('every', 'expected'),
    [('25st', [1, 25, 50]), ('800ex', [1, 25, 50]), ('0.5run', [1, 30]), ('600s', [])],
)
def test_checkpoints_are_written_where_they_are_due(session, tmp_path, monkeypatch, every, expected):
    """After the first step too, so that a full disk shows now; never after the last, whose variables are kept apart."""
    saved = []
    monkeypatch.setattr(Checkpoints, 'save', lambda self, step, *_, **__: saved.append(step))
    tiny.train(tiny.build(session, {'train.checkpoint_every': every}), tmp_path)
    assert saved == expected


def test_checkpoints_by_the_clock_come_at_the_next_chunks_end(session, tmp_path, monkeypatch, single_steps):
    saved = []
    monkeypatch.setattr(Checkpoints, 'save', lambda self, step, *_, **__: saved.append(step))
    tiny.train(tiny.build(session, {'train.checkpoint_every': '0s'}), tmp_path)
    assert saved[-1] in (58, 59)
    assert set(np.diff(saved)) <= {1, 2}  # one step may be on its way


def test_progress_is_told_in_order(session, tmp_path):
    built, told = tiny.build(session), []
    loop.train(built, tmp_path, lambda step, _, rate: told.append((step, rate)), lambda: False)
    steps = [step for step, _ in told]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60
    assert all(rate > 0 for _, rate in told)


def test_rows_behind_the_checkpoint_are_dropped(tmp_path):
    """A kill comes after rows that the checkpoint does not know, and may cut the last one short."""
    path = tmp_path / 'metrics.jsonl'
    rows = [{'step': position // 10, 'position': position, 'loss': 1 / 3} for position in (10, 20, 30)]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows) + '{"position": 15, "lo')
    metrics = record.Metrics(path, 20)
    metrics.append({**rows[2], 'loss': 0.5})
    metrics.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*rows[:2], {**rows[2], 'loss': 0.5}]
    record.Metrics(path, 0).close()
    assert path.read_text() == ''


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'result.json'
    record.write_json(path, {'a': 1})
    with pytest.raises(TypeError):
        record.write_json(path, {'a': 2, 'b': object()})
    assert json.loads(path.read_text()) == {'a': 1}


def test_a_clock_keeps_compilation_apart(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr('time.perf_counter', lambda: next(now))
    clock = Clock({'train': 5.0})
    with clock.measure('train'), clock.measure('compile'):  # 0 to 3, and inside it 1 to 2
        pass
    assert {kind: seconds for kind, seconds in clock.seconds.items() if seconds} == {'train': 7.0, 'compile': 1.0}


def test_checkpoints_restore_what_was_saved_and_keep_the_newest(tmp_path):
    tree = {'key': jax.random.key(3), 'x': jax.numpy.arange(3.0), 'empty': {}}
    checkpoints = Checkpoints(tmp_path / 'checkpoints')
    assert checkpoints.restore(tree) is None
    for step in (1, 2):
        checkpoints.save(step, {**tree, 'x': tree['x'] + step}, {'step': step, 'third': 1 / 3})
    checkpoints.close()
    state, meta = Checkpoints(tmp_path / 'checkpoints').restore(tree)
    tiny.assert_same_bits(state, {**tree, 'x': tree['x'] + 2})
    assert meta == {'step': 2, 'third': 1 / 3}
    assert {folder.name for folder in (tmp_path / 'checkpoints').iterdir()} == {'1', '2'}


def test_the_time_that_devices_wait_for_data_is_told(session, tmp_path, monkeypatch):
    """The first chunk always waits; a later one, if it comes when the devices are done."""
    monkeypatch.setattr(loop, '_CHUNK_SECONDS', 0.0)  # one step a chunk
    quick = tiny.train(tiny.build(session, {'model.name': 'techniques:Small'}), tmp_path / 'quick')
    made = Feed.chunk

    def slow(*arguments):
        time.sleep(0.02)
        return made(*arguments)

    monkeypatch.setattr(Feed, 'chunk', slow)
    outcome = tiny.train(tiny.build(session, {'model.name': 'techniques:Small'}), tmp_path / 'slow')
    assert outcome.cost['waited_seconds'] > 0.5 * outcome.cost['train_seconds'] > quick.cost['waited_seconds']
    assert outcome.metrics == quick.metrics
