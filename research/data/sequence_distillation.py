"""Sequence distillation: a network learns from the translations that a trained one writes, in place of the training targets.

Idea: people translate the same sentence in many ways; what one network writes is more regular, so that a smaller network, or
one that decodes greedily, learns more of it. The teacher writes once, before training, and what it wrote is kept on disk.
Source: Kim and Rush 2016 (Sequence-level knowledge distillation, section 3.2).

Config: {'data.targets': {'name': 'translated', 'run': 'runs/translation:baseline:0', 'beam_size': 4}}

Cost: the training of the teacher, and every training source translated once. Claim: BLEU 4.2 above the same student without
distillation where both decode greedily, 1.7 by beam search; the best student is ten times as fast as its teacher (abstract).
Clashes: errors of the teacher are learnt too. Validation and test keep their targets.
"""

import hashlib

import numpy as np

from research.catalogue import ConfigError
from research.data import token_cache
from research.pretrained import runs
from research.study import trained


def translated(
    sources: np.ndarray, targets: np.ndarray, run: str, beam_size: int = 0, length_penalty: float = 0.6
) -> tuple[np.ndarray, str]:
    """(targets [N] as the teacher writes them; what tells them apart from others). Where it writes nothing, the target stays.

    Args:
      sources, targets: N texts each.
      run: 'WORKDIR:VARIANT:SEED', a finished run of the task translation.
      beam_size: as of `research.decoding.beam`, 1 for greedy decoding; 0 for the run's own.
      length_penalty: of the beam.

    Raises:
      ConfigError: no such run, or one of another task.
    """
    if (teacher := runs.parse(run)) is None:
        raise ConfigError(f"data.targets.run is '{run}', expected a finished run, 'WORKDIR:VARIANT:SEED'.")
    model = trained.load(str(teacher.workdir), teacher.variant, teacher.seed)
    # Sentences of a length are decoded together: a batch goes on until the last of its texts has ended.
    order = np.argsort([len(text) for text in sources], kind='stable')

    def write() -> dict[str, np.ndarray]:
        said = model.translate(sources[order].tolist(), beam_size or None, length_penalty)
        lines = '\n'.join(' '.join(text.split()) for text in said)
        return {'lines': np.frombuffer(lines.encode(), np.uint8)}

    read = hashlib.sha256('\n'.join(sources).encode()).hexdigest()
    key = [runs.digest(teacher), model.tokenizer.to_str(), model.target_tokenizer.to_str(), beam_size, length_penalty, read]
    said = bytes(token_cache.kept(key, write, 'translations')['lines']).decode().split('\n')
    found = targets.copy()
    for row, text in zip(order, said, strict=True):
        found[row] = text or targets[row]
    return found, hashlib.sha256('\n'.join(found).encode()).hexdigest()
