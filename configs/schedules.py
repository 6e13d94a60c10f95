"""Question: what does a learning-rate schedule buy over a constant rate, once the peak of each has been tuned?

Run: python launch.py --config=configs/schedules.py --workdir=runs/schedules
     python launch.py --config=configs/schedules.py:fashion_mnist --workdir=runs/schedules_fashion_mnist
     The second is on a tenth of Fashion-MNIST; offline it takes idx files from --config.data.path=DIR.

Cost: see Result.

Result: not measured yet.
"""

from configs import base


def get_config(arg: str = ''):
    """Twelve schedules against a constant rate, each with four points for its peak; ten paired seeds, one program."""
    config = base.get_config()
    config.study.name = 'schedules'
    base.small_data(config, arg)
    config.optimizer.learning_rate = 0.05
    config.study.seeds = 10
    config.study.variants = {
        'step': {'schedule.name': 'step'},
        'exponential': {'schedule.name': 'exponential'},
        'staircase': {'schedule.name': 'exponential', 'schedule.transition': '0.25run', 'schedule.staircase': True},
        'cosine': {'schedule.name': 'cosine'},
        'cosine_warmup': {'schedule.name': 'cosine', 'schedule.warmup': '0.1run'},
        'restarts': {'schedule.name': 'cosine_restarts', 'schedule.cycle': '0.25run'},
        'decayed_restarts': {
            'schedule.name': 'cosine_restarts',
            'schedule.cycle': '0.25run',
            'schedule.peak_decay': 0.5,
        },
        'linear': {'schedule.name': 'linear'},
        'polynomial': {'schedule.name': 'polynomial'},
        'inverse_sqrt': {'schedule.name': 'inverse_sqrt'},
        'one_cycle': {'schedule.name': 'one_cycle'},
        'plateau': {'schedule.name': 'plateau', 'schedule.patience': 2, 'schedule.factor': 0.3},
    }
    config.train.eval_every = '1ep'
    config.study.tune = {
        'points': 4,
        'seeds': (1000, 1001),
        'space': {'optimizer.learning_rate': ('log', 0.01, 0.5)},
        'budget': '',
    }
    config.study.latency = ()
    return config
