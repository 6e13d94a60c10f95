"""The command `frugal`. It stands outside of the package, to say so where Python finds another module named `research`."""

import pathlib
import sys


def main() -> None:
    """Starts research.cli; ends with status 2 where that is not Frugal's."""
    import research

    found, own = getattr(research, '__file__', None), pathlib.Path(__file__).with_name('research') / '__init__.py'
    if not found or not own.samefile(found):
        where = found or ', '.join(research.__path__)
        sys.stderr.write(
            f"error: Frugal's package is named 'research', and Python finds another one first: {where}. "
            'Rename it, or leave its folder out of PYTHONPATH.\n'
        )
        sys.exit(2)
    from research import cli

    cli.main()
