"""Frugal: what does each efficiency trick buy, at what cost, and how sure can one be?"""

from research import process

__version__ = '0.1.0'

process.configure()
