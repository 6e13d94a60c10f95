"""Do the results that README.md and the configs state still come out?

    python benchmarks/stated.py --list                    # every stated result, where it stands, and the study behind it
    python benchmarks/stated.py NAME... [--workdir=DIR] [--config.KEY=VALUE]    # runs these studies, then compares
    python benchmarks/stated.py [NAME...] --report DIR    # compares what is in DIR, runs nothing

A study that was stopped goes on in the same DIR. What begins with --config. is handed to launch.py, such as
--config.data.path=DIR for Fashion-MNIST offline. Exits with 1 when a stated number is outside the interval measured again, or a
verdict is another one.

A result is a piece of text as it stands in its file, and the verdict that is stated with it. Numbers are read from the text: a
mean, such as '98.58 ± 0.31', and a difference from the baseline, such as '-0.72 (-1.18 to -0.28)'. `tests/test_stated.py` holds
the texts to the files. Costs are left out: they are those of one machine.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from scipy import stats

from research.catalogue import nearest
from research.report import words

HERE = pathlib.Path(__file__).resolve().parents[1]
BETTER, WORSE, NONE, FEW = 'better', 'worse', 'no effect shown', 'too few seeds'
OUTSIDE = 'NO'
OTHERS = '*'  # every variant that has no row of its own in that file
MEAN = re.compile(r'(?<![+−-])\b(\d\d\.\d\d)')
DIFFERENCE = re.compile(r'([+−-]\d+\.\d\d)')


class Stated(NamedTuple):
    """A result: its variant, its verdict ('' for baseline and null), its text."""

    variant: str
    verdict: str
    text: str


class Study(NamedTuple):
    """What launch.py is given, beside --workdir, and what is stated: file -> results."""

    flags: tuple[str, ...]
    stated: Mapping[str, tuple[Stated, ...]]


def rows(verdict: str, texts: str) -> tuple[Stated, ...]:
    """Results whose texts begin with the name of the variant, with '; ' between them."""
    return tuple(Stated(text.partition(' ')[0], verdict, text) for text in texts.split('; '))


def study(name: str, flags: tuple[str, ...], *stated: Stated, arg: str = '', readme: tuple[Stated, ...] = ()) -> Study:
    """A study whose results stand in the docstring of configs/NAME.py, and perhaps in README.md."""
    files = {f'configs/{name}.py': stated, 'README.md': readme}
    return Study((f'--config=configs/{name}.py{arg}', *flags), {file: results for file, results in files.items() if results})


# The table of README.md as a terminal prints it, with p-values after Holm's correction.
TABLE = (
    *rows('', 'baseline 98.75 ± 0.35; null −0.14 −0.42 to +0.19 0.45 98.61 ± 0.32'),
    *rows(WORSE, 'low_rate −8.56 −9.44 to −7.69 0.018 90.19 ± 1.20; small_model −2.53 −3.06 to −1.94 0.018 96.22 ± 0.67'),
    *rows(WORSE, 'batch_256 −0.61 −0.83 to −0.35 0.018 98.14 ± 0.32'),
    *rows(NONE, 'weight_decay +0.08 −0.07 to +0.21 0.84 98.83 ± 0.37; virtual_batch_norm +0.00 −0.28 to +0.28 1 98.75 ± 0.44'),
    *rows(NONE, 'ghost_batch_norm −0.14 −0.28 to +0.00 0.72 98.61 ± 0.32; clip −0.17 −0.44 to +0.11 0.84 98.58 ± 0.31'),
    *rows(NONE, 'cosine −0.36 −0.69 to +0.00 0.25 98.39 ± 0.37'),
    *rows(NONE, 'adam −0.72 −1.18 to −0.28 0.094 98.03 ± 0.50 ×1.02 not after correction'),
)
STUDIES = {
    'quickstart': study(
        'quickstart',
        (),
        Stated('baseline', '', 'baseline 98.75 ± 0.35 %'),
        *rows(WORSE, 'small_model -2.53 points (-3.06 to -1.94); batch_256 -0.61 (-0.83 to -0.35)'),
        *rows(WORSE, 'low_rate -8.56 (-9.44 to -7.69)'),
        *rows(NONE, 'adam -0.72 (-1.18 to -0.28) not after correction'),
        Stated(OTHERS, NONE, 'No effect shown: the others'),
        readme=TABLE,
    ),
    'optimizers': study(
        'optimizers',
        (),
        Stated('baseline', '', 'on digits momentum (tuned: 0.05) reaches 98.58 ± 0.31 %'),
        *rows(WORSE, 'lion -1.36 points (-2.00 to -0.76'),
        *rows(NONE, 'muon +0.17 (-0.11 to +0.42)'),
        Stated(OTHERS, NONE, 'No effect shown: the others'),
    ),
    'optimizers_fashion_mnist': study(
        'optimizers',
        (),
        Stated('baseline', '', 'On a tenth of Fashion-MNIST momentum (0.05) reaches 87.21 ± 0.29 %'),
        *rows(BETTER, 'rmsprop +0.60 (+0.32 to +0.86); muon +0.57; adam +0.51; adamw +0.38; lion +0.37; schedule_free +0.31'),
        *rows(WORSE, 'sgd -1.20; adagrad -0.92'),
        *rows(NONE, 'nesterov +0.21'),
        arg=':fashion_mnist',
    ),
    'schedules': study(
        'schedules',
        (),
        Stated('baseline', '', 'on digits a constant rate (tuned: 0.05) reaches 98.67 ± 0.37 %'),
        *rows(WORSE, 'exponential -0.72 points (-1.11 to -0.37); decayed_restarts -0.67'),
        Stated(OTHERS, NONE, 'no schedule is shown to help'),
    ),
    'schedules_fashion_mnist': study(
        'schedules',
        (),
        Stated('baseline', '', 'On a tenth of Fashion-MNIST it reaches 85.87 ± 0.59 %'),
        *rows(BETTER, 'cosine_warmup +1.67 (+1.29 to +2.11); one_cycle +1.65; restarts +1.50; linear +1.50; step +1.39'),
        *rows(BETTER, 'cosine +1.34; polynomial +1.33; plateau +0.94; exponential +0.86; decayed_restarts +0.79'),
        *rows(NONE, 'inverse_sqrt +0.48; staircase +0.46'),
        arg=':fashion_mnist',
    ),
    'normalization': study(
        'normalization',
        (),
        Stated('baseline', '', 'on digits batch normalization reaches 98.61 ± 0.31 %'),
        Stated('none', WORSE, 'none -0.99 points (-1.32 to -0.69, p 0.023 after Holm); with AVX-512 it was -0.80'),
        Stated(OTHERS, NONE, 'No other layer is shown to differ'),
    ),
    'normalization_fashion_mnist': study(
        'normalization',
        (),
        Stated('baseline', '', 'On a tenth of Fashion-MNIST it reaches 87.15 ± 0.24 %'),
        *rows(WORSE, 'none -0.33 (-0.55 to -0.12'),
        *rows(NONE, 'ghost_8 +0.16; ghost_16 +0.13; ghost_32 +0.24; virtual +0.17; group +0.09'),
        arg=':fashion_mnist',
    ),
    'fashion_mnist': study(
        'fashion_mnist',
        ('--config.study.variants={}', '--config.study.seeds=10'),
        Stated('baseline', '', 'CNN 92.60 ± 0.23 % on the test split over ten seeds'),
    ),
    'fashion_mnist_resnet20': study(
        'fashion_mnist',
        ('--config.study.seeds=1', '--config.study.budget=12ep'),
        Stated('resnet20', FEW, 'ResNet-20 92.97 % (seed 0, 12 epochs'),
    ),
    'model_scale': study(
        'model_scale',
        (),
        Stated('null', '', "the null's (-0.07, -0.20 to +0.08)"),
        Stated('baseline', '', 'cnn (16, 32) 87.85 ± 0.24'),
        *rows(BETTER, 'cnn_double +0.72 (+0.58 to +0.85)'),
        *rows(WORSE, 'cnn_half -1.02 (-1.23 to -0.78); resnet (8, 16, 32) -1.91 (-2.15 to -1.66)'),
        *rows(WORSE, 'vgg (11, batch norm) -2.58 (-2.88 to -2.26); xception -4.11 (-4.59 to -3.67)'),
        *rows(WORSE, 'tinynet (E) -4.30 (-4.61 to -3.99); mobilenetv3 -4.74 (-5.01 to -4.48); vit -5.30 (-5.57 to -5.01)'),
        *rows(WORSE, 'coatnet -5.36 (-5.85 to -4.83); efficientnet -5.84 (-6.37 to -5.33); googlenet -7.61 (-7.94 to -7.30)'),
        *rows(WORSE, 'mobilenetv2 -9.19 (-9.81 to -8.56); mobilenetv1 -12.25 (-13.45 to -11.26)'),
    ),
    'gan_norms': study(
        'gan_norms',
        (),
        Stated('baseline', '', 'batch normalization comes to a Fréchet distance of 13.34 ± 0.57'),
        *rows(BETTER, 'virtual -2.36 (-2.81 to -1.89'),
        *rows(WORSE, 'none +8.94 (+7.64 to +10.29'),
        *rows(NONE, 'ghost_16 -0.12 (-0.40 to +0.19)'),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help='studies, as --list names them')
    parser.add_argument('--list', action='store_true', help='print what is stated')
    parser.add_argument('--workdir', default='runs/stated', metavar='DIR', help='the study NAME is kept in DIR/NAME')
    parser.add_argument('--report', default='', metavar='DIR', help='compare what is there')
    args, rest = parser.parse_known_args()
    for name in args.names:
        if name not in STUDIES:
            parser.error(f"no study '{name}' is stated.{nearest(name, STUDIES)}")
    if any(not flag.startswith('--config.') for flag in rest):
        parser.error(f'unknown flags {rest}: beside its own, only --config.KEY=VALUE, which goes to launch.py')
    if args.list:
        return print(listed())
    if not args.names and not args.report:
        parser.error('name the studies to run again; --list names them')
    folder = pathlib.Path(args.report or args.workdir).resolve()
    for name in args.names if not args.report else ():
        command = [sys.executable, 'launch.py', *STUDIES[name].flags, *rest, f'--workdir={folder / name}']
        if code := subprocess.run(command, cwd=HERE).returncode:
            sys.exit(code)
    there = [name for name in args.names or STUDIES if (folder / name / 'summary.json').exists()]
    if missing := set(args.names or STUDIES) - set(there):
        print(f'Not in {folder}: {", ".join(sorted(missing))}.\n')
    table, held = compared({name: folder / name for name in there})
    print(table)
    sys.exit(0 if held else 1)


def listed() -> str:
    """A table of all that is stated."""
    lines = ['| study | file | variant | verdict | stated | launch.py |', '|---|---|---|---|---|---|']
    for name, (flags, places) in STUDIES.items():
        for file, results in places.items():
            lines += [f'| {name} | {file} | {r.variant} | {r.verdict} | {cell(r.text)} | {" ".join(flags)} |' for r in results]
    return '\n'.join(lines)


def compared(folders: Mapping[str, pathlib.Path]) -> tuple[str, bool]:
    """A table of what is stated beside what was measured again in folders {study: folder}, and whether all of it holds."""
    lines = ['| study | file | variant | stated | again | inside | verdict |', '|---|---|---|---|---|---|---|']
    notes, held = [''], True
    for name, folder in folders.items():
        summary, ran = (json.loads((folder / file).read_text()) for file in ('summary.json', 'study.json'))
        last, differ = ran['environment'], ', not for every run, see its report' if summary['elsewhere'] else ''
        notes.append(f'{name}: {last["cpu"]}, jax {last["jax"]}{differ}')
        contrasts = {contrast['name']: contrast for contrast in summary['contrasts']}
        for file, results in STUDIES[name].stated.items():
            for result in results:
                rest = contrasts.keys() - {'null'} - {r.variant for r in results}
                for variant in sorted(rest) if result.variant == OTHERS else [result.variant]:
                    again, inside = measured(result.text, variant, summary)
                    verdict = contrasts[variant]['verdict'] if result.verdict else ''
                    held &= inside != OUTSIDE and verdict == result.verdict
                    if verdict != result.verdict:
                        verdict += f', stated: {result.verdict}'
                    lines.append(f'| {name} | {file} | {variant} | {cell(result.text)} | {again} | {inside} | {verdict} |')
    return '\n'.join(lines + notes), held


def measured(text: str, variant: str, summary: Mapping[str, Any]) -> tuple[str, str]:
    """What came out now, and whether each number of the text is inside its interval; a mean has Student's t interval."""
    unit = words.unit(summary['metric'], [v['spread'] for v in summary['variants']])
    own = next(v for v in summary['variants'] if v['name'] == variant)
    contrast = next((c for c in summary['contrasts'] if c['name'] == variant), None)
    again, checks = [], []
    if stated := MEAN.search(text):
        again.append(f'{unit.value(own["mean"])} ± {unit.value(own["spread"])}')
        n, sd = len(own['scores']), own['spread']
        half = sd / n**0.5 * stats.t.ppf(1 - summary['alpha'] / 2, n - 1) if sd is not None else None
        checks.append((stated, None if half is None else (own['mean'] - half, own['mean'] + half)))
    stated = DIFFERENCE.search(text)
    if contrast and (stated or not again):
        again.append(f'{unit.difference(contrast["difference"])} ({unit.span(contrast["interval"])})')
        checks += [(stated, contrast['interval'])] if stated else []
    if not checks or any(interval is None for _, interval in checks):
        return ', '.join(again), words.MISSING
    inside = [low <= float(found[1].replace('−', '-')) / unit.scale <= high for found, (low, high) in checks]
    return ', '.join(again), 'yes' if all(inside) else OUTSIDE


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.strip('| –').replace(' | ', ', ')


if __name__ == '__main__':
    main()
