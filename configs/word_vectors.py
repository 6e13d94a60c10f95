"""Question: which word vectors does each choice of Mikolov et al. 2013 give, and at what cost?

Run: python launch.py --config=configs/word_vectors.py --workdir=runs/word_vectors --config.data.path=/usr/share/wordnet

Data: WordNet's glosses without their classes; configs/text_history.py starts from these vectors. Losses of other windows,
    architectures and losses are no measure of the vectors: compare what starts from them, or
    `research.pretrained.word_vectors.near`.

Cost: 67 s of training for the baseline on 2 cores that had other work too, 110,000 words a second; CBOW 1.4 times, hierarchical
    softmax 4.4 times, vectors half as long 0.6 times.

Result: nearest to 'river' are lake, flows, tributary, missouri, eastward, rises, mississippi; to 'disease' infection, chronic,
    caused, viral, disorder, contagious, symptom; to 'red' white, blue, orange, yellow, reddish, purplish, violet.
"""

from research.config import base


def get_config(arg: str = ''):
    """Skip-gram with negative sampling; one seed, which the study that starts from it shares."""
    del arg
    config = base.get_config()
    config.study.name = 'word_vectors'
    config.task = {'name': 'word_vectors', 'loss': 'negative_sampling', 'label_smoothing': 0.0}
    config.data.name = 'wordnet_texts'
    config.data.tokenizer = {'name': 'words'}
    config.data.length = 32
    config.data.validation = 2000.0
    config.data.batch_size = 64
    config.model = {'name': 'word2vec', 'dim': 100, 'num_classes': 0, 'init_from': ''}
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 50.0
    config.schedule.name = 'linear'
    config.study.metric = 'test/loss'
    config.study.higher_is_better = False
    config.study.budget = '5ep'
    config.study.seeds = 1
    config.study.null = False
    config.study.latency = ()
    config.train.eval_every = '1run'
    config.study.variants = {
        'cbow': {'task.architecture': 'cbow'},
        'hierarchical_softmax': {'task.loss': 'hierarchical_softmax'},
        'narrow_window': {'task.window': 2},
        'short_vectors': {'model.dim': 50},
    }
    return config
