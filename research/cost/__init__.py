"""What a model and a call cost: parameters, multiply-adds and FLOPs, bytes, seconds."""

from research.cost.count import count, flops, multiply_adds, parameters, uncounted
from research.cost.free import room
from research.cost.space import held, memory, peak_memory
from research.cost.timing import interleaved, latency

__all__ = [
    'count',
    'flops',
    'held',
    'interleaved',
    'latency',
    'memory',
    'multiply_adds',
    'parameters',
    'peak_memory',
    'room',
    'uncounted',
]
