"""Encoders that may stand in for the plain one in prior and posterior."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aleatoric.errors import InputError
from aleatoric.losses import DivergenceTerm, KLDivergence, NegativeLogLikelihood, VariationalLoss
from aleatoric.networks.blocks import (
    ConditionalDensity,
    ConvNeXtEncoder,
    DiagonalNormal,
    FeatureCombiner,
    ResNetEncoder,
    UNetBackbone,
)
from aleatoric.networks.blocks.residual_encoders import ConvNeXtBlock
from aleatoric.networks.nets import ProbabilisticUNet

ENCODERS = [ResNetEncoder, ConvNeXtEncoder]


def small(encoder, spatial_dims=2, in_channels=1, **options):
    return encoder(spatial_dims, in_channels, (4, 8), 1, **options)


def awake(encoder):
    """The encoder with layer scales of 1, as if trained: at 1e-6 a defect in a block would not be seen."""
    for module in encoder.modules():
        if isinstance(module, ConvNeXtBlock):
            nn.init.ones_(module.scale)
    return encoder


def probabilistic_unet(encoder) -> ProbabilisticUNet:
    def density(in_channels):
        return ConditionalDensity(awake(small(encoder, in_channels=in_channels)), DiagonalNormal(8, 3))

    return ProbabilisticUNet(UNetBackbone(2, 1, (4, 8), 1), density(1), density(2), FeatureCombiner(2, 4, 3))


def parameters_of(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts():
    assert parameters_of(ResNetEncoder(2, 3)) == 11_689_512 - (512 * 1000 + 1000)  # ResNet-18 without its last layer
    head = 2 * 768 + 768 * 1000 + 1000
    assert parameters_of(ConvNeXtEncoder(2, 3)) == 28_589_128 - head  # ConvNeXt-T


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("size", "filters"), [((9, 9), (4, 4, 8, 8)), ((37, 50), (4, 8)), ((9, 14, 17), (4, 8, 8))])
def test_features_have_the_stated_shapes(encoder, size, filters):
    network = encoder(len(size), 2, filters, 1).eval()
    features = network(torch.rand(1, 2, *size))
    expected = [(1, f, *(-(-side // (4 * 2**i)) for side in size)) for i, f in enumerate(filters)]
    assert [tuple(f.shape) for f in features] == expected
    assert network.filters == filters


@pytest.mark.parametrize("stem_stride", [1, 2, 3])
def test_the_stems_stride_is_an_option(stem_stride):
    features = small(ConvNeXtEncoder, stem_stride=stem_stride)(torch.rand(1, 1, 17, 12))
    for i, feature in enumerate(features):
        assert feature.shape[2:] == tuple(-(-side // (stem_stride * 2**i)) for side in (17, 12))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [(9, 9), (13, 18), (10, 9, 11)])
def test_every_pixel_counts(encoder, size):
    network = awake(small(encoder, len(size))).eval()
    image = torch.rand(8, 1, *size, requires_grad=True)  # a ReLU or a maximum may hide a pixel of one image
    weights = torch.randn_like(network(image)[-1])
    (network(image)[-1] * weights).sum().backward()
    assert (image.grad.abs().amax(0) > 0).all()


def resnet_reference(encoder, x):
    """A ResNet of one basic block per stage, written out; batch normalisation with running statistics."""

    def convolve(x, convolution, norm, stride, padding):
        x = F.conv2d(x, convolution.weight, stride=stride, padding=padding)
        mean, variance = (s.view(1, -1, 1, 1) for s in (norm.running_mean, norm.running_var))
        x = (x - mean) / (variance + 1e-5).sqrt()
        return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    x = F.max_pool2d(convolve(x, encoder.stem[0], encoder.stem[1], 2, 3).relu(), 3, 2, 1)
    features = []
    for i, (block,) in enumerate(encoder.stages):
        stride = 1 if i == 0 else 2
        shortcut = x if i == 0 else convolve(x, block.downsample[1], block.downsample[2], stride, 0)
        x = convolve(x, block.conv1, block.bn1, stride, 1).relu()
        x = (convolve(x, block.conv2, block.bn2, 1, 1) + shortcut).relu()
        features.append(x)
    return features


def convnext_reference(encoder, x):
    """A ConvNeXt of one block per stage, written out with channels first and 1x1 convolutions."""

    def normalise(x, norm):
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    features = []
    for i, (first, second, block) in enumerate(encoder.stages):
        if i == 0:
            x = normalise(F.conv2d(x, first.convolution.weight, first.convolution.bias, stride=4), second)
        else:
            x = F.conv2d(normalise(x, first), second.convolution.weight, second.convolution.bias, stride=2)
        norm, wide, _, narrow = block.pointwise
        y = F.conv2d(x, block.depthwise.weight, block.depthwise.bias, padding=3, groups=x.shape[1])
        y = F.conv2d(normalise(y, norm), wide.weight[:, :, None, None], wide.bias)
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        y = F.conv2d(y, narrow.weight[:, :, None, None], narrow.bias)
        x = x + block.scale.view(1, -1, 1, 1) * y
        features.append(x)
    return features


@pytest.mark.parametrize(
    ("encoder", "reference"), [(ResNetEncoder, resnet_reference), (ConvNeXtEncoder, convnext_reference)]
)
def test_features_equal_a_reference_with_the_same_weights(encoder, reference):
    network = small(encoder, in_channels=2).eval()
    for parameter in network.parameters():  # no part is neutral: norms, biases and scales have values of their own
        nn.init.uniform_(parameter, -0.9, 0.9)
    for buffer in network.buffers():  # running means and variances
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.3, 0.9)
    image = torch.randn(2, 2, 32, 24)
    for feature, expected in zip(network(image), reference(network, image), strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4)


def test_convnext_starts_as_its_strided_layers():
    network = ConvNeXtEncoder(2, 1, (16, 32), 6)
    x = torch.randn(2, 1, 32, 32)
    for feature, stage in zip(network(x), network.stages, strict=True):
        x = stage[1](stage[0](x))
        torch.testing.assert_close(feature, x, rtol=0.0, atol=1e-4 * float(x.detach().std()))
        assert not torch.equal(feature, x)


def test_weights_start_as_published():
    resnet, convnext = ResNetEncoder(2, 1, (64, 128), 1), ConvNeXtEncoder(2, 1, (64, 128), 1)
    second = resnet.stages[1][0].conv2.weight
    torch.testing.assert_close(second.std(), torch.tensor((2 / (128 * 9)) ** 0.5), rtol=0.02, atol=0.0)
    for parameter in (convnext.stages[1][1].convolution.weight, convnext.stages[0][2].pointwise[1].weight):
        torch.testing.assert_close(parameter.std(), torch.tensor(0.02), rtol=0.05, atol=0.0)
    assert all((p == 0).all() for name, p in convnext.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_reaches_every_parameter(encoder):
    network = probabilistic_unet(encoder)
    label = torch.randint(0, 2, (4, 3, 32, 32))
    loss = VariationalLoss(NegativeLogLikelihood(), {"kl": DivergenceTerm(KLDivergence())})
    loss(network(torch.rand(4, 1, 32, 32), label), label).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_inference_path_scripts(encoder):
    network = probabilistic_unet(encoder).eval()
    scripted, image = torch.jit.script(network), torch.rand(2, 1, 19, 16)
    for call in (lambda n: n(image), lambda n: n.sample(image, 3)):
        torch.manual_seed(0)
        expected = call(network)
        torch.manual_seed(0)
        torch.testing.assert_close(call(scripted), expected)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bf16_is_close_to_float32(encoder):
    network = awake(encoder(2, 1, (16, 32), 2)).eval()
    image = torch.rand(2, 1, 32, 32)
    plain = network(image)[-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image)[-1].float()
    assert 0 < (half - plain).abs().max() < 0.05 * plain.abs().max()
    density = ConditionalDensity(network, DiagonalNormal(32, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert density(image).mean.dtype == torch.float32


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_memory_format_changes_neither_features_nor_gradients(encoder, spatial_dims):
    network = awake(small(encoder, spatial_dims, in_channels=3))
    image = torch.rand(2, 3, *[13] * spatial_dims)
    memory_format = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    other = copy.deepcopy(network).to(memory_format=memory_format)
    features, others = network(image), other(image.to(memory_format=memory_format))
    for feature, same in zip(features, others, strict=True):
        torch.testing.assert_close(same, feature, rtol=1e-3, atol=1e-4)
    features[-1].square().sum().backward()
    others[-1].square().sum().backward()
    for (name, parameter), same in zip(network.named_parameters(), other.parameters(), strict=True):
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(same.grad, parameter.grad, rtol=1e-3, atol=1e-3 * scale + 1e-4, msg=name)


@pytest.mark.parametrize("norm", [None, "instance", ("group", {"num_groups": 2})])
def test_resnets_normalisation_is_an_option(norm):
    network = small(ResNetEncoder, norm=norm)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert network(torch.rand(1, 1, 32, 32))[-1].isfinite().all()


def test_stochastic_depth_leaves_blocks_out_in_training_only():
    network = ConvNeXtEncoder(2, 1, (4, 8), 2, drop_path=0.6)
    rates = [module.drop_path.drop_prob for module in network.modules() if isinstance(module, ConvNeXtBlock)]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6])
    block = awake(ConvNeXtBlock(2, 4, drop_path=0.5))
    x = torch.randn(64, 4, 8, 8)
    branch = block.eval()(x) - x
    trained = block.train()(x) - x
    dropped = trained.flatten(1).abs().amax(1) == 0
    assert 10 < dropped.sum() < 54
    torch.testing.assert_close(trained[~dropped], 2 * branch[~dropped])  # the expectation stays
    assert torch.equal(block.eval()(x) - x, branch)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_blocks_fit_the_filters(encoder):
    assert parameters_of(encoder(2, 1, (4, 8), 2)) == parameters_of(encoder(2, 1, (4, 8), (2, 2)))
    for blocks in ((2, 2, 2), (1, 0), 0):
        with pytest.raises(InputError, match="blocks is .* for 2 stages"):
            encoder(2, 1, (4, 8), blocks)
    with pytest.raises(InputError, match="for 3 stages"):  # the default fits four stages
        encoder(2, 1, (4, 8, 8))
