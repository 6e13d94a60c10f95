"""What is the same: the same run, the same program, the same code."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from research import files, optim, pretrained
from research.config import signatures
from research.config.overrides import defaults, flatten
from research.data import FILES, external
from research.study import closure

# Fields that cannot change a run's numbers, its times among them: where data lies, what is refused, how often a state is saved.
_SILENT = ('data.path', 'data.bad_files', 'train.checkpoint_every', 'study')
# ... but these of the study do, the last two where they steer a run or choose the parameters that are scored.
_LOUD = ('study.budget', 'study.score')
_LOUD_FOR_BEST = (*_LOUD, 'study.metric', 'study.higher_is_better')
# Fields that enter a program as data, beside those that the optimizer traces.
_DATA = (
    'train.seed',
    'train.eval_every',
    'train.checkpoint_every',
    'data.redraw',
    'data.path',
    'data.bad_files',
    'data.workers',
    'data.split_seed',
    'study',
)
# Libraries that compute.
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
# Where the code of a run begins: a better report, plan or latency leaves finished runs alone.
_EXECUTED = ('research', 'research.train.experiment', 'research.train.loop')
# Instruction sets from the widest on, as XLA's flag names them.
_LIMITS = ('AMX', 'AVX512', 'AVX2', 'AVX', 'SSE4_2')


def _within(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == p or key.startswith(p + '.') for p in prefixes)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:12]


def run_id(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits over every field that can change the run's numbers and is not at its default.

    A new field with a neutral default therefore renames no old run. Where a default itself is changed, `changed` tells.
    """
    return run_ids(config, [config['train']['seed']])[0]


def run_ids(config: Mapping[str, Any], seeds: Iterable[int]) -> list[str]:
    """The `run_id` of a config at each of the seeds."""
    # Tuples are lists in a record.
    config, neutral = json.loads(json.dumps(config)), json.loads(json.dumps(flatten(defaults())))
    apart = {k: v for k, v in _that_matter(config).items() if k not in neutral or v != neutral[k] or k == 'study.budget'}
    apart.pop('train.seed', None)
    return [_digest(apart | ({'train.seed': seed} if seed != neutral['train.seed'] else {})) for seed in seeds]


def changed(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Dotted fields that can change a run's numbers, are in a run's config.json and in `config`, and differ."""
    old, new = _that_matter(recorded), _that_matter(json.loads(json.dumps(config)))
    return [k for k in old if k in new and old[k] != new[k] and k != 'model.num_classes']  # recorded as the data had it


def _that_matter(config: Mapping[str, Any]) -> dict[str, Any]:
    steered = config['schedule']['name'] == 'plateau' or config['data']['batch']['name'] == 'shrink'
    loud = _LOUD_FOR_BEST if config['study']['score'] == 'best' or steered else _LOUD
    if not config['study']['metric'].startswith('test/'):  # then the test split is not read
        loud = (*loud, 'study.metric')
    silent = _SILENT if own_data(config) else (*_SILENT, 'data.checksum')  # of data with a name it only verifies
    silent = (*silent, *_resident(config))
    matter = {k: v for k, v in flatten(config).items() if _within(k, loud) or not _within(k, silent)}
    if matter.get('data.external'):
        matter['data.external'] = [external.loud(source) for source in matter['data.external']]
    return matter


def _resident(config: Mapping[str, Any]) -> tuple[str, ...]:
    """`data.streaming` where it is not asked for: data that are found to fit are data that are kept on the device."""
    return () if config['data']['streaming'] is True else ('data.streaming',)


def own_data(config: Mapping[str, Any]) -> bool:
    """Whether the data are the user's own, of a loader function or of files, so that only their content tells them apart."""
    group = {'external': (), **config['data']}  # older records have none
    names = group['name'], *(source['name'] for source in group['external'])
    return any(':' in name or name in FILES for name in names)


def unread(config: Mapping[str, Any]) -> str:
    """What tells runs apart before own data are read: the id, however calls are spelled, and the path that the loader gets."""
    return f'{run_id(signatures.as_called(config))} {_paths(config["data"]) if own_data(config) else ""}'


def _paths(data: Mapping[str, Any]) -> str:
    return ' '.join([data['path'], *(source.get('path', '') for source in data['external'])])


def compile_key(config: Mapping[str, Any]) -> str:
    """12 digits over the config less seed, name, paths and everything traced: runs with the same key share a program."""
    traced = (*_DATA, *_resident(config), *optim.traced(config))
    return _digest({k: v for k, v in flatten(config).items() if not _within(k, traced)})


def fingerprint(config: Mapping[str, Any], checksum: str) -> dict[str, Any]:
    """What a run's numbers depend on beside its config.

    Args:
      config: of the run, built: modules that it reaches by import path are imported.
      checksum: of the data.

    Returns:
      code, fork: files that the run executes, of this package and of the user's own -> digests of their syntax trees.
      versions: of the libraries that compute; data: `checksum`; weights: digest of those that it starts from.
    """
    flat, package = flatten(config), pathlib.Path(__file__).parents[1]
    texts = [(k, text) for k, v in flat.items() for text in (v if isinstance(v, tuple | list) else (v,))]
    texts += [('data.external.name', source['name']) for source in config['data']['external']]
    own = {text.partition(':')[0] for k, text in texts if _is_import_path(k, text)}
    return {
        'code': closure.package(_EXECUTED, _texts(config), package.parent),
        'fork': closure.fork(own),
        'versions': {p: importlib.metadata.version(p) for p in _PACKAGES},
        'data': checksum,
        'weights': pretrained.digest(config['model']['init_from']),
    }


def numerics() -> dict[str, Any]:
    """What else changes the bits of a run; it refuses nothing, and pairs whose halves differ in it are marked."""
    flags = os.environ.get('XLA_FLAGS', '')
    return {
        'device': jax.devices()[0].device_kind,
        'devices': jax.device_count(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'instructions': _instructions(flags),
        'xla_flags': ' '.join(sorted(flags.split())),
    }


def _instructions(flags: str) -> str:
    """The widest instruction set that XLA may use on this processor."""
    known = ('amx_tile', 'avx512f', 'avx2', 'avx', 'sse4_2')
    limit = re.search(r'--xla_cpu_max_isa=(\w+)', flags)
    allowed = known[next((i for i, name in enumerate(_LIMITS) if limit[1].upper().startswith(name)), 0) :] if limit else known
    return next((name for name in allowed if name in _processor().get('flags', '').split()), '')


def _texts(value: Any) -> set[str]:
    """Every text in a nested config."""
    if isinstance(value, Mapping):
        return set().union(*map(_texts, value.values()), value)
    if isinstance(value, list | tuple):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


def _is_import_path(key: str, value: Any) -> bool:
    return (
        isinstance(value, str)
        and ':' in value
        and not key.startswith(('study.', 'model.init_from', 'data.targets.run'))
        and not value.startswith('research.')
        and (
            key.endswith('.name')
            or key.count('.') >= 1
            and all(part.isidentifier() for part in value.partition(':')[0].split('.'))
        )
    )


def environment(workdir: pathlib.Path, config_file: pathlib.Path) -> dict[str, Any]:
    """Saves the uncommitted changes and the package list beside the study; returns commit, versions, device and platform.

    Uncommitted changes are the difference from the last commit, and the files that git does not know and this process has
    imported. Each is a file of its own by its content, so that a later launch does not overwrite what earlier runs were made
    with.

    Args:
      workdir: of the study.
      config_file: its repository may be another one, a paper's.
    """
    here, config_folder = pathlib.Path(__file__).parents[2], config_file.parent
    tops = {_git(folder, 'rev-parse', '--show-toplevel').strip() or str(folder) for folder in (here, config_folder)}
    changes = ''.join(
        _git(top, 'status', '--short') + _git(top, 'diff', 'HEAD') + _untracked(top, config_file) for top in sorted(tops)
    )
    packages = '\n'.join(sorted(f'{d.name}=={d.version}' for d in importlib.metadata.distributions())) + '\n'
    return {
        'git_commit': _git(here, 'rev-parse', 'HEAD').strip(),
        'config_commit': _git(config_folder, 'rev-parse', 'HEAD').strip(),
        'git_diff_file': _kept(workdir, 'uncommitted', changes),
        'packages_file': _kept(workdir, 'packages', packages),
        'platform': jax.default_backend(),
        'device': jax.devices()[0].device_kind,
        'devices': jax.device_count(),
        'cores': os.cpu_count(),
        'cpu': f'{_processor().get("model name", "")} {_instructions("")}'.strip(),
        'python': sys.version.split()[0],
        **{p: importlib.metadata.version(p) for p in _PACKAGES},
        'xla_flags': os.environ.get('XLA_FLAGS', ''),
    }


def _git(folder: pathlib.Path | str, *arguments: str) -> str:
    done = subprocess.run(['git', '-C', str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 or '--no-index' in arguments else ''  # 1 where there are differences


def _untracked(top: str, config_file: pathlib.Path) -> str:
    """Files of a repository that git does not know, as far as they have been imported, as git shows a new file."""
    names = _git(top, 'ls-files', '--others', '--exclude-standard', '-z').split('\0')
    sources = [str(config_file), *(getattr(module, '__file__', None) for module in list(sys.modules.values()))]
    imported = {os.path.realpath(source) for source in sources if source}
    new = [name for name in names if os.path.realpath(os.path.join(top, name)) in imported]
    return ''.join(_git(top, 'diff', '--no-index', '--', os.devnull, name) for name in new)


def _kept(workdir: pathlib.Path, stem: str, content: str) -> str:
    name = f'{stem}-{_digest(content)}.txt'
    files.write(workdir / name, content)
    return name


def _processor() -> dict[str, str]:
    """/proc/cpuinfo of the last core; {} on other systems."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return {}
    return {k.strip(): v.strip() for k, _, v in (line.partition(':') for line in lines)}
