"""What the memory planner chooses, what it predicts, and what a whole run then takes: four networks, three budgets each.

Run: python benchmarks/memory_plan.py

Each line is a process of its own. A whole run is everything from its initial weights to its scored ones on disk: steps,
evaluations on all splits, checkpoints. Measured is how far the resident peak of the process grew over it, and the bytes of the
resident data, which lay there before. All programs are compiled first, and the judge of generated images is trained: neither is
in the budget. It is the first run of its process: it touches what is touched once, and finds nothing that another one left.
Memory does not depend on the load of the machine.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

_GENERATION = {
    'task.name': 'generation',
    'task.loss': 'non_saturating',
    'model.side': 28,
    'model.channels': 1,
    'study.metric': 'validation/frechet',
    'study.higher_is_better': False,
}
CASES = {
    'ResNet-20, batch 64': {'model.name': 'resnet20', 'data.batch_size': 64},
    'MobileNetV2, batch 64': {'model.name': 'mobilenetv2_100', 'data.batch_size': 64},
    'encoder of 4 layers, batch 256': {
        'model.name': 'vit',
        'model.depth': 4,
        'model.dim': 128,
        'model.patch': 4,
        'model.dropout': 0.1,
        'data.batch_size': 256,
    },
    'DCGAN, batch 256': {'model.name': 'dcgan', 'model.widths': (64, 32), 'data.batch_size': 256, **_GENERATION},
}
BUDGETS = {
    'ResNet-20, batch 64': ('220MiB', '280MiB', '440MiB'),
    'MobileNetV2, batch 64': ('310MiB', '360MiB', '540MiB'),
    'encoder of 4 layers, batch 256': ('240MiB', '340MiB', '1GiB'),
    'DCGAN, batch 256': ('200MiB', '280MiB', '440MiB'),
}


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
    import functools

    import jax

    import research  # noqa: F401
    from research import cost
    from research.config import overrides
    from research.study import plan
    from research.study.budget import within_memory
    from research.study.measure import beside_training
    from research.train import compilation, judge, loop, memory
    from research.train import experiment as experiments
    from research.train.clock import Clock
    from research.train.program import Session

    compilation.enable_cache()  # one line compiles for those after it
    resolve = functools.partial(overrides.apply, overrides.defaults())
    short = {'study.budget': '6st', 'train.eval_every': '3st', 'train.checkpoint_every': '3st', 'train.devices': 1}
    config = resolve({'data.name': 'memory_plan:images', 'train.memory_budget': budget, **short, **CASES[case]})
    session, folder = Session(), pathlib.Path(tempfile.mkdtemp())

    (asked,) = plan.seeded('baseline', config, (0,))
    run = within_memory(asked, session)
    built = experiments.build(run.config, session, run.key)
    built = judge.equipped(built, resolve, session, folder / 'judges', lambda config, checksum: {}, lambda: False)
    executable, _ = built.prepared(), beside_training(built)
    built.program.engine.host(built.init(Clock()))  # which compiles both
    with cost.peak_memory() as peak:
        outcome = loop.train(built, folder, lambda *_: None, lambda: False)
    chosen = run.memory_plan
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(built.data))
    return {
        'plan': memory.sentence(chosen, budget),
        'budget': memory.parse(budget),
        'counted': cost.memory(executable)['total'],
        'predicted': chosen.need.bytes,
        'steps': outcome.cost['peak_growth_bytes'] + data,
        'measured': peak['bytes'] - peak['before'] + data,
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', nargs=2, metavar=('CASE', 'BUDGET'))
    flags = parser.parse_args()
    if flags.only:
        sys.path.insert(0, __file__.rpartition('/')[0])
        print(json.dumps(measure(*flags.only)))
        return
    print('| network | plan | counted for a step | predicted | measured, steps | measured, whole run | of the budget |')
    print('|---|---|---|---|---|---|---|')
    for case, budgets in BUDGETS.items():
        for budget in budgets:
            done = subprocess.run(
                [sys.executable, __file__, '--only', case, budget], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f'| {case} | {budget}: {done.stderr.strip().splitlines()[-1]} | | | | | |', flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            sizes = ' | '.join(f'{found[kind] / 2**20:.0f} MiB' for kind in ('counted', 'predicted', 'steps', 'measured'))
            share = found['measured'] / found['budget']
            print(f'| {case} | {found["plan"]} | {sizes} | {share:.0%} |', flush=True)


if __name__ == '__main__':
    main()
