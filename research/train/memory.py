"""Which micro-batch and rematerialization fit a memory budget and cost the least time; read off programs, running none.

Idea: the compiler knows what a program takes before it runs, so the largest micro-batch that fits can be looked up. A run whose
batch or inputs grow is measured where it takes most.

Config: {'train.memory_budget': '6GiB'}; a budget a device, of what training holds: state, data, batches and activations.

What a program takes is the compiler's count: arguments + outputs - aliases + temporaries. On CPU the scratch of the convolution
library is outside that count, so the temporaries are taken `ALLOWANCE` times: growth of the process has been measured at 1.4 to
1.7 times. Micro-batches are the batch's divisors, because norm layers would see the padding of others.

Time is guessed from FLOPs, recomputation included, and from what small micro-batches lose: a step in micro-batches of m
examples takes about (1 + 4 / m) of its FLOPs' time. So a smaller micro-batch is preferred until it is very small.

Claim: a batch larger than memory allows, with no trial and error. Cost: a dozen compilations at most. Clashes: it chooses
`gradient.micro_batch` and `train.remat`, so these stay as they are; with batch normalization, micro-batches are ghost batches.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from research.catalogue import ConfigError
from research.layers.remat import POLICIES

ALLOWANCE = {'cpu': 1.7}
_UNITS = {'B': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30}
# Examples a micro-batch at which half of the time is overhead, about.
_OVERHEAD = 4


class Need(NamedTuple):
    """What a plan takes: bytes a device as predicted, and relative time."""

    bytes: int
    time: float


class Fit(NamedTuple):
    """A choice: micro-batch (0: the whole batch) and remat, with what it needs."""

    micro_batch: int
    remat: str
    need: Need


def parse(text: str) -> int:
    """Bytes of '6GiB', '500MB'.

    Raises:
      ConfigError: no such size.
    """
    match = re.fullmatch(r'([0-9]*\.?[0-9]+)\s*([KMG]i?B|B)', text.strip())
    if not match or not float(match[1]):
        raise ConfigError(f"train.memory_budget is '{text}', expected a size such as '6GiB' or '500MB'.")
    return int(float(match[1]) * _UNITS[match[2]])


def predicted(memory: Mapping[str, int], platform: str) -> int:
    """Bytes that a compiled program (research.cost.memory) is taken to need on a platform."""
    extra = (ALLOWANCE.get(platform, 1.0) - 1) * memory['temporaries']
    return int(memory['total'] + extra)


def time(flops: int, micro_batch: int) -> float:
    """Relative time of a step of so many FLOPs in micro-batches of so many examples."""
    return flops * (1 + _OVERHEAD / micro_batch)


def candidates(rungs: Sequence[int], shares: int, least: int) -> list[int]:
    """Sizes of micro-batches, falling, that divide every batch size of a run evenly.

    Args:
      rungs: the batch sizes.
      shares: devices that share a micro-batch evenly.
      least: micro-batches that a batch has.
    """

    def fits(size: int) -> bool:
        counts = [-(-rung // size) for rung in rungs]
        even = all(rung % (count * shares) == 0 for rung, count in zip(rungs, counts, strict=True))
        return even and min(counts) >= least

    return [size for size in range(max(rungs), 0, -1) if max(rungs) % size == 0 and fits(size)]


def fit(budget: str, sizes: Sequence[int], whole: int, rematerializes: bool, need: Callable[[int, str], Need]) -> Fit:
    """The plan that fits and costs the least time.

    Args:
      budget: text, as `parse` takes it.
      sizes: of micro-batches, `candidates`.
      whole: the largest batch size.
      rematerializes: whether the network has blocks to compute again.
      need: (micro-batch, remat) -> what the compiled program takes; asked as rarely as a binary search allows.

    Raises:
      ConfigError: nothing fits; it says what would.
    """
    limit = parse(budget)
    if not sizes:
        raise ConfigError('No micro-batch divides every batch size of the run: choose sizes with a common divisor.')
    plans, smallest = [], None
    for remat in ('none', *POLICIES) if rematerializes else ('none',):
        last = need(sizes[-1], remat)
        if smallest is None or last.bytes < smallest.bytes:
            smallest = last
        if last.bytes > limit:
            continue
        low, high = 0, len(sizes) - 1  # sizes[high] fits
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if need(sizes[middle], remat).bytes <= limit else (middle + 1, high)
        micro = 0 if sizes[high] == whole else sizes[high]
        plans.append(Fit(micro, remat, need(sizes[high], remat)))
        if high == 0 and remat == 'none':
            break  # as much as can be at once: nothing is faster
    if not plans:
        raise ConfigError(
            f"Nothing fits train.memory_budget '{budget}': micro-batches of {sizes[-1]}"
            f'{" with rematerialization" if rematerializes else ""} take {smallest.bytes / 2**20:.0f} MiB. Allow as much, or '
            'take a smaller network or fewer resident examples (data.streaming).'
        )
    return min(plans, key=lambda plan: plan.need.time)


def sentence(plan: Fit, budget: str) -> str:
    """What a reader should know of a plan."""
    micro = f'micro-batches of {plan.micro_batch}' if plan.micro_batch else 'the whole batch at once'
    return f'{micro}, remat {plan.remat}: {plan.need.bytes / 2**20:.0f} MiB predicted of {budget}'
