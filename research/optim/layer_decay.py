"""Layer-wise learning-rate decay: the nearer a layer is to the input, the slower it learns.

Idea: the first layers of a pretrained network know what is general and should move least. The rate of a layer is multiplied by
decay ** (number of layers behind it); the last one, the head, has the whole rate.

Sources: Clark et al. 2020 (ELECTRA, which fine-tunes with 0.8 and 0.9); Bao et al. 2022 (BEiT).

Config: {'optimizer.layer_decay': 0.75}; 1 is off. Patterns of `optimizer.rate_multipliers` multiply what it gives.

A layer is a top-level name of the parameters, in the order of the forward pass, as for freezing: a block of a Transformer or
of a ResNet counts once. Tokens, segments, positions and their norm layer are four layers in BERT, where the papers count one,
so that embeddings are slower here. Parameters of the network itself, such as a ViT's positions, are as slow as the first layer.

Cost: none, factors are constants of the program. Claim: better fine-tuning, as what was pretrained is kept. Clashes:
schedule-free optimizers, whose average it would move; two players, which have no one order of layers.
"""

from collections.abc import Mapping, Sequence


def factors(decay: float, layers: Sequence[str]) -> Mapping[str, float]:
    """Layer -> what multiplies its rate; `layers` are names in the order of the forward pass."""
    return {layer: decay**behind for behind, layer in enumerate(reversed(layers))}
