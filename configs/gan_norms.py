"""Question: does virtual batch normalization steady a generator, and what do ghost batches or no normalization do to it?

Run: python launch.py --config=configs/gan_norms.py --workdir=runs/gan_norms
     fetches Fashion-MNIST through TFDS; offline, idx files are taken from --config.data.path=DIR (Debian:
     dataset-fashion-mnist).

Cost: see Result.

Result: not measured yet.
"""

from configs import base


def get_config(arg: str = ''):
    """DCGAN on Fashion-MNIST, four norm layers in the generator over eight paired seeds; the discriminator's stays."""
    config = base.get_config(arg)
    config.task.name = 'generation'
    config.task.loss = 'non_saturating'
    config.data.name = 'fashion_mnist'
    config.data.eval_batch_size = 500
    config.data.validation = 2000.0  # images
    config.model.name = 'dcgan'
    config.model.side = 28
    config.model.channels = 1
    config.model.widths = (64, 32)
    # Both players', as in the paper.
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 2e-4
    config.optimizer.b1 = 0.5
    config.study.metric = 'test/frechet'
    config.study.higher_is_better = False
    config.study.budget = '2500st'
    config.study.seeds = 8
    config.study.latency = (1, 64)
    config.study.variants = {
        'virtual': {'model.norm.name': 'virtual_batch'},
        'ghost_16': {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 16},
        'none': {'model.norm.name': 'none'},
    }
    return config
