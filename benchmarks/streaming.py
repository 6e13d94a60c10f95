"""A large folder of images, streamed: time to prepare it, steps a second beside resident data, and memory over the run.

    python benchmarks/streaming.py [--files=40000] [--side=224] [--steps=150] [--rounds=3]

Writes JPEG files into a temporary folder (40,000 of 224 x 224 are 6.0 GB of pixels, twice that on the disk while it runs) and
trains a small CNN on them, batch by batch and from memory in turn, each run a process of its own. Memory is anonymous pages;
pages of the prepared file are the system's, which takes them back at any time.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image

TRAIN = """
import json, pathlib, re, sys, tempfile, threading, time
import research
from research.study import identity, plan
from research.train import experiment, loop
from research.train.program import Session

def anonymous():
    return int(re.search(r'RssAnon:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]) / 1024

run = plan.make('configs/quickstart.py', json.loads(sys.argv[1])).runs[0]
start = time.perf_counter()
built = experiment.build(run.config, Session(), identity.compile_key(run.config))
loaded, memory, done = time.perf_counter() - start, [], threading.Event()
def watch():
    while not done.wait(0.2):
        memory.append(anonymous())
threading.Thread(target=watch, daemon=True).start()
with tempfile.TemporaryDirectory() as folder:
    outcome = loop.train(built, pathlib.Path(folder), lambda *told: None, lambda: False)
done.set()
seconds = outcome.cost['train_seconds']
waited = outcome.cost['waited_seconds'] / seconds
print(json.dumps({'loaded': loaded, 'rate': built.steps / seconds, 'waited': waited, 'MiB': memory}))
"""


def write(folder: pathlib.Path, files: int, side: int) -> None:
    """Smooth noise in ten classes."""
    draw = np.random.default_rng(0)
    for number in range(files):
        path = folder / f'class{number % 10}' / f'{number:07}.jpg'
        path.parent.mkdir(exist_ok=True)
        coarse = PIL.Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8))
        coarse.resize((side, side), PIL.Image.Resampling.BILINEAR).save(path, quality=85)


def train(folder: pathlib.Path, home: pathlib.Path, steps: int, streaming: bool) -> dict:
    """What one run took."""
    changes = {
        **{
            'data.name': 'images',
            'data.path': str(folder),
            'data.test': 0.01,
            'data.streaming': streaming,
            'data.validation': 0.01,
        },
        **{'data.batch_size': 64, 'model.widths': (8, 16, 16, 16), 'model.hidden': (), 'optimizer.learning_rate': 1e-3},
        **{'study.budget': f'{steps}st', 'study.seeds': 1, 'study.variants': {}, 'study.null': False},
    }
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, 'TFDS_DATA_DIR': str(home), 'PYTHONPATH': str(root)}
    command = [sys.executable, '-c', TRAIN, json.dumps(changes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (('files', 40_000), ('side', 224), ('steps', 150), ('rounds', 3)):
        parser.add_argument(f'--{name}', type=int, default=default)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, home = pathlib.Path(name, 'images'), pathlib.Path(name, 'prepared')
        folder.mkdir()
        start = time.perf_counter()
        write(folder, arguments.files, arguments.side)
        print(f'{arguments.files:,} files written in {time.perf_counter() - start:.0f} s')
        first = train(folder, home, 2, True)
        (pixels,) = home.rglob('image.npy')
        print(f'prepared in {first["loaded"]:.0f} s: {pixels.stat().st_size / 1e9:.2f} GB', flush=True)
        ratios = []
        for _ in range(arguments.rounds):
            found = {kind: train(folder, home, arguments.steps, kind == 'streamed') for kind in ('streamed', 'resident')}
            for kind, run in found.items():
                early, late = run['MiB'][len(run['MiB']) // 3], run['MiB'][-1]
                print(
                    f'{kind}: loaded in {run["loaded"]:.1f} s, {run["rate"]:.2f} steps/s, {run["waited"]:.1%} of it waiting; '
                    f'{early:.0f} MiB after a third, {late:.0f} MiB at the end',
                    flush=True,
                )
            ratios.append(found['streamed']['rate'] / found['resident']['rate'])
        print(f'streamed / resident: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})')


if __name__ == '__main__':
    main()
