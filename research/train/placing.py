"""What lies on the devices beside the state: data, the reference batch, weights to start from.

`experiment` is a research.train.experiment.Experiment whose program is known.
"""

import zlib
from typing import Any

from research import optim, pretrained, tasks
from research.data import take
from research.train.program import Session
from research.train.state import Background

# From this many examples batch statistics of averaged weights are taken.
_STATISTICS_ROWS = 2048


def data(experiment: Any, session: Session) -> dict[str, Any]:
    """Data on the devices: one copy a data set and engine, whatever the number of runs."""
    config, dataset, engine = experiment.config, experiment.dataset, experiment.program.engine
    streaming, where = config['data']['streaming'], (type(engine).__name__, len(engine.devices))
    key = (id(dataset), *where, streaming)
    if key not in session.placed:
        session.placed[key] = engine.replicate({} if streaming else dict(dataset.arrays))
    constants = tasks.create(config['task'], dataset.facts).constants
    return {'examples': session.placed[key], 'constants': engine.replicate(dict(constants))}


def background(experiment: Any) -> Background:
    """The reference batch, and blocks for statistics where averaged weights need such; drawn by the seed."""
    config, dataset, shapes = experiment.config, experiment.dataset, experiment.program.shapes
    count, blocks = config['data']['reference_size'], 0
    if optim.averages(shapes.opt_state) and 'batch_stats' in shapes.collections:
        blocks = max(1, min(_STATISTICS_ROWS, experiment.epoch) // count)
    seed = config['train']['seed'] + (zlib.crc32(b'reference') << 32)
    rows = experiment.sampler(seed, 0, count * (1 + blocks))
    examples = take(dataset, rows, config['data']['streaming'])
    reference = {name: values[:count] for name, values in examples.items()}
    statistics = {name: values[count:].reshape(blocks, count, *values.shape[1:]) for name, values in examples.items()}
    return experiment.program.engine.replicate(Background(reference, statistics))


def weights(experiment: Any, session: Session) -> dict[str, Any]:
    """Weights to start from, read once a process for a network and an engine."""
    config, program = experiment.config, experiment.program
    path = config['model']['init_from']
    if not path:
        return {}
    shape, engine = program.step.inputs(1)[0][0].shape, program.engine
    key = f'{sorted(config["model"].items())} {shape} {type(engine).__name__} {len(engine.devices)}'
    if key not in session.placed:
        loaded = pretrained.weights(program.step.module, config['model']['name'], path, shape)
        session.placed[key] = engine.replicate(loaded)
    return session.placed[key]
