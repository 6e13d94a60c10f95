"""Training step and inference of the text networks, ours and PyTorch's, from the same weights; attention's memory by length.

    python benchmarks/texts.py [--device=cpu] [--rounds=7] [--limit=600] [--only mini layer]

PyTorch runs transformers' BERT with its fused attention and `torch.nn.LSTM`, in eager mode, all with the fused AdamW; before
anything is timed, logits must agree, and the first losses nearly (dropout differs). Ours trains as training does, inside a
`fori_loop` with a traced trip count. All texts are full, without a mask. All run in one process, so all have the allocator's
thresholds of `research.process`. Sides take turns, with a pause and an untimed step between; medians over rounds are printed
with the lowest and the highest. 'tf32' and 'highest' (no TF32) are float32 and hold for both sides; on CPU both are float32.
Memory is that of temporaries: by the compiler's analysis, and for PyTorch the peak above what stood before the step.

With `--device=gpu` come BERT-base, attention by its path, and first: outputs against those of the CPU, cuDNN's against ours.
A side that fails has its error in its cell. No row is begun after `--limit` seconds.
"""

import argparse
import contextlib
import functools
import gc
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.torch
import torch
import transformers
from step_rate import PAUSE, setting

from research import cost, models, pretrained
from research.layers import attention as attentions
from research.layers import formulation
from research.models import blocks
from research.models.bert import SIZES
from research.train import precision

LEARNING_RATE, DECAY, VOCABULARY, SHORT = 1e-4, 0.01, 30522, 128
LSTM = {'dim': 128, 'width': 128}


def by_jax(implementation: str, query, key, value, mask=None, bias=None, dropout=None) -> jax.Array:
    """`jax.nn.dot_product_attention` in the place of `research.layers.attention.attention`."""
    if dropout:
        raise NotImplementedError('attention dropout')
    whole = None if mask is None else jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    mixed = jax.nn.dot_product_attention(query, key, value, bias, whole, implementation=implementation)
    return mixed.reshape(*query.shape[:2], -1)


PATHS = {
    'ours': attentions.attention,
    'ours, jax.nn xla': functools.partial(by_jax, 'xla'),
    'ours, cuDNN': functools.partial(by_jax, 'cudnn'),
}


class Row(NamedTuple):
    """A network (BERT's arguments, or the LSTM's), what it does, on texts of which size, in which precision."""

    name: str
    batch: int
    length: int
    arguments: Mapping[str, Any]
    train: bool = True
    precision: str = 'tf32'
    paths: tuple[str, ...] = ('ours',)


_LAYER = SIZES['base'] | {'depth': 1, 'vocabulary_size': SHORT}
_MINILM = {'dim': 384, 'depth': 6, 'heads': 12, 'width': 1536}
_BASE = SIZES['base'] | {'attention_dropout': 0.0}
ROWS = {
    'mini': Row('BERT-mini', 16, 128, SIZES['mini']),
    'layer': Row('one layer of BERT-base, 128 words', 8, 128, _LAYER),
    'minilm_1': Row('MiniLM', 1, 128, _MINILM, train=False),
    'minilm_32': Row('MiniLM', 32, 128, _MINILM, train=False),
    'lstm': Row('BiLSTM', 32, 64, LSTM),
}
GPU_ROWS = {
    'base_bfloat16': Row('BERT-base, no attention dropout', 32, 512, _BASE, precision='bfloat16', paths=tuple(PATHS)),
    'base_tf32': Row('BERT-base, no attention dropout', 32, 512, _BASE),
    'base_dropout': Row('BERT-base', 32, 512, SIZES['base'], precision='bfloat16'),
    'base_highest': Row('BERT-base, no attention dropout', 32, 512, _BASE, precision='highest'),
}


class BiLSTM(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(VOCABULARY, LSTM['dim'])
        self.lstm = torch.nn.LSTM(LSTM['dim'], LSTM['width'], batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(2 * LSTM['width'], 2)
        for bias in ('bias_hh_l0', 'bias_hh_l0_reverse'):  # ours has one bias where torch adds two
            torch.nn.init.zeros_(getattr(self.lstm, bias))

    def forward(self, tokens):
        return self.head(torch.cat(tuple(self.lstm(self.words(tokens))[1][0]), -1))

    def ours(self) -> dict:
        """The weights under our names."""
        weights = {name: jnp.array(a.numpy(force=True)) for name, a in self.state_dict().items()}
        params = {'token_embedding': {'embedding': weights['words.weight']}}
        params['head'] = {'kernel': weights['head.weight'].T, 'bias': weights['head.bias']}
        for name, end in (('forward1', ''), ('backward1', '_reverse')):
            into = {'kernel': weights[f'lstm.weight_ih_l0{end}'].T, 'bias': weights[f'lstm.bias_ih_l0{end}']}
            params[name] = {'input': into, 'recurrent': weights[f'lstm.weight_hh_l0{end}'].T}
        return params


def networks(row: Row) -> tuple[torch.nn.Module, Any, dict]:
    """PyTorch's network, our module, and its parameters with the same weights."""
    torch.manual_seed(0)
    if row.arguments is LSTM:
        theirs = BiLSTM()
        return theirs, models.create('lstm', 2, head='classification', **LSTM), theirs.ours()
    names = {'vocabulary_size': 'vocab_size', 'dim': 'hidden_size', 'depth': 'num_hidden_layers', 'width': 'intermediate_size'}
    names |= {'heads': 'num_attention_heads', 'attention_dropout': 'attention_probs_dropout_prob'}
    config = {names[key]: value for key, value in row.arguments.items()}
    config = transformers.BertConfig(**config, num_labels=2, attn_implementation='sdpa')
    theirs = transformers.BertForSequenceClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'model.safetensors')
        safetensors.torch.save_file(theirs.state_dict(), path)
        module, variables = pretrained.load('bert', path, head='classification', **row.arguments)
    return theirs, module, jax.tree.map(jnp.array, variables['params'])


class Ours:
    """Training of n steps, or n inferences one by one; `memory` of the program in MiB."""

    def __init__(self, row: Row, module, params, tokens, labels, path: str):
        self.train, self.done = row.train, 0
        compute, whole = precision.casts('bfloat16' if row.precision == 'bfloat16' else 'float32')
        optimizer = optax.adamw(LEARNING_RATE, weight_decay=DECAY)
        drawn = jax.eval_shape(module.init, jax.random.key(0), tokens[:1]).get('example', {})

        def example(i, tree):
            places = jnp.stack([jnp.zeros(row.batch, jnp.uint32), i * row.batch + jnp.arange(row.batch, dtype=jnp.uint32)], 1)
            leaves = {'position': places, 'rng': jax.random.key(1)}
            return {name: leaves[name] if name in leaves else example(i, below) for name, below in tree.items()}

        def loss_fn(params, i):
            variables = {'params': compute(params), 'example': example(i.astype(jnp.uint32), drawn)}
            logits = whole(module.apply(variables, tokens, train=True))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def step(i, carry):
            params, opt_state, _ = carry
            loss, gradient = jax.value_and_grad(loss_fn)(params, i)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, loss

        def chunk(state, start, stop):
            return jax.lax.fori_loop(start, stop, step, state)

        def infer(params):
            return whole(module.apply({'params': compute(params)}, tokens))

        def compiled(function, *args, **options):
            matmul = 'highest' if row.precision == 'highest' else 'default'
            with mock.patch.object(blocks, 'attention', PATHS[path]), jax.default_matmul_precision(matmul):
                options['compiler_options'] = formulation.compiler_options(jax.default_backend())
                return jax.jit(function, **options).lower(*args).compile()

        params = jax.tree.map(jnp.copy, params)
        self.inference = lambda: compiled(infer, params)
        if row.train:
            self.state = params, optimizer.init(params), jnp.float32(0)
            self.program = compiled(chunk, self.state, jnp.int32(0), jnp.int32(1), donate_argnums=0)
        else:
            self.program, self.params = self.inference(), params
        self.memory = cost.memory(self.program)['temporaries'] / 2**20

    def infer(self) -> np.ndarray:
        return np.asarray(self.inference()(self.state[0] if self.train else self.params))

    def __call__(self, times: int) -> np.ndarray:
        if not self.train:
            for _ in range(times):
                logits = jax.block_until_ready(self.program(self.params))
            return np.asarray(logits)
        self.state = self.program(self.state, jnp.int32(self.done), jnp.int32(self.done + times))
        self.done += times
        return np.asarray(self.state[2])


class Torch:
    def __init__(self, row: Row, network, tokens, labels, device: str):
        self.network, self.train, self.device = network.to(device), row.train, device
        self.optimizer = torch.optim.AdamW(self.network.parameters(), LEARNING_RATE, weight_decay=DECAY, fused=True)
        self.tokens, self.labels = (torch.tensor(a, device=device).long() for a in (tokens, labels))
        self.half, self.highest = row.precision == 'bfloat16', row.precision == 'highest'

    @functools.cached_property
    def memory(self) -> float:
        if self.device != 'cuda':
            return float('nan')
        self(2)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self(1)
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def _logits(self):
        with torch.autocast(self.device, torch.bfloat16) if self.half else contextlib.nullcontext():
            found = self.network(self.tokens)
        return getattr(found, 'logits', found).float()

    def infer(self) -> np.ndarray:
        if self.network.training:
            self.network.eval()
        with torch.inference_mode():
            return self._logits().numpy(force=True)

    def __call__(self, times: int) -> np.ndarray:
        if self.device == 'cuda':
            torch.set_float32_matmul_precision('highest' if self.highest else 'high')
            torch.backends.cudnn.allow_tf32 = not self.highest
        if not self.train:
            return [self.infer() for _ in range(times)][-1]
        self.network.train()
        for _ in range(times):
            loss = torch.nn.functional.cross_entropy(self._logits(), self.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.numpy(force=True)


def attempted(errors: dict[str, str], name: str, call: Callable[[], Any]) -> Any:
    """What `call` gives; None where it fails, or failed before, its error kept under `name`."""
    try:
        return None if name in errors else call()
    except Exception as error:
        errors[name] = f'{type(error).__name__}: {str(error)[:150]}'.replace('\n', ' ').replace('|', '/')


def timed(run: Callable[[int], Any], count: int) -> float:
    time.sleep(PAUSE)
    run(1)
    start = time.perf_counter()
    run(count)
    return (time.perf_counter() - start) / count


def measure(row: Row, rounds: int, device: str, check: bool) -> None:
    """Prints lines of the table."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, row.arguments.get('vocabulary_size', VOCABULARY), (row.batch, row.length)).astype(np.int32)
    labels, errors = rng.integers(0, 2, row.batch).astype(np.int32), {}
    theirs, module, params = networks(row)
    given = jnp.asarray(tokens), jnp.asarray(labels)
    sides = {path: attempted(errors, path, functools.partial(Ours, row, module, params, *given, path)) for path in row.paths}
    sides['torch'] = attempted(errors, 'torch', lambda: Torch(row, theirs, tokens, labels, device))
    running = {name: side for name, side in sides.items() if side}
    if check and len(running) == len(sides):
        expected, found = running['torch'].infer(), running['ours'].infer()
        np.testing.assert_allclose(found, expected, rtol=0, atol=(1e-3 if device == 'cpu' else 2e-2) * np.abs(expected).max())
    first = {name: attempted(errors, name, functools.partial(side, 1)) for name, side in running.items()}
    if row.train and {'ours', 'torch'} <= running.keys() - errors.keys():
        np.testing.assert_allclose(first['ours'], first['torch'], rtol=0, atol=0.3)
    counts = {name: attempted(errors, name, functools.partial(timed, side, 1)) for name, side in running.items()}
    counts = {name: min(max(int(0.3 / seconds), 1), 100) for name, seconds in counts.items() if seconds}
    taken = {name: [] for name in counts}
    for _ in range(rounds):
        for name, count in counts.items():
            taken[name].append(attempted(errors, name, functools.partial(timed, running[name], count)))
    what = f'{row.name} | {"training step" if row.train else "inference"}, {row.batch} x {row.length}'
    of = f'{what} | {"float32" if device == "cpu" else row.precision}'
    base = statistics.median(taken['torch']) if 'torch' in taken and 'torch' not in errors else float('nan')
    for name in sides:
        if name in errors:
            print(f'| {of} | {name} | {errors[name]} | | |')
            continue
        middle, (low, *_, high) = statistics.median(taken[name]), sorted(taken[name] * 2)
        spread = f'{1e3 * middle:.4g} ({1e3 * low:.4g} to {1e3 * high:.4g})'
        print(f'| {of} | {name} | {spread} | {base / middle:.2f} | {running[name].memory:.0f} |')


def of_attention(device: str) -> None:
    """Prints forward and backward of attention alone, a text of T tokens, 12 heads of 64 features: MiB and ms by path."""
    blocks = mock.patch.object(formulation, 'queries_at_once', lambda queries, keys: 512)
    whole = mock.patch.object(formulation, 'queries_at_once', lambda queries, keys: 0)
    paths = {
        'ours, all at once': (whole, attentions.attention),
        'ours, 512 queries of a head at a time': (blocks, attentions.attention),
    }
    paths |= {name: (contextlib.nullcontext(), path) for name, path in PATHS.items()}
    for dtype in ('float32',) if device == 'cpu' else ('float32', 'bfloat16'):
        for length in (1024, 2048) if device == 'cpu' else (1024, 2048, 4096, 8192):
            arrays = [jax.random.normal(jax.random.key(i), (1, length, 12, 64), dtype) for i in range(3)]
            calls = {name: functools.partial(_by_jax, *path, arrays) for name, path in paths.items()}
            calls['torch'] = functools.partial(_by_torch, length, getattr(torch, dtype), device)
            errors = {}
            for name, call in calls.items():
                print(f'| {dtype} | {length} | {name} | {attempted(errors, name, call) or errors[name]} |')


def _by_jax(context, path, arrays) -> str:
    with context:
        gradient = jax.jit(jax.grad(lambda arrays: jnp.sin(path(*arrays).astype(jnp.float32)).sum())).lower(arrays).compile()
    seconds = [timed(lambda n: [jax.block_until_ready(gradient(arrays)) for _ in range(n)], 5) for _ in range(2)]
    return f'{cost.memory(gradient)["temporaries"] / 2**20:.0f} | {1e3 * min(seconds):.3g}'


def _by_torch(length, dtype, device) -> str:
    tensors = [torch.randn(1, 12, length, 64, device=device, dtype=dtype, requires_grad=True) for _ in 'qkv']

    def run(times):
        for _ in range(times):
            mixed = torch.nn.functional.scaled_dot_product_attention(*tensors)
            torch.autograd.grad(mixed.float().sin().sum(), tensors)
        if tensors[0].is_cuda:
            torch.cuda.synchronize()

    seconds, peak = [timed(run, 5) for _ in range(2)], float('nan')
    if tensors[0].is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(1)
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return f'{peak:.0f} | {1e3 * min(seconds):.3g}'


def checks() -> None:
    """Prints the GPU's BERT-mini against the CPU's, and each path of attention in bfloat16 against float32's, with masks."""
    _, module, params = networks(ROWS['mini'])
    tokens = np.random.default_rng(0).integers(5, VOCABULARY, (4, 128)).astype(np.int32)
    valid = np.arange(128)[None] < np.array([[128], [70], [5], [1]])
    found = []
    for device in (jax.devices()[0], jax.devices('cpu')[0]):
        with jax.default_matmul_precision('highest'):
            given = jax.device_put(({'params': params}, tokens, None, valid), device)
            found.append(np.asarray(jax.jit(module.apply)(*given)))
    print(f'BERT-mini, GPU against CPU, float32 highest: {np.abs(found[0] - found[1]).max():.2g}, at most 1e-4')
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(4, 128, 4, 64)).astype(np.float32) for _ in range(3)]
    bias = rng.normal(size=(1, 4, 128, 128)).astype(np.float32)
    for kind, mask, extra in (('no mask', None, None), ('padding', valid[:, None, None], None), ('bias', None, bias)):

        def gradients(arrays, path, mask=mask, extra=extra):
            extra = None if extra is None else jnp.asarray(extra, arrays[0].dtype)
            mixed = path(*arrays, mask, extra)
            return jnp.sin(mixed.astype(jnp.float32)).sum(), mixed

        def run(path, dtype, gradients=gradients):
            given = [jnp.asarray(a, dtype) for a in arrays]
            (_, mixed), slopes = jax.jit(jax.value_and_grad(functools.partial(gradients, path=path), has_aux=True))(given)
            return [np.asarray(a, np.float32) for a in (mixed, *slopes)]

        with jax.default_matmul_precision('highest'):
            expected = run(attentions.attention, jnp.float32)
        for name, path in PATHS.items():
            result = attempted(failed := {}, name, functools.partial(run, path, jnp.bfloat16))
            off = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(result or [], expected, strict=bool(result))]
            said = ', '.join(f'{x:.2g}' for x in off) or failed[name]
            print(f'{name}, {kind}, bfloat16 against float32, output and gradients by scale: {said}, at most 2e-2')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'gpu'), default='cpu')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--limit', type=float, default=600, help='seconds after which nothing is begun')
    parser.add_argument('--only', choices=('checks', 'attention', *ROWS, *GPU_ROWS), nargs='*', help='these parts alone')
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    jax.config.update('jax_platforms', 'cpu' if options.device == 'cpu' else 'cuda,cpu')
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'  # PyTorch has the same card
    torch.set_num_threads(os.cpu_count())
    device = 'cuda' if options.device == 'gpu' else 'cpu'
    start, card = time.perf_counter(), f'{jax.devices()[0].device_kind}; ' if device == 'cuda' else ''
    print(f'{card}{setting(transformers)}; {options.rounds} rounds')
    parts: dict[str, Callable[[], None]] = {'checks': checks} if device == 'cuda' else {}
    for key, row in ROWS.items():
        parts[key] = functools.partial(measure, row, options.rounds, device, True)
    if device == 'cuda':
        for key, row in GPU_ROWS.items():
            parts[key] = functools.partial(measure, row, options.rounds, device, False)
    parts['attention'] = functools.partial(of_attention, device)
    for key, part in parts.items():
        if options.only and key not in options.only or time.perf_counter() - start > options.limit:
            continue
        if key == 'mini':
            print('\n| network | what | precision | side | ms: median (lowest to highest) | times as fast as torch | MiB |')
            print('|---|---|---|---|---|---|---|')
        if key == 'attention':
            print('\n| dtype | tokens | attention alone | MiB | ms |\n|---|---|---|---|---|')
        try:
            part()
        except Exception as error:
            print(f'| {key} | {type(error).__name__}: {str(error)[:300]} |'.replace('\n', ' '))
        gc.collect()
        if device == 'cuda':
            torch.cuda.empty_cache()


if __name__ == '__main__':
    main()
