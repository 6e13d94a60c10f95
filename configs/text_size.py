"""Question: what does a larger BERT buy, on short texts, against its parameters, FLOPs and latency?

Run: python launch.py --config=configs/text_size.py --workdir=runs/text_size

Data: 4,000 names of characters, as in configs/text.py; nothing is downloaded, and nothing was pretrained. Rates fall with the
    width (Yang et al. 2021, muP, for Adam), and were tuned for no size.

Cost: an hour on 2 cores.
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
