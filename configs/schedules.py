"""Question: what does a learning-rate schedule buy over a constant rate, once the peak of each has been tuned?

Run: python launch.py --config=configs/schedules.py --workdir=runs/schedules
     python launch.py --config=configs/schedules.py:fashion_mnist --workdir=runs/schedules_fashion_mnist
     The second is on a tenth of Fashion-MNIST; offline it takes idx files from --config.data.path=DIR.

Cost: 104 tuning runs and 140 final runs, one program; on 2 cores 2 min 18 s on digits, 50 minutes on a tenth of Fashion-MNIST
    beside two other jobs.

Result (digits: AMD EPYC, AVX2): on digits a constant rate (tuned: 0.05) reaches 98.67 ± 0.37 % over 10 seeds, and no schedule
    is shown to help. Worse: exponential -0.72 points (-1.11 to -0.37) and decayed_restarts -0.67, p 0.047 after Holm.
    On a tenth of Fashion-MNIST it reaches 85.87 ± 0.59 %. Better, p 0.023 to 0.031: cosine_warmup +1.67 (+1.29 to +2.11),
    one_cycle +1.65, restarts +1.50, linear +1.50, step +1.39, cosine +1.34, polynomial +1.33, plateau +0.94, exponential +0.86,
    decayed_restarts +0.79. No effect shown: inverse_sqrt +0.48 and staircase +0.46, not after Holm.
    On another tenth, on an H200, all twelve are better, by 0.85 to 2.10 (benchmarks/stated.md).
"""

from research.config import base


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
