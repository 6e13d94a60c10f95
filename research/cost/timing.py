"""Seconds per call, with quantiles. Nothing else should run on the machine meanwhile."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np


def latency(fn: Callable[..., Any], *args: Any, repeats: int = 100, warmup: int = 5) -> dict[str, float]:
    """Seconds that `fn(*args)` takes until its results are ready.

    Args:
      fn: a function of arrays; jitted here unless it is already. It must not donate its arguments.
      args: on the device, so that no transfer is timed.
      repeats: timed calls.
      warmup: calls before these; the first compiles.

    Returns:
      p10, p50, p90, mean (seconds) and n (timed calls).
    """
    return interleaved({'': (fn, args)}, repeats, warmup)['']


def interleaved(
    calls: Mapping[str, tuple[Callable[..., Any], Sequence[Any]]], rounds: int, warmup: int = 5, seed: int = 0
) -> dict[str, dict[str, float]]:
    """`latency` of several calls in turn, each once per round, in a new random order each round.

    So disturbances of the machine (heat, clock rate, other jobs) affect all of them alike.

    Args:
      calls: name -> (function, arguments).
      rounds: timed calls of each.
      warmup: calls of each before these.
      seed: of the order.

    Returns:
      name -> what `latency` returns.
    """
    ready = {name: (fn if hasattr(fn, 'lower') or hasattr(fn, 'memory_analysis') else jax.jit(fn), tuple(args))
             for name, (fn, args) in calls.items()}  # fmt: skip
    for fn, args in ready.values():
        for _ in range(max(warmup, 1)):
            jax.block_until_ready(fn(*args))
    names, order = list(ready), np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _without_garbage_collection():
        for _ in range(rounds):
            for index in order.permutation(len(names)):
                fn, args = ready[names[index]]
                start = time.perf_counter()
                jax.block_until_ready(fn(*args))
                seconds[names[index]].append(time.perf_counter() - start)
    return {name: _quantiles(values) for name, values in seconds.items()}


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    p10, p50, p90 = np.quantile(seconds, (0.1, 0.5, 0.9)).tolist()
    return {'p10': p10, 'p50': p50, 'p90': p90, 'mean': float(np.mean(seconds)), 'n': len(seconds)}
