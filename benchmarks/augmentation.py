"""Augmentation on the device: images a second beside torchvision's, and what it adds to a training step.

Run: python benchmarks/augmentation.py [--rounds 7]
     with nothing else running; needs the extra `parity`. Sides take turns; medians over rounds, with the least and the most.

Rate: the recipe of CIFAR (pad and crop, flip, colour jitter, cutout) on 32x32x3 uint8. Ours as training does it, in a
`fori_loop` over batches of 128. torchvision's v2 transforms image by image, as a data loader calls them, in two processes at
once that share the images. Then each of ours alone.

Step: ResNet-20 on the same images, batch 128, with the recipe and without, both as a run trains.
"""

import argparse
import functools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

import research  # noqa: F401 - settings of the process come first
from research import augment
from research.layers import formulation
from research.optim.plateau import START
from research.study import identity, plan
from research.train import experiment as experiments
from research.train.clock import Clock
from research.train.feed import Feed
from research.train.program import Session

RECIPE = ('pad_crop', 'flip_horizontal', 'color_jitter', 'cutout')
BATCH, BATCHES, THEIRS = 128, 40, 1000
STEPS = 10


def images(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Noise of the size of CIFAR, as data of a config."""
    del path
    draw = np.random.default_rng(0)
    return {
        part: (draw.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10)
        for part, count in (('train', 2000), ('test', 100))
    }


def ours(*names: str) -> Callable[[], float]:
    """() -> images a second through these augmentations."""
    function = augment.create({'names': names}, {'classes': 10})
    batch = {'image': jnp.asarray(images('')['train'][0][:BATCH]), 'label': jnp.arange(BATCH) % 10, 'valid': jnp.ones(BATCH)}

    @functools.partial(jax.jit, compiler_options=formulation.compiler_options(jax.default_backend()))
    def repeated(count, batch):
        def once(i, total):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), i), BATCH)
            return total + function(keys, batch)['image'].astype(jnp.int32)

        return jax.lax.fori_loop(0, count, once, jnp.zeros(batch['image'].shape, jnp.int32))

    repeated(1, batch).block_until_ready()

    def rate() -> float:
        start = time.perf_counter()
        repeated(BATCHES, batch).block_until_ready()
        return BATCH * BATCHES / (time.perf_counter() - start)

    return rate


def worker(count: int, ready: multiprocessing.Barrier, done: multiprocessing.Barrier) -> None:
    """A process of torchvision: waits, augments its share of the images, and waits again, for ever."""
    sys.path.append('tests')
    import references

    torch, _, _ = references.libraries()
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
    erase = v2.RandomErasing(1.0, scale=(1 / 16, 1 / 16), ratio=(1, 1))
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), jitter, erase])
    rows = torch.from_numpy(images('')['train'][0][:count]).permute(0, 3, 1, 2).contiguous()
    while True:
        ready.wait()
        for row in rows:
            transform(row)
        done.wait()


def theirs(processes: int = 2) -> Callable[[], float]:
    """() -> images a second through torchvision in so many processes."""
    context = multiprocessing.get_context('spawn')
    ready, done = context.Barrier(processes + 1), context.Barrier(processes + 1)
    for _ in range(processes):
        context.Process(target=worker, args=(THEIRS // processes, ready, done), daemon=True).start()

    def rate() -> float:
        ready.wait()
        start = time.perf_counter()
        done.wait()
        return THEIRS / (time.perf_counter() - start)

    rate()
    return rate


def steps(session: Session, changes: Mapping[str, object]) -> Callable[[], float]:
    """() -> seconds of a training step of ResNet-20 with these changes of the config."""
    config = {
        'data.name': 'augmentation:images',
        'data.batch_size': BATCH,
        'model.name': 'resnet20',
        'study.budget': f'{STEPS}st',
        'study.null': False,
        'study.variants': {},
        **changes,
    }
    run = plan.make('configs/quickstart.py', config).runs[0]
    experiment = experiments.build(run.config, session, identity.compile_key(run.config))
    clock = Clock()
    compiled = experiment.program.chunk(experiment.phases.at(0, 0))
    chunk = Feed(experiment).chunk(0, 0, STEPS, BATCH, START)
    state = [experiment.init(clock)]

    def seconds() -> float:
        start = time.perf_counter()
        state[0], sums = compiled(clock, state[0], chunk)
        jax.block_until_ready(sums)
        return (time.perf_counter() - start) / STEPS

    seconds()
    return seconds


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side measures in every round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return found


def told(values: list[float], form: str) -> str:
    """Median, least and most."""
    return f'{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})'


def main() -> None:
    """Prints the tables of benchmarks/augmentation.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    rounds = parser.parse_args().rounds
    sys.path.append('benchmarks')
    rates = interleaved({'ours': ours(*RECIPE), 'torchvision': theirs()}, rounds)
    ratios = [a / b for a, b in zip(rates['ours'], rates['torchvision'], strict=True)]
    print(f'recipe: ours {told(rates["ours"], ",.0f")} images/s, torchvision {told(rates["torchvision"], ",.0f")}')
    print(f'ratio {told(ratios, ".1f")}')
    session = Session()
    times = interleaved(
        {'with': steps(session, {'augment.names': RECIPE}), 'without': steps(session, {})},
        rounds,
    )
    shares = [100 * (a / b - 1) for a, b in zip(times['with'], times['without'], strict=True)]
    print(f'ResNet-20 step: {told([1000 * t for t in times["without"]], ".0f")} ms, with the recipe {told(shares, "+.1f")} %')
    for name, values in interleaved({name: ours(name) for name in augment.IMAGES}, rounds).items():
        print(f'| `{name}` | {told(values, ",.0f")} |')


if __name__ == '__main__':
    main()
