"""Question: what does a larger BERT buy, on short texts, against its parameters, FLOPs and latency?

Run: python launch.py --config=configs/text_size.py --workdir=runs/text_size

Data: 4,000 names of characters, as in configs/text.py; nothing is downloaded, and nothing was pretrained. Rates fall with the
    width (Yang et al. 2021, muP, for Adam), and were tuned for no size.

Cost: an hour on 2 cores.

Result: test balanced accuracy in percent, eight seeds (2 cores of an AMD EPYC with AVX-512, other work beside it, jax 0.10.2);
    differences with 95 % intervals, p after Holm. BERT-tiny 33.39 ± 3.37 (0.9 M parameters; latency 0.96 ms for one text, 7.3
    ms for 64). BERT-mini +1.39 (-4.88 to 6.37), no effect shown; 4.2 M, 3.0 and 43 ms, 5.8 times the training time. BERT-small
    +25.78 (22.64 to 29.47), p 0.016; 14.9 M, 7.7 and 151 ms, 22.6 times. Five epochs: none has finished learning, and rates
    differ.
"""

from research.config import base


def _bert(name):
    return {'name': name, 'head': 'classification', 'max_length': 16, 'num_classes': 0, 'init_from': ''}


def get_config(arg: str = ''):
    """BERT-tiny against the next two sizes of Turc et al. 2019, their rate over their width; eight paired seeds."""
    del arg
    config = base.get_config()
    config.study.name = 'text_size'
    config.task.name = 'text_classification'
    config.data.name = 'unicode_names'
    config.data.length = 16
    config.data.examples = 4000
    config.data.batch_size = 64
    config.model = _bert('bert_tiny')
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.name = 'cosine'
    config.schedule.warmup = '0.1run'
    config.study.budget = '5ep'
    config.study.metric = 'test/balanced_accuracy'
    config.study.seeds = 8
    config.study.variants = {
        'mini': {'model': _bert('bert_mini'), 'optimizer.learning_rate': 1e-3},
        'small': {'model': _bert('bert_small'), 'optimizer.learning_rate': 5e-4},
    }
    config.train.eval_every = '1run'
    return config
