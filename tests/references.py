"""Networks of timm, torchvision and Hugging Face with random weights, as the parity tests need them."""

import numpy as np


def libraries():
    """(torch, timm, torchvision); torchvision may be a build for another torch, which then lacks two operators it names."""
    import torch

    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for op in ('nms', 'qnms'):
            library.define(op + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        import torchvision
    import timm

    return torch, timm, torchvision


def create(theirs, source, name, size, num_classes=1000, channels=3, **kwargs):
    """A network of another library, without dropout: `theirs` is its name there, `name` ours."""
    torch, timm, torchvision = libraries()
    torch.manual_seed(0)
    if source == 'timm':
        if timm.get_pretrained_cfg(theirs).fixed_input_size:
            kwargs = {'img_size': size} | kwargs
        return timm.create_model(theirs, num_classes=num_classes, in_chans=channels, **kwargs)
    if source == 'torchvision':
        extra = {'init_weights': False} if theirs == 'googlenet' else {}
        extra |= {'image_size': size} if theirs.startswith('vit') else {}
        network = torchvision.models.get_model(theirs, weights=None, num_classes=num_classes, **extra, **kwargs)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout | torchvision.ops.StochasticDepth):
                layer.p = 0.0
        return network
    return _huggingface(name, size, num_classes, channels)


# What a configuration at Hugging Face says beside its defaults: class, arguments.
HUGGINGFACE = {
    'resnet18': ('ResNet', {'depths': [2, 2, 2, 2], 'hidden_sizes': [64, 128, 256, 512], 'layer_type': 'basic'}),
    'resnet34': ('ResNet', {'depths': [3, 4, 6, 3], 'hidden_sizes': [64, 128, 256, 512], 'layer_type': 'basic'}),
    'resnet50': ('ResNet', {'depths': [3, 4, 6, 3]}),
    'resnet101': ('ResNet', {'depths': [3, 4, 23, 3]}),
    'resnet152': ('ResNet', {'depths': [3, 8, 36, 3]}),
    'mobilenetv1_075': ('MobileNetV1', {'depth_multiplier': 0.75, 'classifier_dropout_prob': 0.0}),
    'mobilenetv1_100': ('MobileNetV1', {'classifier_dropout_prob': 0.0}),
    'mobilenetv2_035': ('MobileNetV2', {'depth_multiplier': 0.35, 'classifier_dropout_prob': 0.0}),
    'mobilenetv2_075': ('MobileNetV2', {'depth_multiplier': 0.75, 'classifier_dropout_prob': 0.0}),
    'mobilenetv2_100': ('MobileNetV2', {'classifier_dropout_prob': 0.0}),
    'mobilenetv2_140': ('MobileNetV2', {'depth_multiplier': 1.4, 'classifier_dropout_prob': 0.0}),
    # Width, depth, channels in front of the logits, blocks with maps of an odd size.
    **{
        f'efficientnet_b{i}': (
            'EfficientNet',
            {
                'width_coefficient': width,
                'depth_coefficient': depth,
                'hidden_dim': top,
                'depthwise_padding': odd,
                'dropout_rate': 0.0,
                'drop_connect_rate': 0.0,
            },
        )
        for i, (width, depth, top, odd) in enumerate(
            [
                (1.0, 1.0, 1280, []),
                (1.0, 1.1, 1280, [16]),
                (1.1, 1.2, 1408, [5, 8, 16]),
                (1.2, 1.4, 1536, [5, 18]),
                (1.4, 1.8, 1792, [6]),
                (1.6, 2.2, 2048, [13, 27]),
                (1.8, 2.6, 2304, [31]),
                (2.0, 3.1, 2560, [18]),
            ]
        )
    },
    'vit_tiny_patch16_224': ('ViT', {'hidden_size': 192, 'num_attention_heads': 3, 'intermediate_size': 768}),
    'vit_small_patch16_224': ('ViT', {'hidden_size': 384, 'num_attention_heads': 6, 'intermediate_size': 1536}),
    'vit_base_patch16_224': ('ViT', {}),
}


def _huggingface(name, size, num_classes, channels):
    import transformers

    family, arguments = HUGGINGFACE[name]
    arguments = {'image_size': size} | arguments if family == 'ViT' else arguments
    config = getattr(transformers, f'{family}Config')(num_labels=num_classes, num_channels=channels, **arguments)
    network = getattr(transformers, f'{family}ForImageClassification')(config)
    forward = network.forward
    network.forward = lambda x: forward(x).logits
    return _by_names_on_disk(network)


def _by_names_on_disk(network):
    """Its tensors by the names that `save_pretrained` writes: in memory transformers 5 has others for some layers."""
    from transformers.core_model_loading import revert_weight_conversion

    state, named_parameters = network.state_dict, network.named_parameters
    known = {tensor.data_ptr(): name for name, tensor in state().items()}
    names = {known[t.data_ptr()]: name for name, t in revert_weight_conversion(network, dict(state())).items()}
    network.state_dict = lambda: {names[name]: tensor for name, tensor in state().items()}
    network.named_parameters = lambda **kwargs: ((names[name], p) for name, p in named_parameters(**kwargs))
    return network


def images(size, seed, count=2, channels=3):
    """Float32 [count, size, size, channels] with structure at every scale, as photographs have it."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, size, size, channels), np.float32)
    for cells in (1, 4, 16, size):
        coarse = rng.normal(0.3, 1, (count, cells, cells, channels))
        index = np.arange(size) * cells // size
        x += coarse[:, index][:, :, index].astype(np.float32)
    return x / 2


def to_torch(x):
    import torch

    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def lived_in(network, size, channels=3):
    """Scales and biases at random, statistics from data and then jittered: a network in which a mix-up of these shows."""
    import torch

    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for layer in norms:
        torch.nn.init.uniform_(layer.weight, 0.5, 1.0)
        torch.nn.init.normal_(layer.bias, std=0.3)
        layer.momentum, layer.kept = None, layer.momentum
    with torch.no_grad():
        layers = [m for m in network.modules() if isinstance(m, torch.nn.LayerNorm)]
        for parameter in (p for layer in layers if norms for p in layer.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
        if not norms:  # then weights as a library draws them may be too small for the logits to see the image
            for parameter in network.parameters():
                if parameter.ndim == 1 or not parameter.any():
                    parameter.add_(0.1 * torch.randn_like(parameter))
                elif not layers:
                    torch.nn.init.kaiming_normal_(parameter)
        network.train()
        if norms:  # the images that are compared later: on others a deep network blows up its roundings
            network(to_torch(images(size, 1, channels=channels)))
        for layer in norms:
            layer.running_mean.mul_(torch.empty_like(layer.running_mean).uniform_(0.9, 1.1))
            layer.running_var.mul_(torch.empty_like(layer.running_var).uniform_(0.9, 1.1))
            layer.momentum = layer.kept
    return network.eval()
