"""Question: which remedy wins back most where one class has a hundred times the examples of another?

Run: python launch.py --config=configs/imbalance.py --workdir=runs/imbalance
     on Fashion-MNIST; offline it takes idx files from --config.data.path=DIR.
"""

from research.config import base


def get_config(arg: str = ''):
    """A long tail of ratio 100, the largest class of about 600 images, and six remedies against none; ten paired seeds."""
    config = base.get_config(arg)
    base.small_data(config, 'fashion_mnist')
    config.study.name = 'imbalance'
    config.data.examples = 6000
    config.data.imbalance = {'name': 'long_tail', 'ratio': 100.0}
    config.optimizer.learning_rate = 0.05
    config.schedule.name = 'cosine'
    config.study.budget = '30ep'
    config.study.metric = 'test/balanced_accuracy'
    config.study.seeds = 10
    config.study.variants = {
        'balanced': {'data.sampling.name': 'class_balanced'},
        'square_root': {'data.sampling.name': 'square_root'},
        'effective_number': {'task.class_weights': 'effective_number'},
        'deferred': {'task.class_weights': 'effective_number', 'task.reweight_from': '0.8run'},
        'focal': {'task.focal': 2.0},
        'logit_adjustment': {'task.logit_adjustment': 1.0},
    }
    return config
