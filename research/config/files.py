"""Config files: reading them, and finding the line of a key for messages."""

import contextlib
import importlib.util
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
import numpy as np

from research.catalogue import ConfigError, namesake, nearest
from research.config import examples


class Misfit(ConfigError):
    """A ConfigError about one dotted key of the config; `ConfigFile.at` finds its line."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


class ConfigFile:
    """A config file and the flags given with it, to say where a value comes from.

    Attributes:
      path: of the file.
      flags: dotted key -> value, from the command line.
    """

    def __init__(self, path: pathlib.Path, flags: Mapping[str, Any]):
        self.path, self.flags = path, flags
        self._lines = path.read_text(errors='replace').splitlines()

    def at(self, key: str, variant: str = '') -> str:
        """'--config.KEY: ', or 'FILE:LINE: ' of the first line with the dotted key or else its last part, or 'FILE: '.

        With `variant` the search starts at the variant's line, which is also the result if the key is not found.
        """
        own = 'study.variants' if variant else key
        for flag in self.flags:
            if f'{flag}.'.startswith(f'{own}.') or own.startswith(f'{flag}.'):
                return f'--config.{flag}: '
        first = self._line_of(variant, 1) if variant else 1
        for word in (key, key.rpartition('.')[2]):
            if word and (line := self._line_of(word, first or 1)):
                return f'{self.path}:{line}: '
        return f'{self.path}:{first}: ' if variant and first else f'{self.path}: '

    def mentions(self, message: str, variant: str = '') -> str:
        """Like `at`, for a message of which no key is known: looks for the first dotted key, or else quoted text, in it that
        occurs in a flag or in the file."""
        for text in [*re.findall(r'\b[a-z]\w*(?:\.[a-z]\w*)+\b', message), *re.findall(r"'([^']+)'", message)]:
            for flag, value in self.flags.items():
                if text in (flag, str(value)):
                    return f'--config.{flag}: '
            if self._line_of(text, 1):
                return self.at(text, variant)
        return self.at(variant, variant) if variant else f'{self.path}: '

    def _line_of(self, word: str, first: int) -> int:
        """The first line from `first` on that contains `word`, 0 if none does."""
        pattern = rf'(?<!\w){re.escape(word)}(?!\w)'
        return next((n for n, line in enumerate(self._lines, 1) if n >= first and re.search(pattern, line)), 0)


def read(spec: str) -> tuple[dict[str, Any], pathlib.Path, str]:
    """Runs a config file.

    Its folder and the parent folder are appended to sys.path for good (see `reach`).

    Args:
      spec: 'FILE' or 'FILE:ARG'; the file may be anywhere. 'NAME' is one that comes along (research.config.examples).

    Returns:
      (what its get_config returned as nested dicts of plain values, the file's path, the docstring of the file).

    Raises:
      ConfigError: no such file, no get_config, an error inside it (with file and line), an unsupported value.
    """
    name, colon, arg = spec.partition(':')
    path, along = pathlib.Path(name).expanduser(), examples.paths()
    if not path.is_file():
        if name not in along:
            near = [path.stem] if path.stem in along else [*map(str, path.parent.glob('*.py')), *along]
            raise ConfigError(f"No config file '{name}'.{nearest(name, near)}")
        path = along[name]
    reach(path.parent.resolve())
    module_spec = importlib.util.spec_from_file_location(f'frugal_config_{path.stem}', path)
    if module_spec is None:
        raise ConfigError(f"'{name}' is no Python file, expected a config such as configs/quickstart.py.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not callable(getattr(module, 'get_config', None)):
            raise ConfigError(f'{path}: it has no function get_config, expected one that returns the config of a study.')
        config = module.get_config(arg) if colon else module.get_config()
        if not isinstance(config, ml_collections.ConfigDict | Mapping):
            raise ConfigError(f'{path}: get_config returned {config!r:.80}, expected base.get_config() with changes.')
        return plain('', config), path, (module.__doc__ or '').strip()
    except Misfit as misfit:
        raise ConfigError(f'{ConfigFile(path, {}).at(misfit.key)}{misfit}') from misfit
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        text, hint = ' '.join(str(error).split()), namesake(getattr(error, 'name', None) or '')
        raise ConfigError(f'{_place(error, path)}: {type(error).__name__}: {text}{hint and ". "}{hint}') from error


def reach(folder: pathlib.Path) -> None:
    """Makes modules next to a config importable, as `nets` and, through the parent folder, as `my_paper.nets`."""
    for place in (str(folder), str(folder.parent)):
        if place not in sys.path:
            sys.path.append(place)


def plain(key: str, value: Any) -> Any:
    """Converts a config to plain values (dicts, tuples, strings, numbers, booleans, None); resolves references and NumPy.

    Raises:
      Misfit: anything else.
    """
    if isinstance(value, ml_collections.FieldReference):
        value = value.get()
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for inner in value:
            if not isinstance(inner, str):
                raise Misfit(key, f"'{key}' has the key {inner!r}, expected texts as keys.")
        return {inner: plain(f'{key}.{inner}' if key else inner, content) for inner, content in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(key, item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Misfit(
        key,
        f"'{key}' is {value!r:.80} ({type(value).__name__}), expected numbers, texts, or tuples and dicts of them; "
        "code is named by its import path, 'my_paper.nets:Net'.",
    )


def _place(error: BaseException, path: pathlib.Path) -> str:
    """FILE:LINE of the config file where an error was raised, or of the file that cannot be parsed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f'{error.filename}:{error.lineno}'
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if pathlib.Path(frame.filename).resolve() == path.resolve()]
    return f'{path}:{lines[-1]}' if lines else str(path)


@contextlib.contextmanager
def located(source: ConfigFile, variant: str) -> Iterator[None]:
    """Says where in the config the cause of an error stands; what a fork's own code raises becomes an error of the config."""
    inside, prefix = ('', '') if variant in ('baseline', 'null') else (variant, f"Variant '{variant}': ")
    try:
        yield
    except Misfit as misfit:
        raise ConfigError(f'{source.at(misfit.key, inside)}{prefix}{misfit}') from misfit
    except ConfigError as error:
        raise ConfigError(f'{source.mentions(str(error), inside)}{prefix}{error}') from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        frame = ([f for f in frames if 'site-packages' not in f.filename] or frames)[-1]
        text = f'{type(error).__name__}: {" ".join(str(error).split())} ({frame.filename}:{frame.lineno})'
        raise ConfigError(f'{source.at(inside, inside)}{prefix}building it failed with {text}') from error
