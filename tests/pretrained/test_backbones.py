"""Hugging Face's networks without a head, as folders and as state dicts, against theirs: the input of the head."""

import jax
import numpy as np
import pytest
import references

from research import pretrained

pytestmark = pytest.mark.parity

VIT = {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 96, 'image_size': 28}
RESNET = {'depths': [1, 1], 'hidden_sizes': [8, 16], 'embedding_size': 8, 'layer_type': 'basic'}
CASES = {
    'ViTModel': ('vit', {'patch': 7, 'dim': 48, 'depth': 2, 'heads': 4, 'mlp_ratio': 2}, {**VIT, 'patch_size': 7}),
    'ResNetModel': ('research.models.resnet:ResNet', {'depths': (1, 1), 'widths': (8, 16)}, RESNET),
}


@pytest.mark.parametrize('form', ['folder', 'state dict', 'data parallel'])
@pytest.mark.parametrize('kind', CASES)
def test_without_a_head_it_gives_the_features(kind, form, tmp_path):
    import safetensors.torch

    torch, *_ = references.libraries()
    import transformers

    name, ours, theirs = CASES[kind]
    torch.manual_seed(0)
    network = getattr(transformers, kind)(getattr(transformers, kind.replace('Model', 'Config'))(**theirs)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if form == 'folder':
        network.save_pretrained(tmp_path)
    else:
        prefix = 'module.' if form == 'data parallel' else ''
        state = {prefix + key: value for key, value in network.state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / 'model.safetensors')
    with pytest.warns(UserWarning, match="Drawn anew: 'head', because the file has none"):
        module, variables = pretrained.load(name, tmp_path, num_classes=5, size=28, **ours)
    images = references.images(28, 1)
    with torch.no_grad():
        found = network(references.to_torch(images))
    features = found.last_hidden_state[:, 0] if kind == 'ViTModel' else found.pooler_output[..., 0, 0]
    head = variables['params']['head']
    expected = features.numpy() @ head['kernel'] + head['bias']
    logits = jax.jit(module.apply)({k: v for k, v in variables.items() if k != 'foreign'}, images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
