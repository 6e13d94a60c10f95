"""What may stand beside --report: a study is told as it was run, but it may be judged anew, which the report then says."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from research import files
from research.catalogue import ConfigError
from research.config import overrides
from research.study import asked

# Fields that no run reads, only its verdict.
FIELDS = ('study.margin', 'study.alpha')


def changed(study: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `FIELDS` in `changes`, dotted key -> value, that are not those of study.json.

    Raises:
      ConfigError: a value that is out of range, or any other field with another value than it was run with.
    """
    wanted, ran = _flat(overrides.apply(study['config'], changes)), _flat(study['config'])
    other = {key: value for key, value in wanted.items() if key not in ran or ran[key] != value}
    for key in other:
        if key not in FIELDS:
            raise ConfigError(
                f'--config.{key}: --report tells a study as it was run, with {ran.get(key)!r}. It judges anew by '
                f'{" and ".join(FIELDS)}; what needs other runs is launched without --report.'
            )
    overrides.check(overrides.apply(overrides.defaults(), other))  # the record may be older than some fields
    return other


def differs(study: Mapping[str, Any], spec: str, changes: Mapping[str, Any]) -> list[str]:
    """The fields in which a config file, named beside --report, is no longer as the study was run.

    Raises:
      ConfigError: it is another study.
    """
    config = overrides.load(spec, changes)[0]
    if (name := config['study']['name']) != study['study']:
        raise ConfigError(f"--config: '{spec}' is the study '{name}', and --workdir holds '{study['study']}'.")
    here, ran = _flat(config), _flat(study['config'])
    return [key for key, value in here.items() if key in ran and ran[key] != value and key not in changes]


def rewrite(workdir: pathlib.Path, study: Mapping[str, Any], judged: Mapping[str, Any]) -> None:
    """Puts changed `FIELDS` into study.json; its list of questions keeps the earlier ones, for the report."""
    group = {key.partition('.')[2]: value for key, value in judged.items()}
    content = {**study, **group, 'config': {**study['config'], 'study': {**study['config']['study'], **group}}}
    content['asked'] = asked.so_far(workdir, content, study, settled=True)
    files.write(workdir / 'study.json', json.dumps(content, indent=1))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys, with lists where a record has lists."""
    return json.loads(json.dumps(overrides.flatten(config)))
