"""The command `frugal`: flags and nothing else."""

import argparse
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from research import listing
from research.catalogue import ConfigError, near
from research.config import examples
from research.report import console
from research.study.launch import OK, REFUSED, launch

# Of the distribution: setup.cfg reads it here, where a new one leaves the fingerprints of finished runs alone.
VERSION = '0.2.0'
_USAGE = """\
frugal --config=FILE[:ARG] --workdir=DIR [--config.KEY=VALUE ...]
       frugal --config=FILE[:ARG] --workdir=DIR --plan[=runs] | --prepare
       frugal --workdir=DIR --report[=FOLDER]
       frugal list [KIND [NAME]]
       frugal compare DIR DIR...
       frugal upload wandb|mlflow DIR"""
_ABOUT = """\
Runs an ablation study: a baseline and its variants over paired seeds, and a
report. A study that was stopped goes on by the same command."""
_EPILOG = """\
example:
  frugal --config=quickstart --workdir=runs/quickstart --config.study.seeds=6

exit status:
  0    every run finished, or diverged and is reported so
  1    some runs failed
  2    bad input: nothing was trained
  128+ stopped by a signal; everything is saved, and the same command goes on"""
_FLAGS = ('config', 'workdir', 'plan', 'report', 'prepare', 'stale', 'version', 'help')
# Of the names of two flags, above which one may be a slip for the other: 'reprt' for 'report', and not 'verbose' for 'version'.
_LIKE = 0.7


def main() -> NoReturn:
    """Reads the command line and ends the process."""
    console.spell_out()
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `frugal ... | head`
        console.hang_up()
        status = 128 + signal.SIGPIPE
    if status == REFUSED:
        # Background writers of a full disk would print their own errors, once more at exit, behind the one that helps.
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """The exit status of a command line, without the program's name; an empty one prints the help.

    Raises:
      SystemExit: after --help and --version.
    """
    try:
        if not arguments:
            _parser().print_help()
            return REFUSED
        command = _COMMANDS.get(arguments[0])
        return command(arguments[1:]) if command else _study(arguments)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return REFUSED


def _study(arguments: Sequence[str]) -> int:
    known, rest = _parser().parse_known_args(arguments)
    changes = dict(map(_change, rest))
    if known.plan not in (None, True, 'runs', 'examples'):
        raise ConfigError(
            f'--plan={known.plan}: expected --plan, a row a variant, --plan=runs, a row a run, or '
            '--plan=examples, pictures of what augmentation does.'
        )
    if known.report == '':
        raise ConfigError('--report= names no folder: --report writes into DIR, --report=FOLDER elsewhere.')
    mode = next((name for name in ('plan', 'report', 'prepare') if getattr(known, name)), 'run')
    if not known.workdir:
        problem = 'missing' if known.workdir is None else 'empty'
        raise ConfigError(f'--workdir=DIR is {problem}: the folder of runs and report, such as --workdir=runs/quickstart.')
    if not known.config and mode != 'report':
        raise ConfigError('--config=FILE is missing: the study, such as --config=quickstart.')
    if mode == 'report' and known.stale:
        raise ConfigError('--stale says what a launch does with finished runs, and --report runs nothing. Leave one out.')
    name = known.config.partition(':')[0]
    if not pathlib.Path(name).is_file() and name in (along := examples.paths()):
        print(f'--config={name} means {along[name]}')
    into = known.report if isinstance(known.report, str) else ''
    return launch(
        known.config, known.workdir, changes, mode, known.stale, known.plan if isinstance(known.plan, str) else '', into
    )


def _list(arguments: Sequence[str]) -> int:
    """`frugal list`: what a config may name."""
    parser = _Parser(prog='frugal list', description=_list.__doc__)
    parser.add_argument('kind', nargs='?', default='', metavar='KIND', help=', '.join(listing.KINDS))
    parser.add_argument('name', nargs='?', default='', metavar='NAME', help='only what has this in its name; a group of fields')
    known = parser.parse_args(arguments)
    print(listing.text(known.kind, known.name))
    return OK


def _compare(arguments: Sequence[str]) -> int:
    """`frugal compare`: several studies of one question, side by side."""
    parser = _Parser(prog='frugal compare', description=_compare.__doc__)
    parser.add_argument('folders', nargs='*', metavar='DIR', help='folders of studies')
    from research.report import compare

    studies = compare.read(parser.parse_args(arguments).folders)
    terminal = console.Terminal(80)
    for note in compare.notes(studies):
        terminal.print(note, markup=False, highlight=False)
    terminal.print(compare.table(studies))
    return OK


def _upload(arguments: Sequence[str]) -> int:
    """`frugal upload`: the runs of a study to Weights & Biases or MLflow; their own settings say where."""
    parser = _Parser(prog='frugal upload', description=_upload.__doc__)
    parser.add_argument('target', metavar='wandb|mlflow')
    parser.add_argument('folder', metavar='DIR', help='of the study')
    known = parser.parse_args(arguments)
    from research.report import upload

    print(upload.upload(known.target, known.folder))
    return OK


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f'{message[:1].lower()}{message[1:]}. frugal --help shows the flags.')


def _parser() -> _Parser:
    parser = _Parser(
        prog='frugal',
        usage=_USAGE,
        description=_ABOUT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        '--config',
        default='',
        metavar='FILE[:ARG]',
        help='the study, or the name of one in `frugal list configs`; fields by --config.KEY=VALUE',
    )
    parser.add_argument('--workdir', metavar='DIR', help='where runs and report go')
    parser.add_argument('--stale', default='', choices=('rerun', 'keep'), help='finished runs whose code has changed')
    mode = parser.add_mutually_exclusive_group()
    for name, value, text in (
        ('plan', 'runs|examples', 'print costs and programs, =runs a row a run, =examples draw augmentation; train nothing'),
        ('report', 'FOLDER', 'rebuild the report from the records, into DIR or FOLDER'),
    ):
        mode.add_argument(f'--{name}', nargs='?', const=True, metavar=value, help=text)
    mode.add_argument('--prepare', action='store_true', help='fetch and check the data, no more')
    parser.add_argument('--version', action='version', version=f'frugal {VERSION}')
    return parser


def _change(flag: str) -> tuple[str, str]:
    """(dotted key, text) of --config.KEY=VALUE. Raises ConfigError for any other word."""
    name, found, text = flag.partition('=')
    if not name.startswith('--config.'):
        raise ConfigError(_unknown(name))
    if not found:
        raise ConfigError(f"'{flag}' has no value: write {flag}=VALUE, in one word.")
    return name.removeprefix('--config.'), text


def _unknown(name: str) -> str:
    if not name.startswith('-'):
        if close := near(name, _COMMANDS, _LIKE):
            return f"unknown command '{name}'. Did you mean 'frugal {close}'?"
        return f"'{name}' belongs to no flag. Flags are written --NAME=VALUE; a study is --config={name}."
    flags = [f'--{flag}' for flag in _FLAGS]
    close = near(name.lstrip('-'), _FLAGS, _LIKE)
    hint = f"Did you mean '--{close}'?" if close else f'No flag has a name like it. Flags: {", ".join(flags)}.'
    return f"unknown flag '{name}'. {hint} Fields of the config are set by --config.KEY=VALUE."


_COMMANDS = {'list': _list, 'compare': _compare, 'upload': _upload}
