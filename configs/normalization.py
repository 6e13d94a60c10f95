"""Question: what does it cost to normalize by another set of examples than the batch, or not at all?

Run: python launch.py --config=configs/normalization.py --workdir=runs/normalization
     python launch.py --config=configs/normalization.py:fashion_mnist --workdir=runs/normalization_fashion_mnist
     The second is on a tenth of Fashion-MNIST; offline it takes idx files from --config.data.path=DIR.

Cost: see Result.

Result: not measured yet.
"""

from configs import base


def get_config(arg: str = ''):
    """Six norm layers against batch normalization, each with four points for its learning rate; nine paired seeds."""
    config = base.get_config()
    config.study.name = 'normalization'
    base.small_data(config, arg)
    config.optimizer.learning_rate = 0.05
    config.schedule.name = 'cosine'
    config.study.seeds = 9
    config.study.variants = {
        'none': {'model.norm.name': 'none'},
        'ghost_8': {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 8},
        'ghost_16': {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 16},
        'ghost_32': {'model.norm.name': 'ghost_batch', 'model.norm.virtual_batch_size': 32},
        'virtual': {'model.norm.name': 'virtual_batch'},
        'group': {'model.norm.name': 'flax.linen:GroupNorm', 'model.norm.num_groups': 4},
    }
    config.study.tune = {
        'points': 4,
        'seeds': (1000, 1001),
        'space': {'optimizer.learning_rate': ('log', 0.01, 0.5)},
        'budget': '',
    }
    return config
