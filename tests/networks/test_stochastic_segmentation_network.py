"""Stochastic segmentation networks: one law from maps to samples, for any backbone."""

import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet, UNet
from torch import nn

from aleatoric.errors import InputError
from aleatoric.losses import MonteCarloLikelihoodLoss
from aleatoric.networks.blocks import ForegroundMask, LogitMapDensity, UNetBackbone
from aleatoric.networks.nets import StochasticSegmentationNetwork


def network(classes=1, rank=3, spatial_dims=2, channels=1, backbone=None, **options):
    backbone = UNetBackbone(spatial_dims, channels, (4, 8), 1) if backbone is None else backbone
    return StochasticSegmentationNetwork(backbone, LogitMapDensity(spatial_dims, 4, classes, rank), **options)


class Unpadded(nn.Module):
    """A backbone that loses two pixels at each side."""

    margin = 2

    def __init__(self, spatial_dims=2):
        super().__init__()
        self.convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2](1, 4, kernel_size=5)

    def forward(self, image):
        return self.convolution(image)


BACKBONES = {
    "ours": lambda dims: UNetBackbone(dims, 1, (4, 8), 1),
    "UNet": lambda dims: UNet(dims, 1, 4, (4, 8), (2,)),
    "BasicUNet": lambda dims: BasicUNet(dims, 1, 4, (4, 4, 8, 8, 8, 4), norm="batch"),
    "SegResNet": lambda dims: SegResNet(dims, 8, 1, 4, blocks_down=(1, 1), blocks_up=(1,)),
    "unpadded": Unpadded,
}


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_any_backbone(name, spatial_dims):
    size = 32
    if name != "BasicUNet":  # which halves four times
        size = 10
    model = network(2, backbone=BACKBONES[name](spatial_dims), spatial_dims=spatial_dims, foreground=ForegroundMask())
    image, label = torch.rand(2, 1, *[size] * spatial_dims), torch.randint(0, 2, (2, 3, *[size] * spatial_dims))
    inner = [size - 2 * model.margin] * spatial_dims
    assert model.margin == (2 if name == "unpadded" else 0)
    assert model(image).shape == (2, 2, *inner) and model.sample(image, 3).shape == (2, 3, 2, *inner)
    assert model.maps(image).shape == (2, 2 * (2 + 3), *inner)
    loss = MonteCarloLikelihoodLoss(4)(model(image, label=label), label)
    loss.backward()
    for parameter_name, parameter in model.density.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("foreground", [None, ForegroundMask()])
def test_samples_follow_the_distribution(classes, rank, spatial_dims, foreground):
    model = network(classes, rank, spatial_dims, foreground=foreground).eval()
    image = torch.rand(2, 1, *[3] * spatial_dims)
    image[:, :, 0] = 0.0
    with torch.no_grad():
        law = model.distribution(image)
        torch.manual_seed(0)
        draws = model.sample(image, 20_000, temperature=2.0)  # (B, N, K, *S)
        assert torch.equal(model(image), law.mean)
    assert law.batch_shape == (2,) and law.event_shape == (classes, *[3] * spatial_dims) and law.rank == rank
    expected = law.with_temperature(2.0)
    scale = expected.stddev.max()
    torch.testing.assert_close(draws.mean(1), law.mean, atol=0.05 * scale.item(), rtol=0)
    for b in range(2):
        covariance = draws[b].flatten(1).T.cov()
        torch.testing.assert_close(covariance, expected.covariance_matrix[b], atol=0.06 * scale.item() ** 2, rtol=0)
    if rank:
        assert (covariance - covariance.diag().diag()).abs().max() > 0.02 * scale**2  # it is no diagonal law


def test_noise_of_an_image_is_its_own():
    model = network().eval()
    draws = model.sample(torch.rand(1, 1, 8, 8).expand(2, -1, -1, -1), 2)
    assert (draws[0] - draws[1]).abs().min() > 0 and (draws[:, 0] - draws[:, 1]).abs().min() > 0


def test_temperature_zero_gives_the_mean():
    model, image = network(2).eval(), torch.rand(2, 1, 8, 8)
    assert torch.equal(model.sample(image, 3, temperature=0.0), model(image).unsqueeze(1).expand(-1, 3, -1, -1, -1))


def test_sampling_runs_the_network_once_and_maps_are_enough():
    model, image = network(2).eval(), torch.rand(2, 1, 8, 8)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    draws = model.sample(image, 50)
    assert len(calls) == 1
    maps = model.maps(image)
    torch.manual_seed(0)
    assert torch.equal(model.sample_maps(maps, 50), draws) and len(calls) == 2


def test_drawing_needs_the_memory_of_its_result():
    model = network(1, rank=10)
    maps = model.maps(torch.rand(1, 1, 64, 64)).detach()
    with torch.profiler.profile(profile_memory=True) as profile:
        draws = model.sample_maps(maps, 100)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    assert allocated < 1.3 * 4 * draws.numel()


def test_maps_are_linear_in_what_may_be_blended():
    # equal windows that overlap blend to themselves, and the law of the blend is theirs
    model = network(2).eval()
    maps = model.maps(torch.rand(1, 1, 8, 8))
    law, blended = model.distribution_of(maps), model.distribution_of(0.3 * maps + 0.7 * maps)
    torch.testing.assert_close(blended.covariance_matrix, law.covariance_matrix)
    torch.testing.assert_close(blended.mean, law.mean)


def test_background_has_a_mean_and_no_spread():
    image = torch.rand(2, 2, 8, 8) + 0.1
    image[:, :, :3] = 0.0
    image[:, 0, 5] = 0.0  # one channel of two: no background
    label = torch.randint(0, 2, (2, 4, 8, 8))
    masked = network(2, channels=2, foreground=ForegroundMask())
    plain = StochasticSegmentationNetwork(masked.backbone, masked.density)
    law, whole = masked.distribution(image), plain.distribution(image)
    assert not law.variance[:, :, :3].any() and torch.equal(law.variance[:, :, 3:], whole.variance[:, :, 3:])
    assert torch.equal(law.mean, whole.mean)
    draws = masked.sample(image, 5)
    assert torch.equal(draws[:, :, :, :3], law.mean[:, None, :, :3].expand(-1, 5, -1, -1, -1))
    assert draws[:, :, :, 3:].std(1).min() > 0
    # the background counts, through its mean alone
    output = masked(image, label)
    loss = MonteCarloLikelihoodLoss(3)
    torch.manual_seed(0)
    value = loss(output, label)
    gradients = torch.autograd.grad(value, masked.parameters())
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.manual_seed(0)
    other = label.clone()
    other[:, :, :3] = 1 - other[:, :, :3]
    assert (loss(output, other) - value).abs() > 0.1


def test_the_mask_is_cropped_by_the_backbones_margin():
    model = network(1, backbone=Unpadded(), foreground=ForegroundMask(background=-1.0))
    image = torch.rand(1, 1, 12, 10)
    image[:, :, 4, 5] = -1.0
    spread = model.distribution(image).variance[0, 0] > 0
    assert spread.shape == (8, 6) and not spread[2, 3] and spread.sum() == 47


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("foreground", [None, ForegroundMask()])
def test_inference_path_scripts(rank, foreground, tmp_path):
    model, image = network(2, rank, foreground=foreground).eval(), torch.rand(2, 1, 16, 16)
    image[:, :, :4] = 0.0
    torch.jit.save(torch.jit.script(model), tmp_path / "model.ts")
    scripted = torch.jit.load(tmp_path / "model.ts")
    for call in (
        lambda n: n(image),
        lambda n: n.maps(image),
        lambda n: n.sample(image, 3, 0.5),
        lambda n: n.sample_maps(n.maps(image), 3),
    ):
        torch.manual_seed(0)
        expected = call(model)
        torch.manual_seed(0)
        torch.testing.assert_close(call(scripted), expected)


def test_training_output_and_missing_raters():
    model, image, label = network(2), torch.rand(3, 1, 8, 8), torch.randint(0, 2, (3, 4, 8, 8))
    output = model(image, label=label)
    assert output.rater_valid.shape == (3, 4) and output.rater_valid.all()
    assert output.distribution.event_shape == (2, 8, 8) and output.distribution.rank == 3
    valid = torch.tensor([[1, 0, 1, 1]], dtype=torch.bool).expand(3, 4)
    assert torch.equal(model(image, label, valid).rater_valid, valid)
    with pytest.raises(InputError, match=r"label has shape \(3, 8, 8\)"):
        model(image, label[:, 0])


def test_gradient_reaches_every_parameter():
    model = network(2)
    label = torch.randint(0, 2, (4, 4, 16, 16))
    MonteCarloLikelihoodLoss(4)(model(torch.rand(4, 1, 16, 16), label), label).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_bf16_is_of_the_backbone_alone():
    model, image, label = network(), torch.rand(4, 1, 32, 32), torch.randint(0, 2, (4, 4, 32, 32))
    losses, laws = {}, {}
    for bf16 in (False, True):
        model.bf16 = bf16
        torch.manual_seed(0)
        output = model(image, label)
        laws[bf16] = output.distribution
        assert output.distribution.mean.dtype == output.distribution.factor.dtype == torch.float32
        assert model.sample(image, 2).dtype == model(image).dtype == torch.float32
        torch.manual_seed(0)
        losses[bf16] = MonteCarloLikelihoodLoss(8)(output, label)
    torch.testing.assert_close(losses[True], losses[False], rtol=0.01, atol=0)
    assert losses[True] != losses[False]  # it did run in bfloat16
    # the numbers of a map keep more digits than bfloat16 has
    assert (laws[True].mean != laws[True].mean.bfloat16().float()).float().mean() > 0.9


@pytest.mark.parametrize("rank", [0, 3])
def test_spread_is_bounded_and_finite_for_any_features(rank):
    density = LogitMapDensity(2, 4, 2, rank, num_layers=0, max_std=1000.0)
    for value in (0.0, 1e3, -1e3, 1e12, -1e12):
        features = torch.full((1, 4, 3, 3), value, requires_grad=True)
        law = density.distribution_of(density(features))
        assert (law.variance > 0).all() and law.stddev.max() < 1415 and law.stddev.isfinite().all()
        assert law.rsample((5,)).isfinite().all() and law.entropy().isfinite().all()
        law.rsample((5,)).sum().backward()
        assert features.grad.isfinite().all()


def test_the_bound_is_nothing_in_ordinary_use():
    density = LogitMapDensity(2, 8, 2, 3, num_layers=0, epsilon=1e-5)
    features = 10 * torch.randn(2, 8, 6, 6)
    raw = density.maps(features).unflatten(1, (5, 2))
    law = density.distribution_of(density(features))
    kept = raw[:, 1] < 2 * torch.tensor(30.0).log()  # standard deviations up to 30
    torch.testing.assert_close(law.diagonal[kept], (raw[:, 1].exp() + 1e-5)[kept], rtol=1e-3, atol=1e-7)
    small = raw[:, 2:].square().sum(1, keepdim=True).sqrt().expand(-1, 3, -1, -1, -1) < 30
    assert small.float().mean() > 0.5
    torch.testing.assert_close(law.factor[small], raw[:, 2:][small], rtol=5e-4, atol=0)
    assert torch.equal(law.mean, raw[:, 0])


def test_layers_and_their_widths():
    def kernels(density):
        return [m.weight.shape[:2] for m in density.modules() if isinstance(m, nn.Conv2d)]

    assert kernels(LogitMapDensity(2, 8, 2, 10)) == [(8, 8)] * 3 + [(24, 8)]
    assert kernels(LogitMapDensity(2, 8, 1, 0, 1, 5)) == [(5, 8), (2, 5)]
    assert kernels(LogitMapDensity(2, 8, 1, 2, 0)) == [(4, 8)]
    kinds = [type(m) for m in LogitMapDensity(2, 8, 1, 2, 1, norm="batch").hidden.modules() if not [*m.children()]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    for wrong in ({"rank": -1}, {"num_layers": -1}, {"epsilon": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LogitMapDensity(**wrong)
