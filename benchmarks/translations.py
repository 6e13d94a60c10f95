"""What copying gets right: for each test sentence the translation of the most similar training sentence.

    python benchmarks/translations.py --path=catalogues

On the data of `configs/translation.py:whole`. Similarity is the cosine of TF-IDF vectors of runs of two to four letters within
words. A network that is no better than this has learnt to look up.
"""

import argparse
import time

import numpy as np
import sacrebleu
from sklearn.feature_extraction.text import TfidfVectorizer

from research import data
from research.study import plan


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--path', required=True)
    parser.add_argument('--config', default='configs/translation.py:whole')
    flags = parser.parse_args()
    dataset = data.load(plan.make(flags.config, {'data.path': flags.path}).runs[0].config['data'])
    sides = {  # packed rows have several sentences
        (part, side): [line for row in dataset.sentences[side][dataset.splits[part]] for line in row.split('\n')]
        for part in ('train', 'test')
        for side in ('source', 'target')
    }
    start = time.perf_counter()
    learner = TfidfVectorizer(analyzer='char_wb', ngram_range=(2, 4), sublinear_tf=True)
    train, test = learner.fit_transform(sides['train', 'source']), learner.transform(sides['test', 'source'])
    nearest = np.concatenate([(test[i : i + 256] @ train.T).argmax(1).A1 for i in range(0, test.shape[0], 256)])
    said, meant = [sides['train', 'target'][row] for row in nearest], sides['test', 'target']
    right = np.mean([one == other for one, other in zip(said, meant, strict=True)])
    print(f'{len(sides["train", "source"]):,} training pairs, {len(meant):,} of the test, {time.perf_counter() - start:.0f} s')
    print(
        f'copies of the nearest: {right:.1%} right, BLEU {sacrebleu.corpus_bleu(said, [meant]).score:.1f}, '
        f'chrF {sacrebleu.corpus_chrf(said, [meant]).score:.1f}'
    )


if __name__ == '__main__':
    main()
