"""The sampling inferer: seeded, one law or one z for all windows of a volume, margins, DDP, the image's metadata."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch import nn
from torch.nn import functional as F

from aleatoric.errors import InputError
from aleatoric.inferers import SamplingInferer, Walk
from aleatoric.networks.blocks import DropoutUNetBackbone, LogitMapDensity
from aleatoric.networks.nets import (
    DeepMedic,
    DeterministicSegmentationNetwork,
    MonteCarloDropoutNetwork,
    StochasticSegmentationNetwork,
)
from models import hierarchical_unet, phiseg, probabilistic_unet


def slices(**options) -> SliceInferer:
    settings = {"roi_size": (16, 16), "spatial_dim": 2, "sw_batch_size": 1, "overlap": 0.25, "mode": "gaussian"}
    return SliceInferer(**{**settings, **options})


def test_one_seed_gives_one_answer_whatever_was_drawn_before():
    network, image = probabilistic_unet(), torch.rand(2, 1, 8, 8)
    inferer = SamplingInferer(3, seed=5)
    state = torch.get_rng_state()
    first = inferer(image, network)
    assert first.shape == (2, 3, 1, 8, 8) and torch.equal(inferer(image, network), first)
    assert torch.equal(torch.get_rng_state(), state)  # and nobody else's noise is changed
    assert not torch.equal(SamplingInferer(3, seed=6)(image, network), first)
    free = SamplingInferer(3)
    assert not torch.equal(free(image, network), free(image, network))
    torch.manual_seed(5)
    assert torch.equal(free(image, network), first)


def test_samples_are_the_networks_and_the_temperature_reaches_it():
    network, image = probabilistic_unet(), torch.rand(2, 1, 8, 8)
    torch.manual_seed(1)
    expected = network.sample(image, 4, 0.5)
    assert torch.equal(SamplingInferer(4, seed=1, temperature=0.5)(image, network), expected)
    cold = SamplingInferer(4, temperature=0.0)(image, network)
    torch.testing.assert_close(cold, cold[:, :1].expand_as(cold))
    assert not expected.requires_grad or not cold.requires_grad


@pytest.mark.parametrize("classes", [1, 3])
def test_equal_slices_of_a_volume_get_equal_samples(classes):
    network = probabilistic_unet(classes=classes)
    plane = torch.rand(1, 1, 16, 16, 1)
    volume = plane.repeat(1, 1, 1, 1, 4)
    volume[..., 2] += 1
    for seed in (None, 3):
        logits = SamplingInferer(5, seed=seed, volume_inferer=slices())(volume, network)
        assert logits.shape == (1, 5, classes, 16, 16, 4)
        for k in (1, 3):
            torch.testing.assert_close(logits[..., k], logits[..., 0])
        assert not torch.allclose(logits[..., 2], logits[..., 0])
        assert logits[..., 0].std(1).max() > 0
    free = SamplingInferer(5, volume_inferer=slices())
    assert not torch.equal(free(volume, network), free(volume, network))  # two volumes are two draws


def windows(roi_size, **options) -> SlidingWindowInferer:
    return SlidingWindowInferer(roi_size, **{"overlap": 0.25, "mode": "gaussian", **options})


# one latent vector ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True])
def test_a_window_that_covers_the_volume_is_the_image(bf16):
    network, volume = probabilistic_unet(spatial_dims=3, bf16=bf16), torch.rand(2, 1, 8, 8, 8)
    torch.manual_seed(3)
    expected = network.sample(volume, 4, 0.7)
    inferer = SamplingInferer(4, 3, 0.7, windows((8, 8, 8), mode="constant"))
    torch.testing.assert_close(inferer(volume, network), expected)


def test_one_z_for_all_windows_drawn_given_the_whole_volume():
    network, volume = probabilistic_unet(spatial_dims=3), torch.rand(1, 1, 16, 8, 24)
    volume[:, :, 8:] += 2  # windows that differ in their features
    drawn, decoded = [], []
    draw, decode = network.prior.density.draw, network.decode
    network.prior.density.draw = lambda features, *rest: drawn.append((features, draw(features, *rest))) or drawn[-1][1]
    network.decode = lambda features, z, *rest: decoded.append(z) or decode(features, z, *rest)
    calls = [0, 0]
    for place, part in enumerate((network.backbone, network.prior.encoder)):
        part.register_forward_hook(lambda *_, place=place: calls.__setitem__(place, calls[place] + 1))
    SamplingInferer(5, volume_inferer=windows((8, 8, 8), overlap=0.0))(volume, network)
    ((features, z),) = drawn
    assert calls == [6, 6] and len(decoded) == 6  # backbone and prior once a window
    assert z.shape == (1, 5, 3) and all(torch.equal(used, z) for used in decoded) and z.std(1).min() > 0
    parts = [network.prior.features(volume[..., x : x + 8, :, y : y + 8]) for x in (0, 8) for y in (0, 8, 16)]
    torch.testing.assert_close(features, torch.stack(parts).mean(0).expand(5, -1)[None])


def test_windows_may_come_in_any_order():
    network, blocks = probabilistic_unet(spatial_dims=3), torch.rand(4, 1, 1, 8, 8, 8)
    inferer = SamplingInferer(3, 0, volume_inferer=windows((8, 8, 8), overlap=0.0))
    order = [2, 0, 3, 1]
    logits = inferer(torch.cat(list(blocks), -1), network).split(8, -1)
    permuted = inferer(torch.cat([blocks[i] for i in order], -1), network).split(8, -1)
    for place, i in enumerate(order):
        torch.testing.assert_close(permuted[place], logits[i])


def test_a_slice_of_a_volume_has_the_volumes_z():
    network, volume = probabilistic_unet(), torch.rand(1, 1, 16, 16, 3)
    logits = SamplingInferer(2, seed=0, volume_inferer=slices())(volume, network)
    features = torch.stack([network.prior.features(volume[..., k]) for k in range(3)]).mean(0)
    torch.manual_seed(0)
    z = network.prior.density.draw(features.unsqueeze(1).expand(-1, 2, -1))
    for k in range(3):
        torch.testing.assert_close(logits[..., k], network.decode(network.backbone(volume[..., k]), z))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_along_any_axis(axis):
    network, volume = probabilistic_unet(), torch.rand(2, 1, 16, 16, 16)
    inferer = SamplingInferer(2, 0, volume_inferer=slices(sw_batch_size=5))
    turned = SamplingInferer(2, 0, volume_inferer=slices(spatial_dim=axis, sw_batch_size=3))
    expected = inferer(volume, network).movedim(-1, axis + 3)
    torch.testing.assert_close(turned(volume.movedim(-1, axis + 2), network), expected, atol=1e-5, rtol=1e-4)


def test_images_of_a_batch_keep_to_themselves():
    network, volumes = probabilistic_unet(), torch.rand(3, 1, 20, 16, 2)
    inferer = SamplingInferer(2, temperature=0.0, volume_inferer=slices(sw_batch_size=4))
    logits = inferer(volumes, network)
    for b in range(3):
        torch.testing.assert_close(logits[b : b + 1], inferer(volumes[b : b + 1], network))


def test_a_mean_over_windows_counts_each_voxel_once():
    image = torch.rand(2, 3, 36, 16)
    walk = Walk(windows((16, 16), sw_batch_size=4), image, nn.Identity())
    # windows start at 0, 12 and 20; voxels that two of them see count half for each
    weight = torch.tensor([14, 10, 12]) / 36
    expected = sum(w * image[:, :, x : x + 16].flatten(2).mean(-1) for w, x in zip(weight, (0, 12, 20)))
    torch.testing.assert_close(walk.mean(lambda window: window.flatten(2).mean(-1)), expected)
    tiled = Walk(windows((12, 8), overlap=0.0), image, nn.Identity())
    torch.testing.assert_close(tiled.mean(lambda window: window.flatten(2).mean(-1)), image.flatten(2).mean(-1))


# one law over the volume ----------------------------------------------------------------------------------------------


class Maps(nn.Module):
    """The two halves of a stochastic segmentation network, as plainly as can be: K classes, R factors, 2D."""

    def __init__(self, classes=2, rank=2, padding=0, constant=False):
        super().__init__()
        torch.manual_seed(0)
        self.shape = (2 + rank, classes)
        self.convolution = nn.Conv2d(1, (2 + rank) * classes, 5, padding=padding)
        if constant:
            nn.init.zeros_(self.convolution.weight)
        self.margin = 2 - padding
        self.seen, self.drawn = [], []

    def maps(self, image):
        self.seen.append(image.shape)
        parts = self.convolution(image).unflatten(1, self.shape)
        return torch.cat([parts[:, :1], parts[:, 1:2] ** 2 / 4, 2 * parts[:, 2:]], 1).flatten(1, 2)

    def sample_maps(self, maps, num_samples, temperature=1.0, chunk_size=0):
        self.drawn.append(maps)
        mean, diagonal, *factors = maps.unflatten(1, self.shape).unbind(1)  # (B, K, *S) each
        logits = mean[:, None] + temperature * diagonal.sqrt()[:, None] * torch.randn(num_samples, *mean.shape[1:])
        for factor in factors:
            logits = logits + temperature * factor[:, None] * torch.randn(num_samples, 1, 1, 1)
        return logits

    def sample(self, image, num_samples, temperature=1.0, chunk_size=0):
        return self.sample_maps(self.maps(image), num_samples, temperature)


def test_the_volume_is_sampled_once():
    network, image = Maps(), torch.rand(2, 1, 20, 27)
    SamplingInferer(7, volume_inferer=windows((8, 8), sw_batch_size=3))(image, network)
    (maps,) = network.drawn
    assert maps.shape == (2, 8, 20, 27)
    assert {shape[1:] for shape in network.seen} == {(1, 12, 12)}  # 8 and the margin of 2 a side


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
def test_the_variance_of_a_constant_law_knows_no_seam(mode, overlap):
    for padding in (0, 2):
        network = Maps(constant=True, padding=padding)
        SamplingInferer(2, volume_inferer=windows((8, 8), overlap=overlap, mode=mode))(
            torch.rand(1, 1, 21, 30), network
        )
        (maps,) = network.drawn
        torch.testing.assert_close(maps, maps[..., :1, :1].expand_as(maps), rtol=1e-6, atol=0)


def test_blended_variance_is_not_above_that_of_the_windows():
    """Windows that do not agree (padded convolutions): factor linear, variance convex in it, diagonal linear."""
    network, image = Maps(padding=2), torch.rand(1, 1, 8, 20)

    def variance(maps):
        _, diagonal, *factors = maps.unflatten(1, network.shape).unbind(1)
        return diagonal + torch.stack(factors).square().sum(0)

    SamplingInferer(2, volume_inferer=windows((8, 8), overlap=0.5))(image, network)
    stitched = variance(network.drawn[0])
    bound = torch.zeros_like(stitched)
    disagree = False
    for x in (0, 4, 8, 12):
        own = variance(network.maps(image[..., x : x + 8]))
        disagree |= x > 0 and not torch.allclose(own[..., :4], bound[..., x : x + 4], rtol=0.01)
        bound[..., x : x + 8] = torch.maximum(bound[..., x : x + 8], own)
    assert disagree and (stitched <= bound * (1 + 1e-5)).all()


def neighbour_correlations(logits):
    """Correlation, over samples, of each voxel with the next one along the last axis; the mean over all others."""
    deviation = logits - logits.mean(1, keepdim=True)
    scaled = deviation / deviation.square().mean(1, keepdim=True).sqrt()
    return (scaled[..., 1:] * scaled[..., :-1]).mean((0, 1, 2, 3))


def test_neighbours_are_as_close_across_a_seam_as_inside():
    network, image = Maps(padding=0), torch.full((1, 1, 8, 24), 0.5)
    volume_inferer = windows((8, 8), overlap=0.0, cval=0.5)
    stitched = neighbour_correlations(SamplingInferer(2000, 0, volume_inferer=volume_inferer)(image, network))
    assert stitched.min() > 0.5 and (stitched.max() - stitched.min()) < 0.05
    # what sampling by windows does instead: neighbours on the two sides of a seam know nothing of each other
    wide = F.pad(image, (2, 2, 2, 2), value=0.5)
    apart = [network.sample(wide[..., x : x + 12], 2000) for x in (0, 8, 16)]
    naive = neighbour_correlations(torch.cat(apart, -1))
    assert naive[[7, 15]].abs().max() < 0.1 < 0.5 < naive[[6, 8, 14, 16]].min()


def test_places_of_two_windows_share_no_noise_of_their_own():
    """The same noise in every window would repeat the independent part of the law at every window."""
    network = Maps(rank=1)
    nn.init.zeros_(network.convolution.weight)
    nn.init.ones_(network.convolution.bias)
    network.sample_maps = lambda maps, *rest: Maps.sample_maps(
        network, maps * torch.tensor([1, 1, 4, 4, 0, 0])[:, None, None], *rest
    )
    logits = SamplingInferer(2000, 0, volume_inferer=windows((8, 8), overlap=0.0))(torch.rand(1, 1, 8, 16), network)
    deviation = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)
    assert (deviation[..., :8] * deviation[..., 8:]).mean(1).abs().max() < 0.12


def ssn_of_deepmedic(spatial_dims=2, classes=2) -> StochasticSegmentationNetwork:
    torch.manual_seed(0)
    backbone = DeepMedic(spatial_dims, 1, None, filters=(2, 3), hidden_channels=(4,))
    return StochasticSegmentationNetwork(backbone, LogitMapDensity(spatial_dims, 4, classes, 2)).eval()


def test_one_seed_gives_one_volume():
    network, image = ssn_of_deepmedic(), torch.rand(1, 1, 33, 20)
    inferer = SamplingInferer(3, 5, volume_inferer=windows((15, 15)))
    first = inferer(image, network)
    assert first.shape == (1, 3, 2, 33, 20) and torch.equal(first, inferer(image, network))
    # ... whatever the windows: the noise is the volume's
    torch.testing.assert_close(SamplingInferer(3, 5, volume_inferer=windows((30, 15)))(image, network), first)
    assert not torch.equal(SamplingInferer(3, 6, volume_inferer=windows((15, 15)))(image, network), first)
    cold = SamplingInferer(3, 5, 0.0, windows((15, 15)))(image, network)
    torch.testing.assert_close(cold, cold[:, :1].expand_as(cold))


# margins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(33, 20), (15, 61), (7, 30)])
@pytest.mark.parametrize(
    ("roi_size", "overlap", "mode"),
    [(15, 0.0, "constant"), ((30, 15), 0.25, "gaussian"), ((45, 20), 0.5, "gaussian"), (-1, 0.25, "constant")],
)
def test_windows_of_an_unpadded_network_are_one_pass(size, roi_size, overlap, mode):
    """The patch size used for inference has no impact on the result (Monteiro et al. 2020, section 5.3)."""
    network, image = ssn_of_deepmedic(), torch.rand(2, 1, *size)
    volume_inferer = windows(roi_size, overlap=overlap, mode=mode, cval=-0.5, sw_batch_size=3)
    logits = SamplingInferer(2, temperature=0.0, volume_inferer=volume_inferer)(image, network)
    canvas = [-(-side // 15) * 15 for side in size]
    pads = (10, 10 + canvas[1] - size[1], 10, 10 + canvas[0] - size[0])
    expected = network(F.pad(image, pads, value=-0.5))[..., : size[0], : size[1]]
    torch.testing.assert_close(logits, expected.unsqueeze(1).expand(-1, 2, -1, -1, -1))
    assert volume_inferer.overlap == overlap and volume_inferer.roi_size == roi_size  # as the user gave it


@pytest.mark.parametrize(
    ("roi_size", "step"), [(side, step) for side in range(15, 121, 15) for step in range(15, side + 1, 15)]
)
def test_windows_keep_to_the_networks_grid(roi_size, step):
    """Their first voxels are multiples of 15, whatever the rounding of an overlap."""
    walk = Walk(windows(roi_size, overlap=(roi_size - step) / roi_size), torch.zeros(1, 1, 200, 1), ssn_of_deepmedic())
    starts = set()
    walk(lambda window, places: starts.update(place[2].start for place in places) or window[..., 10:-10, 10:-10])
    assert starts == {*range(0, 210 - roi_size, step), 210 - roi_size}


def test_weights_that_monai_keeps_do_not_disturb():
    network, volume = probabilistic_unet(), torch.rand(1, 1, 20, 24, 3)
    for inferer, image, sampler in (
        (slices, volume, network),
        (lambda **options: windows((20, 15), **options), volume[..., 0], ssn_of_deepmedic()),
    ):
        kept = SamplingInferer(2, 0, volume_inferer=inferer(cache_roi_weight_map=True))
        torch.testing.assert_close(
            kept(image, sampler), SamplingInferer(2, 0, volume_inferer=inferer())(image, sampler)
        )


def test_windows_of_the_whole_deepmedic_in_three_dimensions():
    torch.manual_seed(0)
    network = DeterministicSegmentationNetwork(DeepMedic(3, 2, 3, (2,) * 8, hidden_channels=(4,)).eval())
    volume = torch.rand(1, 2, 31, 15, 20)
    logits = SamplingInferer(2, volume_inferer=windows((15, 15, 30)))(volume, network)
    expected = network(F.pad(volume, (40, 50, 40, 40, 40, 54)))[..., :31, :15, :20]
    torch.testing.assert_close(logits, expected.unsqueeze(1).expand_as(logits))


def test_slices_of_an_unpadded_network_have_no_margin_along_the_walk():
    network, volume = ssn_of_deepmedic(), torch.rand(1, 1, 20, 3, 15)
    volume_inferer = slices(roi_size=(15, 15), spatial_dim=1, overlap=0.5)
    logits = SamplingInferer(2, temperature=0.0, volume_inferer=volume_inferer)(volume, network)
    padded = F.pad(volume, (10, 10, 0, 0, 10, 20))
    for k in range(3):
        torch.testing.assert_close(logits[:, 0, :, :, k], network(padded[..., k, :])[..., :20, :])


def test_without_a_volume_inferer_the_network_sees_the_image_as_it_is():
    network, image = ssn_of_deepmedic(), torch.rand(1, 1, 35, 50)
    logits = SamplingInferer(2, temperature=0.0)(image, network)
    torch.testing.assert_close(logits[:, 0], network(image))


def test_scripted_networks_go_the_same_way():
    """An exported network has the same methods and attributes."""
    for network in (ssn_of_deepmedic(), probabilistic_unet()):
        image = torch.rand(1, 1, 20, 15)
        inferer = SamplingInferer(3, 0, volume_inferer=windows((15, 15)))
        torch.testing.assert_close(inferer(image, torch.jit.script(network)), inferer(image, network))


# all others -----------------------------------------------------------------------------------------------------------


def test_windows_of_one_slice_fit_together():
    """Equal windows get the same noise, so a periodic image has a periodic answer, whatever the window."""
    tile = torch.rand(1, 1, 16, 16, 1)
    volume = tile.repeat(1, 1, 2, 1, 1)
    dropout = MonteCarloDropoutNetwork(DropoutUNetBackbone(2, 1, (4, 8), num_convs=1), nn.Conv2d(4, 1, 1))
    for network in (probabilistic_unet(), dropout):
        logits = SamplingInferer(3, volume_inferer=slices(overlap=0.0))(volume, network)
        torch.testing.assert_close(logits[..., :16, :, 0], logits[..., 16:, :, 0], atol=1e-5, rtol=1e-5)
        assert logits.std(1).max() > 0


@pytest.mark.parametrize("classes", [1, 3])
def test_equal_samples_may_share_memory(classes):
    network, image = DeterministicSegmentationNetwork(nn.Conv2d(1, classes, 1)), torch.rand(1, 1, 20, 16)
    logits = SamplingInferer(3, volume_inferer=windows((16, 16)))(image, network)
    assert logits.shape == (1, 3, classes, 20, 16) and torch.equal(logits[:, 0], logits[:, 2])
    torch.testing.assert_close(logits[:, 0], network(image))


def test_the_image_is_not_written_to():
    image = torch.rand(1, 1, 20, 16)
    kept = image.clone()
    for network in (probabilistic_unet(), Maps(), DeterministicSegmentationNetwork(nn.Identity())):
        SamplingInferer(1, volume_inferer=windows((16, 16)))(image, network)
        assert torch.equal(image, kept)


def test_metadata_is_kept():
    network = probabilistic_unet()
    image = MetaTensor(torch.rand(1, 1, 8, 8), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    image.meta["filename_or_obj"] = "a.nii"
    logits = SamplingInferer(2, seed=0)(image, network)
    assert isinstance(logits, MetaTensor) and logits.meta["filename_or_obj"] == "a.nii"
    torch.testing.assert_close(logits.affine, image.affine)
    plain = SamplingInferer(2, seed=0)(image.as_tensor(), network)
    assert not isinstance(plain, MetaTensor) and torch.equal(plain, logits.as_tensor())


def test_through_distributed_data_parallel(tmp_path):
    network, image = probabilistic_unet(), torch.rand(2, 1, 8, 8)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(network)
        inferer = SamplingInferer(2, seed=0)
        assert torch.equal(inferer(image, wrapped), inferer(image, network))
    finally:
        torch.distributed.destroy_process_group()


def test_no_sample_is_no_answer():
    with pytest.raises(ValueError, match="num_samples is 0"):
        SamplingInferer(0)


@pytest.mark.parametrize("network", [hierarchical_unet(filters=(4, 8, 8), latent_dims=(1, 2)), phiseg()])
def test_latent_maps_are_drawn_for_a_slice_as_a_whole(network):
    """Windows that drew maps of their own would show: each slice is the network's own answer, of any size."""
    network = network.eval()
    volume = torch.rand(1, 1, 24, 40, 2)
    logits = SamplingInferer(3, seed=4, volume_inferer=slices(sw_batch_size=4))(volume, network)
    for k in range(2):
        torch.manual_seed(4)
        with torch.no_grad():
            expected = network.sample(volume[..., k], 3)
        torch.testing.assert_close(logits[..., k], expected)


def test_what_is_stitched_is_float32():
    network = Maps()
    image = torch.rand(1, 1, 16, 16)
    inferer = SamplingInferer(2, seed=0, volume_inferer=windows((8, 8)))
    assert inferer(image.bfloat16(), network).dtype == torch.float32
    torch.testing.assert_close(inferer(image.bfloat16(), network), inferer(image.bfloat16().float(), network))


def test_a_negative_temperature_is_refused():
    for temperature in (-1.0, float("nan")):
        with pytest.raises(InputError, match="0 or more is expected"):
            SamplingInferer(1, temperature=temperature)
