"""Question: what does a larger BERT buy, on short texts, against its parameters, FLOPs and latency?

Run: python launch.py --config=configs/text_size.py --workdir=runs/text_size

Data: the names of characters, as in configs/text.py; nothing is downloaded, and nothing was pretrained. The rate is that of
    configs/text.py for every size, tuned for none.

Cost: a training step is 2.47, 19.6 and 77.8 GFLOPs; 1.16, 4.72 and 15.9 M parameters. On 2 cores beside other work --plan says
    7 hours, two thirds of them for BERT-small.
"""

from research.config import base


def _bert(name):
    """A model whole: what a constructor takes does not stay when the name is another."""
    return {'name': name, 'head': 'classification', 'max_length': 16, 'num_classes': 0, 'init_from': ''}


def get_config(arg: str = ''):
    """BERT-tiny against the next two sizes of Turc et al. 2019, all with the same rate; eight paired seeds."""
    del arg
    config = base.get_config()
    config.study.name = 'text_size'
    config.task.name = 'text_classification'
    config.data.name = 'unicode_names'
    config.data.length = 16
    config.model = _bert('bert_tiny')
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.name = 'cosine'
    config.schedule.warmup = '0.1run'
    config.study.budget = '5ep'
    config.study.metric = 'test/balanced_accuracy'
    config.study.seeds = 8
    config.study.variants = {'mini': {'model': _bert('bert_mini')}, 'small': {'model': _bert('bert_small')}}
    return config
