"""Every field of every config: its default, unit and meaning. The only place where a default lives.

A group with a `name` describes a thing: its other keys are the fields below, which stay when the name is overridden, and
keyword arguments of the thing's constructor, which do not. A name with a colon is an import path: 'my_paper.nets:Net'.
Durations are strings: '500st' steps, '5ep' epochs of the training split, '1000ex' examples, '0.3run' of the budget.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    """The defaults. Experiments start from these and override; `arg` is what follows the colon in --config=FILE:ARG."""
    del arg
    config = ConfigDict(
        {
            'task': {
                'name': 'classification',  # any of research.tasks.TASKS: text_classification, generation, ...
                'loss': 'softmax',  # 'sigmoid': a yes or no a class; generation: 'non_saturating'; of numbers 'squared'
                'label_smoothing': 0.0,  # share of the target that is spread evenly over the classes, in training alone
            },
            'data': {
                'name': 'digits',  # digits, mnist, fashion_mnist, any TFDS name; of your own images, table, texts, arrays
                'checksum': '',  # expected hash of the data ('data' in a fingerprint); filled in for data of your own
                'path': '',  # folder of local files or of prepared data; '' = where the source keeps it by itself
                'batch_size': 64,  # examples a step, over all devices; 0 = the whole training split
                'batch': {
                    'name': 'constant',  # or how the size changes during the run: shrink (at scores below the best), grow
                    'coupling': 'none',  # of the learning rate to the size: 'none', 'linear' or 'sqrt'
                },
                'eval_batch_size': 256,  # examples an evaluation step
                'label': '',  # the column of classes, tags, answers or numbers, in a table also 'a,b,c', 'a:number'; '' = usual
                'features': (),  # columns of numbers of a table; () = all but label and group
                'image': '',  # the column of image files of a table, in place of features
                'text': 'text',  # the column of texts, where a table has several; of parallel texts that or the language
                'pair': '',  # of second texts or translations, likewise; of a .txt 'next', every second line; '' = none
                'group': '',  # a table's column, or a function's field, of groups that are scored apart; '' = a field 'group'
                'tokenizer': {'name': 'word_piece'},  # of texts: word_piece, bpe, words, or a file
                'target_tokenizer': {'name': 'shared'},  # of translations: the texts', which learns from both; or one of these
                'targets': {'name': 'given'},  # of training pairs; 'translated': as a finished run writes them
                'length': 64,  # tokens a text: the longer are cut, the shorter padded
                'target_length': 0,  # likewise of translations; 0 = length
                'pack': False,  # several texts without labels, or training pairs, in a row: less padding
                'resize': 0,  # shorter side of uint8 images, antialiased, once, before anything else; 0 = as they are
                'crop': 0,  # side of the square that is kept of their middle; 0 = resize
                'bad_files': 0.01,  # share of image files that may be broken; they are left out, more of them are an error
                'validation': 0.1,  # cut out of the training data: a fraction below 1, a count from 1 on
                'official_validation': False,  # take the data's own validation split; then nothing is cut for one
                'test': 0.0,  # cut out of the training data, as validation is, before it; 0 = the data's own test split
                'sampling': {'name': 'shuffled'},  # or class_balanced, square_root, group_balanced, without_replacement
                'repeats': 1,  # times that each example stands in a batch, each with an augmentation of its own
                'examples': 0,  # training examples used; 0 = all that the validation cut leaves
                'imbalance': {'name': 'none'},  # or long_tail, step: training examples of some classes are left out
                'external': (),  # more training data, such as {'name': 'mnist', 'count': 5000}; see research/data/external.py
                'clean': (),  # of pairs of sentences in every split: empty, short, long, ratio, ...; see research/data/pairs.py
                'filters': (),  # of training examples, in this order: duplicates, quality, label_suspects, rules as of clean
                'personal': 'keep',  # of texts: 'mask' e-mail addresses, card numbers and the like; 'drop' such training texts
                'reference_size': 64,  # examples of the reference batch of virtual batch normalization
                'streaming': 'auto',  # True: read batch by batch; False: keep the data on the device; 'auto': what fits is kept
                'workers': 0,  # threads that read ahead when streaming; 0 = 4
                'split_seed': 0,  # draws the cuts and subsets; the same for every seed of a study
                'redraw': 0,  # another draw of the data order alone; the null variant sets it to 1
            },
            'augment': {
                'names': (),  # applied in this order, of research.augment; arguments such as augment.pad_crop.padding = 4
                'resize': {'name': 'constant'},  # or 'progressive': smaller images (shorter sequences) at first
            },
            'model': {
                'name': 'cnn',
                'num_classes': 0,  # 0 = from the data
                'init_from': '',  # weights from .safetensors or its folder, word vectors, or a run 'WORKDIR:VARIANT:SEED'
            },
            'compress': {'name': 'none'},  # or lora: thin matrices learn beside the weights
            'gradient': {
                'name': 'plain',  # plain, sam, selective_backprop, dp_sgd
                'micro_batch': 0,  # examples whose gradient is taken at once, the batch's is their sum; 0 = the whole batch
                'noise_scale': False,  # measure the gradient noise scale; wants micro-batches
                'freeze': {'name': 'none'},  # or 'progressive': the first layers stop learning during the run
            },
            'optimizer': {
                'name': 'momentum',
                'learning_rate': 0.05,  # peak; the schedule multiplies it
                'weight_decay': 0.0,  # decoupled, on kernels only: each step takes rate * decay * kernel off
                'clip': {'name': 'none'},  # none, global_norm, value, parameter_norm, adaptive
                'layer_decay': 1.0,  # the rate of each layer over that of the next, from the head down; 1 = all learn alike
                'rate_multipliers': (),  # pairs (pattern, factor) over parameter paths, such as ('head/*', 0.1)
                'decay_multipliers': (),  # likewise; the default factor is 1 for kernels, 0 elsewhere
                'average': {'name': 'none'},  # of the weights, for evaluation: none, ema, swa
            },
            'schedule': {
                'name': 'constant',
                'warmup': '0st',  # linear from 0, in front of the schedule
            },
            'train': {
                'seed': 0,  # of the run; a study sets it from study.seeds
                'engine': 'jit',  # over a mesh, or 'pmap'
                'devices': 0,  # how many; 0 = all that jax sees
                'eval_every': '0.1run',  # duration between evaluations on the validation split
                'checkpoint_every': '60s',  # duration between checkpoints; here seconds are a unit too
                'precision': 'float32',  # of the computation: float32, bfloat16, float16; parameters stay float32
                'matmul_precision': 'default',  # jax's: 'default', 'high', 'highest'
                'deterministic': False,  # operations that give the same bits every time; they always do on CPU
                'remat': 'none',  # what is computed again for the gradient: 'none', 'products' kept, 'block' inputs kept
                'memory_budget': '',  # such as '6GiB': micro-batch and remat are chosen so that a whole run fits
            },
        },
        type_safe=False,  # types are checked at the door, with messages for the reader (research.config.overrides)
    )
    # Variants are dicts of dotted keys, which a converting ConfigDict refuses.
    config.study = ConfigDict(
        {
            'name': '',  # identity of the study; '' = the config file's name
            'variants': {},  # name -> {dotted key: value}; the baseline is the config itself
            'contrasts': {},  # name -> {variant: weight}, weights sum to 0; beside each variant against the baseline
            'seeds': 10,  # a count, or a tuple of seeds
            'null': True,  # the baseline with only its data order redrawn: the resolution of the instrument
            'metric': 'test/accuracy',  # what decides
            'higher_is_better': True,
            'alpha': 0.05,  # level of tests and intervals
            'margin': 0.0,  # differences within it are equivalent; in the metric's unit; 0 = never
            'budget': '20ep',  # what every run gets: a duration, seconds ('60s'), or training FLOPs ('1e12flops')
            'score': 'last',  # parameters that are scored: 'last', or 'best' on the validation split
            'platform': '',  # cpu, gpu or tpu, where another one ends at the door; '' = the one that the first launch finds
            'latency': (1, 64),  # batch sizes whose inference is timed; () = none
            'tune': ConfigDict(
                {
                    'points': 0,  # that every variant tries, the first as it is written, the others quasi-random; 0 = no tuning
                    'seeds': (1000,),  # of tuning runs; none of study.seeds, so that they enter no verdict
                    'space': {},  # dotted key -> ('log' | 'linear' | 'int', low, high); under a variant's name: its own
                    'budget': '',  # of a tuning run; '' = the study's
                },
                type_safe=False,
                convert_dict=False,
            ),
            'keep': 'scored',  # of a finished run: 'scored' variables, or 'all': the last training state too
        },
        type_safe=False,
        convert_dict=False,
    )
    return config


def small_data(config: ConfigDict, arg: str) -> None:
    """Data and a network for a study of many runs: 'digits' (the default), or 'fashion_mnist', a tenth of its training data."""
    if arg not in ('', 'digits', 'fashion_mnist'):
        raise ValueError(f"'{arg}' is no data for this study: expected 'digits' or 'fashion_mnist'.")
    config.model.widths = (16, 32)
    config.model.hidden = (64,)
    config.study.budget = '20ep'
    if arg == 'fashion_mnist':
        config.data.name = arg
        config.data.validation = 5000.0  # images
        config.data.examples = 5500
        config.data.eval_batch_size = 500
        config.study.budget = '10ep'
        config.study.name = f'{config.study.name}_{arg}'
