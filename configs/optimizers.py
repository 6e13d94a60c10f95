"""Question: which optimizer is better than momentum, once each has been tuned with the same budget?

Run: python launch.py --config=configs/optimizers.py --workdir=runs/optimizers
     python launch.py --config=configs/optimizers.py:fashion_mnist --workdir=runs/optimizers_fashion_mnist
     The second is on a tenth of Fashion-MNIST; offline it takes idx files from --config.data.path=DIR.

Cost: 120 tuning runs and 110 final runs, 10 programs; on 2 cores 2 min 44 s on digits, 39 minutes on a tenth of Fashion-MNIST
    beside other work.

Result (digits: AMD EPYC, AVX2): on digits momentum (tuned: 0.05) reaches 98.58 ± 0.31 % over 10 seeds. Worse: lion -1.36
    points (-2.00 to -0.76, p 0.018 after Holm). No effect shown: the others; muon +0.17 (-0.11 to +0.42), for 31 % more
    training time.
    On a tenth of Fashion-MNIST momentum (0.05) reaches 87.21 ± 0.29 %. Better: rmsprop +0.60 (+0.32 to +0.86), muon +0.57, adam
    +0.51, adamw +0.38, lion +0.37, schedule_free +0.31, p 0.018 to 0.031 after Holm. Worse: sgd -1.20, adagrad -0.92. No effect
    shown: nesterov +0.21.
    On another tenth, on an H200, rmsprop alone is shown to be better, and the same two worse (benchmarks/stated.md).
"""

from research.config import base


def get_config(arg: str = ''):
    """Nine optimizers against momentum, each with six points for its learning rate; ten paired seeds."""
    config = base.get_config()
    config.study.name = 'optimizers'
    base.small_data(config, arg)
    config.optimizer.name = 'momentum'
    config.optimizer.learning_rate = 0.05
    config.schedule.name = 'cosine'
    config.study.seeds = 10
    config.study.variants = {
        'sgd': {'optimizer.name': 'sgd', 'optimizer.learning_rate': 0.2},
        'nesterov': {'optimizer.name': 'nesterov'},
        'adagrad': {'optimizer.name': 'adagrad', 'optimizer.learning_rate': 0.02},
        'rmsprop': {'optimizer.name': 'rmsprop', 'optimizer.learning_rate': 1e-3},
        'adam': {'optimizer.name': 'adam', 'optimizer.learning_rate': 2e-3},
        'adamw': {'optimizer.name': 'adamw', 'optimizer.learning_rate': 2e-3, 'optimizer.weight_decay': 0.01},
        'lion': {'optimizer.name': 'lion', 'optimizer.learning_rate': 3e-4},
        'muon': {'optimizer.name': 'muon', 'optimizer.learning_rate': 0.01},
        'schedule_free': {
            'optimizer.name': 'schedule_free_adamw',
            'optimizer.learning_rate': 3e-3,
            'schedule.name': 'constant',
        },
    }
    rate = 'optimizer.learning_rate'
    config.study.tune = {
        'points': 6,
        'seeds': (1000, 1001),
        'space': {
            rate: ('log', 5e-3, 0.5),
            'sgd': {rate: ('log', 0.02, 2.0)},
            'adagrad': {rate: ('log', 2e-3, 0.2)},
            'rmsprop': {rate: ('log', 1e-4, 1e-2)},
            'adam': {rate: ('log', 2e-4, 2e-2)},
            'adamw': {rate: ('log', 2e-4, 2e-2)},
            'lion': {rate: ('log', 3e-5, 3e-3)},
            'muon': {rate: ('log', 1e-3, 0.1)},
            'schedule_free': {rate: ('log', 3e-4, 3e-2)},
        },
        'budget': '',
    }
    config.study.latency = ()
    return config
