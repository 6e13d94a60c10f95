"""Data sets of named fields, the order of their rows, and readers."""

from research.data.dataset import NUMBERS, RESERVED, Dataset, Field, take
from research.data.sources import load, prepare

__all__ = ['NUMBERS', 'RESERVED', 'Dataset', 'Field', 'load', 'prepare', 'take']
