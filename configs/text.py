"""Question: what does each part of the modern Transformer buy a small BERT, on short texts?

Run: python launch.py --config=configs/text.py --workdir=runs/text

Data: the names of characters, of which 'GREEK SMALL LETTER PSI' is a small letter: 12,817 texts of one to thirteen words in 18
    classes, a long tail; they come with Python. Classes weigh the same in what decides, balanced accuracy.
"""

from research.config import base


def _other(name, **fields):
    """A network of another kind, with as long vectors of tokens."""
    return {'model': {'name': name, 'dim': 64, 'num_classes': 0, 'init_from': '', **fields}}


def get_config(arg: str = ''):
    """Norms, positions, units and tokens against BERT's; paired seeds."""
    del arg
    config = base.get_config()
    config.study.name = 'text'
    config.task.name = 'text_classification'
    config.data.name = 'unicode_names'
    config.data.length = 16
    config.model = {
        'name': 'bert',
        'head': 'classification',
        'dim': 64,
        'depth': 2,
        'heads': 4,
        'width': 256,
        'max_length': 16,
        'num_classes': 0,
        'init_from': '',
    }
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.name = 'cosine'
    config.schedule.warmup = '0.1run'
    config.study.budget = '5ep'
    config.study.metric = 'test/balanced_accuracy'
    config.study.seeds = 8
    config.study.variants = {
        'pre_norm': {'model.norm_first': True},
        'rms_norm': {'model.norm.name': 'flax.linen:RMSNorm'},
        'gated': {'model.gated': True, 'model.activation': 'silu', 'model.width': 172},
        'rotary': {'model.positions': 'rotary'},
        'no_positions': {'model.positions': 'none'},
        'shared_keys': {'model.key_heads': 1},
        'byte_pairs': {'data.tokenizer.name': 'bpe'},
        'small_vocabulary': {'data.tokenizer.vocabulary_size': 512},
        'smaller_model': {'model.dim': 32, 'model.width': 128},
        'lstm': _other('lstm', head='classification', width=64),
        'text_cnn': _other('text_cnn', filters=64),
    }
    return config
