"""LoRA: the network's weights stay as they are, and beside some kernels a product of two thin matrices learns.

Idea: what fine-tuning adds to a kernel has low rank. A kernel W `[..., C, D]`, seen as the matrix `[... C, D]`, becomes
W + alpha / rank * A B, with A `[... C, rank]` drawn and B `[rank, D]` zero, so that training starts from the network itself.

Sources: Hu et al. 2021 (LoRA, sections 4.1 and 4.2). A is drawn as in their code, uniformly within 1 / sqrt(... C).

Config: {'compress.name': 'lora', 'compress.rank': 8, 'compress.targets': ('*qkv/kernel',), 'compress.trained': ('head/*',)},
beside model.init_from. Targets and what trains beside them are shell patterns over parameter paths; with no target only the
latter trains, which for the head is a linear probe. Adapters are parameters of their own, 'block1/qkv/kernel/lora_a/kernel' and
'.../lora_b/kernel': kernels, so they decay. LoRA+ (Hayou et al. 2024) is {'optimizer.rate_multipliers': (('*/lora_b/*', 16),)}.

Cost: gradients, moments and averages are of the adapters alone. A and B are multiplied in every step, and the gradient of W is
formed on the way to theirs, so a step saves less time than in a form that never adds them up. What is scored, saved and
exported is merged, at the cost of the plain network. Claim: full fine-tuning's accuracy with RoBERTa on GLUE, from 0.2 % of
the parameters.

Clashes: BERT and ViT hold query, key and value in one kernel, whose three parts share A. Two players have no pretrained weights
to adapt. Patterns of the optimizer reach only what trains. Norm layers outside of `trained` keep scale and bias; running
statistics go on.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from research.catalogue import ConfigError
from research.layers.example import key_of
from research.optim.paths import matches, path_of, refuse_unmatched

_A, _B = ('lora_a', 'kernel'), ('lora_b', 'kernel')


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters of a rank beside the parameters that match `targets`; `trained` trains as it is, and nothing else does."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ('*qkv/kernel',)
    trained: tuple[str, ...] = ('head/*',)

    def split(self, rng: jax.Array, params: Any) -> tuple[Any, Any]:
        """(adapters and what trains beside them, the rest of the network's parameters); `rng` is the seed's typed key [].

        Raises:
          ConfigError: a pattern that matches nothing, a parameter that is in both or is no matrix.
        """
        refuse_unmatched('compress.targets', self.targets, params)
        refuse_unmatched('compress.trained', self.trained, params)
        learns, kept = {}, {}
        for path, leaf in flatten_dict(params).items():
            adapted, trained = (any(matches(path, p) for p in patterns) for patterns in (self.targets, self.trained))
            (learns if trained else kept)[path] = leaf
            if not adapted:
                continue
            if trained or leaf.ndim < 2:
                why = 'trains as a whole (compress.trained)' if trained else f'has the shape {list(leaf.shape)}, no matrix'
                raise ConfigError(f"compress.targets: '{path_of(path)}' {why}. Take it out of the targets.")
            rows, columns = math.prod(leaf.shape[:-1]), leaf.shape[-1]
            draw = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
            learns[path + _A] = draw(key_of(rng, f'lora {path_of(path)}'), (rows, self.rank))
            learns[path + _B] = jnp.zeros((self.rank, columns))
        return unflatten_dict(learns), unflatten_dict(kept)

    def __call__(self, params: Any, masks: Any) -> Any:
        """The network's parameters, adapters merged; `params` and `masks` as `split` gives them."""
        learns, seen = flatten_dict(params), flatten_dict(masks)
        for path, kernel in seen.items():
            if path + _A in learns:
                change = learns.pop(path + _A) @ learns.pop(path + _B)
                seen[path] = kernel + self.alpha / self.rank * change.reshape(kernel.shape)
        return unflatten_dict(seen | learns)
