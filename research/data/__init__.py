"""Data sets, which of their examples stand where, and readers."""

from research.data.dataset import Dataset
from research.data.sources import load, prepare

__all__ = ['Dataset', 'load', 'prepare']
