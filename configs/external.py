"""Question: what do more data from elsewhere bring when part of them is faulty, and which filters help?

5 % of Fashion-MNIST's training data, and 6,000 images of a source with known faults (research/data/spoiled.py): 10 % wrong
labels, 10 % copies of test images, 5 % junk. Wherever there is external data, training images that are copies of validation or
test images are removed. Every variant sees 90,000 examples.

Run: python launch.py --config=configs/external.py --workdir=runs/external

Cost: 70 runs, about 77 minutes by --plan on 2 cores that were busy with other work.
"""

from research.config import base


def get_config(arg: str = ''):
    """A small CNN without augmentation; filters alone, one by one, and all three."""
    config = base.get_config(arg)
    config.data.name = 'fashion_mnist'
    config.data.validation = 5000.0  # images
    config.data.examples = 3000
    config.data.eval_batch_size = 500
    config.model.widths = (16, 32)
    config.model.hidden = (64,)
    config.schedule.name = 'cosine'
    config.study.budget = '90000ex'
    spoiled = {'name': 'research.data.spoiled:load', 'price': 0.01, 'licence': 'MIT (Fashion-MNIST)'}
    config.study.variants = {
        'unfiltered': {'data.external': (spoiled,)},
        'quality': {'data.external': (spoiled,), 'data.filters': ('quality',)},
        'duplicates': {'data.external': (spoiled,), 'data.filters': ('duplicates',)},
        'label_suspects': {'data.external': (spoiled,), 'data.filters': ('label_suspects',)},
        'all_filters': {'data.external': (spoiled,), 'data.filters': ('quality', 'duplicates', 'label_suspects')},
    }
    return config
