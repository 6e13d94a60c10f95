"""Sequence distillation: a network learns from the translations that a trained one writes, in place of the training targets.

Idea: people translate the same sentence in many ways; what one network writes is more regular, so that a smaller network, or
one that decodes greedily, learns more of it. The teacher writes once, before training, and what it wrote is kept on disk.
Source: Kim and Rush 2016 (Sequence-level knowledge distillation, section 3.2).

Config: {'data.targets': {'name': 'translated', 'run': 'runs/translation:baseline:0', 'beam_size': 4}}

Cost: the training of the teacher, and every training source translated once. Claim: BLEU 4.2 above the same student without
distillation where both decode greedily, 1.7 by beam search; the best student is ten times as fast as its teacher
(abstract). Measured: chrF of a small network 14.1 to 15.8 (configs/translation.py:distilled, eight seeds).

Clashes: errors of the teacher are learnt too, and its texts pass no rule of `data.clean`. Tokenizers learn from what it writes,
so losses and perplexities are not those of other targets. Validation and test keep their targets.
"""

import hashlib
import importlib
import json
import warnings

import numpy as np

from research.catalogue import ConfigError
from research.data import token_cache, tokenizer
from research.pretrained import runs


def translated(sources: np.ndarray, targets: np.ndarray, run: str, beam_size: int = 0) -> tuple[np.ndarray, str]:
    """(targets [N] as the teacher writes them, what tells them apart from others). A target stays where the teacher writes
    nothing, or where the source or what it writes is longer than its rows.

    Args:
      sources, targets: N texts each.
      run: 'WORKDIR:VARIANT:SEED', a finished run of the task translation.
      beam_size: as of `research.decoding.beam`, 1 for greedy decoding; 0 for the run's own.

    Raises:
      ConfigError: no such run, or one of another task.
    """
    if (teacher := runs.parse(run)) is None:
        raise ConfigError(f"data.targets.run is '{run}', expected a finished run, 'WORKDIR:VARIANT:SEED'.")
    # By name: a run is told apart by the texts that it learns from, not by the code that wrote them.
    trained = importlib.import_module('research.study.trained')
    model = trained.load(str(teacher.workdir), teacher.variant, teacher.seed)
    # Sentences of a length are decoded together: a batch goes on until the last of its texts has ended.
    order = np.argsort([len(text) for text in sources], kind='stable')

    def write() -> dict[str, np.ndarray]:
        said = model.translate(sources[order].tolist(), beam_size or None)
        lines = '\n'.join(' '.join(text.split()) for text in said)
        return {'lines': np.frombuffer(lines.encode(), np.uint8)}

    own = json.dumps({name: dict(model.config[name]) for name in ('task', 'train')}, sort_keys=True)
    key = [runs.digest(teacher), model.tokenizer.to_str(), model.target_tokenizer.to_str(), own, beam_size, _hash(sources)]
    said = np.empty(len(sources), object)
    said[order] = bytes(token_cache.kept(key, write, 'translations')['lines']).decode().split('\n')
    cut = _filled(model.tokenizer, sources) | _filled(model.target_tokenizer, said)
    if cut.any():
        warnings.warn(
            f'{cut.sum()} of {len(cut)} training pairs keep their target: the source or its translation fills the rows of the '
            "teacher, and what is longer is cut. Raise its data.length, or add 'long' to data.clean.",
            stacklevel=2,
        )
    found = np.where(cut | (said == ''), targets, said)
    return found, _hash(found)


def _filled(made, texts):
    return tokenizer.encode(made, texts.tolist())['mask'].all(1)


def _hash(texts):
    return hashlib.sha256('\n'.join(texts).encode()).hexdigest()
