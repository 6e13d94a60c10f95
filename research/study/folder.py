"""DIR of a study: held against a second launch, known by its study, with the results that count."""

import contextlib
import errno
import itertools
import json
import pathlib
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from research import files
from research.catalogue import ConfigError
from research.report import records
from research.study import asked, identity, verify
from research.study.measure import schedules
from research.study.plan import Plan, Run
from research.train import record
from research.train.experiment import Experiment

# Of the rules of comparison; a change of them is a new version, listed in docs/method.md.
RULES = '1.1'
# Folder of reports that were made of another baseline, and what belongs to a report.
EARLIER = 'earlier'
_REPORT = ('report.*', 'summary.json', '*.png', '*.pdf')
# A full disk, a quota that is used up, a file system that went read-only.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Seconds in which the other writes of a checkpoint that failed print their errors, so that the one that helps comes last.
_LAST_WORDS = 1.0


@contextlib.contextmanager
def claim(workdir: pathlib.Path, plan: Plan) -> Iterator[None]:
    """Holds the workdir against a second launch, after checking that it is this study's and can be written.

    Raises:
      ConfigError: another study's workdir, one that cannot be written or is full, another platform than it declares or was
        begun on, a launch that is under way.
    """
    own_platform(plan)
    try:
        (workdir / 'runs').mkdir(parents=True, exist_ok=True)
        (workdir / files.LOCK).touch()
    except OSError as error:
        raise ConfigError(f"Cannot write to workdir '{workdir}': {error.strerror}. Choose another --workdir.") from error
    with files.lock(workdir / files.LOCK) as free:
        if not free:
            raise ConfigError(f"Another launch is at work in '{workdir}'. Wait for it, or choose another --workdir.")
        own_study(workdir, plan)
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            time.sleep(_LAST_WORDS)
            raise ConfigError(
                f"{error.strerror}: '{error.filename or workdir}'. Make room and give the same command again: finished runs "
                'are kept, and the run under way goes on from its last checkpoint.'
            ) from error


def own_platform(plan: Plan) -> None:
    """Refuses another platform than the one that the study declares, if it does."""
    try:
        platform = jax.default_backend()
    except RuntimeError as error:  # JAX_PLATFORMS asks for what is not there
        raise ConfigError(f'jax finds no device: {" ".join(str(error).split())}') from error
    if plan.study['platform'] not in ('', platform):
        raise ConfigError(
            f"This study declares the platform '{plan.study['platform']}', but jax runs on '{platform}'. Numbers of two "
            f'platforms are not comparable: launch it there, or make it another study (--config.study.platform={platform} '
            'and another workdir).'
        )
    verify.devices(plan)


def own_study(workdir: pathlib.Path, plan: Plan) -> None:
    """Refuses the workdir of another study, or of this one on another platform; identity is `study.name`."""
    known = records.derived(workdir / 'study.json', {'study': str})  # a torn one is written anew
    if known and (name := known['study']) != plan.study['name']:
        raise ConfigError(
            f"'{workdir}' holds the study '{name}', and this is '{plan.study['name']}'. Choose another --workdir."
        )
    platform = jax.default_backend()
    if (begun := known.get('platform', platform)) != platform:
        raise ConfigError(
            f"The study in '{workdir}' was begun on the platform '{begun}', but jax runs on '{platform}'. Numbers of two "
            f'platforms are not comparable: launch it where jax finds a {begun}, or choose another --workdir.'
        )


def write_study(
    workdir: pathlib.Path,
    plan: Plan,
    built: Mapping[str, Experiment],
    command: str,
    notes: list[str],
    environment: Mapping[str, Any],
) -> None:
    """study.json: what was asked, and where; the report reads it and the runs, nothing else."""
    study, baseline = plan.study, built['baseline']
    runs: dict[str, dict[str, str]] = {name: {} for name in plan.variants}
    for run in plan.runs:
        runs[run.variant][str(run.seed)] = run.id
    earlier = records.derived(workdir / 'study.json')
    content = {
        'study': study['name'],
        'question': plan.question,
        **{k: study[k] for k in ('metric', 'higher_is_better', 'alpha', 'margin', 'budget', 'score')},
        'platform': environment['platform'],
        'budget_note': f'equal budget: {study["budget"]}, {baseline.total} examples for the baseline',
        'seeds': list(plan.seeds),
        'variants': plan.variants,
        'contrasts': plan.contrasts,
        'config': plan.config,
        'config_folder': str(plan.source.path.parent.resolve()),
        'runs': runs,
        'command': command,
        'environment': environment,
        'rules': RULES,
        'notes': notes,
        'schedules': schedules(built),
        'tuning': plan.tuning,
    }
    if cards := {name: experiment.dataset.card for name, experiment in built.items() if experiment.dataset.card}:
        content['data'] = cards
    content = json.loads(json.dumps(content))  # as it is read again
    settled = not plan.tuning or bool(plan.tuning['chosen'])
    content |= {'asked': asked.so_far(workdir, content, earlier, settled)}
    if content['asked'] != earlier.get('asked', []) and asked.another_baseline(content['asked']):
        _keep_report(workdir)
    if kept := sorted(path.name for path in (workdir / EARLIER).glob('*/')):
        content['notes'].append(
            f'Reports of an earlier config of the baseline are kept in the folder {EARLIER}: {", ".join(kept)}.'
        )
    record.write_json(workdir / 'study.json', content | {k: earlier[k] for k in ('reported_seeds',) if k in earlier})
    with contextlib.suppress(OSError):  # a file system without links
        link_events(workdir, runs)


def link_events(workdir: pathlib.Path, runs: Mapping[str, Mapping[str, str]]) -> None:
    """DIR/tensorboard/VARIANT/SEED, links to the events of each run, so that TensorBoard names runs as the study does.

    Args:
      runs: variant -> seed -> run id.
    """
    shutil.rmtree(workdir / record.EVENTS, ignore_errors=True)  # links alone
    for variant, by_seed in runs.items():
        # Every name is one folder of its own: 'a/b' is 'a%2Fb', and '..' is no way out.
        folder = workdir / record.EVENTS / re.sub(r'^\.', '%2E', urllib.parse.quote(variant, safe=' +=,'))
        folder.mkdir(parents=True)
        for seed, run in by_seed.items():
            (folder / seed).symlink_to(pathlib.Path('../../runs', run, record.EVENTS), target_is_directory=True)


def _keep_report(workdir: pathlib.Path) -> None:
    """Moves a report aside that the next one, of another baseline, would overwrite."""
    files_of_report = [path for pattern in _REPORT for path in workdir.glob(pattern)]
    if not files_of_report:
        return
    day = time.strftime('%Y-%m-%d', time.localtime(max(path.stat().st_mtime for path in files_of_report)))
    names = itertools.chain([day], (f'{day}-{number}' for number in itertools.count(2)))
    kept = next(folder for folder in (workdir / EARLIER / name for name in names) if not folder.exists())
    kept.mkdir(parents=True)
    for path in files_of_report:
        path.rename(kept / path.name)
    print(f'The config of the baseline has changed; the report so far is kept in {kept}.')


def finished(workdir: pathlib.Path, plan: Plan) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Results on disk by run id. A torn or foreign record is kept aside, named, and its run is done again."""
    done, problems = {}, []
    for run in plan.runs:
        path = workdir / 'runs' / run.id / 'result.json'
        try:
            _adopt(path, run)
            result = records.read_result(
                path, {'study': plan.study['name'], 'metric': plan.study['metric']}, run.variant, run.seed
            )
        except records.BadRecord as bad:
            aside = records.set_aside(path)
            problems.append(f'{path}: {bad}; kept as {aside.name}, the run is done again')
            continue
        if result is not None and result['status'] != 'failed':
            done[run.id] = result
    return done, problems


def _adopt(path: pathlib.Path, run: Run) -> None:
    """A variant that got another name keeps its runs: the id says that they are the same.

    Raises:
      BadRecord: it is not the same, because a default in research/config/base.py has changed, which no id shows.
    """
    try:
        config, result = (json.loads(file.read_text()) for file in (path.with_name('config.json'), path))
        different = identity.changed(config, run.asked)
        renamed = result['id'] == run.id and result['seed'] == run.seed and result['variant'] != run.variant
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # nothing there, or for `read_result` to refuse
    if different:
        raise records.BadRecord(f'it was made when the default of {", ".join(different)} was another')
    if renamed:
        record.write_json(path, result | {'variant': run.variant})


# Changed files and versions that a message names.
_NAMED = 6


def settle_stale(done: dict[str, Any], fingerprints: Mapping[str, Mapping[str, Any]], choice: str) -> list[str]:
    """Applies --stale to finished runs whose code, versions, data or first weights have changed; returns notes for the report.

    Args:
      done: run id -> result; what is to be done again is taken out.
      fingerprints: variant -> what its runs depend on now.
      choice: '', 'rerun' or 'keep'.

    Raises:
      ConfigError: there are such runs and nothing was chosen.
    """
    changed = {i: _changed(result['fingerprint'], fingerprints[result['variant']]) for i, result in done.items()}
    old = {i: keys for i, keys in changed.items() if keys}
    if not old:
        return []
    every = sorted({k for keys in old.values() for k in keys})
    what = ', '.join(every[:_NAMED]) + (f' and {len(every) - _NAMED} more' if len(every) > _NAMED else '')
    if choice == 'rerun':
        print(f'{len(old)} of {len(done)} finished runs are done again, since this has changed: {what} (--stale=rerun).')
        for i in old:
            del done[i]
        return []
    if choice == 'keep':
        return [f'{len(old)} of {len(done)} finished runs were kept though this had changed since: {what} (--stale=keep).']
    raise ConfigError(
        f'{len(old)} finished runs were made with another {what}. Their numbers may not be comparable: --stale=rerun does '
        'them again, --stale=keep keeps them and says so in the report.'
    )


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Parts of the fingerprint that differ; of code, the files."""
    found = []
    for key, value in now.items():
        old = then.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            found += [part for part in {**old, **value} if old.get(part) != value.get(part)]
        elif old != value:
            found.append(key)
    return found
