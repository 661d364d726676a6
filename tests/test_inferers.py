"""The sampling inferer: seeded, one noise for all slices of a volume, through DDP, keeping the image's metadata."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer

from aleatoric.inferers import SamplingInferer
from models import probabilistic_unet


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


def test_a_slice_of_a_volume_is_the_slice_as_an_image():
    network = probabilistic_unet()
    volume = torch.rand(1, 1, 16, 16, 3)
    inferer = SamplingInferer(2, seed=0, volume_inferer=slices())
    logits = inferer(volume, network)
    for k in range(3):
        torch.testing.assert_close(logits[..., k], inferer(volume[..., k], network), atol=1e-5, rtol=1e-5)


def test_windows_of_one_slice_fit_together():
    """Equal windows get the same noise, so a periodic image has a periodic answer, whatever the window."""
    network = probabilistic_unet()
    tile = torch.rand(1, 1, 16, 16, 1)
    volume = tile.repeat(1, 1, 2, 1, 1)
    logits = SamplingInferer(3, volume_inferer=slices(overlap=0.0))(volume, network)
    torch.testing.assert_close(logits[..., :16, :, 0], logits[..., 16:, :, 0], atol=1e-5, rtol=1e-5)


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
