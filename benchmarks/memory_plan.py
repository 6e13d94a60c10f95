"""What the memory planner chooses, what it predicts, and what a fresh process then takes: ResNet-18 and a Transformer encoder.

Run: python benchmarks/memory_plan.py

Each line is a process of its own. Measured is the growth of resident memory from the compiled program without a state to the
peak of three steps, and the bytes of the resident data, which were there before.
"""

import argparse
import json
import subprocess
import sys

CASES = {
    'ResNet-18, 28x28, batch 64': {'model.name': 'resnet18', 'model.stem': 'cifar', 'data.batch_size': 64},
    'encoder of 4 layers, 28x28, batch 256': {
        'model.name': 'vit',
        'model.depth': 4,
        'model.dim': 128,
        'model.patch': 4,
        'model.dropout': 0.1,
        'data.batch_size': 256,
    },
}
BUDGETS = {'ResNet-18, 28x28, batch 64': ('250MiB', '400MiB', '800MiB'),
           'encoder of 4 layers, 28x28, batch 256': ('120MiB', '300MiB', '1GiB')}  # fmt: skip


def images(path: str):
    """Noise of Fashion-MNIST's shape: memory does not depend on what is seen."""
    import numpy as np

    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8), np.arange(n) % 10)
        for name, n in (('train', 2000), ('test', 500))
    }


def measure(case: str, budget: str) -> dict:
    """One plan and one measurement, in this process."""
    import jax

    import research  # noqa: F401
    from research import cost
    from research.config import overrides
    from research.optim.plateau import START
    from research.study import identity
    from research.study.budget import within_memory
    from research.train import experiment as experiments
    from research.train import memory
    from research.train.clock import Clock
    from research.train.feed import Feed
    from research.train.program import Session

    changes = {'data.name': 'memory_plan:images', 'train.memory_budget': budget, 'study.budget': '10st', **CASES[case]}
    config = overrides.apply(overrides.defaults(), changes)
    session = Session()
    plan = within_memory(config, session)
    config['gradient']['micro_batch'], config['train'] = plan.micro_batch, {**config['train'], 'remat': plan.remat}
    config['train']['memory_budget'] = ''
    built = experiments.build(config, session, identity.compile_key(config))
    executable, phase = built.prepared(), built.phases.at(0, 0)
    built.program.init.prepare(Clock(), *_init_arguments(built))
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(built.data))
    with cost.peak_memory() as peak:
        state = built.init(Clock())
        state, sums = executable(state, Feed(built).chunk(0, 0, 3, phase.batch_size, START))
        jax.block_until_ready(sums)
    return {
        'plan': memory.sentence(plan, budget),
        'budget': memory.parse(budget),
        'counted': cost.memory(executable)['total'],
        'predicted': plan.need.bytes,
        'measured': peak['bytes'] - peak['before'] + data,
    }


def _init_arguments(built):
    import jax
    import numpy as np

    from research import optim

    engine = built.program.engine
    numbers = {k: np.float32(v) for k, v in optim.hyperparameters(built.config).items()}
    return engine.replicate(jax.random.key(0)), engine.replicate(numbers)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', nargs=2, metavar=('CASE', 'BUDGET'))
    flags = parser.parse_args()
    if flags.only:
        sys.path.insert(0, __file__.rpartition('/')[0])
        print(json.dumps(measure(*flags.only)))
        return
    print('| network | plan | counted | predicted | measured |\n|---|---|---|---|---|')
    for case, budgets in BUDGETS.items():
        for budget in budgets:
            done = subprocess.run(
                [sys.executable, __file__, '--only', case, budget], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f'| {case} | {budget}: {done.stderr.strip().splitlines()[-1]} | | | |', flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            sizes = ' | '.join(f'{found[kind] / 2**20:.0f} MiB' for kind in ('counted', 'predicted', 'measured'))
            print(f'| {case} | {found["plan"]} | {sizes} |', flush=True)


if __name__ == '__main__':
    main()
