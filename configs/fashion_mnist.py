"""Question: does ResNet-20 beat a simple CNN on Fashion-MNIST, and what does each cost?

Run: python launch.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist
     fetches Fashion-MNIST through TFDS; offline, idx files are taken from --config.data.path=DIR (Debian:
     dataset-fashion-mnist).
"""

from configs import base


def get_config(arg: str = ''):
    """Fashion-MNIST without augmentation; three seeds show the spread and are too few for a verdict."""
    config = base.get_config(arg)
    config.data.name = 'fashion_mnist'
    config.data.batch_size = 128
    config.data.eval_batch_size = 500
    config.data.validation = 5000.0  # images
    config.model.widths = (32, 64)
    config.model.hidden = (128,)
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-3
    config.schedule.name = 'cosine'
    config.schedule.warmup = '0.05run'
    config.study.budget = '15ep'
    config.study.seeds = 3
    config.study.latency = (1, 64)
    config.study.variants = {
        'resnet20': {'model.name': 'resnet20'},
    }
    return config
