"""Training step and inference on CPU of whole networks: ours, the same on plain layers, and PyTorch, from the same weights.

    python benchmarks/families.py [--rounds=7] [--only resnet18 tinynet_e]

PyTorch runs timm's network, whose weights go to ours through `research.pretrained`; before anything is timed, logits and the
losses of the first steps must agree. Ours trains as training does, inside a `fori_loop` with a traced trip count; 'plain' is
the same network with every layer in its plain formulation (`research.layers.formulation.plain`), that is what flax offers, a
call a step: inside the loop it is slower by far, minutes a step for ResNet-18. PyTorch has channels-last or contiguous layout,
whichever is faster, the fused optimizer, inference mode, and as many threads as there are cores. All run in one process, so
all have the allocator's thresholds of `research.process`. Sides take turns, with a pause and an untimed step between; medians
over rounds are printed with the lowest and the highest.
"""

import argparse
import contextlib
import copy
import functools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.torch
import timm
import torch
from step_rate import PAUSE, setting

from research import models, pretrained
from research.layers import formulation

CLASSES, LEARNING_RATE = 10, 1e-4


class Case(NamedTuple):
    """A network and its images."""

    name: str
    size: int
    batch: int
    arguments: dict = {}


CASES = {
    'resnet18': Case('resnet18', 32, 64, {'stem': 'cifar'}),
    'mobilenetv2': Case('mobilenetv2_100', 96, 32),
    'efficientnet_b0': Case('efficientnet_b0', 96, 32),
    'xception': Case('legacy_xception', 96, 16),
    'tinynet_e': Case('tinynet_e', 106, 32),
}


def torch_network(case: Case) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(case.name, num_classes=CLASSES)
    if case.arguments.get('stem') == 'cifar':
        network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    return network


class Ours:
    """Training of n steps and inferences of our network, with the layers of a formulation."""

    def __init__(self, module, variables, images, labels, *, plain: bool):
        self.context = formulation.plain if plain else contextlib.nullcontext
        self.call_a_step = plain
        variables = {kind: jax.tree.map(jnp.array, variables[kind]) for kind in ('params', 'batch_stats')}
        optimizer = optax.adam(LEARNING_RATE)
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.variables = variables
        self.state = jax.tree.map(jnp.copy, (variables, optimizer.init(variables['params'])))

        def loss_fn(params, rest, image, label):
            logits, updated = module.apply({'params': params, **rest}, image, train=True, mutable=['batch_stats'])
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), updated

        def step(i, carry, images, labels):
            (variables, opt_state), losses = carry
            params, rest = variables['params'], {'batch_stats': variables['batch_stats']}
            (loss, rest), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, rest, images, labels)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return ({'params': optax.apply_updates(params, updates), **rest}, opt_state), losses.at[i % 8].set(loss)

        @functools.partial(jax.jit, donate_argnums=0, compiler_options=formulation.compiler_options('cpu'))
        def chunk(state, stop, images, labels):
            body = functools.partial(step, images=images, labels=labels)
            return jax.lax.fori_loop(0, stop, body, (state, jnp.zeros(8)))

        @functools.partial(jax.jit, donate_argnums=0, compiler_options=formulation.compiler_options('cpu'))
        def single(state, images, labels):
            return step(0, (state, jnp.zeros(8)), images, labels)

        self.chunk, self.single = chunk, single
        self.apply = jax.jit(lambda variables, images: module.apply(variables, images))

    def train(self, steps: int) -> np.ndarray:
        with self.context():
            if self.call_a_step:
                for _ in range(steps):
                    self.state, losses = self.single(self.state, self.images, self.labels)
            else:
                self.state, losses = self.chunk(self.state, steps, self.images, self.labels)
            return np.asarray(losses)

    def infer(self, times: int) -> np.ndarray:
        with self.context():
            for _ in range(times):
                logits = jax.block_until_ready(self.apply(self.variables, self.images))
            return np.asarray(logits)


class Torch:
    def __init__(self, network, images, labels, layout: torch.memory_format):
        self.trained = network.to(memory_format=layout)
        self.fixed = copy.deepcopy(network).eval()
        self.optimizer = torch.optim.Adam(self.trained.parameters(), LEARNING_RATE, fused=True)
        self.images = torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
        self.labels = torch.tensor(labels).long()

    def train(self, steps: int) -> np.ndarray:
        losses = []
        self.trained.train()
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(self.trained(self.images), self.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    def infer(self, times: int) -> np.ndarray:
        with torch.inference_mode():
            for _ in range(times):
                logits = self.fixed(self.images)
        return logits.numpy()


def sides(case: Case) -> dict[str, Ours | Torch]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((case.batch, case.size, case.size, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, case.batch).astype(np.int32)
    network = torch_network(case)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'model.safetensors')
        safetensors.torch.save_file(network.state_dict(), path)
        rates = [rate for rate in ('dropout', 'stochastic_depth') if hasattr(models.create(case.name), rate)]
        module, variables = pretrained.load(case.name, path, **dict.fromkeys(rates, 0.0), **case.arguments)
    return {
        'ours': Ours(module, variables, images, labels, plain=False),
        'torch, channels last': Torch(copy.deepcopy(network), images, labels, torch.channels_last),
        'torch, contiguous': Torch(copy.deepcopy(network), images, labels, torch.contiguous_format),
        'plain, a call a step': Ours(module, variables, images, labels, plain=True),
    }


def timed(run: Callable[[int], np.ndarray], count: int, warm: bool) -> float:
    time.sleep(PAUSE)
    if warm:
        run(1)
    start = time.perf_counter()
    run(count)
    return (time.perf_counter() - start) / count


def measure(case: Case, rounds: int) -> dict[str, dict[str, list[float]]]:
    """What ('training step', 'inference') -> side -> seconds in each round."""
    running = sides(case)
    scale = np.abs(running['ours'].infer(1)).max()
    for name, side in running.items():
        np.testing.assert_allclose(side.infer(1), running['ours'].infer(1), rtol=0, atol=1e-3 * scale, err_msg=name)
    first = {name: side.train(2)[:2] for name, side in running.items() if not name.startswith('plain')}
    np.testing.assert_allclose(first['ours'], first['torch, channels last'], rtol=5e-2)
    for name, side in running.items():
        if name.startswith('plain'):
            side.train(1)  # compiles
    found: dict[str, dict[str, list[float]]] = {'training step': {}, 'inference': {}}
    for i in range(rounds):
        for name, side in running.items():
            slow = name.startswith('plain')
            if slow and i:  # seconds a step
                continue
            found['training step'].setdefault(name, []).append(timed(side.train, 1 if slow else 4, warm=not slow))
            found['inference'].setdefault(name, []).append(timed(side.infer, 1 if slow else 4, warm=not slow))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7, help='rounds a case; plain layers have one')
    parser.add_argument('--only', choices=CASES, nargs='*', default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    print(f'{setting(timm)}; {options.rounds} rounds\n')
    print('| network | what | side | ms: median (lowest to highest) | times as fast as torch | as plain |')
    print('|---|---|---|---|---|---|')
    for key in options.only:
        case = CASES[key]
        for what, taken in measure(case, options.rounds).items():
            best = min((seconds for side, seconds in taken.items() if side.startswith('torch')), key=statistics.median)
            plain = statistics.median(taken['plain, a call a step'])
            for side, seconds in taken.items():
                middle = statistics.median(seconds)
                print(
                    f'| {case.name}, {case.size}x{case.size}, batch {case.batch} | {what} | {side} | {1e3 * middle:.4g} '
                    f'({1e3 * min(seconds):.4g} to {1e3 * max(seconds):.4g}) | {statistics.median(best) / middle:.2f} | '
                    f'{plain / middle:.1f} |',
                    flush=True,
                )


if __name__ == '__main__':
    main()
