"""Images in a folder: time and memory of the first launch, which decodes them, and of the second.

    python benchmarks/folders.py [--files=50000] [--side=28] [--channels=1] [--broken=0.01]

Writes PNG files of noise in ten classes into a temporary folder, a share of them broken: cut short, empty, or no image at all.
Each reading is a process of its own. Memory is the peak of the resident pages above those after imports; pages of the prepared
file are among them, which the system takes back at any time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image

READ = """
import json, resource, sys, time, warnings
from research import data
from research.config import overrides
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
group = overrides.apply(overrides.defaults(), json.loads(sys.argv[1]))['data']
before, start = peak(), time.perf_counter()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    dataset = data.load(group)
print(json.dumps({
    'seconds': time.perf_counter() - start, 'MiB': peak() - before, 'checksum': dataset.checksum,
    'splits': {split: len(rows) for split, rows in dataset.splits.items()}, 'warnings': [str(w.message) for w in caught],
}))
"""


def write(folder: pathlib.Path, files: int, side: int, channels: int, broken: float) -> int:
    """Returns how many files are broken."""
    draw, count = np.random.default_rng(0), 0
    for number in range(files):
        path = folder / f'class{number % 10}' / f'{number:07}.png'
        path.parent.mkdir(exist_ok=True)
        shape = (side, side) if channels == 1 else (side, side, channels)
        PIL.Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(path)
        if draw.random() < broken:
            whole = path.read_bytes()
            path.write_bytes((whole[: len(whole) // 2], b'', b'no image')[count % 3])
            count += 1
    return count


def read(folder: pathlib.Path, home: pathlib.Path) -> dict:
    changes = {'data.name': 'images', 'data.path': str(folder), 'data.test': 0.2, 'data.bad_files': 0.05}
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, 'TFDS_DATA_DIR': str(home), 'PYTHONPATH': str(root)}
    command = [sys.executable, '-c', READ, json.dumps(changes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (('files', 50_000), ('side', 28), ('channels', 1), ('broken', 0.01)):
        parser.add_argument(f'--{name}', type=type(default), default=default)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, home = pathlib.Path(name, 'images'), pathlib.Path(name, 'prepared')
        folder.mkdir()
        start = time.perf_counter()
        broken = write(folder, **vars(arguments))
        print(f'{arguments.files:,} files, {broken} broken, written in {time.perf_counter() - start:.1f} s')
        first, second = read(folder, home), read(folder, home)
        assert first['checksum'] == second['checksum'] and first['splits'] == second['splits']
        for launch, found in (('first', first), ('second', second)):
            print(f'{launch} launch: {found["seconds"]:.2f} s, {found["MiB"]:.0f} MiB more than before')
        (listed,) = home.rglob('left_out.tsv')
        (pixels,) = home.rglob('image.npy')
        print(
            f'{len(listed.read_text().splitlines())} listed; splits {first["splits"]}; {pixels.stat().st_size / 2**20:.0f} MiB'
        )
        print(*first['warnings'], sep='\n')


if __name__ == '__main__':
    main()
