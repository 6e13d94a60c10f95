"""Question: what do the families of networks reach on small images, against their parameters, FLOPs and latency?

Run: python launch.py --config=configs/model_scale.py --workdir=runs/model_scale
     On a tenth of Fashion-MNIST; offline it takes idx files from --config.data.path=DIR.

Cost: not run yet.

Result: not run yet.
"""

from configs import base


def get_config(arg: str = ''):
    """A small member of each family against a plain CNN; each with three short tries of its learning rate; ten paired seeds."""
    config = base.get_config()
    config.study.name = 'model_scale'
    base.small_data(config, arg or 'fashion_mnist')
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.02
    config.schedule.name = 'cosine'
    config.schedule.warmup = '0.1run'
    config.study.seeds = 10
    config.study.variants = {
        'cnn_half': {'model.widths': (8, 16), 'model.hidden': (32,)},
        'cnn_double': {'model.widths': (32, 64), 'model.hidden': (128,)},
        'resnet': {'model.name': 'resnet20', 'model.depths': (1, 1, 1), 'model.widths': (8, 16, 32)},
        'googlenet': {'model.name': 'googlenet', 'model.width': 0.125, 'model.dropout': 0.0, 'model.auxiliary': False},
        'mobilenetv1': {'model.name': 'mobilenetv1_025'},
        'mobilenetv2': {'model.name': 'mobilenetv2_035', 'model.dropout': 0.0},
        'mobilenetv3': {'model.name': 'mobilenetv3_small_050', 'model.dropout': 0.0},
        'efficientnet': {
            'model.name': 'efficientnet_b0',
            'model.width': 0.25,
            'model.dropout': 0.0,
            'model.stochastic_depth': 0.0,
        },
        'xception': {'model.name': 'legacy_xception', 'model.width': 0.125, 'model.middle': 1, 'model.dropout': 0.0},
        'coatnet': {
            'model.name': 'coatnet_0_224',
            'model.depths': (1, 1),
            'model.widths': (16, 32),
            'model.layout': 'CT',
            'model.stem_width': 8,
            'model.head_dim': 16,
        },
        'vit': {'model.name': 'vit', 'model.dim': 32, 'model.depth': 3, 'model.heads': 4, 'model.patch': 7},
    }
    config.study.tune = {
        'points': 3,
        'seeds': (1000,),
        'space': {'optimizer.learning_rate': ('log', 5e-4, 2e-2)},
        'budget': '3ep',
    }
    return config
