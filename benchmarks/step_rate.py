"""Training steps a second on CPU: our layers, plain flax layers and PyTorch, on the same network, batches and weights.

    python benchmarks/step_rate.py [--quick] [--rounds=15] [--only=digits]

The JAX sides run the chunk that training runs: a `fori_loop` with a traced trip count over a padded buffer of indices,
which gathers its batches from data that lies on the device. PyTorch gets its batches cut beforehand, a channels-last or
contiguous layout (whichever is faster), the fused optimizer and as many threads as there are cores. All run in one process,
so all have the allocator's thresholds of `research.process`. Sides take turns, with a pause between; medians
over rounds are printed with the lowest and the highest. Before anything is timed, the losses of the first steps of all sides
must agree.
"""

import argparse
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import torch

import research.models
from research.layers import formulation

CLASSES, LEARNING_RATE = 10, 1e-3
PAUSE = 0.1  # seconds between sides: threads of PyTorch spin for a while after their work, and take the next side a core


class Case(NamedTuple):
    """A network and its data: random images of the right shape, since a step takes as long on any."""

    size: int
    batch: int
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    steps: int  # a round, for our layers and PyTorch
    plain_steps: int  # a round, for plain layers, which may be fifty times slower

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        images = rng.standard_normal((32 * self.batch, self.size, self.size, 1)).astype(np.float32)
        return images, rng.integers(0, CLASSES, len(images)).astype(np.int32)

    def indices(self) -> np.ndarray:
        return np.random.default_rng(1).permutation(32 * self.batch).astype(np.int32).reshape(32, self.batch)


CASES = {
    'digits': Case(size=8, batch=64, widths=(16, 32), hidden=(64,), steps=400, plain_steps=50),
    'fashion_mnist': Case(size=28, batch=128, widths=(32, 64), hidden=(128,), steps=50, plain_steps=4),
}


class PlainCNN(nn.Module):
    """`research.models.cnn.CNN` in flax's own layers, with the same names."""

    widths: tuple[int, ...]
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x, train=False):
        for b, width in enumerate(self.widths, 1):
            x = nn.Conv(width, (3, 3), use_bias=False, name=f'block{b}_conv1')(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f'block{b}_norm1')(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for i, units in enumerate(self.hidden, 1):
            x = nn.relu(nn.Dense(units, name=f'hidden{i}')(x))
        return nn.Dense(CLASSES, name='head')(x)


class TorchCNN(torch.nn.Sequential):
    """The same network with the weights of the flax one."""

    def __init__(self, case: Case, params: dict):
        layers, channels, side = [], 1, case.size
        for b, width in enumerate(case.widths, 1):
            conv, norm = torch.nn.Conv2d(channels, width, 3, padding=1, bias=False), torch.nn.BatchNorm2d(width, momentum=0.1)
            conv.weight.data = torch.tensor(np.asarray(params[f'block{b}_conv1']['kernel']).transpose(3, 2, 0, 1).copy())
            layers += [conv, norm, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
            channels, side = width, side // 2
        layers.append(torch.nn.Flatten())
        for i, units in enumerate((*case.hidden, CLASSES), 1):
            name = 'head' if i > len(case.hidden) else f'hidden{i}'
            kernel, bias = (np.asarray(params[name][part]) for part in ('kernel', 'bias'))
            if i == 1:  # torch flattens channels first
                kernel = kernel.reshape(side, side, channels, units).transpose(2, 0, 1, 3).reshape(-1, units)
            dense = torch.nn.Linear(*kernel.shape)
            dense.weight.data, dense.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
            layers += [dense, torch.nn.ReLU()]
        super().__init__(*layers[:-1])


class JaxSide:
    """Runs n steps, in one call or a call a step; `losses` of the last call."""

    def __init__(self, case: Case, module: nn.Module, variables: dict, call_a_step: bool = False):
        optimizer = optax.adam(LEARNING_RATE)
        images, labels, indices = (jax.device_put(a) for a in (*case.data(), case.indices()))
        self.state = jax.tree.map(jnp.copy, (variables, optimizer.init(variables['params'])))
        rows, self.call_a_step = len(indices), call_a_step

        def loss_fn(params, rest, image, label):
            logits, updated = module.apply({'params': params, **rest}, image, train=True, mutable=['batch_stats'])
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), updated

        def step(i, carry, images, labels, indices):
            (variables, opt_state), losses = carry
            params, rest, batch = variables['params'], {'batch_stats': variables['batch_stats']}, indices[i % rows]
            (loss, rest), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, rest, images[batch], labels[batch])
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return ({'params': optax.apply_updates(params, updates), **rest}, opt_state), losses.at[i % rows].set(loss)

        @functools.partial(jax.jit, donate_argnums=0, compiler_options=formulation.compiler_options('cpu'))
        def chunk(state, start, stop, images, labels, indices):
            body = functools.partial(step, images=images, labels=labels, indices=indices)
            return jax.lax.fori_loop(start, stop, body, (state, jnp.zeros(rows)))

        @functools.partial(jax.jit, donate_argnums=0)
        def single(state, i, images, labels, indices):
            return step(i, (state, jnp.zeros(rows)), images, labels, indices)

        self.chunk, self.single = (functools.partial(f, images=images, labels=labels, indices=indices) for f in (chunk, single))

    def run(self, steps: int) -> np.ndarray:
        if self.call_a_step:
            for i in range(steps):
                self.state, losses = self.single(self.state, i)
        else:
            self.state, losses = self.chunk(self.state, 0, steps)
        return np.asarray(losses)


class TorchSide:
    def __init__(self, case: Case, params: dict, layout: torch.memory_format):
        self.model = TorchCNN(case, params).to(memory_format=layout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True)
        images, labels = case.data()
        self.batches = [
            (torch.tensor(images[i].transpose(0, 3, 1, 2)).contiguous(memory_format=layout), torch.tensor(labels[i]).long())
            for i in case.indices()
        ]

    def run(self, steps: int) -> np.ndarray:
        losses = []
        for i in range(steps):
            image, label = self.batches[i % len(self.batches)]
            loss = torch.nn.functional.cross_entropy(self.model(image), label)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()


def sides(case: Case) -> dict[str, tuple[Callable[[int], np.ndarray], int]]:
    """Name -> (what runs n steps and returns their losses, n of a round)."""
    ours = research.models.create('cnn', num_classes=CLASSES, widths=case.widths, hidden=case.hidden)
    plain = PlainCNN(case.widths, case.hidden)
    variables = jax.jit(ours.init)(jax.random.key(0), case.data()[0][:1])
    return {
        'ours': (JaxSide(case, ours, variables).run, case.steps),
        'torch, channels last': (TorchSide(case, variables['params'], torch.channels_last).run, case.steps),
        'torch, contiguous': (TorchSide(case, variables['params'], torch.contiguous_format).run, case.steps),
        'plain flax in the loop': (JaxSide(case, plain, variables).run, case.plain_steps),
        'plain flax, a call a step': (JaxSide(case, plain, variables, call_a_step=True).run, case.plain_steps),
    }


def rates(case: Case, rounds: int) -> dict[str, list[float]]:
    """Steps a second of each side in each round."""
    running = sides(case)
    first = {name: run(3)[:3] for name, (run, _) in running.items() if name != 'plain flax, a call a step'}
    for name, losses in first.items():
        np.testing.assert_allclose(losses, first['ours'], rtol=2e-3, err_msg=f'{name} is not the same network')
    found = {name: [] for name in running}
    for run, _ in running.values():
        run(2)
    for _ in range(rounds):
        for name, (run, steps) in running.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            run(steps)
            found[name].append(steps / (time.perf_counter() - start))
    return found


def setting(*libraries) -> str:
    """What the figures are of: the processor and its instruction set, precision, versions of jax, torch and other libraries."""
    versions = ', '.join(f'{library.__name__} {library.__version__}' for library in (jax, jaxlib, torch, *libraries))
    return f'{_processor()}; {os.cpu_count()} cores; float32; {versions}'


def _processor() -> str:
    """Its name, and the widest of what matters to matrix products, from Linux's list of flags."""
    try:
        with open('/proc/cpuinfo') as file:
            info = dict(line.partition(':')[::2] for line in file.read().split('\n\n')[0].splitlines())
    except OSError:
        return platform.processor()
    info = {key.strip(): value.strip() for key, value in info.items()}
    flags = info.get('flags', '').split()
    wide = [name for name in ('avx2', 'avx512f', 'avx512_bf16', 'amx_tile') if name in flags]
    return f'{info.get("model name")} (family {info.get("cpu family")}, model {info.get("model")}); {", ".join(wide)}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15, help='rounds a case')
    parser.add_argument('--quick', action='store_true', help='three rounds of a quarter of the steps')
    parser.add_argument('--only', choices=CASES, help='one case alone')
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    print(f'{setting()}; {options.rounds} rounds\n')
    print('| case | side | steps a second: median (lowest to highest) | median ratio to the faster torch |\n|---|---|---|---|')
    for name, case in CASES.items():
        if options.only not in (None, name):
            continue
        if options.quick:
            case = case._replace(steps=case.steps // 4, plain_steps=max(1, case.plain_steps // 4))
        found = rates(case, 3 if options.quick else options.rounds)
        torch_best = max((values for side, values in found.items() if side.startswith('torch')), key=statistics.median)
        for side, values in found.items():
            ratio = statistics.median(a / b for a, b in zip(values, torch_best, strict=True))
            print(
                f'| {name} | {side} | {statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g}) | {ratio:.2f} |',
                flush=True,
            )


if __name__ == '__main__':
    main()
