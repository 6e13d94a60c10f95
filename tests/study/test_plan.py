"""A plan refuses, before data and programs, whatever a name or a signature shows; and compiles nothing twice."""

import io
import json
import re

import pytest
import rich.console
from config_file import written

from research.catalogue import ConfigError
from research.config import overrides, signatures
from research.study import measure, plan, preview, verify
from research.train.program import Session

TINY = 'config.model.widths = (2,)\nconfig.model.hidden = ()\nconfig.train.devices = 1\nconfig.study.budget = "2st"\n'


def make(folder, body='', changes=None):
    return plan.make(str(written(folder, TINY + body)), changes or {})


def refused(folder, body, message, changes=None, build=False):
    with pytest.raises(ConfigError) as caught:
        planned = make(folder, body, changes)
        assert build
        verify.verify(planned, Session())
    text = str(caught.value)
    assert message in text and '\n' not in text, text
    return text


BAD = [
    ({'data.batchsize': 8}, "Did you mean 'data.batch_size'?"),
    ({'task.lss': 'softmax'}, "task 'classification' takes no such argument. Did you mean 'task.loss'?"),
    ({'task.name': 'clasification'}, "Unknown task 'clasification'. Did you mean 'classification'?"),
    ({'task.loss': 'softmx'}, "Unknown loss 'softmx'. Did you mean 'softmax'?"),
    ({'compress.size': 3}, "compression 'none' takes no such argument. It takes none; is 'compress.name' as you want it?"),
    ({'augment.keys': 3}, "'augment.names' does not name 'keys'"),
    ({'compress.sparsity': 3}, "compression 'none' takes no such argument"),
    ({'gradient.rho': 3}, "gradient 'plain' takes no such argument"),
    ({'model.width': 3}, "model 'cnn' takes no such argument. Did you mean 'model.widths'?"),
    ({'model.num_clases': 3}, "Did you mean 'model.num_classes'?"),
    ({'model.axis_name': 'data'}, "model 'cnn' takes no such argument"),
    ({'model.parent': 3}, "model 'cnn' takes no such argument"),
    ({'model.name': 'resnet_20'}, "Unknown model 'resnet_20'. Did you mean 'resnet20'?"),
    ({'model.norm': 'virtual_bach'}, "Unknown norm layer 'virtual_bach'. Did you mean 'virtual_batch'?"),
    ({'model.norm.name': 'bach'}, "Unknown norm layer 'bach'. Did you mean 'batch'?"),
    (
        {'model.norm': {'name': 'batch', 'momentm': 0.5}},
        "norm layer 'batch' takes no such argument. Did you mean 'model.norm.momentum'?",
    ),
    ({'model.norm.name': 'ghost_batch'}, "norm layer 'ghost_batch' needs 'model.norm.virtual_batch_size'"),
    ({'model.norm.momentum': 0.5}, "expected a 'name' in it. Valid: batch, ghost_batch, group, layer, none, virtual_batch."),
    ({'model.norm': None}, "'model.norm' is None (NoneType), expected str or Mapping[str, Any], such as 'batch'."),
    ({'model.widths': 'abc'}, "'model.widths' is 'abc' (str), expected Sequence[int], such as (32, 64)."),
    ({'model.widths': 8}, "'model.widths' is 8 (int), expected Sequence[int]"),
    ({'model.widths': (8, 'x')}, 'expected Sequence[int]'),
    ({'model.widths': (8, 2.5)}, 'expected Sequence[int]'),
    ({'model.depth': '5ep'}, "'model.depth' is '5ep' (str), expected int, such as 1."),
    ({'model.depth': True}, "'model.depth' is True (bool), expected int"),
    ({'optimizer.lerning_rate': 3}, "optimizer 'momentum' takes no such argument. Did you mean 'optimizer.learning_rate'?"),
    ({'optimizer.name': 'admm'}, "Unknown optimizer 'admm'. Did you mean 'adam'?"),
    ({'optimizer.momentum': 'high'}, "'optimizer.momentum' is 'high' (str), expected float"),
    ({'optimizer.nesterov': 1}, "'optimizer.nesterov' is 1 (int), expected bool"),
    ({'optimizer.name': 'adam', 'optimizer.momentum': 0.9}, "optimizer 'adam' takes no such argument"),
    ({'optimizer.name': 'adam', 'optimizer.b1': 'x'}, "'optimizer.b1' is 'x' (str), expected"),
    ({'optimizer.clip.name': 'globl_norm'}, "Unknown clip 'globl_norm'. Did you mean 'global_norm'?"),
    ({'optimizer.clip.max_norm': 1.0}, "clip 'none' takes no such argument"),
    ({'optimizer.clip.name': 'global_norm'}, "clip 'global_norm' needs 'optimizer.clip.max_norm'"),
    ({'optimizer.clip': {'name': 'global_norm', 'max_norm': 'x'}}, "'optimizer.clip.max_norm' is 'x' (str), expected"),
    ({'schedule.name': 'cosin'}, "Unknown schedule 'cosin'. Did you mean 'cosine'?"),
    ({'schedule.warmp': '1ep'}, "schedule 'constant' takes no such argument. Did you mean 'schedule.warmup'?"),
    ({'schedule.name': 'cosine', 'schedule.alpha': '5ep'}, "'schedule.alpha' is '5ep' (str), expected float"),
    ({'schedule.name': 'exponential', 'schedule.transition': 3}, "'schedule.transition' is 3 (int), expected str"),
    ({'train.engine': 'pmp'}, "Unknown engine 'pmp'. Did you mean 'pmap'?"),
    ({'model.name': 'no_such_module_here:Net'}, "Cannot import model 'no_such_module_here:Net'"),
    ({'data.name': 'no_such_module_here:load'}, "Cannot import data 'no_such_module_here:load'"),
]


@pytest.mark.parametrize(('wrong', 'message'), BAD)
def test_named_groups_are_held_against_signatures(tmp_path, wrong, message):
    """As a variant, with file and line and the variant's name; as flags, with the flag's."""
    text = refused(
        tmp_path, f'config.study.variants = {{\n    "fine": {{"data.batch_size": 8}},\n    "bad": {wrong!r}}}', message
    )
    assert re.match(rf"{tmp_path}/paper.py:15: Variant 'bad': ", text), text
    flagged = refused(tmp_path, '', message, wrong)
    assert flagged.startswith('--config.'), flagged


def test_a_fields_line_in_the_file(tmp_path):
    text = refused(tmp_path, 'config.optimizer.lerning_rate = 3', "Did you mean 'optimizer.learning_rate'?")
    assert text.startswith(f'{tmp_path}/paper.py:13: Unknown key'), text
    text = refused(tmp_path, 'config.model.norm = {"name": "bach"}', "Did you mean 'batch'?")
    assert text.startswith(f'{tmp_path}/paper.py:13: '), text


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'study.metric': 'test/acuracy'}, "'study.metric' is 'test/acuracy'. Did you mean 'test/accuracy'?"),
        ({'study.metric': 'validation/accuracy', 'data.validation': 0}, 'reads the validation split'),
        ({'study.score': 'best', 'data.validation': 0}, 'reads the validation split'),
        ({'schedule.name': 'plateau', 'data.validation': 0}, 'reads the validation split'),
        ({'data.batch.name': 'shrink', 'data.validation': 0}, 'reads the validation split'),
        ({'study.budget': '20'}, "'20' is no duration"),
        ({'study.budget': '0ep'}, 'trains nothing'),
        ({'study.budget': '1ex'}, "A step takes 64 examples, more than the 1 of study.budget '1ex'"),
        ({'data.batch_size': 2000}, 'A step takes 2000 examples, more than the 1293 of an epoch'),
        ({'train.eval_every': '5'}, "'5' is no duration"),
        ({'train.checkpoint_every': 'often'}, "'often' is no duration"),
        ({'train.checkpoint_every': '1.2.3s'}, "'1.2.3"),
        ({'schedule.warmup': '3st'}, "schedule.warmup '3st' is longer than the run"),
        ({'data.name': 'digitz'}, "Did you mean 'digits'?"),
        ({'data.path': '/nowhere'}, "data.path='/nowhere'"),
        ({'data.name': 'mnist', 'data.path': '/nowhere'}, "data.path='/nowhere' is not a folder"),
        ({'data.validation': 5000}, 'leaves none of'),
        ({'data.examples': 5000}, 'data.examples=5000'),
        ({'model.num_classes': 3}, "'model.num_classes' is 3, but the data has 10"),
        ({'model.widths': (2, 2, 2, 2)}, 'Images of 8x8 are too small'),
        ({'train.devices': 64}, "'train.devices' is 64"),
        ({'model.name': 'builtins:dict'}, "'builtins:dict' is a dict, expected a linen module"),
        (
            {'model.name': 'techniques:Pooled', 'augment.resize': {'name': 'progressive', 'until': '9st'}},
            "'augment.resize.until' is '9st', 576 examples, and the run ends after 128",
        ),
        ({'data.name': 'builtins:dict'}, 'Data'),
    ],
)
def test_what_only_data_tells_is_refused_before_a_program_is_compiled(tmp_path, wrong, message):
    refused(tmp_path, '', message, wrong, build=True)


def test_weight_decay_on_everything_is_refused_though_the_program_is_shared(tmp_path):
    body = 'config.optimizer.name = "schedule_free_adamw"\nconfig.study.variants = {"d": {"optimizer.weight_decay": 0.1}}'
    text = refused(tmp_path, body, 'decays every parameter')
    assert "Variant 'd'" in text


def test_a_forks_model_may_call_norm_what_it_likes(tmp_path, monkeypatch):
    (tmp_path / 'own_norm.py').write_text(
        'import flax.linen as nn\n'
        'class Net(nn.Module):\n'
        '    num_classes: int\n'
        '    norm: str = "mine"\n'
        '    gain: float = 1\n'
        '    @nn.compact\n'
        '    def __call__(self, x, train=False):\n'
        '        assert self.norm in ("mine", "yours")\n'
        '        return nn.Dense(self.num_classes, name="head")(x.reshape(len(x), -1)) * self.gain\n'
    )
    body = 'del config.model.widths, config.model.hidden\nconfig.model.name = "own_norm:Net"\nconfig.model.norm = "yours"\n'
    built = verify.verify(make(tmp_path, body + 'config.model.gain = 0.5'), Session())
    assert built['baseline'].program.step.module.norm == 'yours'
    text = refused(tmp_path, body + 'config.model.norm = "theirs"', 'building it failed with AssertionError', build=True)
    assert 'own_norm.py:8' in text


@pytest.mark.parametrize(
    ('variants', 'pair'),
    [
        ({'a': {}}, ('a', 'baseline')),
        ({'a': {'data.batch_size': 64}}, ('a', 'baseline')),
        ({'a': {'data.redraw': 1}}, ('a', 'null')),
        ({'a': {'train.checkpoint_every': '5st'}}, ('a', 'baseline')),
        ({'a': {'model.widths': (4,)}, 'b': {'model.widths': [4]}}, ('b', 'a')),
        # The same constructor calls, spelled otherwise.
        ({'a': {'optimizer.momentum': 0.9}}, ('a', 'baseline')),
        ({'a': {'optimizer.name': 'research.optim.optimizers:momentum'}}, ('a', 'baseline')),
        ({'a': {'model.norm': {'name': 'batch', 'momentum': 0.9}}}, ('a', 'baseline')),
        ({'a': {'schedule.warmup': '0.0ep'}}, ('a', 'baseline')),
        ({'a': {'schedule.name': 'cosine'}, 'b': {'schedule.name': 'cosine', 'schedule.alpha': 0}}, ('b', 'a')),
    ],
)
def test_two_names_for_one_run_are_refused(tmp_path, variants, pair):
    text = refused(tmp_path, f'config.study.variants = {variants!r}', "Variant '{}' is the same as '{}'".format(*pair))
    assert text.startswith(f'{tmp_path}/paper.py:13: ')


def test_runs_go_seed_by_seed_the_null_behind_the_baseline(tmp_path):
    body = 'config.study.seeds = (5, 3)\nconfig.study.variants = {"wide": {"model.widths": (4,)}}'
    planned = make(tmp_path, body)
    order = [(run.seed, run.variant) for run in planned.runs]
    assert order == [(s, v) for s in (5, 3) for v in ('baseline', 'null', 'wide')]
    assert [run.config['train']['seed'] for run in planned.runs[::3]] == [5, 3]
    assert len({run.id for run in planned.runs}) == 6
    assert planned.contrasts == {'wide': {'wide': 1, 'baseline': -1}}
    null = planned.runs[1].config
    assert overrides.apply(null, {'data.redraw': 0}) == planned.runs[0].config


def test_the_order_of_training_is_drawn_anew_each_seed_whatever_variants_are_called_or_added(tmp_path):
    """Trained in the table's order, the baseline is always first, and pays for what each seed's first run pays."""

    def trained(variants, count=40):
        planned = make(tmp_path, f'config.study.seeds = {count}\nconfig.study.variants = {variants!r}')
        assert sorted(run.id for run in planned.drawn) == sorted(run.id for run in planned.runs)
        assert [run.seed for run in planned.drawn] == [run.seed for run in planned.runs]
        return [run.variant for run in planned.drawn]

    wide, slow = {'model.widths': (4,)}, {'optimizer.learning_rate': 0.01}
    order = trained({'wide': wide})
    first = [order[::3].count(name) for name in ('baseline', 'null', 'wide')]
    assert min(first) >= 6, first
    assert trained({'w': wide}) == [{'wide': 'w'}.get(name, name) for name in order]
    assert [name for name in trained({'slow': slow, 'wide': wide}) if name != 'slow'] == order
    assert trained({'wide': wide}, 20) == order[:60]


def test_a_study_may_have_neither_variants_nor_null(tmp_path):
    planned = make(tmp_path, 'config.study.null = False\nconfig.study.seeds = 2')
    assert [run.variant for run in planned.runs] == ['baseline', 'baseline'] and planned.contrasts == {}


_TWO = 'config.study.variants = {"a": {"model.widths": (4,)}, "b": {"model.widths": (8,)}}\n'


def test_named_contrasts_stand_beside_the_variants_own(tmp_path):
    named = {'a over b': {'a': 1, 'b': -1}, 'b': {'b': 1, 'baseline': -1}}
    planned = make(tmp_path, f'{_TWO}config.study.contrasts = {named!r}')
    own = {'a': {'a': 1, 'baseline': -1}, 'b': {'b': 1, 'baseline': -1}}
    assert planned.contrasts == {**own, 'a over b': {'a': 1, 'b': -1}}


@pytest.mark.parametrize(
    ('named', 'message'),
    [
        ({'mine': {'a': 1, 'baseline': -1}}, "Contrast 'mine' asks the same as 'a'"),
        ({'turned': {'baseline': 2, 'a': -2}}, "Contrast 'turned' asks the same as 'a'"),
        ({'one': {'a': 1, 'b': -1}, 'two': {'b': 1, 'a': -1}}, "Contrast 'two' asks the same as 'one'"),
        ({'a': {'a': 1, 'b': -1}}, "Contrast 'a': this name is taken"),
    ],
)
def test_a_contrast_counts_once_in_the_correction(tmp_path, named, message):
    text = refused(tmp_path, f'{_TWO}config.study.contrasts = {named!r}', message)
    assert text.startswith(f'{tmp_path}/paper.py:'), text


def test_every_default_passes():
    signatures.check(overrides.defaults())


@pytest.mark.long
def test_variants_of_traced_numbers_trace_one_program(tmp_path, monkeypatch):
    """However many runs: the model is traced as often for 30 variants over 10 seeds as for one."""
    from research.models.cnn import CNN

    body = (
        'config.study.seeds = 10\nconfig.study.null = False\n'
        'config.study.variants = {f"rate{i}": {"optimizer.learning_rate": 0.1 + i, "optimizer.weight_decay": i / 100,\n'
        '    "schedule.name": ("constant", "cosine", "exponential")[i % 3]} for i in range(int(arg or 1))}'
    )
    counts = []
    forward = CNN.__call__
    for count in (1, 1, 30):  # the first plan of a process also asks the network which random streams it draws from
        calls = []
        monkeypatch.setattr(CNN, '__call__', lambda *a, calls=calls, **k: (calls.append(1), forward(*a, **k))[1])
        planned = plan.make(f'{written(tmp_path, TINY + body)}:{count}', {})
        console = rich.console.Console(file=io.StringIO(), width=160)
        session = Session()
        preview.show(planned, None, tmp_path / 'study', session, console)
        assert len(planned.runs) == (count + 1) * 10 and len(session.programs) == 1
        printed = console.file.getvalue()
        assert printed.count(' timed steps') == len(planned.variants) and '1 training programs to compile' in printed
        counts.append(len(calls))
    assert counts[1] == counts[2]
    assert not (tmp_path / 'study').exists()


def test_a_plan_is_its_totals_then_a_line_a_variant_and_a_line_a_run_where_asked(tmp_path):
    planned = make(tmp_path, 'config.study.seeds = 3\nconfig.study.variants = {"slow": {"optimizer.learning_rate": 0.01}}')
    session = Session()
    seconds = {run.id: {'cost': {'seconds_per_step': 2.0}, 'key': run.key, 'status': 'finished'} for run in planned.runs}
    for run in planned.runs[:2]:  # baseline and null of the first seed
        folder = tmp_path / 'study' / 'runs' / run.id
        folder.mkdir(parents=True)
        record = {'id': run.id, 'variant': run.variant, 'seed': run.seed, 'study': 'paper', 'fingerprint': {}}
        (folder / 'result.json').write_text(json.dumps(record | seconds[run.id] | {'metrics': {'test/accuracy': 0.5}}))

    def lines(by_run):
        console = rich.console.Console(file=io.StringIO(), width=80)
        preview.show(planned, None, tmp_path / 'study', session, console, by_run)
        text = console.file.getvalue()
        assert max(map(len, text.partition('\nbaseline: ')[0].splitlines())) <= 80
        return text.splitlines()

    shown = lines(False)
    assert shown[0] == 'paper: 3 variants x 3 seeds = 9 runs, 2 finished'
    assert shown[1].startswith('1 training programs to compile') and shown[2] == 'Training: about 28 s'  # 7 runs of 2 steps
    assert shown[3].startswith('Wall time: about ')
    table = shown[next(i for i, line in enumerate(shown) if line.startswith('variant ')) :]
    assert [line.split()[:6] for line in table[1:4]] == [
        [name, '3', '4', 's', *left] for name, left in (('baseline', ['8', 's']), ('null', ['8', 's']), ('slow', ['12', 's']))
    ]
    assert all(line.endswith('2 finished runs') for line in table[1:4]) and not table[4]
    shown = lines(True)
    assert [sum(run.id in line for line in shown) for run in planned.runs] == [1] * 9
    assert [line.split()[0] for line in shown if '  finished  ' in line] == ['baseline', 'null']


def test_steps_are_timed_after_the_first_and_by_the_median():
    """The first call pays for what later ones do not; one slow timing, of another program at work, does not count."""
    calls = []

    def took(steps):
        calls.append(steps)
        return {1: 30.0, 9: 5.0}.get(len(calls), 0.01 * steps)

    seconds, steps = measure.step_seconds(took, 1024)
    assert seconds == pytest.approx(0.01) and calls[0] == 1 and steps >= 5
    assert measure.step_seconds(lambda steps: 3.0 * steps, 1024) == (3.0, 1)
    assert measure.step_seconds(lambda steps: 1e-6 * steps, 7)[1] % 7 == 0


def test_each_learning_rate_and_each_cut_of_the_data_that_differs_is_told_once(tmp_path):
    variants = {'a': {'schedule.name': 'linear'}, 'b': {'schedule.name': 'linear', 'optimizer.weight_decay': 0.1}}
    variants['a'] |= {'data.imbalance.name': 'step', 'data.imbalance.ratio': 10.0}
    planned = make(tmp_path, f'config.study.budget = "80st"\nconfig.study.variants = {variants!r}')
    console = rich.console.Console(file=io.StringIO(), width=160)
    preview.show(planned, None, tmp_path / 'study', Session(), console)
    drawn = [line.strip() for line in console.file.getvalue().splitlines() if set(line) & set('▁▂▃▅▆▇')]
    assert len(drawn) == 2 and drawn[0].endswith(' 0.05: baseline, null') and drawn[1].endswith(' to 0.05: a, b')
    counts = [line for line in console.file.getvalue().splitlines() if 'training examples: ' in line]
    assert len(counts) == 2 and counts[0].endswith('; baseline, null, b') and counts[1].endswith('; a')
    numbers = [int(pair.split()[1]) for pair in counts[1].partition(': ')[2].partition(';')[0].split(', ')]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 10 and numbers[-1] < 16 and sum(numbers) < 800
    falling = drawn[1].split()[0]
    assert falling == ''.join(sorted(falling, reverse=True)) and set(falling) == set('▁▂▃▄▅▆▇█')


def test_a_watcher_with_nothing_to_read_is_refused_though_the_program_is_shared(tmp_path):
    body = 'config.data.validation = 0\nconfig.study.variants = {"p": {"schedule.name": "plateau"}}'
    assert "Variant 'p'" in refused(tmp_path, body, 'reads the validation split', build=True)


def test_variants_with_other_test_examples_are_told(tmp_path):
    body = "config.study.variants = {'other': {'data.test': 0.3}, 'fewer': {'data.examples': 100}}"
    (told,) = verify.other_tests(verify.verify(make(tmp_path, body), Session()))
    assert told == 'other is scored on other test examples than the baseline: its scores cannot be compared with it.'
