"""Every variant that timm, torchvision or Hugging Face has, against it, through weights on disk; made from the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from flax.traverse_util import flatten_dict, unflatten_dict
from references import images, lived_in, to_torch
from safetensors.numpy import load_file

from research import models, pretrained
from research.layers import norm
from research.models.network import HALF, Network
from research.pretrained import entries

pytestmark = pytest.mark.parity

NETWORKS = {name: module for name in models.names() if isinstance(module := models.create(name), Network)}
CASES = [
    (name, library, theirs)
    for name, module in NETWORKS.items()
    for library, source in module.SOURCES.items()
    for ours, theirs in source.names.items()
    if ours == name
]
_ORDER = list(models.MODELS)
# Of a family from the last that the catalogue names to the first, which is small; timm's are last.
_FALLING = sorted(CASES, key=lambda case: (case[1] == 'timm', -_ORDER.index(case[0])))
# ResNet's gradients stand in tests/models/test_parity.py.
TRAINED = {type(NETWORKS[case[0]]): case for case in _FALLING if not case[0].startswith('resne')}
# One a family and library, and those of which a part is no other's. The others differ from them in numbers alone; they are
# compared by hand, `pytest -m every`: half an hour. From B2 on TensorFlow's EfficientNets are timm's own in the padding of B0.
PARTS = ('resnet50', 'vgg11_bn', 'mobilenetv2_110d', 'mobilenetv3_large_100', 'tf_mobilenetv3_small_minimal_100')
PARTS += ('tf_efficientnet_b0', 'tf_mobilenetv3_large_100', 'efficientnet_b1', 'tinynet_a', 'coatnet_1_224')
SOME = {(type(NETWORKS[name]), library): (name, library, theirs) for name, library, theirs in _FALLING}
SOME = [*SOME.values(), *(case for case in CASES if case[0] in PARTS and case[1] == 'timm')]
MORE = [case for case in CASES if case not in SOME and case[0] not in {f'tf_efficientnet_b{i}' for i in range(2, 8)}]
LOGITS = [*SOME, *(pytest.param(*case, marks=pytest.mark.every) for case in MORE)]
# Side of images in training mode where 64 is too small.
SIDES = {}


def test_no_variant_is_left_out():
    """What timm and torchvision have by a name of ours is among the cases."""
    _, timm, torchvision = references.libraries()
    covered = {(theirs, library) for _, library, theirs in CASES}
    for name in models.names():
        assert not timm.is_model(name) or (name, 'timm') in covered
        assert name not in torchvision.models.list_models(module=torchvision.models) or (name, 'torchvision') in covered


@pytest.mark.parametrize(('name', 'library', 'theirs'), [c for c in CASES if c[1] != 'huggingface'])
def test_preprocessing(name, library, theirs):
    """As the library's default weights say."""
    _, timm, torchvision = references.libraries()
    found = pretrained.preprocessing(name, library)
    if library == 'timm':
        cfg = timm.get_pretrained_cfg(theirs)
        expected = (cfg.input_size[1], cfg.crop_pct, cfg.interpolation, cfg.mean, cfg.std)
    else:
        t = torchvision.models.get_model_weights(theirs).DEFAULT.transforms()
        # These two standardize again where they have weights: (x std + mean - 0.5) / 0.5.
        mean, std = (HALF, HALF) if theirs in ('googlenet', 'inception_v3') else (tuple(t.mean), tuple(t.std))
        expected = (t.crop_size[0], t.crop_size[0] / t.resize_size[0], t.interpolation.value, mean, std)
    assert (found.size, found.interpolation, found.mean, found.std) == (expected[0], *expected[2:])
    assert found.crop == pytest.approx(expected[1], abs=1e-3)


@pytest.mark.parametrize(('name', 'library', 'theirs'), LOGITS, ids=lambda v: v.replace('/', '_'))
def test_logits(name, library, theirs, tmp_path):
    import safetensors.torch

    size = pretrained.preprocessing(name, library).size
    network = lived_in(references.create(theirs, library, name, size), size)
    state = {k: v.contiguous().clone() for k, v in network.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / 'model.safetensors')
    module, variables = pretrained.load(name, tmp_path)
    x = images(size, 1)
    import torch

    if library != 'huggingface':  # which takes TensorFlow's momentum for one minus it
        theirs = {(layer.eps, 1 - layer.momentum) for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)}
        layer = norm.create(module.norm)
        assert theirs <= {(getattr(layer, 'epsilon', 0), getattr(layer, 'momentum', 0))}
    with torch.no_grad():
        expected = network(to_torch(x)).numpy()
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * scale  # the logits depend on the image
    found = jax.jit(module.apply)({k: v for k, v in variables.items() if k != 'foreign'}, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)

    pretrained.save(module, variables, tmp_path / 'again.safetensors', library)
    first, again = load_file(tmp_path / 'model.safetensors'), load_file(tmp_path / 'again.safetensors')
    assert first.keys() == again.keys()
    for key, tensor in first.items():
        assert (tensor.dtype, tensor.shape) == (again[key].dtype, again[key].shape)
        np.testing.assert_array_equal(tensor, again[key], err_msg=key)


def test_a_network_with_squeeze_and_excitation(tmp_path):
    import safetensors.torch
    import torch

    network = lived_in(references.create('seresnet50', 'timm', '', 64), 64)
    safetensors.torch.save_file(network.state_dict(), tmp_path / 'model.safetensors')
    module, variables = pretrained.load('resnet50', tmp_path, squeeze_excite=1 / 16)
    with torch.no_grad():
        expected = network(to_torch(images(64, 1))).numpy()
    found = jax.jit(module.apply)({k: v for k, v in variables.items() if k != 'foreign'}, images(64, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(('name', 'library', 'theirs'), TRAINED.values(), ids=lambda v: v.replace('/', '_'))
def test_training_mode_and_gradients(name, library, theirs):
    """In float64: in float32 a rounding may choose another pixel in a max pooling, and with it another gradient."""
    import torch

    size, count = SIDES.get(name, 64), 4
    network = lived_in(references.create(theirs, library, name, size, num_classes=10), size).double().train()
    x = images(size, 2, count).astype(np.float64)
    logits = network(to_torch(x))
    logits = logits if isinstance(logits, torch.Tensor) else logits.logits
    torch.sin(logits).sum().backward()
    expected = logits.detach().numpy()

    source = NETWORKS[name].SOURCES[library]
    off = {k: 0.0 for k in ('dropout', 'auxiliary_dropout', 'stochastic_depth') if hasattr(NETWORKS[name], k)}
    module = models.create(name, 10, **source.arguments(name, network.state_dict()), **off)
    with jax.enable_x64(True):
        tensors = {k: v.detach().numpy() for k, v in network.state_dict().items()}
        every = entries.entries(module, source, entries.shapes_of(module, x.shape))
        leaves = {e.path: e.inward([np.float64(tensors[n]) for n in e.theirs]) for e in every}
        variables = unflatten_dict(leaves)

        def loss(params):
            logits, _ = module.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
            return jnp.sin(logits).sum(), logits

        gradients, found = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    theirs = {k: p.grad for k, p in network.named_parameters()}
    compared = [e for e in every if e.path[0] == 'params' and all(theirs[n] is not None for n in e.theirs)]
    found = flatten_dict({'params': gradients})
    for entry in compared:
        expected = entry.inward([theirs[n].numpy() for n in entry.theirs])
        np.testing.assert_allclose(
            found[entry.path], expected, rtol=0, atol=1e-7 * max(1, np.abs(expected).max()), err_msg=str(entry)
        )
    assert len(compared) == sum(e.path[0] == 'params' for e in every if not e.path[1].startswith('aux'))


@pytest.mark.parametrize(('name', 'theirs'), [('mobilenetv3_small_100', 'mobilenet_v3_small'), ('resnet18', 'resnet18')])
def test_running_statistics_of_a_training_step(name, theirs, tmp_path):
    """The momentum is the source's. PyTorch's running variance divides by one value less."""
    import safetensors.torch
    import torch

    network = lived_in(references.create(theirs, 'torchvision', name, 64), 64)
    safetensors.torch.save_file(network.state_dict(), tmp_path / 'model.safetensors')
    off = {'dropout': 0.0} if hasattr(NETWORKS[name], 'dropout') else {}
    module, variables = pretrained.load(name, tmp_path, size=64, **off)
    variables.pop('foreign')
    x = images(64, 2, 4)
    apply = jax.jit(lambda v: module.apply(v, x, train=True, mutable=['batch_stats'])[1]['batch_stats'])
    found = flatten_dict(apply(variables))

    before = {k: v.clone() for k, v in network.state_dict().items()}
    counts = {}
    for key, layer in network.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, given, out, key=key: counts.update({key: given[0][:, 0].numel()}))
    network.train()(to_torch(x))
    after = network.state_dict()
    compared = 0
    for entry in entries.entries(module, module.SOURCES['torchvision'], entries.shapes_of(module, x.shape)):
        (key,) = entry.theirs if entry.path[0] == 'batch_stats' else (None,)
        if key is not None:
            kept, moved = before[key].numpy(), (after[key] - before[key]).numpy()
            n = counts[key.rpartition('.')[0]]
            if key.endswith('running_var'):  # momentum * (biased - kept)
                momentum = network.get_submodule(key.rpartition('.')[0]).momentum
                moved = (moved + momentum * kept) * (n - 1) / n - momentum * kept
            scale = np.abs(kept).max()
            np.testing.assert_allclose(found[entry.path[1:]] - kept, moved, rtol=0, atol=1e-5 * scale, err_msg=key)
            compared += 1
    assert compared == 2 * len(counts)
