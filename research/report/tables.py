"""The tables of a study, for the report, spreadsheets and LaTeX. All take summary.json as a dict."""

import csv
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from research.report import words
from research.report.costs import COSTS
from research.report.records import BASELINE, NULL

_QUALITY_CAPTION = (
    'Means over {n} seeds. p: exact sign-flip test over paired seeds. Intervals hold over training seeds, on this test set; '
    'the wider ones over other test examples as well. Could have detected: the true difference that would have been called '
    'in four of five studies like this one. Time to quality: median until the validation score first reaches {target}, the '
    "worst final one among the baseline's seeds; it is known to the evaluation, so two runs that reach it at the same one tie, "
    'and p is an exact sign test over the seeds that do not.'
)
_GAP_CAPTION = (
    ' Gap: how much better the scored weights are on training examples than on {split} examples; a large gap is overfitting, a '
    'small one beside a low score underfitting.'
)
_MEMBERSHIP_CAPTION = (
    ' Membership AUC: how well the loss alone tells training examples from others; 0.5 is a guess, 1 is always right. Its '
    'interval is over seeds: which n examples of each kind are compared moves all of them together, by about 0.41 / √n.'
)
_EPSILON_CAPTION = (
    ' Epsilon: of the weights of one run, at delta, among training splits that differ in one example; ∞ where training is not '
    'private. Scores, tuning and the choice of a variant are not covered.'
)
_WAITING_CAPTION = (
    ' Waiting for data: batches were read or put together while the devices had nothing left to compute; data.workers and data '
    'kept on the devices (data.streaming) shorten it.'
)
# Of training time, a share of waiting that no reader has to see.
_LITTLE = 0.02
_COST_CAPTION = (
    'Training time without compilation, mean over seeds with {level} interval; its ratio to the baseline is paired by seed. '
    'FLOPs are of matrix products and convolutions in their plain formulation, not of elementwise operations; a multiply-add '
    'is two, an inference is one example. A program that variants share is compiled by the one that runs first, or read from '
    'the cache of an earlier launch. Memory measured: what training steps take, the state among it, without resident data, '
    'compilation and evaluation: by the resident memory of the process on CPU, by the own account of '
    'the fullest device elsewhere; median over seeds; – where the peak was that of something earlier. Latency: median (10 to '
    '90 % quantile), of translations until the last token is written. Variants that share a program share its memory and, but '
    'for translations, its latency.'
)


class Row(NamedTuple):
    """A row: a variant with its contrast against the baseline, or a contrast alone; {} for what is missing."""

    name: str
    variant: Mapping[str, Any]
    contrast: Mapping[str, Any]

    @property
    def cost(self) -> Mapping[str, Any]:
        """The variant's costs; {} for a contrast alone."""
        return self.variant.get('cost', {})


def rows(summary: Mapping[str, Any]) -> list[Row]:
    """Every variant except the null, then the contrasts other than a variant against the baseline."""
    plain = against_baseline(summary)
    compared = [Row(v['name'], v, plain.get(v['name'], {})) for v in summary['variants'] if v['name'] != NULL]
    shown = [c['name'] for c in plain.values()]
    others = [c for c in summary['contrasts'] if c['name'] not in shown]
    return compared + [Row(title(contrast), {}, contrast) for contrast in others]


def title(contrast: Mapping[str, Any]) -> str:
    """A contrast's name, with its weights unless it is the variant of that name against the baseline."""
    name = contrast['name']
    return name if contrast['weights'] == {name: 1, BASELINE: -1} else f'{name}: {words.weights(contrast["weights"])}'


def against_baseline(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Variant -> its contrast with the baseline, if the study has one."""
    return {name: c for c in summary['contrasts'] for name in c['weights'] if c['weights'] == {name: 1, BASELINE: -1}}


def null(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The null variant's contrast; None if the study has none."""
    return next((contrast for contrast in summary['contrasts'] if contrast['null']), None)


def unit(summary: Mapping[str, Any]) -> words.Unit:
    """The unit of the study's metric."""
    return words.unit(summary['metric'], [variant['spread'] for variant in summary['variants']])


def quality(summary: Mapping[str, Any]) -> dict[str, Any]:
    """headings, rows of text and caption: the quality of each variant."""
    score, level = unit(summary), words.level(summary['alpha'])
    target = next(v['time_to_quality'].get('target') for v in summary['variants'] if v['name'] == BASELINE)
    columns = {
        'variant': lambda row: row.name,
        'verdict': _verdict,
        f'{summary["metric"]}, mean ± sd': lambda row: _mean(row, score),
        f'{score.of("difference")} ({level} interval)': lambda row: _difference(row, score),
        'over other examples too': lambda row: score.span(row.contrast.get('crossed_interval')),
        'p': lambda row: words.probability(row.contrast.get('p_value')),
        'p, Holm': lambda row: words.probability(row.contrast.get('p_corrected')),
        'gap to training data': lambda row: _gap(row, score),
        'membership AUC': _membership,
        'could have detected': lambda row: score.value(row.contrast.get('detectable')),
        'time to quality': _time_to_quality,
    }
    caption = _QUALITY_CAPTION.format(n=len(summary['seeds']), target=score.value(target))
    if any(variant['gap'] for variant in summary['variants']):
        caption += _GAP_CAPTION.format(split=summary['metric'].partition('/')[0])
    else:
        del columns['gap to training data']
    if _private(summary) and any(variant.get('membership') for variant in summary['variants']):
        caption += _MEMBERSHIP_CAPTION
    else:
        del columns['membership AUC']
    return _filled(columns, rows(summary), caption)


def cost(summary: Mapping[str, Any]) -> dict[str, Any]:
    """headings, rows of text and caption: the cost of each variant."""
    batches = sorted({batch for variant in summary['variants'] for batch in variant['latency']}, key=int)
    columns = {
        'variant': lambda row: row.name,
        'parameters': lambda row: words.quantity(row.cost.get('parameters')),
        'of them trained': lambda row: words.quantity(row.cost.get('trained_parameters', row.cost.get('parameters'))),
        'padding among tokens': lambda row: words.observation(row.cost.get('padding'), share=True),
        'FLOPs a training step': lambda row: words.quantity(row.cost.get('train_flops')),
        'multiply-adds a training step': lambda row: words.quantity(row.cost.get('train_multiply_adds')),
        'FLOPs an inference': lambda row: words.quantity(row.cost.get('inference_flops')),
        'multiply-adds an inference': lambda row: words.quantity(row.cost.get('inference_multiply_adds')),
        'memory predicted': lambda row: words.quantity(row.cost.get('predicted_bytes'), 'B'),
        'memory measured, training': lambda row: words.quantity(row.cost.get('peak_growth_bytes'), 'B'),
        'training time': _seconds,
        'training time, ratio': _time_ratio,
        'of it waiting for data': lambda row: words.share(_waited(row.cost)),
        'compile time, all seeds': _compilation,
        'epsilon': _epsilon,
        **{f'latency, batch {batch}': lambda row, batch=batch: _latency(row, batch) for batch in batches},
    }
    if not any('trained_parameters' in variant['cost'] for variant in summary['variants']):
        del columns['of them trained']
    caption = _COST_CAPTION.format(level=words.level(summary['alpha']))
    if any(_waited(variant['cost']) >= _LITTLE for variant in summary['variants']):
        caption += _WAITING_CAPTION
    else:
        del columns['of it waiting for data']
    if _private(summary):
        caption += _EPSILON_CAPTION
    else:
        del columns['epsilon']
    unknown = {v['name']: ', '.join(v['cost']['uncounted']) for v in summary['variants'] if 'uncounted' in v['cost']}
    if unknown:
        caption += f' Not in the FLOPs though it costs something: {"; ".join(f"{what} ({v})" for v, what in unknown.items())}.'
    return _filled(columns, _with_null(summary), caption)


def latex(summary: Mapping[str, Any]) -> list[dict[str, dict[str, str]]]:
    """For each row the cells of report.tex, each with its own macro: key -> {macro, text}."""
    score, taken, cells_by_row = unit(summary), set(), []
    for row in rows(summary):
        low, high = row.contrast.get('interval') or (None, None)
        cells = {
            'Name': row.name,
            'Mean': score.value(row.variant.get('mean')),
            'Spread': score.value(row.variant.get('spread')),
            'Difference': score.difference(row.contrast.get('difference')),
            'Low': score.difference(low),
            'High': score.difference(high),
            'P': words.probability(row.contrast.get('p_value')),
            'PHolm': words.probability(row.contrast.get('p_corrected')),
            'Verdict': _verdict(row),
            'Parameters': words.quantity(row.cost.get('parameters')),
            'Flops': words.quantity(row.cost.get('train_flops')),
            'MultiplyAdds': words.quantity(row.cost.get('train_multiply_adds')),
            'Seconds': words.duration(row.cost.get('train_seconds')),
            'Ratio': _time_ratio(row),
        }
        macros = {key: Markup('\\res' + words.macro(f'{row.name} {key}', taken)) for key in cells}
        cells_by_row.append({key: {'macro': macros[key], 'text': text} for key, text in cells.items()})
    return cells_by_row


def lines(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One per variant (including the null) or contrast, unrounded, in the units of the records; all with the same keys."""
    found = [_line(row) for row in _with_null(summary)]
    keys = dict.fromkeys(key for line in found for key in line)
    return [{key: line.get(key) for key in keys} for line in found]


def spreadsheet(summary: Mapping[str, Any]) -> str:
    """report.csv: `lines`."""
    table = lines(summary)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(table[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: words.spreadsheet(value) for key, value in line.items()} for line in table)
    return buffer.getvalue()


def _line(row: Row) -> dict[str, Any]:
    variant, contrast = row.variant, row.contrast
    time, reached = contrast.get('cost', {}).get('train_seconds', {}), variant.get('time_to_quality', {})
    compared = ('difference', 'n', 'failed', 'errors', 'p_value', 'p_corrected', 'verdict', 'note', 'detectable')
    pairs = {
        '': contrast.get('interval'),
        'crossed_': contrast.get('crossed_interval'),
        'train_seconds_ratio_': time.get('interval'),
        'train_seconds_': variant.get('train_seconds_interval'),
    }
    return {
        'name': row.name,
        **{key: variant.get(key) for key in ('mean', 'spread')},
        'gap': (variant.get('gap') or {}).get('mean'),
        'membership_auc': (variant.get('membership') or {}).get('mean'),
        **{key: contrast.get(key) for key in compared},
        **{
            f'{prefix}{end}': bound
            for prefix, pair in pairs.items()
            for end, bound in zip(('low', 'high'), pair or (None, None), strict=True)
        },
        **{key: row.cost.get(key) for key in COSTS},
        'train_seconds_ratio': time.get('ratio'),
        **{f'time_to_quality_{key}': reached.get(key) for key in ('examples', 'seconds', 'reached')},
        **{f'observed_{key}': value for key, value in variant.get('observed', {}).items()},
        **{f'latency_{b}_{q}': v.get(q) for b, v in variant.get('latency', {}).items() for q in ('p10', 'p50', 'p90')},
    }


def _with_null(summary: Mapping[str, Any]) -> list[Row]:
    """`rows` with the null's behind the baseline's."""
    first, *others = rows(summary)
    return [first, *(Row(NULL, v, null(summary)) for v in summary['variants'] if v['name'] == NULL), *others]


def _filled(columns, shown: list[Row], caption: str) -> dict[str, Any]:
    body = [[cell(row) for cell in columns.values()] for row in shown]
    return {'headings': list(columns), 'rows': body, 'caption': caption}


def _mean(row: Row, score: words.Unit) -> str:
    spread = row.variant.get('spread')
    return score.value(row.variant.get('mean')) + (f' ± {score.value(spread)}' if spread is not None else '')


def _gap(row: Row, score: words.Unit) -> str:
    gap = row.variant.get('gap') or {}
    interval = gap.get('interval')
    return score.difference(gap.get('mean')) + (f' ({score.span(interval)})' if interval else '')


def _private(summary: Mapping[str, Any]) -> bool:
    return any('epsilon' in variant['cost'] for variant in summary['variants'])


def _epsilon(row: Row) -> str:
    if not row.cost:
        return words.MISSING
    return f'{row.cost["epsilon"]:.3g} at {row.cost["delta"]:.2g}' if 'epsilon' in row.cost else '∞'


def _membership(row: Row) -> str:
    found = row.variant.get('membership') or {}
    interval = found.get('interval')
    text = f'{found["mean"]:.3f}' if found else words.MISSING
    return f'{text} ({interval[0]:.3f} to {interval[1]:.3f})' if interval else text


def _difference(row: Row, score: words.Unit) -> str:
    interval = row.contrast.get('interval')
    return score.difference(row.contrast.get('difference')) + (f' ({score.span(interval)})' if interval else '')


def _verdict(row: Row) -> str:
    note = row.contrast.get('note')
    return row.contrast.get('verdict', words.MISSING) + (f' ({note})' if note else '')


def _time_ratio(row: Row) -> str:
    text = words.ratio(row.contrast.get('cost', {}).get('train_seconds'))
    return f'{text} (one seed: {words.WARMING})' if text != words.MISSING and row.contrast['n'] == 1 else text


def _seconds(row: Row) -> str:
    interval = row.variant.get('train_seconds_interval')
    text = words.duration(row.cost.get('train_seconds'))
    return f'{text} ({words.duration(interval[0])} to {words.duration(interval[1])})' if interval else text


def _waited(cost: Mapping[str, Any]) -> float:
    """The share of training time; 0 where it was not measured."""
    return cost.get('waited_seconds', 0.0) / max(cost.get('train_seconds', 0.0), 1e-9)


def _compilation(row: Row) -> str:
    seconds, cached = row.cost.get('compile_seconds'), row.cost.get('cached_seconds')
    text = words.duration(seconds)
    if not cached:
        return text
    return f'{text}, from the cache' if cached >= seconds else f'{text}, {words.duration(cached)} of it from the cache'


def _latency(row: Row, batch: str) -> str:
    quantiles = row.variant.get('latency', {}).get(batch)
    if not quantiles:
        return words.MISSING
    return f'{words.duration(quantiles["p50"])} ({words.duration(quantiles["p10"])} to {words.duration(quantiles["p90"])})'


def _time_to_quality(row: Row) -> str:
    return words.time_to_quality(row.variant.get('time_to_quality'), row.contrast.get('time_to_quality', {}).get('examples'))
