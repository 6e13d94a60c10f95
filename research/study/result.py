"""A study called from Python: the same as the command, with the summary in the hand."""

import hashlib
import html
import os
import pathlib
import pprint
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from research import files
from research.catalogue import ConfigError
from research.config.files import plain
from research.report import tables
from research.study import launch

_PAGE = '<iframe srcdoc="{}" style="width: 100%; height: 45em; border: 0" title="report"></iframe>'
_WRITTEN = '''"""The config that research.study.run was given."""

from math import inf, nan  # noqa: F401


def get_config():
    return {}
'''


class Summary(dict):
    """The content of summary.json; in a notebook it shows the report.

    Attributes:
      workdir: of the study, with report.html and the rest.
      failed: how many runs failed in this call.
    """

    def __init__(self, content: Mapping[str, Any], workdir: pathlib.Path, failed: int):
        super().__init__(content)
        self.workdir, self.failed = workdir, failed

    def table(self) -> Any:
        """Mean, difference, interval, verdict and costs of each variant, unrounded, in the units of the records.

        Returns:
          A pandas.DataFrame if pandas is installed, else a list with a dict a row; the columns of report.csv.
        """
        lines = tables.lines(self)
        try:
            import pandas
        except ImportError:
            return lines
        return pandas.DataFrame(lines).set_index('name')

    def _repr_html_(self) -> str:
        return _PAGE.format(html.escape((self.workdir / 'report.html').read_text(), quote=True))


def run(
    config: str | os.PathLike[str] | Mapping[str, Any], workdir: str | os.PathLike[str], changes: Mapping[str, Any]
) -> Summary:
    """See research.study.run."""
    workdir = pathlib.Path(workdir)
    spec = _written(config, workdir) if isinstance(config, Mapping | ConfigDict) else os.fspath(config)
    planned = launch.planned(spec, changes)
    from research.study.execute import Interrupted

    try:
        failed, content = launch.trained(*planned, workdir, launch.command(spec, workdir, changes))
    except Interrupted as stopped:
        raise KeyboardInterrupt(f'{stopped}: everything is saved, the same call goes on from here') from stopped
    return Summary(content, workdir, failed)


def _written(config: Mapping[str, Any], workdir: pathlib.Path) -> str:
    """A file with this config in `workdir`, named by its content: what messages point at, and the report's commands read."""
    values = plain('', config)
    values.setdefault('study', {})
    values['study']['name'] = values['study'].get('name') or workdir.resolve().name
    text = _WRITTEN.format(pprint.pformat(values, width=120, sort_dicts=False).replace('\n', '\n    '))
    path = workdir / f'config-{hashlib.sha256(text.encode()).hexdigest()[:12]}.py'
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.write(path, text)
    except OSError as error:
        raise ConfigError(f"Cannot write to workdir '{workdir}': {error.strerror}. Choose another.") from error
    return str(path)
