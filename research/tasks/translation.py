"""Translation: each token of the target from the source and the tokens before it; then whole texts, written and scored.

Training and its metrics are those of a token. BLEU (Papineni et al. 2002) and chrF (Popović 2015) are of the texts that the
network writes for a whole split, by sacrebleu with its defaults: validation and test once at the end, or validation at every
evaluation too. References are the targets as they were read, whole: a tokenizer that loses something, or a short
`data.target_length`, lowers the score.

Config: {'task.name': 'translation', 'data.name': 'parallel', 'model.name': 'transformer_small', 'study.metric': 'test/chrf'}

Cost: greedy decoding reads the decoder once a token, a beam of K as often with K rows for each.
"""

import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from research import decoding
from research.data import Dataset, tokenizer
from research.tasks import Task, Writing, examples, next_token

SCORES = ('bleu', 'chrf')
# What a trained model asked to translate takes where its config says nothing.
DECODING = {'beam_size': 1, 'length_penalty': 0.6}


def create(
    loss: str,
    label_smoothing: float,
    facts: Mapping[str, Any],
    written: Literal['end', 'evaluations', 'never'] = 'end',
    beam_size: int = DECODING['beam_size'],
    length_penalty: float = DECODING['length_penalty'],
) -> Task:
    """A task of targets; the network is called with `(source, target, source_mask=..., target_mask=...)`.

    Args:
      loss, label_smoothing: as of `next_token.create`.
      facts: of the data; 'bos' and 'eos' are asked for.
      written: when texts are written and scored.
      beam_size: 1 for greedy decoding.
      length_penalty: as of `research.decoding.beam`.
    """
    fields = ('source', 'source_mask', 'target', 'target_mask')
    plain = next_token.create('translation', loss, label_smoothing, fields, _inputs, _targets)
    if written == 'never':
        return plain
    marks = {name: facts.get(name, 0) for name in ('bos', 'eos')}

    def write(module, variables, batch):
        length = batch['target'].shape[1] - 1
        return {'written': decoded(module, variables, batch, length, beam_size, length_penalty, **marks)}

    return plain._replace(
        writing=Writing(write, score, SCORES, written == 'evaluations'),
        judged=SCORES,
        examples=functools.partial(examples.translations, texts),
    )


def decoded(module, variables, batch, length, beam_size, length_penalty, bos, eos):
    """Tokens int32 [B, length] for a batch of 'source' and 'source_mask'."""
    args, mask = (module, variables, batch['source'], length, bos, eos), batch['source_mask']
    if beam_size == 1:
        return decoding.greedy(*args, mask=mask)
    return decoding.beam(*args, beam_size=beam_size, length_penalty=length_penalty, mask=mask)[0]


def score(rows: Mapping[str, np.ndarray], dataset: Dataset, split: str) -> dict[str, float]:
    """BLEU and chrF of texts written for the split's pairs, in its order; both from 0 to 100."""
    import sacrebleu  # takes a moment

    said, meant, _ = texts(rows, dataset, split)
    corpus = {'bleu': sacrebleu.corpus_bleu, 'chrf': sacrebleu.corpus_chrf}
    return {name: corpus[name](said, [meant]).score for name in SCORES}


def texts(rows: Mapping[str, np.ndarray], dataset: Dataset, split: str) -> tuple[list[str], list[str], list[str]]:
    """What was written, targets, and sources."""
    _, of_target = tokenizer.of(dataset)
    places = dataset.splits[split]
    meant, sources = (dataset.sentences[side][places].tolist() for side in ('target', 'source'))
    return tokenizer.written(of_target, rows['written']), meant, sources


def _inputs(batch, constants):
    del constants
    of_source = {name: batch[name] for name in ('source_mask', 'source_packed') if name in batch}
    of_target = {name: batch[name][:, :-1] for name in ('target_mask', 'target_packed') if name in batch}
    return (batch['source'], batch['target'][:, :-1]), of_source | of_target


def _targets(batch):
    return batch['target'][:, 1:], next_token.uncut(batch['target_mask'], batch.get('target_packed'))
