"""The step of one network, `augment -> weights -> apply -> loss -> gradient -> update`, and its evaluation.

Pure functions of what is passed in, written for the whole batch. Letters: B examples a batch, R examples of the reference
batch, E batches of an evaluation, K blocks of the examples that statistics are taken from.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from research import augment, catalogue, compress, gradients, models, optim, pretrained
from research.augment import resize
from research.config.files import Misfit
from research.data import Dataset, Field
from research.gradients import freezing
from research.layers.example import StepKeys, batch_key, example_keys, key_of, numbered_keys
from research.tasks import Task
from research.train.batches import gather, length, mean_over, stacked
from research.train.parallel import Jit, Pmap
from research.train.phases import Phase
from research.train.state import Background, Block, Learnt, State, Variables
from research.train.steps.network import Descent, Inputs, Network, bind, descend

# The collection of what a task learns beside the network; no module reads it.
_LEARNT = 'learnt'


@dataclasses.dataclass(frozen=True, eq=False)
class Supervised:
    """One network and one update a step; `research.train.steps.Step` says what the methods take and give.

    Attributes:
      network: the module with its precision.
      augment: (keys [B], batch) -> batch; of training alone.
      compression: stage 2, what is seen of the parameters and what the optimizer updates.
      descent: gradient and update.
      auxiliary_weight: of the loss of each auxiliary head in what is trained on; that of the outputs is 1.
      classes: K, logits that the network was asked for.
    """

    engine: Jit | Pmap
    task: Task
    fields: Mapping[str, Field]
    network: Network
    augment: Callable[..., Any]
    compression: compress.Compression
    descent: Descent
    auxiliary_weight: float
    classes: int
    samples: None = None

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    @property
    def weights(self) -> Callable[[Any, Any], Any]:
        """(params, masks) -> params that are seen."""
        return self.compression.weights

    def inputs(self, count: int) -> Inputs:
        """(args, kwargs) of an inference of `count` examples, zeros."""
        return _zeros(self.task, self.fields, count)

    def init(self, rng: jax.Array, numbers: Mapping[str, Any], weights: Mapping[str, Any]) -> State:
        """The state before the first step."""
        args, kwargs = self.inputs(2)
        drawn = flatten_dict(self.module.init(key_of(rng, 'init'), *args, **kwargs))
        given = flatten_dict(weights)
        for path, leaf in given.items():
            if isinstance(leaf, pretrained.word_vectors.Rows):
                given[path] = jnp.where(leaf.known[:, None], leaf.table, drawn[path])
        variables = unflatten_dict(drawn | given)
        params, split = variables['params'], self.compression.split
        params, masks = split(rng, params) if split else (params, {})
        return State(
            step=jnp.int32(0),
            rng=rng,
            params=params,
            collections={
                **{k: v for k, v in variables.items() if k not in ('params', 'example')},
                **({_LEARNT: jax.tree.map(jnp.asarray, dict(self.task.learnt))} if self.task.learnt else {}),
            },
            opt_state=optim.inject(self.descent.update.init(params), **numbers),
            masks=masks,
        )

    def reference(self, examples: Mapping[str, jax.Array], constants: Mapping[str, Any]) -> Inputs:
        """The reference batch as inputs; drawn as in an evaluation, by place."""
        rows, numbers = jax.tree.map(self.engine.reference_rows, (dict(examples), jnp.arange(length(examples))))
        batch = {**rows, 'valid': jnp.ones(numbers.shape)}
        return self.task.inputs(self.task.prepare(numbered_keys('prepare reference', numbers), batch), constants)

    def predict(self, seen: Any, collections: Any, inputs: Inputs) -> Any:
        """The outputs of an inference."""
        return self.network.predict(seen, collections, inputs)

    def written(self, seen: Any, collections: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The texts that the network writes for a batch {field: [B, ...]}: {name: [B, ...]}."""
        return self.task.writing.write(self.module, {'params': self.network.compute(seen), **collections}, batch)

    def metric_names(self, shapes: State) -> list[str]:
        """What an evaluation comes to."""
        task = self.task

        def sums(params, masks, collections):
            batch = _batch(task, self.fields, 2)
            outputs = self.predict(self.weights(params, masks), collections, task.inputs(batch, task.constants))
            if task.classifies:
                self._check_logits(outputs)
            if task.writing:  # so that what cannot be written is told before training
                self.written(self.weights(params, masks), collections, batch)
            return task.sums(outputs, batch, task.constants)

        names = jax.eval_shape(sums, shapes.params, shapes.masks, shapes.collections)
        if bad := [name for name in names if '/' in name]:
            raise catalogue.ConfigError(f"The task has a sum named '{bad[0]}': a slash is for what steps observe. Rename it.")
        return [*task.metrics(dict.fromkeys(names, 1.0)), *task.judged]

    def _check_logits(self, outputs: Any) -> None:
        """Refuses what are no logits of two examples."""
        if getattr(outputs, 'shape', None) != (2, self.classes):
            found = list(outputs.shape) if hasattr(outputs, 'shape') else f'a {type(outputs).__name__}'
            raise Misfit(
                'model.name',
                f'{type(self.module).__name__} gives {found} for 2 examples, expected logits [2, {self.classes}], one for each '
                f'class: its constructor is called with num_classes={self.classes}. For more classes than the data have, set '
                'model.num_classes.',
            )

    def train(self, phase, state, batch, reference, constants, controls):
        """One update."""
        loss_fn = self._loss_function(phase, state, reference, constants)
        learnt = Learnt(state.params, state.collections, state.opt_state)
        keys = StepKeys(state.rng, state.step)
        learnt, sums, observed = descend(self.descent, phase, loss_fn, learnt, batch, controls, keys)
        if self.task.learn:
            before = learnt.collections[_LEARNT]
            beside = self.task.learn(before, sums, constants)
            if 'scale/skipped' in observed:  # a step that loss scaling skipped moves nothing
                skipped = observed['scale/skipped'] > 0
                beside = jax.tree.map(lambda old, new: jnp.where(skipped, old, new), before, beside)
            learnt = learnt._replace(collections={**learnt.collections, _LEARNT: beside})
            sums = {name: value for name, value in sums.items() if not value.ndim}
        return state.replace(step=state.step + 1, **learnt._asdict()), {**sums, **observed}

    def updates(self, phase, state, batch, reference, constants, controls) -> Iterator[tuple[Any, ...]]:
        """The one update of a step."""
        del batch, controls
        yield self._loss_function(phase, state, reference, constants), state.params, state.collections

    def _loss_function(self, phase: Phase, state: State, reference: Inputs, constants: Mapping[str, Any]):
        """(params, collections, batch) -> (sum of the losses, scaled as the optimizer asks; what a step needs of it)."""
        task, scale = self.task, optim.loss_scale(state.opt_state)
        whole = self.inputs(1) if phase.side else None
        reference = resize.resized(reference, phase.side)  # statistics of other sizes would not be the batch's

        def loss_fn(params, collections, batch):
            batch = self.augment(example_keys(state.rng, 'augment', batch['position']), batch)
            batch = resize.shortened(batch, whole, phase.side)
            batch = task.prepare(example_keys(state.rng, 'prepare', batch['position']), batch)
            inputs = resize.resized(task.inputs(batch, constants), phase.side)
            seen = self.weights(freezing.freeze(params, phase.frozen), state.masks)
            collections = self.network.referenced(seen, collections, reference)
            drawing = self._drawing(batch['position'], state.rng)
            key = functools.partial(batch_key, state.rng, positions=batch['position'])
            outputs, auxiliary, new = self.network.train(seen, {**collections, **drawing}, inputs, key)
            collections = jax.lax.stop_gradient({name: value for name, value in new.items() if name != 'example'})
            told = {**constants, **collections.get(_LEARNT, {})}
            sums = task.train_sums(outputs, batch, told)
            loss = sums['loss']
            for head in auxiliary.values():
                loss += self.auxiliary_weight * task.train_sums(head, batch, told)['loss']
            return loss * scale, {'sums': sums, 'collections': collections, 'losses': task.losses(outputs, batch, told)}

        return loss_fn

    def _drawing(self, positions: jax.Array, rng: jax.Array) -> dict[str, Any]:
        """The collection 'example', which layers that draw read; {} where there is none."""
        example, told = self.network.shapes.get('example', {}), {'position': positions, 'rng': rng}
        drawing = jax.tree_util.tree_map_with_path(lambda path, _: told[path[-1].key], example)
        return {'example': drawing} if example else {}

    def evaluate(self, variables: Variables, data: Mapping[str, Any], block: Block):
        """Sums over each batch, and what the task keeps of each example."""
        seen = self.weights(variables.params, variables.masks)

        def one(i):
            batch = gather(self.engine, self.fields, data['examples'], block.rows[i], block.valid[i])
            numbers = self.engine.rows(block.numbers[i])
            batch = self.task.prepare(numbered_keys('prepare evaluation', numbers), batch)
            outputs = self.predict(seen, variables.collections, self.task.inputs(batch, data['constants']))
            sums = self.engine.total(self.task.sums(outputs, batch, data['constants']))
            return sums, jax.tree.map(self.engine.whole, self.task.rows(outputs, batch))

        return stacked(one, len(block.rows), block.batches)

    @property
    def write(self) -> Callable[..., Any] | None:
        """As of `Step`; None where the task has nothing written."""
        return self._write if self.task.writing else None

    def _write(self, variables: Variables, data: Mapping[str, Any], block: Block):
        params = self.network.compute(self.weights(variables.params, variables.masks))

        def one(i):
            batch = gather(self.engine, self.fields, data['examples'], block.rows[i], block.valid[i])
            rows = self.written(params, variables.collections, batch)
            return jax.tree.map(self.engine.whole, rows)

        return stacked(one, len(block.rows), block.batches)

    def final(self, state: State, constants: Mapping[str, Any], background: Background) -> tuple[Any, Any]:
        """(params, collections) for evaluation.

        Parameters are the averaged ones where the optimizer keeps any. Statistics are made to fit them: those of the reference
        batch, which lag the weights by one update, and of batch normalization, which belong to the weights that were trained.
        """
        params = optim.evaluation_params(state.params, state.opt_state)
        seen, collections = self.weights(params, state.masks), state.collections

        def passed(examples):
            return self.network.statistics(seen, state.collections, self.reference(examples, constants))

        if blocks := length(background.statistics):

            def of_block(k):
                return passed(jax.tree.map(lambda values: values[k], background.statistics))['batch_stats']

            collections = {**collections, 'batch_stats': mean_over(of_block, blocks, collections['batch_stats'])}
        if 'reference' in collections:
            collections = {**collections, 'reference': passed(background.reference)['reference']}
        return params, collections


def create(config: Mapping[str, Any], dataset: Dataset, task: Task, engine: Jit | Pmap) -> Supervised:
    """The step of one network as a config says.

    Raises:
      ConfigError: a name or argument that does not fit.
    """
    classes = config['model']['num_classes'] or task.outputs or dataset.facts.get('classes', 0)
    vocabulary = dataset.facts.get('vocabulary_size', 0)
    target = dataset.facts['target_vocabulary_size'] if dataset.target_tokenizer else 0
    module = network(config['model'], classes, vocabulary, target, axis_name=engine.axis_name, remat=config['train']['remat'])
    args, kwargs = inputs = _zeros(task, dataset.fields, 2)
    _check_call(module, config, task, args, kwargs)
    layers = models.layers(module, *args, **kwargs) if config['optimizer']['layer_decay'] != 1 else ()
    return Supervised(
        engine=engine,
        task=task,
        fields=dataset.fields,
        network=bind(module, inputs, config['train']['precision']),
        augment=augment.create(config['augment'], dataset.facts, task.optional),
        compression=compress.create(config['compress']),
        descent=Descent(engine, functools.partial(gradients.create, config['gradient']), optim.create(config, layers=layers)),
        auxiliary_weight=getattr(module, 'auxiliary_weight', 0.0),
        classes=classes,
    )


def network(group: Mapping[str, Any], classes: int, vocabulary: int = 0, target_vocabulary: int = 0, **given: Any) -> nn.Module:
    """The network of the group `config.model`, for data of so many classes and tokens, and tokens of targets if these have
    a tokenizer of their own.

    Raises:
      ConfigError: as `models.create` does; a vocabulary of another size than the tokenizer's.
    """
    arguments = pretrained.arguments(group)
    has = arguments.get('vocabulary_size', vocabulary)
    if has < vocabulary or group['init_from'] and vocabulary and has != vocabulary:
        raise Misfit(
            'model.vocabulary_size',
            f'The network has a vocabulary of {has} tokens, and data.tokenizer one of {vocabulary}: give the data the '
            "tokenizer of the weights (data.tokenizer.name 'file' and its path), or leave model.vocabulary_size out.",
        )
    wrote = arguments.get('target_vocabulary_size', target_vocabulary) or has
    if wrote < (target_vocabulary or vocabulary):
        raise Misfit(
            'model.target_vocabulary_size',
            f'The network writes {wrote} tokens, and the tokenizer of the targets has {target_vocabulary or vocabulary}: leave '
            'model.target_vocabulary_size out.',
        )
    if vocabulary and models.reads_tokens(group['name']):
        arguments = {'vocabulary_size': vocabulary, **arguments}
        if target_vocabulary:
            arguments = {'target_vocabulary_size': target_vocabulary, **arguments}
    return models.create(group['name'], classes, **given, **arguments)


def _check_call(module: nn.Module, config: Mapping[str, Any], task: Task, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuses a network that cannot be called as the task calls it, or decoded where it must be."""
    name, network = config['task']['name'], config['model']['name']
    try:
        inspect.signature(type(module).__call__).bind(module, *args, **kwargs)
    except TypeError as error:
        wanted = ', '.join([f'{len(args)} arrays' if args[1:] else 'an array', *(f'{argument}=...' for argument in kwargs)])
        raise Misfit(
            'model.name',
            f"task '{name}' calls the network with {wanted}, and '{network}' does not take that: {error}. Choose another one.",
        ) from error
    if task.decodes and not (hasattr(module, 'start') and hasattr(module, 'step')):
        raise Misfit(
            'model.name',
            f"task '{name}' learns each token from those before it, and '{network}' cannot write: it has no `start` and `step` "
            "(research.decoding). Choose 'gpt', or 'transformer' for translations.",
        )


def _batch(task: Task, fields: Mapping[str, Field], count: int) -> dict[str, jax.Array]:
    """`count` examples of zeros, prepared."""
    zeros = {name: jnp.zeros((count, *f.shape), f.dtype) for name, f in fields.items()}
    return task.prepare(numbered_keys('prepare evaluation', jnp.arange(count)), {**zeros, 'valid': jnp.ones(count)})


def _zeros(task: Task, fields: Mapping[str, Field], count: int) -> Inputs:
    shapes = jax.eval_shape(lambda: task.inputs(_batch(task, fields, count), task.constants))
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
