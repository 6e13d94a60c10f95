"""Small runs: the baseline of the techniques, built, stepped and trained."""

import json
import pathlib

import jax
import numpy as np
from techniques import BASELINE

from research.config import overrides
from research.optim.plateau import START
from research.study import identity
from research.train import checkpoint, experiment, loop
from research.train.clock import Clock
from research.train.feed import Feed
from research.train.state import Variables


def config(*changes):
    """The baseline with dotted overrides, one mapping over the other."""
    resolved = overrides.apply(overrides.defaults(), BASELINE)
    for change in changes:
        resolved = overrides.apply(resolved, change)
    return resolved


def build(session, *changes):
    resolved = config(*changes)
    return experiment.build(resolved, session, identity.compile_key(resolved))


def steps(built, *lengths):
    """Trains in chunks of these lengths from the first step: (state, losses [steps] as float32)."""
    clock, feed, losses = Clock(), Feed(built), []
    state, done = built.init(clock), 0
    for length in lengths:
        phase = built.phases.at(done * built.batch_size, 0)
        chunk = feed.chunk(done, done * built.batch_size, length, phase.batch_size, START)
        state, sums = built.program.chunk(phase)(clock, state, chunk)
        sums = {name: np.asarray(values)[:length] for name, values in built.program.engine.host(sums).items()}
        losses.append(sums['loss'] / sums['count'])
        done += length
    return built.program.engine.host(state), np.concatenate(losses)


def chunk(built, steps):
    """The first chunk."""
    return Feed(built).chunk(0, 0, steps, built.batch_size, START)


def train(built, directory: pathlib.Path, stop_at=None):
    """A run to its end, or until `stop_at` steps are done: then loop.Stopped."""
    done = [0]
    directory.mkdir(exist_ok=True)
    return loop.train(
        built,
        directory,
        progress=lambda step, *_: done.append(step),
        stop=lambda: stop_at is not None and done[-1] >= stop_at,
    )


def rows(directory):
    """metrics.jsonl without its seconds, which no two runs share."""
    lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'train_seconds'} for line in lines]


def scored(directory):
    return checkpoint.load_variables(directory / 'scored')


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        a, b = (jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))


def evaluate(built, state, split):
    """(sums over the split, correct [examples]) of a state on the host."""
    clock, program, feed = Clock(), built.program, Feed(built)
    variables = program.engine.replicate(Variables(state.params, state.masks, state.collections))
    totals, correct = [], []
    for data, block in feed.blocks(built.dataset.splits[split]):
        sums, rows = program.engine.host(program.evaluate(clock, variables, data, program.engine.replicate(block)))
        totals.append({name: float(np.sum(values)) for name, values in sums.items()})
        correct.append(np.asarray(rows['correct'])[block.valid > 0])
    return {name: sum(total[name] for total in totals) for name in totals[0]}, np.concatenate(correct)
