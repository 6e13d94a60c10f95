"""Stage 5: gradient -> update, and the learning rate over the run."""

from research.optim.averaging import average_weight, averages, evaluation_params
from research.optim.clipping import observations
from research.optim.optimizers import create, hyperparameters, inject, traced
from research.optim.scaling import loss_scale
from research.optim.schedules import schedule

__all__ = [
    'average_weight',
    'averages',
    'create',
    'evaluation_params',
    'hyperparameters',
    'inject',
    'loss_scale',
    'observations',
    'schedule',
    'traced',
]
