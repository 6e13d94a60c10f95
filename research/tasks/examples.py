"""A few texts of the test split for the report: errors that surprise, and blanks that a network fills in.

All are plain values: {'title', 'about', 'texts': a list of {'text', 'lines'}}. A line is a name, and pairs of what the network
may say and its probability. The network is asked once, where it is scored: what is shown is kept from there (`Task.rows`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from research.data import Dataset, tokenizer
from research.data.tokenizer import END, MASK, PAD, START, UNKNOWN, number_of

if TYPE_CHECKING:  # imported where a run has ended
    from tokenizers import Tokenizer

# Texts of a run, characters of each, and guesses for a blank.
_TEXTS, _CHARACTERS, _GUESSES = 8, 200, 3
_TRANSLATIONS = 10
# Tokens to be found again whose guesses are kept: the first ones of a text, about as many as it shows.
_BLANKS = 9


def errors(rows: Mapping[str, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """Texts with a wrong class, those first to whose class the network gave the smallest probability.

    Args:
      rows: of the test split, N: 'label', 'answer', whole numbers [N]; 'chances', float32 [N, 2], of the one and the other.
      dataset: which the rows are of, with a tokenizer.

    Returns:
      See above; {} without 'chances', and without errors.
    """
    wrong = np.flatnonzero(rows['answer'] != rows['label'])
    if 'chances' not in rows or not len(wrong):
        return {}
    picked = wrong[np.argsort(rows['chances'][wrong, 0], kind='stable')[:_TEXTS]]
    (made, _), tokens = tokenizer.of(dataset), dataset.arrays['tokens'][dataset.splits['test'][picked]]
    names = dict(enumerate(dataset.class_names))

    def line(name, kind, row, place):
        number = int(rows[kind][row])
        return [name, [[names.get(number, str(number)), float(rows['chances'][row, place])]]]

    texts = [
        {
            'text': _cut(_written(made, row_tokens)),
            'lines': [line('true class', 'label', row, 0), line('answer', 'answer', row, 1)],
        }
        for row, row_tokens in zip(picked, tokens, strict=True)
    ]
    return {
        'title': 'The most surprising errors',
        'about': f'Of {len(wrong)} test texts with a wrong answer, those whose class the network thought least likely.',
        'texts': texts,
    }


def guesses(logits: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What `blanks` reads: the tokens to be found again of B rows, in the order of the text, at most P of each.

    Only the first rows of a batch have guesses, as many as a report may show: those of all would cost every evaluation.

    Args:
      logits: of the M places that were chosen, [B, M, V].
      batch: 'tokens' as the network saw them, int32 [B, T]; 'places', 'counts' [B, M].

    Returns:
      {'places': int32 [B, P], T where there are fewer; 'seen': int32 [B, P], tokens there; 'guesses': int32 [B, P, G], best
      first; 'chances': float32 [B, P, G], 0 without guesses}.
    """
    count, length = batch['tokens'].shape
    places = jnp.where(batch['counts'] > 0, batch['places'], length)
    order = jnp.argsort(places, axis=1)[:, :_BLANKS]
    places = jnp.take_along_axis(places, order, axis=1)
    first = jnp.take_along_axis(logits[:_TEXTS], order[:_TEXTS, :, None], axis=1).astype(jnp.float32)
    chances, best = jax.lax.top_k(jax.nn.softmax(first), _GUESSES)
    missing = ((0, count - len(first)), (0, 0), (0, 0))
    return {
        'places': places,
        'seen': jnp.take_along_axis(batch['tokens'], jnp.minimum(places, length - 1), axis=1),
        'guesses': jnp.pad(best, missing),
        'chances': jnp.pad(chances, missing),
    }


def blanks(rows: Mapping[str, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """Texts as the network saw them, with the best guesses for each `[MASK]`, evenly spaced over the split.

    Args:
      rows: of the test split, what `guesses` gives.
      dataset: which the rows are of, with a tokenizer.

    Returns:
      See above, the name of a line being the token that stood there; {} where the network saw no `[MASK]`.
    """
    (made, _), length = tokenizer.of(dataset), dataset.fields['tokens'].shape[0]
    mask, unknown, end = (number_of(made, role) for role in (MASK, UNKNOWN, END))
    masked = (rows['seen'] == mask) & (rows['places'] < length)
    found = np.flatnonzero((rows['chances'] > 0).any((1, 2)) & masked.any(1))
    if not len(found):
        return {}
    picked = found[np.unique(np.linspace(0, len(found) - 1, _TEXTS).astype(int))]
    texts = []
    for row, tokens in zip(picked, dataset.arrays['tokens'][dataset.splits['test'][picked]], strict=True):
        places = rows['places'][row]
        # What was chosen behind the last of these is not known: the text ends there.
        behind = places[-1] if len(places) == _BLANKS else length
        seen = np.where(tokens == mask, end if unknown is None else unknown, tokens)  # one of the text's own is no blank
        known = places < behind
        seen[places[known]] = rows['seen'][row, known]
        pieces = _cut(_written(made, seen[:behind]) + ' …' * bool(behind < length)).split(made.id_to_token(mask))
        text, lines = pieces[0], []
        for place, piece in zip(np.flatnonzero(masked[row] & known), pieces[1:], strict=False):
            word = token(made, int(tokens[places[place]]))
            said = [token(made, int(guess)).strip() for guess in rows['guesses'][row, place]]
            lines.append(
                [f'{len(lines) + 1}: {word.strip()}', list(zip(said, rows['chances'][row, place].tolist(), strict=True))]
            )
            # Tokens that bring the space before a word with them have left the blank without it.
            text += f'{" " * word.startswith(" ")}__{len(lines)}__{piece}'
        texts.append({'text': text.strip(), 'lines': lines})
    about = 'Test texts as the network saw them, and its best guesses for what stood in each numbered blank.'
    return {'title': 'Fill in the blank', 'about': about, 'texts': texts}


def translations(texts: Any, rows: Mapping[str, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """The best and the worst written translations, by the chrF of a sentence, and some evenly spaced between them.

    Args:
      texts: (rows, dataset, split) -> what was written, targets and sources.
      rows: of the test split, with what was 'written'.
      dataset: which the rows are of.
    """
    import sacrebleu  # takes a moment

    said, meant, sources = texts(rows, dataset, 'test')
    scores = [sacrebleu.sentence_chrf(one, [other]).score / 100 for one, other in zip(said, meant, strict=True)]
    order = np.argsort(scores, kind='stable')[::-1]
    picked = order[np.linspace(0, len(order) - 1, min(len(order), _TRANSLATIONS)).astype(int)]
    shown = [
        {
            'text': _cut(sources[k]),
            'lines': [['translation', [[_cut(said[k]), scores[k]]]], ['reference', [[_cut(meant[k]), 1.0]]]],
        }
        for k in picked
    ]
    about = 'Sources, what the network wrote and what the data have, best first; in brackets the chrF of a sentence.'
    return {'title': 'Translations, good and bad', 'about': about, 'texts': shown}


def token(made: 'Tokenizer', number: int) -> str:
    """A token as text: a piece of bytes with the space before it, a piece inside a word with its '##'."""
    return made.decode([number], skip_special_tokens=False) or f'[{number}]'


def _written(made: 'Tokenizer', tokens: np.ndarray) -> str:
    """A row as text; `[SEP]` stands between two texts, and is left out at both ends: it may start and pad a text too."""
    pad, start, end = (number_of(made, role) for role in (PAD, START, END))
    kept = [number for number in tokens.tolist() if number == end or number not in (pad, start)]
    inside = [place for place, number in enumerate(kept) if number != end] or [-1]
    return made.decode(kept[inside[0] : inside[-1] + 1], skip_special_tokens=False).strip()


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS].rsplit(' ', 1)[0] + ' …'
