"""Decoded tokens a second, ours and transformers' `generate` with its cache, for a GPT-2 from the same random weights.

    python benchmarks/decoding.py [--device=cpu] [--size=gpt2] [--prompt=32] [--tokens=64] [--rounds=7] [--only beam_32]

Greedy decoding and a beam of 4, each of 1 and of 32 prompts, in float32 (on a GPU with TF32 on both sides). No text ends: the
embedding of `eos`, and so its logit, is 0, and others are above. Before anything is timed, both sides must decode the same
tokens, or, where sums differ in their last digits and two tokens are as likely, 99 % of the prompts' first half of tokens.
Sides take turns, with a pause and an untimed call before; a call decodes the prompt too. Medians over rounds are printed with
the lowest and the highest, and the median over rounds of the ratios of both sides. Programs are compiled before: seconds of
the first call are printed.
"""

import argparse
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

EOS = 0


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


def seconds(call: Callable[[], np.ndarray]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, running: dict[str, Callable[[], np.ndarray]], decoded: int, rounds: int) -> None:
    """Prints the rows of one case, of `decoded` tokens a call."""
    first = {side: seconds(call) for side, call in running.items()}
    found = {side: call() for side, call in running.items()}
    half = decoded // len(found['ours']) // 2
    same = np.mean(np.all(found['ours'][:, :half] == found['transformers'][:, :half], axis=1))
    assert same >= 0.99, f'{name}: only {same:.0%} of the prompts go on in the same way'
    rates = {side: [] for side in running}
    for _ in range(rounds):
        for side, call in running.items():
            time.sleep(PAUSE)
            call()
            rates[side].append(decoded / seconds(call))
    for side, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates['transformers'], strict=True))
        spread = f'{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})'
        print(f'| {name} | {side} | {spread} | {ratio:.2f} | {first[side]:.1f} |', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'gpu'), default='cpu')
    parser.add_argument('--size', choices=SIZES, default='gpt2')
    parser.add_argument('--prompt', type=int, default=32, help='tokens of each prompt')
    parser.add_argument('--tokens', type=int, default=64, help='tokens decoded behind it')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--only', choices=CASES, nargs='*', default=list(CASES), help='these cases alone')
    options = parser.parse_args()
    jax.config.update('jax_platforms', 'cpu' if options.device == 'cpu' else 'cuda,cpu')
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'  # PyTorch has the same card
    torch.set_num_threads(os.cpu_count())
    torch.backends.cuda.matmul.allow_tf32 = True
    size = SIZES[options.size]
    theirs, module, variables = networks(size, 'cuda' if options.device == 'gpu' else 'cpu')
    print(f'{setting(transformers)}; {size}; {options.prompt} and {options.tokens} tokens; {options.rounds} rounds\n')
    print('| case | side | tokens a second: median (lowest to highest) | median ratio | first call, s |\n|---|---|---|---|---|')
    for name in options.only:
        beams, batch = CASES[name]
        prompts = np.random.default_rng(0).integers(1, size.vocab_size, (batch, options.prompt))
        measure(name, sides(theirs, module, variables, prompts, beams, options.tokens), batch * options.tokens, options.rounds)


if __name__ == '__main__':
    main()
