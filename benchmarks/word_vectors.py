"""Word vectors of the King James Bible, ours and gensim's: nearest words that they share, and words a second.

    apt-get install bible-kjv && pip install gensim
    python benchmarks/word_vectors.py

Skip-gram with five negative words, 100 numbers a word, windows of up to five words, five epochs at a rate that falls from 0.025
to 0, over rows of 30 words of running text in small letters. Of the 200 most frequent words outside scikit-learn's list of stop
words, the ten nearest are compared: the share of them that two sets of vectors have in common, between seeds of one side and
between the sides. gensim reads rows in their order, ours are shuffled; so gensim is run both ways. Ours is given its words a
batch as SGD over the mean of a batch: 0.025 times the pairs of a batch is its rate. Words a second count those of the text, as
gensim does, over the time of training alone, which in ours is without compilation.
"""

import argparse
import itertools
import json
import pathlib
import random
import re
import subprocess
import tempfile
import time

import numpy as np
from gensim.models import Word2Vec
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

import research.study
from research.config import base
from research.pretrained import word_vectors

ROW, EPOCHS, SEEDS, BATCH = 30, 5, (1, 2), 64
SHOWN = ('god', 'king', 'sea', 'bread')


def text() -> list[str]:
    """Rows of words."""
    command = ['bible', '-l100000', '-f', 'gen1:1-rev22:21']
    verses = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    words = [word for verse in verses.splitlines() for word in re.findall('[a-z]+', verse.partition(' ')[2].lower())]
    return [' '.join(words[first : first + ROW]) for first in range(0, len(words), ROW)]


class Shuffled:
    """Rows in another order at every epoch."""

    def __init__(self, rows: list[list[str]], seed: int):
        self.rows, self.draw = rows, random.Random(seed)

    def __iter__(self):
        return iter(self.draw.sample(self.rows, len(self.rows)))


def theirs(rows: list[list[str]], seed: int, shuffled: bool) -> tuple[list[str], np.ndarray, float]:
    """gensim's words, vectors, and words a second."""
    model = Word2Vec(vector_size=100, window=5, min_count=5, sg=1, negative=5, sample=1e-3, seed=seed, workers=2)
    model.build_vocab(rows)
    began = time.perf_counter()
    given = Shuffled(rows, seed) if shuffled else rows
    model.train(given, total_examples=len(rows), epochs=EPOCHS, start_alpha=0.025, end_alpha=0.0)
    return model.wv.index_to_key, model.wv.vectors, sum(map(len, rows)) * EPOCHS / (time.perf_counter() - began)


def ours(path: pathlib.Path, workdir: pathlib.Path, rate: float, shared: int) -> list[tuple[list[str], np.ndarray, float]]:
    """The same of each seed."""
    config = base.get_config()
    config.task = {'name': 'word_vectors', 'loss': 'negative_sampling', 'label_smoothing': 0.0, 'shared': shared}
    config.data.update({'name': 'texts', 'path': str(path), 'length': ROW + 2, 'tokenizer': {'name': 'words'}})
    config.data.update({'batch_size': BATCH, 'validation': 100, 'test': 100})
    config.model = {'name': 'word2vec', 'dim': 100, 'num_classes': 0, 'init_from': ''}
    config.optimizer.update({'name': 'sgd', 'learning_rate': rate})
    config.schedule.name = 'linear'
    config.train.update({'devices': 1, 'eval_every': '1run'})
    config.study.update({'seeds': SEEDS, 'null': False, 'budget': f'{EPOCHS}ep', 'metric': 'test/loss'})
    config.study.update({'higher_is_better': False, 'latency': ()})
    research.study.run(config, workdir)
    found = []
    for seed in SEEDS:
        trained = research.study.load(workdir, 'baseline', seed)
        words = [trained.tokenizer.id_to_token(number) for number in range(trained.module.vocabulary_size)]
        real = [number for number, word in enumerate(words) if not word.startswith('[')]
        vectors = np.asarray(trained.variables['params']['token_embedding']['embedding'])[real]
        (record,) = (
            json.loads((run / 'metrics.jsonl').read_text().splitlines()[-1])
            for run in (workdir / 'runs').iterdir()
            if json.loads((run / 'config.json').read_text())['train']['seed'] == seed
        )
        speed = sum(trained.data['facts']['token_counts']) * EPOCHS / record['train_seconds']
        found.append(([words[number] for number in real], vectors, speed))
    return found


def overlap(asked: list[str], one: tuple, other: tuple) -> float:
    """Share of the ten nearest words in common, over words that both have."""
    both = {*one[0]} & {*other[0]}
    nearest = []
    for words, vectors, _ in (one, other):
        rows = [row for row, word in enumerate(words) if word in both]
        kept = [words[row] for row in rows], vectors[rows]
        nearest.append([{near for near, _ in word_vectors.near(*kept, [word])} for word in asked])
    return float(np.mean([len(a & b) / 10 for a, b in zip(*nearest, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--rate', type=float, default=125.0)
    parser.add_argument('--shared', type=int, default=64)
    flags = parser.parse_args()
    lines = text()
    rows = [line.split() for line in lines]
    print(f'{sum(map(len, rows))} words in {len(rows)} rows')
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'bible.txt')
        path.write_text('\n'.join(lines))
        sides = {'ours': ours(path, pathlib.Path(folder, 'runs'), flags.rate, flags.shared)}
    for name, shuffled in (('gensim, shuffled', True), ('gensim, in order', False)):
        sides[name] = [theirs(rows, seed, shuffled) for seed in SEEDS]
    asked = [word for word in sides['gensim, in order'][0][0] if word not in ENGLISH_STOP_WORDS][:200]
    for one, other in itertools.combinations_with_replacement(sides, 2):
        pairs = [(0, 1)] if one == other else [*itertools.product((0, 1), repeat=2)]
        shares = [overlap(asked, sides[one][i], sides[other][j]) for i, j in pairs]
        print(f'{one} | {other} | {np.mean(shares):.3f} ({", ".join(f"{share:.3f}" for share in shares)})')
    for name, seeds in sides.items():
        print(f'{name}: {", ".join(f"{speed:,.0f}" for *_, speed in seeds)} words a second')
        for word in SHOWN:
            print(f'  {word}: {", ".join(near for near, _ in word_vectors.near(*seeds[0][:2], [word], count=8))}')
    for plus, minus in ((('king', 'woman'), ('man',)), (('son', 'woman'), ('man',))):
        print(plus, minus, {name: word_vectors.near(*seeds[0][:2], plus, minus, count=3) for name, seeds in sides.items()})


if __name__ == '__main__':
    main()
