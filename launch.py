"""Runs an ablation study: `python launch.py --config=configs/quickstart.py --workdir=runs/quickstart`."""

import argparse
import os
import sys
from typing import NoReturn

import research  # noqa: F401 - settings of the process come first
from research.catalogue import nearest
from research.study.launch import REFUSED, launch


def main() -> int:
    """Reads the flags and hands them over."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('--config', default='', metavar='FILE[:ARG]', help='the study; fields by --config.KEY=VALUE')
    parser.add_argument('--workdir', required=True, metavar='DIR', help='where runs and report go; the same DIR goes on')
    parser.add_argument('--stale', default='', choices=('rerun', 'keep'), help='finished runs whose code has changed')
    mode = parser.add_mutually_exclusive_group()
    for name, text in (
        ('plan', 'print runs, costs and programs; train nothing'),
        ('report', 'rebuild the report from the records'),
        ('prepare', 'fetch, check and prepare the data, nothing else'),
    ):
        mode.add_argument(f'--{name}', dest='mode', action='store_const', const=name, default='run', help=text)
    known, rest = parser.parse_known_args()
    changes = {}
    for flag in rest:
        key, found, text = flag.partition('=')
        if not key.startswith('--config.') or not found:
            hint = nearest(key, ('--config', '--workdir', '--stale', '--plan', '--report', '--prepare'))
            parser.error(f"unknown flag '{flag}'.{hint} Fields of the config are set by --config.KEY=VALUE.")
        changes[key.removeprefix('--config.')] = text
    if not known.config and known.mode != 'report':
        parser.error('--config=FILE is missing')
    return launch(known.config, known.workdir, changes, known.mode, known.stale)


def leave(status: int) -> NoReturn:
    """Ends the process."""
    if status == REFUSED:
        # Background writers of a full disk would print their own errors, once more at exit, behind the one that helps.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == '__main__':
    leave(main())
