"""Convolutions on CPU by shape: ours, plain `lax.conv` and PyTorch; forward, gradient of the images, gradient of the kernel.

    python benchmarks/convolutions.py [--rounds=9] [--only=depthwise]

What fills the table that `research.layers.formulation.convolution` is: rerun it on another processor, and a formulation whose
ratio falls under that of 'plain' there has lost its place. Channels-last on all sides, float32, as many threads as cores, the
allocator's thresholds of `research.process` on all. Sides take turns, with a pause between; the figures are medians in
milliseconds, and the ratio is PyTorch's time over ours: above 1 we are ahead. Before anything is timed the numbers of all
sides must agree.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from step_rate import PAUSE, setting

from research.layers import formulation
from research.layers.conv import conv, cut


class Shape(NamedTuple):
    """Batch, side of the map, channels in and out, kernel, stride, dilation, padding; depthwise where features is 0."""

    batch: int
    size: int
    channels: int
    features: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | None = None  # None: half the kernel


# Layers of ResNet-18 at 32x32, of MobileNetV2, EfficientNet-B0 and Xception at 96x96 and TinyNet-E at 106x106; VGG at 28x28.
SHAPES = {
    'stem': [Shape(64, 32, 3, 64), Shape(32, 96, 3, 32, stride=2), Shape(128, 28, 1, 32)],
    'dense': [
        *(Shape(64, 32, 64, 64), Shape(64, 16, 128, 128), Shape(64, 8, 256, 256), Shape(64, 4, 512, 512)),
        *(Shape(64, 32, 64, 128, stride=2), Shape(128, 14, 32, 64), Shape(32, 24, 64, 64, dilation=2)),
    ],
    'small': [Shape(64, 7, 64, 512, 7, padding=0), Shape(64, 1, 512, 512), Shape(64, 1, 576, 0, 5)],
    'pointwise': [Shape(32, 48, 16, 96, 1), Shape(32, 12, 192, 32, 1), Shape(32, 3, 960, 160, 1)],
    'depthwise': [
        *(Shape(32, 48, 32, 0), Shape(32, 48, 96, 0, stride=2), Shape(32, 24, 144, 0), Shape(32, 12, 192, 0)),
        *(Shape(32, 6, 576, 0), Shape(32, 6, 576, 0, stride=2), Shape(32, 3, 960, 0), Shape(16, 12, 728, 0)),
        *(Shape(32, 24, 144, 0, 5, 2), Shape(32, 12, 240, 0, 5), Shape(32, 6, 672, 0, 5), Shape(32, 3, 1152, 0, 5)),
        Shape(32, 24, 144, 0, dilation=2),
    ],
}


def measure(shape: Shape, rounds: int) -> dict[str, dict[str, float]]:
    """Piece ('forward', 'images', 'kernel') -> side ('ours', 'plain', 'torch') -> milliseconds."""
    b, n, c, d, k, s, e, _ = shape
    groups, d = (1, d) if d else (c, c)
    rng, pad = np.random.default_rng(0), padding(shape)
    x = rng.standard_normal((b, n, n, c)).astype(np.float32)
    kernel = rng.standard_normal((k, k, c // groups, d)).astype(np.float32)

    def forward(x, kernel):
        return conv(x, kernel, s, pad, groups, e)

    dy = rng.standard_normal(jax.eval_shape(forward, x, kernel).shape).astype(np.float32)
    pieces = {
        'forward': forward,
        'images': lambda x, kernel, dy: jax.vjp(lambda x: forward(x, kernel), x)[1](dy)[0],
        'kernel': lambda x, kernel, dy: jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](dy)[0],
    }
    arguments = {name: [jnp.asarray(a) for a in ((x, kernel) if name == 'forward' else (x, kernel, dy))] for name in pieces}
    tx, tdy = (torch.tensor(a.transpose(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last) for a in (x, dy))
    tk = torch.tensor(kernel.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=torch.channels_last)
    sizes = ([s, s], [pad, pad], [e, e], False, [0, 0], groups)

    def theirs(name):
        with torch.inference_mode():
            if name == 'forward':
                return torch.nn.functional.conv2d(tx, tk, None, s, pad, e, groups)
            mask = [name == 'images', name == 'kernel', False]
            return torch.ops.aten.convolution_backward(tdy, tx, tk, None, *sizes, mask)[mask.index(True)]

    found = {}
    for name, piece in pieces.items():
        options = formulation.compiler_options('cpu')
        ours = jax.jit(piece, compiler_options=options).lower(*arguments[name]).compile()
        with formulation.plain():
            plain = jax.jit(lambda *a, piece=piece: piece(*a)).lower(*arguments[name]).compile()
        expected = theirs(name).numpy().transpose(*((2, 3, 1, 0) if name == 'kernel' else (0, 2, 3, 1)))
        for side in (ours, plain):
            np.testing.assert_allclose(side(*arguments[name]), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        running = {
            'ours': lambda ours=ours, name=name: jax.block_until_ready(ours(*arguments[name])),
            'plain': lambda plain=plain, name=name: jax.block_until_ready(plain(*arguments[name])),
            'torch': lambda name=name: theirs(name),
        }
        taken = {side: [] for side in running}
        for i in range(rounds):
            for side, run in running.items():
                if side == 'plain' and i > 2:
                    continue
                taken[side].append(1e3 * timed(run))
        found[name] = {side: statistics.median(times) for side, times in taken.items()}
    return found


def timed(run: Callable[[], object]) -> float:
    """Seconds a call, over at least five milliseconds of calls, after the threads of the side before have gone to sleep."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    run()
    count = max(1, int(5e-3 / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def padding(shape: Shape) -> int:
    return (shape.kernel - 1) * shape.dilation // 2 if shape.padding is None else shape.padding


def name_of(shape: Shape) -> str:
    channels, features = (shape.channels, shape.features) if shape.features else (1, shape.channels)
    x = np.zeros((1, shape.size, shape.size, shape.channels), np.float32)
    kernel = np.zeros((shape.kernel, shape.kernel, channels, features), np.float32)
    strides, pads, dilation = (shape.stride,) * 2, ((padding(shape),) * 2,) * 2, (shape.dilation,) * 2
    kernel, pads = cut(x, kernel, strides, pads, dilation)
    return formulation.convolution(x, kernel, strides, pads, shape.channels // channels, dilation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--only', choices=SHAPES, nargs='*', default=list(SHAPES))
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    print(f'{setting()}; {options.rounds} rounds\n')
    print('| batch, map, channels, kernel | formulation | forward: ours, plain, torch, ratio | images | kernel |')
    print('|---|---|---|---|---|')
    for kind in options.only:
        for shape in SHAPES[kind]:
            cells = [
                f'{piece["ours"]:.3g}, {piece["plain"]:.3g}, {piece["torch"]:.3g}, **{piece["torch"] / piece["ours"]:.2f}**'
                for piece in measure(shape, options.rounds).values()
            ]
            into = f'{shape.channels} to {shape.features}' if shape.features else f'{shape.channels}'
            extra = ''.join(
                f', {field} {value}' for field, value in (('stride', shape.stride), ('dilation', shape.dilation)) if value > 1
            )
            row = f'{shape.batch}, {shape.size}x{shape.size}, {into}, {shape.kernel}x{shape.kernel}{extra}'
            print(f'| {row} | {name_of(shape)} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
