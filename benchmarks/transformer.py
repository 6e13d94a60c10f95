"""A Transformer beside PyTorch: training steps of an encoder and decoder, and decoded tokens a second of a GPT-2.

    python benchmarks/transformer.py [--device=cpu] [--rounds=3] [--size=gpt2] [--prompt=32] [--tokens=32] [--only beam_32]

Training is `transformer_small` (D 256, 4 blocks a side, 4 heads, width 1024) with one table for 8,192 tokens of source, target
and logits, 32 pairs of 32 and 32 tokens, dropout 0.1, label smoothing 0.1 and Adam. Ours is the program that a run trains with,
of several steps a call, with all that it checks and records. PyTorch has `nn.Transformer` with its fused attention, without the
dropout of weights and hidden units that the paper's network does not have, and the fused Adam. Both get masks of padding, of
which there is none. Outputs of both must agree before, from the same weights, and losses of the first step nearly, as dropout
differs.

Decoding is beside transformers' `generate` with its cache: greedy and a beam of 4, of 1 and of 32 prompts. No text ends: the
embedding of `eos`, and so its logit, is 0, and others are above. Both sides must decode the same tokens, or, where sums differ
in their last digits and two tokens are as likely, 99 % of the prompts' first half of tokens. A call decodes the prompt too.

All is float32 (on a GPU with TF32 on both sides). Sides take turns, with a pause and an untimed call before. Medians over
rounds are printed with the lowest and the highest, of the ratio too, which is taken in each round. Programs are compiled
before: seconds of both sides' first call are printed.
"""

import argparse
import functools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from step_rate import PAUSE, setting

from research import decoding, pretrained
from research.config import base
from research.data import Dataset, Field
from research.models import transformer
from research.train import program
from research.train.clock import Clock
from research.train.phases import Phase
from research.train.state import Chunk

EOS = 0
# Of the training step: V, pairs, tokens of a side, steps a call, Adam's rate, and the rate of dropout and label smoothing.
VOCABULARY, PAIRS, LENGTH, STEPS, RATE, SHARE = 8192, 32, 32, 3, 1e-4, 0.1


class Size(NamedTuple):
    """Fields of transformers' GPT2Config."""

    n_embd: int
    n_layer: int
    n_head: int
    vocab_size: int = 50257


SIZES = {'gpt2': Size(768, 12, 12), 'small': Size(384, 6, 6), 'tiny': Size(64, 2, 2, 100)}
# What is decoded -> beams and prompts.
CASES = {f'{name}_{batch}': (beams, batch) for batch in (1, 32) for name, beams in (('greedy', 1), ('beam', 4))}


def networks(size: Size, device: str) -> tuple[torch.nn.Module, Any, Any]:
    """transformers' network, our module, and its variables with the same weights."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(**size._asdict(), bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        theirs.transformer.wte.weight[EOS] = 0
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        module, variables = pretrained.load('gpt', folder)
    return theirs.to(device), module, jax.tree.map(jnp.array, variables)


def sides(theirs, module, variables, prompts: np.ndarray, beams: int, tokens: int) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> what decodes the prompts once, int `[B, tokens]`."""
    given = torch.tensor(prompts, device=theirs.device).long()

    def ours():
        if beams == 1:
            return np.asarray(decoding.greedy(module, variables, prompts, tokens, EOS, EOS))
        return np.asarray(decoding.beam(module, variables, prompts, tokens, EOS, EOS, beam_size=beams, penalty='power')[0])

    def generate():
        searching = {'length_penalty': 0.6, 'early_stopping': 'never'} if beams > 1 else {}
        with torch.inference_mode():
            found = theirs.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=tokens,
                num_beams=beams,
                do_sample=False,
                **searching,
            )
        return found[:, prompts.shape[1] :].cpu().numpy()

    return {'ours': ours, 'transformers': generate}


class Ours:
    """The program of a run on pairs of `{field: [N, ...]}`: n calls of S steps, the loss a token of each step."""

    def __init__(self, pairs: dict[str, np.ndarray]):
        config = base.get_config()
        config.task = {'name': 'translation', 'loss': 'softmax', 'label_smoothing': SHARE, 'written': 'never'}
        config.model = {'name': 'transformer_small', 'num_classes': 0, 'init_from': '', 'vocabulary_size': VOCABULARY}
        config.optimizer.update({'name': 'adam', 'learning_rate': RATE})
        fields = {name: Field(values.shape[1:], values.dtype) for name, values in pairs.items()}
        facts = {'vocabulary_size': VOCABULARY, 'bos': 1, 'eos': 2, 'pad': 0}
        made = program.create(config.to_dict(), Dataset('pairs', pairs, '', {}, fields, facts))
        self.clock, self.module, self.done = Clock(), made.step.module, 0
        self.state = made.init(self.clock, jax.random.key(0), {'learning_rate': np.float32(RATE)}, {})
        self.chunk, self.replicate = made.chunk(Phase(PAIRS, 1, 0, ())), made.engine.replicate
        self.examples = self.replicate(pairs)

    def __call__(self) -> np.ndarray:
        steps = self.done + np.arange(STEPS)
        starts = np.stack([0 * steps, steps * PAIRS], 1).astype(np.uint32)
        rows = np.tile(np.arange(PAIRS, dtype=np.int32), (STEPS, 1))
        told = rows, starts, {'learning_rate': np.full(STEPS, RATE, np.float32)}, np.int32(self.done), np.int32(STEPS)
        chunk = Chunk({'examples': self.examples, 'constants': {}}, self.examples, *self.replicate(told))
        self.state, sums = self.chunk(self.clock, self.state, chunk)
        self.done += STEPS
        return np.asarray(sums['loss']) / np.asarray(sums['count'])


class Theirs(torch.nn.Module):
    """PyTorch's Transformer with our weights; S steps a call, the loss of each."""

    def __init__(self, params: dict, pairs: dict[str, np.ndarray], device: str):
        super().__init__()
        size = transformer.SIZES['small']
        shape = size['dim'], size['heads'], size['depth'], size['depth'], size['width'], SHARE
        self.network = torch.nn.Transformer(*shape, layer_norm_eps=1e-6, batch_first=True)
        self.network.encoder.norm = self.network.decoder.norm = None
        self.table, self.dropout = torch.nn.Embedding(VOCABULARY, size['dim']), torch.nn.Dropout(SHARE)
        at, feature = np.arange(LENGTH)[:, None], np.arange(size['dim'])[None]
        angles = at / 10000 ** (feature // 2 * 2 / size['dim'])
        self.register_buffer('waves', torch.tensor(np.where(feature % 2, np.cos(angles), np.sin(angles)), dtype=torch.float32))
        self.register_buffer('causal', torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1))
        with torch.no_grad():
            self.table.weight.copy_(_tensor(params['embedding']['embedding']))
            for side in ('encoder', 'decoder'):
                for i, layer in enumerate(getattr(self.network, side).layers):
                    _fill(layer, params[f'{side}{i + 1}'])
        self.to(device)
        given = {name: torch.tensor(values, device=device) for name, values in pairs.items()}
        self.source, self.hidden = given['source'].long(), ~given['source_mask']
        self.target, self.labels = given['target'][:, :-1].long(), given['target'][:, 1:].long()
        self.labels[:, -1] = -100  # as ours: the end of a row without padding may be that of a text that was cut
        self.optimizer = torch.optim.Adam(self.parameters(), RATE, fused=True)

    def forward(self) -> torch.Tensor:
        scale = math.sqrt(self.table.embedding_dim)
        source, target = (self.dropout(self.table(a) * scale + self.waves) for a in (self.source, self.target))
        masks = {f'{name}_key_padding_mask': self.hidden for name in ('src', 'memory', 'tgt')}
        found = self.network(source, target, tgt_mask=self.causal, tgt_is_causal=True, **masks)
        return torch.nn.functional.linear(found, self.table.weight)

    def __call__(self) -> np.ndarray:
        losses = []
        for _ in range(STEPS):
            logits = self.forward().flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, self.labels.flatten(), label_smoothing=SHARE)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy(force=True)


def _fill(layer: torch.nn.Module, block: dict) -> None:
    """Gives a layer the weights of one of our blocks, and takes its other dropouts away."""
    names = {'mlp_in': layer.linear1, 'mlp_out': layer.linear2, 'projection': layer.self_attn.out_proj}
    into = [(layer.self_attn, ('qkv',))]
    if 'cross_projection' in block:
        names['cross_projection'] = layer.multihead_attn.out_proj
        into.append((layer.multihead_attn, ('cross_query', 'cross_key_value')))
    for name, there in names.items():
        there.weight.copy_(_tensor(block[name]['kernel'].T))
        there.bias.copy_(_tensor(block[name]['bias']))
    for attention, parts in into:
        attention.in_proj_weight.copy_(_tensor(np.concatenate([block[name]['kernel'] for name in parts], 1).T))
        attention.in_proj_bias.copy_(_tensor(np.concatenate([block[name]['bias'] for name in parts])))
        attention.dropout = 0.0
    layer.dropout.p = 0.0


def _tensor(a: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(a))


def training(device: str) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> what does S steps."""
    draw = functools.partial(np.random.default_rng(0).integers, 3, VOCABULARY, dtype=np.int32)
    pairs = {'source': draw((PAIRS, LENGTH)), 'target': draw((PAIRS, LENGTH + 1))}
    pairs |= {f'{name}_mask': np.ones(values.shape, bool) for name, values in pairs.items()}
    ours = Ours(pairs)
    params = jax.tree.map(np.array, ours.state.params)
    theirs = Theirs(params, pairs, device).eval()
    expected = theirs.forward().numpy(force=True)
    masks = pairs['source_mask'], pairs['target_mask'][:, :-1]
    found = jax.jit(ours.module.apply)({'params': params}, pairs['source'], pairs['target'][:, :-1], *masks)
    np.testing.assert_allclose(found, expected, rtol=0, atol=(1e-4 if device == 'cpu' else 2e-2) * np.abs(expected).max())
    theirs.train()
    return {'ours': ours, 'torch': theirs}


def timed(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of a call, and what it gives."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def measure(
    name: str, running: dict[str, Callable[[], np.ndarray]], rounds: int, amount: Callable[[float], float]
) -> list[np.ndarray]:
    """Prints the row of one case; `amount` makes of a call's seconds what is told of it. Gives what the first calls gave."""
    first = [timed(call) for call in running.values()]
    found, ratios = {side: [] for side in running}, []
    for _ in range(rounds):
        for side, call in running.items():
            time.sleep(PAUSE)
            call()
            found[side].append(timed(call)[0])
        ours, theirs = (values[-1] for values in found.values())
        ratios.append(theirs / ours)
    told = [_spread(list(map(amount, values))) for values in found.values()]
    compiled = ' and '.join(f'{seconds:.1f}' for seconds, _ in first)
    print(f'| {name} | {" | ".join(told)} | {_spread(ratios, 3)} | {compiled} |', flush=True)
    return [made for _, made in first]


def _spread(values: list[float], digits: int = 4) -> str:
    return f'{statistics.median(values):.{digits}g} ({min(values):.{digits}g} to {max(values):.{digits}g})'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'gpu'), default='cpu')
    parser.add_argument('--size', choices=SIZES, default='gpt2', help='of the network that is decoded')
    parser.add_argument('--prompt', type=int, default=32, help='tokens of each prompt')
    parser.add_argument('--tokens', type=int, default=32, help='tokens decoded behind it')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', choices=('training', *CASES), nargs='*', help='these cases alone')
    options = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu' if options.device == 'cpu' else 'cuda,cpu')
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'  # PyTorch has the same card
    torch.set_num_threads(os.cpu_count())
    torch.backends.cuda.matmul.allow_tf32 = True
    device = 'cuda' if options.device == 'gpu' else 'cpu'
    chosen = options.only or ('training', *CASES)
    print(f'{setting(transformers)}; {options.rounds} rounds')
    if 'training' in chosen:
        print('\n| training | ours, ms a step | torch | ratio | first call, s |\n|---|---|---|---|---|')
        losses = measure(f'{PAIRS} x {LENGTH}', training(device), options.rounds, lambda s: 1e3 * s / STEPS)
        np.testing.assert_allclose(*losses, rtol=0.02)
    if not set(chosen) & set(CASES):
        return
    size = SIZES[options.size]
    theirs, module, variables = networks(size, device)
    print(f'\n{size}; {options.prompt} and {options.tokens} tokens\n')
    print('| decoding | ours, tokens a second | transformers | ratio | first call, s |\n|---|---|---|---|---|')
    for name in CASES:
        if name in chosen:
            beams, batch = CASES[name]
            prompts = np.random.default_rng(0).integers(1, size.vocab_size, (batch, options.prompt))
            running = sides(theirs, module, variables, prompts, beams, options.tokens)
            count = batch * options.tokens
            made = measure(name, running, options.rounds, lambda s, count=count: count / s)
            ours, generated = (texts[:, : options.tokens // 2] for texts in made)
            same = np.mean(np.all(ours == generated, axis=1))
            assert same >= 0.99, f'{name}: only {same:.0%} of the prompts go on in the same way'


if __name__ == '__main__':
    main()
