"""Which micro-batch and rematerialization fit a memory budget and cost the least time; read off programs, running none.

Idea: the compiler knows what a program takes before it runs, so the largest micro-batch that fits can be looked up. A run whose
batch or inputs grow is measured where it takes most.

Config: {'train.memory_budget': '6GiB'}; a budget a device, of what a whole run holds there: state, data, the activations of its
steps, evaluations, a checkpoint's copy of the state. Not in it: compilation, compiled code, jax and Python; and for two players
the training of the judge, once a study, and what their metrics take on the host.

What a program takes is the compiler's count: arguments + outputs - aliases + temporaries. On CPU the budget is held against the
resident memory of the process, where more comes on top. The scratch of the convolution library is outside the count, so
temporaries are taken 1.7 times: growth of the process has been measured at 1.0 to 1.7 times. What a program computed in was
seen to stay while another one ran, so training and evaluation are added, and a checkpoint takes the state once more while it
is written. On accelerators the larger of the two decides. Micro-batches are the batch's divisors, because norm layers would see
the padding of others; the batch of evaluations is halved until these take a quarter of the budget.

Time is guessed from FLOPs, recomputation included, and from what small micro-batches lose: a step in micro-batches of m
examples takes about (1 + 4 / m) of its FLOPs' time. So a smaller micro-batch is preferred until it is very small.

Claim: a batch larger than memory allows, with no trial and error. Cost: a dozen compilations or two. Clashes: it chooses
`gradient.micro_batch` and `train.remat`, so these stay as they are; with batch normalization, micro-batches are ghost batches.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from research.catalogue import ConfigError
from research.layers.remat import POLICIES

# On CPU: of temporaries; and bytes of the host's own, such as index arrays, and libraries that a first run touches. Runs took
# up to 118 MiB that no program accounts for, the same run 50 MiB more or less each time (benchmarks/memory_plan.md).
_ALLOWANCE, _HOST = 1.7, 120 << 20
# Share of the budget that evaluations may take, which are a small part of a run's time.
_BETWEEN = 0.25
_UNITS = {'B': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30}
# Examples a micro-batch at which half of the time is overhead, about.
_OVERHEAD = 4


class Need(NamedTuple):
    """What a plan takes: bytes a device as predicted, and relative time."""

    bytes: int
    time: float


class Fit(NamedTuple):
    """A choice: micro-batch (0: the whole batch) and remat, with what it needs; and examples an evaluation step."""

    micro_batch: int
    remat: str
    need: Need
    evaluation_batch: int = 0


def parse(text: str) -> int:
    """Bytes of '6GiB', '500MB'.

    Raises:
      ConfigError: no such size.
    """
    match = re.fullmatch(r'([0-9]*\.?[0-9]+)\s*([KMG]i?B|B)', text.strip())
    if not match or not float(match[1]):
        raise ConfigError(f"train.memory_budget is '{text}', expected a size such as '6GiB' or '500MB'.")
    return int(float(match[1]) * _UNITS[match[2]])


def beside(programs: Sequence[Mapping[str, int]]) -> int:
    """Bytes that the programs between steps (research.cost.memory) add to what training keeps: one at a time, the outputs of
    the one before it held."""
    return max(program['temporaries'] for program in programs) + sum(program['outputs'] for program in programs)


def predicted(train: Mapping[str, int], between: int, copies: int, platform: str) -> int:
    """Bytes that a whole run is taken to need on a platform.

    Args:
      train: of the training program, from research.cost.memory.
      between: bytes of the programs between steps, from `beside`.
      copies: of the state that are held beside it: one for a checkpoint, another for the best variables.
    """
    kept, steps = train['total'] - train['temporaries'] + copies * train['aliases'], train['temporaries']
    if platform != 'cpu':
        return kept + max(steps, between)
    return int(kept + train['aliases'] + _ALLOWANCE * (steps + between) + _HOST)


def evaluation_batch(budget: str, batch: int, shares: int, between: Callable[[int], int]) -> int:
    """Examples an evaluation step: `batch`, halved until the programs between steps take at most a quarter of the budget.

    Args:
      budget: text, as `parse` takes it.
      batch: as asked for.
      shares: devices that share a batch evenly.
      between: examples -> bytes, from `beside`.
    """
    limit = parse(budget) * _BETWEEN
    while batch > shares and between(batch) > limit:
        batch = max(1, batch // 2 // shares) * shares
    return batch


def time(flops: int, micro_batch: int) -> float:
    """Relative time of a step of so many FLOPs in micro-batches of so many examples."""
    return flops * (1 + _OVERHEAD / micro_batch)


def candidates(rungs: Sequence[int], shares: int, least: int) -> list[int]:
    """Sizes of micro-batches, falling, that divide every batch size of a run evenly.

    Args:
      rungs: the batch sizes.
      shares: devices that share a micro-batch evenly.
      least: micro-batches that a batch has.

    Raises:
      ConfigError: there is none.
    """

    def fits(size: int) -> bool:
        counts = [-(-rung // size) for rung in rungs]
        even = all(rung % (count * shares) == 0 for rung, count in zip(rungs, counts, strict=True))
        return even and min(counts) >= least

    sizes = [size for size in range(max(rungs), 0, -1) if max(rungs) % size == 0 and fits(size)]
    if not sizes:
        raise ConfigError('No micro-batch divides every batch size of the run: choose sizes with a common divisor.')
    return sizes


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
    size = f'{plan.need.bytes / 2**20:.0f} MiB predicted of {budget}'
    return f'{micro}, remat {plan.remat}, evaluation in batches of {plan.evaluation_batch}: {size}'
