"""Data sets of named fields, the order of their rows, and readers."""

from research.data.dataset import NUMBERS, RESERVED, Dataset, Field, Store, cut, take
from research.data.sources import CUT, READ, load, read

__all__ = ['CUT', 'NUMBERS', 'READ', 'RESERVED', 'Dataset', 'Field', 'Store', 'cut', 'load', 'read', 'take']
