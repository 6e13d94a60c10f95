"""Question: do icons of other styles help a network that sorts the icons of one theme by what they stand for?

Run: python benchmarks/icons.py icons elementary=THEME faenza=THEME gnome=THEME mate=THEME  # its head says where themes are
     python launch.py --config=configs/icons.py --workdir=runs/icons

Cost: 56 runs, 6 programs; 9 minutes on 2 cores beside other work.

Result: balanced accuracy 56.67 ± 2.78 % over eight seeds. Better: three_themes +2.80 points (0.75 to 5.15, p 0.047 after Holm).
    No effect shown: faenza alone +0.88 (-2.60 to 4.76); the three themes with their copies +0.56 (-3.32 to 4.00). Worse:
    augmented -6.20 (-8.25 to -3.88), both -29.40 (-33.92 to -24.42): the contact sheet of the report shows black borders and
    greyed whites, which these icons never have, and training accuracy falls from 100 to 57 and 44 %.
"""

from research.config import base


def get_config(arg: str = 'icons'):
    """A small CNN on 400 icons of elementary Xfce; those of three other themes beside them, and augmentation; eight seeds.

    `arg` is the folder that benchmarks/icons.py made.
    """
    config = base.get_config()
    config.study.name = 'icons'
    config.data.name = 'images'
    config.data.path = f'{arg}/elementary'
    config.data.resize = 32
    config.data.test = 0.3
    config.data.filters = ('duplicates',)  # themes draw some icons alike, and under several names
    config.model.widths = (16, 32)
    config.model.hidden = (64,)
    config.optimizer.learning_rate = 0.02
    config.schedule.name = 'cosine'
    config.study.budget = '20000ex'
    config.study.metric = 'test/balanced_accuracy'
    config.study.seeds = 8
    licences = {'faenza': 'GPL-3', 'gnome': 'LGPL-3 or CC-BY-SA-3.0', 'mate': 'LGPL-3 or CC-BY-SA-3.0'}
    others = {name: {'name': 'images', 'path': f'{arg}/{name}', 'licence': licence} for name, licence in licences.items()}
    augmented = {'augment.names': ('pad_crop', 'color_jitter')}
    config.study.variants = {
        'faenza': {'data.external': (others['faenza'],)},
        'three_themes': {'data.external': (*others.values(),)},
        'three_with_copies': {'data.external': (*others.values(),), 'data.filters': ()},
        'augmented': augmented,
        'both': {'data.external': (*others.values(),), **augmented},
    }
    return config
