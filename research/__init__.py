"""Frugal: what does each efficiency trick buy, at what cost, and how sure can one be?"""

from research import process

process.configure()
