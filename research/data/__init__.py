"""Data sets of named fields, the order of their rows, and readers."""

from research.data.dataset import NUMBERS, RESERVED, Dataset, Field, Store, cut, take
from research.data.sources import CUT, FILES, READ, load, read

__all__ = ['CUT', 'FILES', 'NUMBERS', 'READ', 'RESERVED', 'Dataset', 'Field', 'Store', 'cut', 'load', 'read', 'take']
