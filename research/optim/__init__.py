"""Stage 5: gradient -> update, and the learning rate over the run."""

from research.optim.optimizers import create, hyperparameters, inject, traced, with_learning_rate
from research.optim.schedules import schedule

__all__ = ['create', 'hyperparameters', 'inject', 'schedule', 'traced', 'with_learning_rate']
