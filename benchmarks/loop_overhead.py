"""What the loop adds: a whole run of the digits CNN against the same compiled chunk called back to back over the same steps.

Run: python benchmarks/loop_overhead.py [--steps 10000] [--rounds 5]
     with nothing else running. The run evaluates ten times and checkpoints at its default interval; both sides are
     interleaved, compiled before, and the ratio is taken round by round.
"""

import argparse
import pathlib
import tempfile
import time

import research  # noqa: F401 - settings of the process come first
from research.optim.plateau import START
from research.study import identity, plan
from research.train import experiment as experiments
from research.train import loop
from research.train.clock import Clock
from research.train.feed import Feed
from research.train.program import Session


def main() -> None:
    """Prints seconds of both sides and their ratio: median, least and most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=10_000)
    parser.add_argument('--rounds', type=int, default=5)
    flags = parser.parse_args()
    study = plan.make('configs/quickstart.py', {'study.budget': f'{flags.steps}st', 'study.seeds': 1, 'study.null': False})
    run, session = study.runs[0], Session()
    experiment = experiments.build(run.config, session, identity.compile_key(run.config))
    whole_run(experiment)  # compiles
    ratios = []
    for _ in range(flags.rounds):
        bare, whole = back_to_back(experiment), whole_run(experiment)
        ratios.append(whole / bare)
        print(f'back to back {bare:.2f} s, whole run {whole:.2f} s, ratio {ratios[-1]:.3f}', flush=True)
    ratios.sort()
    print(f'ratio: median {ratios[len(ratios) // 2]:.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f}; {flags.steps} steps')


def whole_run(experiment: experiments.Experiment) -> float:
    """Seconds of a run from its first step to its scored variables on disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        loop.train(experiment, pathlib.Path(folder), lambda *done: None, lambda: False)
        return time.perf_counter() - start


def back_to_back(experiment: experiments.Experiment) -> float:
    """Seconds of the same steps in chunks as long as they can be, their arguments prepared before."""
    clock, feed, program = Clock(), Feed(experiment), experiment.program
    size, levels, steps = experiment.batch_size, START, experiment.steps
    capacity, compiled = feed.capacity(size), program.chunk(experiment.phases.at(0, 0))
    chunks = [feed.chunk(i, i * size, min(capacity, steps - i), size, levels) for i in range(0, steps, capacity)]
    state = experiment.init(clock)
    program.engine.host(state)
    start = time.perf_counter()
    for chunk in chunks:
        state, sums = compiled(clock, state, chunk)
    program.engine.host(sums)['loss'].block_until_ready()
    return time.perf_counter() - start


if __name__ == '__main__':
    main()
