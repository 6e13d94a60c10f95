"""What the training data of each variant are made of, and what was left out of them."""

from collections.abc import Mapping
from typing import Any

from research.report import words

_CAPTION = (
    'Training examples by source: how many there were, how many each step removed of what the steps before it had left, and '
    'how many were left. With external data, and of sentence pairs, copies of validation and test examples are always removed. '
    'Price: of all examples of the source, removed ones too. Megabytes are of the same examples in memory; seconds are of the '
    'last launch, which may have read prepared data. Licences are as the config gives them.'
)


def table(cards: Mapping[str, Any]) -> dict[str, Any]:
    """headings, rows of text and caption; no rows where no variant has external data or filters.

    Args:
      cards: variant -> its data card, see `research.data.curation.curated`.
    """
    steps = [*dict.fromkeys(step for card in cards.values() for step in card['steps'])]
    rows = []
    for card, variants in _alike(cards):
        for source in card['sources']:
            removed = [str(source['removed'].get(step, words.MISSING)) for step in steps]
            rows.append(
                [
                    variants,
                    source['name'],
                    source['licence'] or words.MISSING,
                    str(source['rows']),
                    *removed,
                    str(source['kept']),
                    f'{source["bytes"] / 1e6:.3g}' if 'bytes' in source else words.MISSING,
                    f'{source["seconds"]:.2g}' if 'seconds' in source else words.MISSING,
                ]
                + [f'{source["weight"]:.0%}' if source['weight'] else words.MISSING]
                + [f'{source["price"] * source["rows"]:g}' if source['price'] else words.MISSING]
            )
    headings = [
        'variant',
        'source',
        'licence',
        'examples',
        *steps,
        'left',
        'megabytes',
        'seconds to read',
        'share of an epoch',
        'price',
    ]
    empty = {i for i in range(2, len(headings)) if all(row[i] == words.MISSING for row in rows)}
    shown = [i for i in range(len(headings)) if i not in empty]
    return {
        'headings': [headings[i] for i in shown],
        'rows': [[row[i] for i in shown] for row in rows],
        'caption': ' '.join([_CAPTION, *_seconds(cards), *_scored(cards), *_masks(cards)]),
    }


def lines(cards: Mapping[str, Any]) -> list[str]:
    """A line for each source of variants that have external data or filters."""
    found = []
    for card, variants in _alike({name: card for name, card in cards.items() if card}):
        for source in card['sources']:
            removed = ', '.join(f'{count} {step}' for step, count in source['removed'].items())
            price = f', price {source["price"] * source["rows"]:g}' if source['price'] else ''
            kept = f"{source['kept']} of {source['rows']} from '{source['name']}'"
            found.append(f'training data of {variants}: {kept} (removed: {removed or "none"}){price}')
    return [*found, *_scored(cards), *_masks(cards)]


def _seconds(cards: Mapping[str, Any]) -> list[str]:
    """A sentence for each group of variants that took the same steps, which are kept once they are made."""
    found = []
    for card, variants in _alike({name: card for name, card in cards.items() if card.get('seconds')}):
        told = ', '.join(f'{seconds:.2g} s {step}' for step, seconds in card['seconds'].items())
        found.append(f'Seconds of each step when it was made, {variants}: {told}.')
    return found


def _scored(cards: Mapping[str, Any]) -> list[str]:
    """A sentence for each group of variants of which the same was left out of validation and test."""
    cleaned: dict[str, list[str]] = {}
    for name, card in cards.items():
        for split, counts in card.get('scored', {}).items():
            told = ', '.join(f'{count} {rule}' for rule, count in counts.items() if count)
            cleaned.setdefault(f'Left out of {split}, {{}}: {told or "none"}.', []).append(name)
    return [sentence.format(', '.join(names)) for sentence, names in cleaned.items()]


def _masks(cards: Mapping[str, Any]) -> list[str]:
    """A sentence for each group of variants whose texts are masked alike."""
    masked: dict[str, list[str]] = {}
    for name, card in cards.items():
        if counts := card.get('personal'):
            told = ', '.join(f'{count} {kind}' for kind, count in counts.items() if count)
            masked.setdefault(told or 'none found', []).append(name)
    return [
        f'Personal data masked in the texts of all splits, {", ".join(names)}: {counts}.' for counts, names in masked.items()
    ]


def _alike(cards: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """Each distinct card but for seconds, with the names of its variants."""

    def untimed(card):
        sources = [{key: value for key, value in source.items() if key != 'seconds'} for source in card['sources']]
        return {**card, 'sources': sources, 'seconds': {}}

    distinct: list[tuple[Mapping[str, Any], list[str]]] = []
    for name, card in cards.items():
        names = next((names for other, names in distinct if untimed(other) == untimed(card)), None)
        if names is None:
            distinct.append((card, [name]))
        else:
            names.append(name)
    return [(card, ', '.join(names)) for card, names in distinct]
