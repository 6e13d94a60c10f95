"""What can be told of a built run without training it: counts, learning rates, the seconds of a few steps."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from research import cost
from research.data import curation
from research.optim.plateau import START
from research.train import flops
from research.train.clock import Clock
from research.train.evaluation import variables_of
from research.train.experiment import Experiment
from research.train.feed import Feed

# Seconds of a timing, and how many there are.
_TIMING, _TIMINGS = 0.05, 5


def costs(experiment: Experiment) -> dict[str, Any]:
    """What can be counted without running: parameters, those that train where others are kept from the optimizer, FLOPs and
    multiply-adds, names of what these leave out, the share of padding in rows of tokens, and the price of external data."""
    run = experiment.config, experiment.dataset, experiment.batch_size, experiment.total
    train, unknown = flops.train(*run), flops.uncounted(*run)
    inference, shapes, facts = flops.inference(experiment.program), experiment.program.shapes, experiment.dataset.facts
    return {
        'parameters': cost.parameters(experiment.program.seen),
        **({'trained_parameters': cost.parameters(shapes.params)} if shapes.masks else {}),
        **({'padding': facts['padding']} if 'padding' in facts else {}),
        **({'data_price': curation.spent(experiment.dataset.card)} if experiment.dataset.external else {}),
        'train_flops': train[0],
        'train_multiply_adds': train[1],
        'inference_flops': inference[0],
        'inference_multiply_adds': inference[1],
        **({'uncounted': unknown} if unknown else {}),
    }


def beside_training(experiment: Experiment) -> list[dict[str, int]]:
    """Bytes by kind (research.cost.memory) of the programs that a run calls between its steps: evaluation, what makes its
    variables, samples. Compiles them where they are not; runs none."""
    program, state, clock = experiment.program, experiment.program.engine.shaped(experiment.program.shapes), Clock()
    variables, programs = variables_of(state), [program.evaluate]
    with contextlib.closing(Feed(experiment)) as feed:
        data, block = next(feed.blocks(experiment.dataset.splits['train']))
    program.evaluate.prepare(clock, variables, data, program.engine.shaped(block))
    if program.final is not None:
        program.final.prepare(clock, state, data['constants'], experiment.background)
        programs.append(program.final)
    if program.samples is not None:
        program.samples.prepare(clock, variables)
        programs.append(program.samples)
    return [cost.memory(compiled.executable) for compiled in programs]


def schedules(built: Mapping[str, Experiment]) -> dict[str, tuple[list[int], list[float]]]:
    """name -> (positions in examples, learning rates), over the run."""
    curves = {}
    for name, experiment in built.items():
        positions = np.unique(np.linspace(0, experiment.total - 1, 101).astype(int))
        curves[name] = positions.tolist(), np.asarray(experiment.rates(positions), float).tolist()
    return curves


def trial(experiment: Experiment, clock: Clock) -> tuple[Callable[[int], float], int]:
    """Compiles the training program; returns `steps -> seconds` that a chunk of them takes, on a state that nobody keeps, and
    the most steps of a chunk."""
    program, feed, phase = experiment.program, Feed(experiment), experiment.phases.at(0, 0)
    state = experiment.init(clock)
    chunk = feed.chunk(0, 0, 1, phase.batch_size, START)
    feed.close()
    compiled = program.chunk(phase)
    compiled.prepare(clock, state, chunk)

    def took(steps: int) -> float:
        nonlocal state
        longer = chunk._replace(steps=program.engine.replicate(np.int32(steps)))
        start = time.perf_counter()
        state, sums = compiled(clock, state, longer)
        jax.block_until_ready(sums)
        return time.perf_counter() - start

    return took, feed.capacity(phase.batch_size)


def timed(took: Callable[[int], float], capacity: int, least: float) -> tuple[float, int]:
    """Seconds and steps of the first timing of at least so many seconds, or of `capacity` steps, doubled from one step."""
    steps = 1
    while (seconds := took(steps)) < least and steps < capacity:
        steps = min(capacity, 2 * steps)
    return seconds, steps


def step_seconds(took: Callable[[int], float], capacity: int) -> tuple[float, int]:
    """Seconds a step, and how many steps were timed; `took` and `capacity` are those of `trial`.

    The first call pays for libraries and memory and does not count. Then the median of a few timings, each long enough to hide
    its start; of a single one where a step takes long.
    """
    took(1)
    seconds, steps = timed(took, capacity, _TIMING)
    timings = [seconds]
    while len(timings) < _TIMINGS and sum(timings) < _TIMINGS * _TIMING:
        timings.append(took(steps))
    return float(np.median(timings)) / steps, len(timings) * steps
