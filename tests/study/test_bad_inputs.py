"""What a stranger may get wrong: each ends at the door with status 2 and one sentence, before any data are read."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import pytest
from config_file import written

from research.data import sources
from research.study import plan
from research.study.launch import REFUSED, launch

ROOT = pathlib.Path(__file__).parents[2]
TINY = (
    'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\nconfig.study.budget = "2st"\n'
    'config.study.seeds = 2\n'
)
LOG = '"optimizer.learning_rate": ("log", 1e-3, 1.0)'

# Lines of a config, several divided by semicolons -> a part of the sentence.
LINES = [
    # Keys
    ('config.model.nam = "cnn"', "Unknown key 'model.nam': model 'cnn' takes no such argument. Did you mean 'model.name'?"),
    ('config.train.epochs = 5', "Did you mean 'study.budget'?"),
    ('config.train.num_train_epochs = 5', "Did you mean 'study.budget'?"),
    ('config.optimizer.lr = 0.1', "Did you mean 'optimizer.learning_rate'?"),
    ('config.train.lr = 0.1', "Did you mean 'optimizer.learning_rate'?"),
    ('config.optimizer.wd = 0.1', "Did you mean 'optimizer.weight_decay'?"),
    ('config.train.batch_size = 8', "Did you mean 'data.batch_size'?"),
    ('config.data.dataset = "mnist"', "Did you mean 'data.name'?"),
    ('config.data.num_workers = 2', "Did you mean 'data.workers'?"),
    ('config.train.amp = True', "Did you mean 'train.precision'?"),
    ('config.schedule.warmup_steps = 5', "Did you mean 'schedule.warmup'?"),
    ('config.model.pretrained = True', "Did you mean 'model.init_from'?"),
    ('config.train.zzz = 1', "None has a near name; 'train' has: checkpoint_every"),
    ('config.zzz = 1', 'No field has a near name; the groups are: augment, compress'),
    ('config.model = "resnet20"', "expected fields of it, such as 'model.name'"),
    ('config.data = None', 'expected fields of it'),
    # Types
    ('config.optimizer.learning_rate = "fast"', "is 'fast' (str), expected float"),
    ('config.data.batch_size = 8.5', 'is 8.5 (float), expected int'),
    ('config.data.batch_size = None', 'is None (NoneType), expected int'),
    ('config.train.deterministic = "yes"', "is 'yes' (str), expected bool"),
    ('config.model.widths = 8', 'expected Sequence[int]'),
    ('config.model.widths = (8, "x")', 'expected Sequence[int]'),
    ('config.model.norm = {}', "expected a 'name' in it"),
    ('config.model.norm = 3', 'expected str or Mapping'),
    ('config.model.init = print', 'code is named by its import path'),
    ('config.optimizer.rate_multipliers = ("head/*", 0.1)', 'expected pairs'),
    ('config.optimizer.name = "prodigy"; config.optimizer.betas = (0.9,)', 'expected 2 values, such as (0.9, 0.999)'),
    # Numbers
    ('config.optimizer.learning_rate = -1', 'expected at least 0'),
    ('config.optimizer.learning_rate = float("nan")', 'expected a finite number'),
    ('config.optimizer.learning_rate = float("inf")', 'expected a finite number'),
    ('config.optimizer.learning_rate = 1e50', 'at most 3.4e+38'),
    ('config.optimizer.weight_decay = float("inf")', 'expected a finite number'),
    ('config.optimizer.momentum = 1.0', 'expected at least 0 and below 1'),
    ('config.optimizer.momentum = -0.1', 'expected at least 0 and below 1'),
    ('config.optimizer.momentum = float("nan")', 'expected a finite number'),
    ('config.optimizer.name = "adam"; config.optimizer.b2 = 2', "'optimizer.b2' is 2, expected at least 0 and below 1"),
    ('config.optimizer.name = "adam"; config.optimizer.eps = -1', 'expected at least 0'),
    ('config.optimizer.name = "prodigy"; config.optimizer.betas = (0.9, 1.1)', 'expected at least 0 and below 1'),
    ('config.optimizer.layer_decay = 0.0', "'optimizer.layer_decay' is 0.0, expected above 0 and at most 1"),
    ('config.data.batch_size = -64', 'expected at least 0'),
    ('config.data.batch_size = 10**30', 'at most 2147483647'),
    ('config.data.eval_batch_size = 0', 'expected at least 1'),
    ('config.data.eval_batch_size = 10**12', 'at most 2147483647'),
    ('config.data.validation = 1.5', 'expected a fraction below 1 or a whole number'),
    ('config.data.validation = float("inf")', 'expected a finite number'),
    ('config.data.test = float("nan")', 'expected a finite number'),
    ('config.data.resize = 10**6', 'at most 8192'),
    ('config.data.bad_files = 1.5', "'data.bad_files' is 1.5, expected at least 0 and at most 1"),
    ('config.data.workers = 10**6', 'at most 1024'),
    ('config.gradient.micro_batch = 128', "more than the 64 examples of 'data.batch_size'"),
    ('config.gradient.noise_scale = True', "set 'gradient.micro_batch' to half of 'data.batch_size'"),
    ('config.model.widths = (0,)', "'model.widths' is (0,), expected at least 1"),
    ('config.model.widths = (10**9,)', 'at most 1048576'),
    ('config.model.depth = 0', 'expected above 0'),
    ('config.data.imbalance = {"name": "long_tail", "ratio": 0.5}', "'data.imbalance.ratio' is 0.5, expected at least 1"),
    ('config.data.imbalance = {"name": "step", "share": 2.0}', 'expected at least 0 and at most 1'),
    ('config.data.tokenizer = {"name": "words", "min_count": 0}', "'data.tokenizer.min_count' is 0, expected at least 1"),
    ('config.model.dropout = 1.0', "'model.dropout' is 1.0, expected at least 0 and below 1"),
    ('config.model.low_rank = 2.0', 'expected at least 0 and at most 1'),
    ('config.model.num_classes = -1', 'expected at least 0'),
    ('config.model.name = "bert_tiny"; config.model.embedding_dim = -1', 'expected at least 0'),
    (
        'config.model.norm = {"name": "batch", "momentum": 1.5}',
        "'model.norm.momentum' is 1.5, expected at least 0 and at most 1",
    ),
    ('config.model.norm = {"name": "ghost_batch", "virtual_batch_size": 0}', 'expected at least 1'),
    ('config.task.focal = -1.0', "'task.focal' is -1.0, expected at least 0"),
    ('config.task.beta = 1.0', "'task.beta' is 1.0, expected at least 0 and below 1"),
    ('config.task.logit_adjustment = float("nan")', 'expected a finite number'),
    ('config.task.class_weights = "inverse"', "Did you mean 'inverse_frequency'?"),
    ('config.task.reweight_from = "late"', "'late' is no duration"),
    ('config.task.loss = "sigmoid"; config.task.logit_adjustment = 1.0', "or task.loss to 'softmax'"),
    ('config.task.label_smoothing = 1', 'expected at least 0 and below 1'),
    ('config.gradient.name = "sam"; config.gradient.rho = float("inf")', 'expected a finite number'),
    ('config.gradient.name = "selective_backprop"; config.gradient.keep = 0', 'expected above 0 and at most 1'),
    ('config.optimizer.clip = {"name": "global_norm", "max_norm": 0}', 'expected a bound above 0'),
    ('config.optimizer.average = {"name": "ema", "decay": 1}', 'expected at least 0 and below 1'),
    ('config.augment.names = ("token_swap",); config.augment.token_swap = {"share": 1.5}', 'expected at least 0 and at most 1'),
    ('config.augment.names = ("token_masks",)', "Did you mean 'token_mask'?"),
    ('config.augment.resize = {"name": "progressive", "start": 2}', 'expected above 0 and at most 1'),
    ('config.data.batch.name = "shrink"; config.data.batch.factor = 2', 'expected above 0 and below 1'),
    ('config.schedule.name = "plateau"; config.schedule.patience = 0', 'expected at least 1'),
    ('config.schedule.name = "one_cycle"; config.schedule.rise = 2', 'expected above 0 and below 1'),
    # Data from elsewhere
    ('config.data.external = ("mnist",)', "source 1 is 'mnist', expected a mapping with a 'name'"),
    ('config.data.external = ({"path": "x"},)', "expected a mapping with a 'name'"),
    ('config.data.external = ({"name": "mnist", "licens": "MIT"},)', "has the key 'licens'. Did you mean 'licence'?"),
    ('config.data.external = ({"name": "mnist", "price": "9"},)', "source 1: 'price' is '9', expected a number"),
    ('config.data.external = ({"name": "mnist", "price": -1},)', "'price' is -1, expected a price of one example, at least 0"),
    ('config.data.external = ({"name": "mnist", "count": 0},)', "'count' is 0, expected at least 1"),
    ('config.data.external = ({"name": "mnist", "count": 5, "weight": 0.5},)', 'expected one of them'),
    (
        'config.data.external = ({"name": "mnist", "weight": 0.0},)',
        'has the weights 0: expected shares of an epoch, each above 0',
    ),
    ('config.data.external = ({"name": "mnist", "weight": 0.6}, {"name": "mnist", "weight": 0.5})', 'that sum to at most 1'),
    (
        'config.data.external = ({"name": "mnist", "weight": 0.5},); config.data.sampling.name = "class_balanced"',
        "set data.sampling.name to 'shuffled'",
    ),
    ('config.data.filters = ("duplicate",)', "Did you mean 'duplicates'?"),
    ('config.data.clean = ("label_suspects",)', "has 'label_suspects', which is no rule"),
    ('config.data.clean = ("marcup",)', "Did you mean 'markup'?"),
    ('config.data.clean = config.data.filters = ("ratio",)', "has 'ratio', which data.clean applies to every split"),
    ('config.data.target_length = 2', "'data.target_length' is 2, expected 0, or at least 3 tokens"),
    ('config.data.target_tokenizer.name = "bp"', "Did you mean 'bpe'?"),
    ('config.data.filters = (3,)', "'data.filters' has 3 in it, expected names"),
    # Durations
    ('config.study.budget = "0ep"', 'trains nothing'),
    ('config.study.budget = "0s"', 'trains nothing'),
    ('config.study.budget = "0flops"', 'trains nothing'),
    ('config.study.budget = "-1st"', "'-1st' is no duration"),
    ('config.study.budget = "5 bananas"', "'60s' (seconds) or '1e12flops' (training FLOPs)"),
    ('config.study.budget = "20 epochs"', "Did you mean '20ep'?"),
    ('config.study.budget = "1e300ep"', 'longer than any run'),
    ('config.study.budget = "0.5run"', 'a fraction of itself'),
    ('config.study.budget = ""', "'study.budget': '' is no duration"),
    ('config.study.budget = 20', 'is 20 (int), expected str'),
    ('config.train.eval_every = "10s"', "'train.eval_every': '10s' is no duration"),
    ('config.train.checkpoint_every = "1h"', "'train.checkpoint_every': '1h' is no duration"),
    ('config.train.memory_budget = "lots"', "expected a size such as '6GiB'"),
    ('config.schedule.warmup = "5"', "'5' is no duration"),
    ('config.schedule.warmup = "1e9st"', 'is longer than the run'),
    ('config.schedule.name = "step"; config.schedule.milestones = ("x",)', "'schedule.milestones': 'x' is no duration"),
    ('config.schedule.name = "step"; config.schedule.milestones = ("0.7run", "0.5run")', 'expected durations that rise'),
    ('config.schedule.name = "cosine_restarts"; config.schedule.cycle = "0run"', 'lasts nothing'),
    ('config.optimizer.average = {"name": "swa", "start": "late"}', "'late' is no duration"),
    ('config.gradient.freeze = {"name": "progressive", "start": "1run", "until": "0.5run"}', 'expected start before until'),
    # Names in each catalogue
    ('config.task.name = "regressions"', "Unknown task 'regressions'. Did you mean 'regression'?"),
    ('config.task.name = "regression"', "Unknown loss 'softmax'. Valid: squared."),
    ('config.task.name = "multilabel"', "Unknown loss 'softmax'. Valid: sigmoid."),
    ('config.data.features = 3', "'data.features' is 3 (int), expected tuple"),
    ('config.task.name = "text_regression"', "Unknown loss 'softmax'. Valid: squared."),
    (
        'config.task.name = "question_answering"; config.task.label_smoothing = 0.1',
        "'question_answering' has no classes to spread a target over",
    ),
    ('config.task.name = "question_answering"; config.task.max_answer = 0', 'expected at least 1'),
    ('config.data.imbalance = {"name": "longtail"}', "Did you mean 'long_tail'?"),
    ('config.task.loss = "cross-entropy"', "Unknown loss 'cross-entropy'. Did you mean 'softmax'?"),
    ('config.model.name = "ResNet-18"', "Did you mean 'resnet18'?"),
    ('config.model.name = ""', "Unknown model ''"),
    ('config.model.name = "mine.nets.Net"', "An import path has a colon: did you mean 'mine.nets:Net'?"),
    ('config.model.name = "no_such_module:Net"', "No module named 'no_such_module'"),
    ('config.model.name = "json:Net"', "module 'json' has no attribute 'Net'"),
    ('config.model.name = "math:pi"', 'is a float, expected something that can be called'),
    ('config.model.activation = "swish"', "Did you mean 'silu'?"),
    ('config.model.padding = "valid"', "'model.padding' is 'valid'. Valid: half, same."),
    ('config.model.norm = "bach"', "Did you mean 'batch'?"),
    ('config.model.conv = "conv"', "Unknown convolution 'conv'"),
    ('config.optimizer.name = "ADAM"', "Did you mean 'adam'?"),
    ('config.optimizer.name = "math:sin"', 'takes no learning_rate'),
    ('config.optimizer.name = "lookahead"', 'wraps another optimizer'),
    ('config.schedule.name = "cosin"', "Did you mean 'cosine'?"),
    ('config.augment.names = ("mix",)', "Unknown augmentation 'mix'"),
    ('config.augment.name = "cutout"', "Did you mean 'augment.names'"),
    ('config.augment.cutout = {"size": 4}', "'augment.names' does not name 'cutout'. Add it to 'augment.names'"),
    ('config.augment.names = ("token_mask",) * 2', "has 'token_mask' twice"),
    ('config.augment.names = ("cutout",); config.augment.cutout = 4', "'augment.cutout' is 4, expected arguments of it"),
    ('config.augment.names = ("cutout",); config.augment.cutout = {"name": "mixup"}', 'expected arguments of it'),
    (
        'config.augment.names = ("random_resized_crop",); config.augment.random_resized_crop = {"area": 0.5}',
        "'augment.random_resized_crop.area' is 0.5 (float), expected",
    ),
    ('config.augment.names = (3,)', "'augment.names' has 3 in it"),
    ('config.compress.name = "prune"', "Unknown compression 'prune'"),
    ('config.compress.name = "lora"; config.compress.rank = 0', "'compress.rank' is 0, expected at least 1"),
    ('config.train.engine = "ddp"', "Unknown engine 'ddp'. Valid: jit, pmap."),
    ('config.train.precision = "bf16"', "Did you mean 'bfloat16'?"),
    ('config.study.platform = "cuda"', "Did you mean 'gpu'?"),
    ('config.study.platform = "tpu"', "declares the platform 'tpu', but jax runs on 'cpu'"),
    ('config.train.devices = 64', "'train.devices' is 64, but jax sees"),
    ('config.data.name = ""', "expected a name such as 'digits'"),
    ('config.data.name = "../x"', "expected a name such as 'digits'"),
    ('config.data.name = "mine.data.load"', "did you mean 'mine.data:load'?"),
    ('config.data.name = "no_such_module:load"', "No module named 'no_such_module'"),
    ('config.data.name = "os:getcwd"', 'Expected a function load(path)'),
    # The study
    ('config.study.metric = "test/acc"', "Did you mean 'test/accuracy'?"),
    ('config.study.metric = "test/f1"', "is 'test/f1'. Valid: test/accuracy, test/balanced_accuracy, "),
    ('config.study.metric = "accuracy"', "expected 'test/NAME'"),
    ('config.study.metric = "test/loss"', "'study.higher_is_better' is True"),
    ('config.study.alpha = 5', 'expected above 0 and below 1'),
    ('config.study.margin = float("inf")', 'expected a finite number'),
    ('config.study.seeds = (1, 1)', 'distinct whole numbers'),
    ('config.study.seeds = (0, -1)', 'distinct whole numbers'),
    ('config.study.seeds = 1.5', 'expected int or tuple'),
    ('config.study.seeds = 10**12', 'expected at most 100,000 runs'),
    ('config.study.latency = (0,)', 'expected batch sizes from 1'),
    ('config.study.name = " "', 'without blanks around it'),
    ('config.study.tune.points = 1', 'at least 2'),
    ('config.study.tune.points = 4', "has nothing for 'baseline'"),
    (f'config.study.tune.points = 10**9; config.study.tune.space = {{{LOG}}}', 'at most 10000'),
    (
        f'config.study.tune.points = 4; config.study.tune.seeds = (0,); config.study.tune.space = {{{LOG}}}',
        'Choose other seeds',
    ),
    (f'config.study.tune.points = 4; config.study.tune.budget = "x"; config.study.tune.space = {{{LOG}}}', 'no duration'),
    ('config.study.variants = ("a",)', 'expected dict'),
    ('config.study.variants = {"a": {}}', "Variant 'a' is the same as 'baseline'"),
    ('config.study.variants = {"a": {"data.batch_size": 8}, "b": {"data.batch_size": 8}}', "'b' is the same as 'a'"),
    ('config.study.variants = {"a": {"data.redraw": 1}}', "'a' is the same as 'null'"),
    ('config.study.variants = {"baseline": {"data.batch_size": 8}}', 'this name is taken'),
    ('config.study.variants = {"null": {"data.batch_size": 8}}', 'this name is taken'),
    ('config.study.variants = {" ../x": {"data.batch_size": 8}}', 'without blanks around it'),
    ('config.study.variants = {"x" * 3000: {"data.batch_size": 8}}', '1 to 100 printable characters'),
    ('config.study.variants = {"\\ud800": {"data.batch_size": 8}}', 'printable characters'),
    ('config.study.variants = {1: {"data.batch_size": 8}}', 'expected texts as keys'),
    ('config.study.variants = {"a": "adam"}', 'expected a dict of dotted overrides'),
    ('config.study.variants = {"a": {"lr": 0.1}}', "Variant 'a': Unknown key 'lr'. Did you mean 'optimizer.learning_rate'?"),
    ('config.study.variants = {"a": {"optimizer": "adam"}}', "such as 'optimizer.name'"),
    ('config.study.variants = {"a": {"study.budget": "5ep"}}', 'belongs to the whole study'),
    ('config.study.variants = {"a": {"optimizer.momentum": 1.5}}', "Variant 'a': 'optimizer.momentum' is 1.5"),
    ('config.study.contrasts = {"c": {"x": 1, "baseline": -1}}', "names no variant of this study: 'x'"),
    ('config.study.contrasts = {"c": {"baseline": 0}}', 'expected a number other than 0'),
    ('config.study.contrasts = {"c": {"baseline": 1}}', 'its weights sum to 1, expected 0'),
    ('config.study.contrasts = {"c": {}}', 'expected a dict of weights'),
]
# Whole files -> a part of the sentence.
FILES = [
    ('def get_config(:\n', 'SyntaxError'),
    ('x = 1\n', 'it has no function get_config'),
    ('def get_config():\n    return 1 / 0\n', 'ZeroDivisionError'),
    ('def get_config():\n    pass\n', 'get_config returned None'),
    ('def get_config():\n    return {"model": {"nme": "cnn"}}\n', "Unknown key 'model.nme'"),
    ('import no_such_module_at_all\n', 'No module named'),
    ('from configs import base\ndef get_config():\n    return base.get_config().optimiser\n', 'optimiser'),
]


def refused(spec, workdir, capsys, monkeypatch, changes=None, mode='run'):
    """What is said on the way to status 2; no data are read on it, and nothing is trained."""

    def read(*arguments, **keywords):
        raise AssertionError('data were read before the config was refused')

    monkeypatch.setattr(sources, 'read', read)
    monkeypatch.setattr('research.data.read', read)
    assert launch(str(spec), str(workdir), changes or {}, mode) == REFUSED
    said = capsys.readouterr()
    assert said.err.startswith('error: ') and said.err.count('\n') == 1 and 'Traceback' not in said.err, said.err
    return said.err


@pytest.mark.parametrize(('lines', 'message'), LINES)
def test_a_bad_config_is_refused_before_data_are_read(tmp_path, capsys, monkeypatch, lines, message):
    path = written(tmp_path, TINY + lines.replace('; ', '\n'))
    said = refused(path, tmp_path / 'run', capsys, monkeypatch)
    assert message in said
    assert 'building it failed' not in said


@pytest.mark.parametrize(('content', 'message'), FILES)
def test_a_bad_config_file_is_refused_by_name(tmp_path, capsys, monkeypatch, content, message):
    path = tmp_path / 'broken.py'
    path.write_text(content)
    said = refused(path, tmp_path / 'run', capsys, monkeypatch)
    assert message in said and str(path) in said


def test_a_bad_flag_of_a_field_is_named_as_a_flag(tmp_path, capsys, monkeypatch):
    path = written(tmp_path, TINY)
    for key, text, message in [
        ('model.nam', 'x', "Did you mean 'model.name'?"),
        ('epochs', '5', "Did you mean 'study.budget'?"),
        ('study.seeds', '1000000', 'which makes 2,000,000 runs'),
        ('optimizer.momentum', '1', 'below 1'),
        ('имя', '1', 'No field has a near name'),
    ]:
        said = refused(path, tmp_path / 'run', capsys, monkeypatch, {key: text}, 'plan')
        assert said.startswith(f'error: --config.{key}: ') and message in said


def test_as_many_runs_as_may_be_are_planned_by_id(tmp_path):
    """A million were listed one by one, with the defaults copied for each."""
    planned = plan.make(str(written(tmp_path, TINY)), {'study.seeds': 5000})
    assert len({run.id for run in planned.runs}) == 10_000
    assert planned.runs[-1].seed == 4999


COMMANDS = [
    (['--config=nowhere.py'], "No config file 'nowhere.py'"),
    (['--config=FILE', '--config.study.budget=5 bananas'], 'is no duration'),
    (['--config=FILE', '--config.train.epochs=5'], "Did you mean 'study.budget'?"),
    (['--config=FILE', '--config.optimizer.momentum=1.5'], 'below 1'),
    (['--config=FILE', '--config.study.metric=test/acc'], "Did you mean 'test/accuracy'?"),
    (['--config=FILE', '--config.model.name=ResNet-18'], "Did you mean 'resnet18'?"),
    (['--config=FILE', '--config.study.seeds=1000000', '--plan'], 'expected at most 100,000 runs'),
    (['--config=FILE', '--config.study.platform=cuda'], "Did you mean 'gpu'?"),
    (['--config=FILE', "--config.study.variants={'a': {'lr': 1}}"], "Did you mean 'optimizer.learning_rate'?"),
    (['--config=FILE', '--config.data.name=mine.data.load', '--prepare'], "'mine.data:load'"),
]


@pytest.mark.long
def test_ten_commands_end_with_status_2_and_one_sentence(tmp_path):
    path = written(tmp_path, TINY)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}

    def run(flags):
        flags = [flag.replace('FILE', str(path)) for flag in flags]
        command = [sys.executable, str(ROOT / 'launch.py'), f'--workdir={tmp_path / "run"}', *flags]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(run, (flags for flags, _ in COMMANDS)))
    for (flags, message), done in zip(COMMANDS, ended, strict=True):
        assert done.returncode == 2, (flags, done)
        assert message in done.stderr and 'Traceback' not in done.stderr and not done.stdout, (flags, done)
        assert done.stderr.count('\n') == 1, (flags, done)
