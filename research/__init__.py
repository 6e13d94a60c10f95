"""Frugal: what does each efficiency trick buy, at what cost, and how sure can one be?"""

import importlib.util
import types

from research import process

process.configure()


def __getattr__(name: str) -> types.ModuleType:
    """`research.study` and the others after `import research` alone; what nobody asks for stays unimported."""
    if name.startswith('_') or importlib.util.find_spec(f'research.{name}') is None:
        raise AttributeError(f"module 'research' has no attribute '{name}'")
    return importlib.import_module(f'research.{name}')
