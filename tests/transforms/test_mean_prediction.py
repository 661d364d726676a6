"""The one answer that stands for the samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import SlidingWindowInferer
from scipy.special import expit, softmax

from aleatoric.errors import InputError
from aleatoric.transforms import LogitsToMasksd, MeanPredictiond, SummarizeSamplesd, post


class OwnMean(torch.nn.Module):
    """Its mean is twice the image's channels; batch normalisation tells whether it was asked in evaluation mode."""

    def __init__(self, classes, spatial_dims=2):
        super().__init__()
        norm = torch.nn.BatchNorm2d if spatial_dims == 2 else torch.nn.BatchNorm3d
        self.norm = norm(classes, affine=False)

    def mean_logits(self, image):
        return 2 * self.norm(image)


def samples(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
@pytest.mark.parametrize("elements", [1, 500, 1 << 25])
def test_against_scipy(classes, size, elements, monkeypatch):
    monkeypatch.setattr(post, "_BLOCK_ELEMENTS", elements)
    logits = samples(2, 7, classes, *size)
    array = logits.double().numpy()
    mean = (expit(array) if classes == 1 else softmax(array, axis=2)).mean(1)
    expected = mean[:, 0] > 0.5 if classes == 1 else mean.argmax(1)
    out = MeanPredictiond("pred", spatial_dims=len(size))({"pred": logits})
    assert out["pred"] is logits and out["pred_mean_mask"].dtype == torch.uint8
    np.testing.assert_array_equal(out["pred_mean_mask"], expected)
    for number in range(2):
        for dims in (len(size), None):
            alone = MeanPredictiond(spatial_dims=dims)({"pred": logits[number]})["pred_mean_mask"]
            assert torch.equal(alone, out["pred_mean_mask"][number])
    votes = LogitsToMasksd("pred", len(size))({"pred": logits})["pred"].float().mean(1).round()
    assert not torch.equal(votes, out["pred_mean_mask"].float())  # a sure sample outweighs two doubtful ones
    if classes == 1:
        summary = SummarizeSamplesd(spatial_dims=len(size))({"pred": logits})
        assert torch.equal(summary["pred_mean"][:, 0] > 0.5, out["pred_mean_mask"].bool())


@pytest.mark.parametrize("classes", [1, 3])
def test_of_equal_samples_it_is_their_mask(classes):
    one = samples(2, 1, classes, 8, 8) * 10.0 ** torch.randint(-12, 3, (2, 1, classes, 8, 8))
    logits = one.expand(-1, 5, -1, -1, -1)
    out = LogitsToMasksd()(MeanPredictiond()({"pred": logits}))
    if classes == 1:  # however near to nothing
        assert torch.equal(out["pred_mean_mask"], out["pred"][:, 0])
    order = torch.randperm(5)
    mixed = samples(2, 5, classes, 8, 8)
    first, second = (MeanPredictiond()({"pred": each})["pred_mean_mask"] for each in (mixed, mixed[:, order]))
    assert torch.equal(first, second)


@pytest.mark.parametrize("classes", [1, 2])
def test_the_order_decides_no_tie(classes, monkeypatch):
    """Half of the samples for and half against, as sure as each other."""
    sure = torch.randn(1, 5, 1, 20, 20) * 10
    logits = torch.cat([sure, -sure], dim=1)
    logits = logits if classes == 1 else torch.cat([-logits, logits], dim=2)
    masks = set()
    for elements, order in ((1 << 25, torch.arange(10)), *((1, torch.randperm(10)) for _ in range(10))):
        monkeypatch.setattr(post, "_BLOCK_ELEMENTS", elements)
        masks.add(MeanPredictiond()({"pred": logits[:, order]})["pred_mean_mask"].numpy().tobytes())
    assert len(masks) == 1


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [(6, 8), (6, 8, 4)])
def test_a_networks_own_mean_goes_before_the_samples(classes, size):
    network = OwnMean(classes, len(size)).train()
    image = samples(2, classes, *size)
    data = {"image": MetaTensor(image), "pred": samples(2, 4, classes, *size) + 3}
    expected = image[:, 0] > 0 if classes == 1 else image.argmax(1)
    plain = MeanPredictiond("pred", len(size))(data)["pred_mean_mask"]
    own = MeanPredictiond("pred", len(size), network=network)
    out = own(data)["pred_mean_mask"]
    assert torch.equal(out, expected.to(torch.uint8)) and not torch.equal(out, plain)
    assert network.training and network.norm.num_batches_tracked == 0  # asked in evaluation mode, and put back
    singles = torch.stack([own(case)["pred_mean_mask"] for case in decollate_batch(data)])
    assert torch.equal(singles, out)
    windows = SlidingWindowInferer(tuple(n // 2 for n in size), overlap=0.5)

    def walk(image, network):
        return windows(image, network.mean_logits).unsqueeze(1)

    assert torch.equal(MeanPredictiond("pred", len(size), network=network, inferer=walk)(data)["pred_mean_mask"], out)
    without = MeanPredictiond("pred", len(size), network=torch.nn.Identity())
    assert torch.equal(without(data)["pred_mean_mask"], plain)


def test_meta_data_stay():
    affine = torch.diag(torch.tensor([0.7, 0.8, 2.5, 1.0], dtype=torch.float64))
    pred = MetaTensor(samples(4, 1, 6, 7, 8), affine=affine, meta={"filename_or_obj": "scan7.nii.gz"})
    mask = MeanPredictiond(spatial_dims=3)({"pred": pred})["pred_mean_mask"]
    assert isinstance(mask, MetaTensor) and mask.shape == (6, 7, 8) and torch.equal(mask.affine, affine)


def test_refuses():
    with pytest.raises(InputError, match=r"samples of shape \(3, 4, 5\) found"):
        MeanPredictiond()({"pred": torch.zeros(3, 4, 5)})
    data = {"image": torch.zeros(2, 1, 6, 6), "pred": torch.zeros(2, 3, 1, 8, 8)}
    with pytest.raises(InputError, match=r"mean_logits gave \(2, 1, 6, 6\) for samples of \(2, 3, 1, 8, 8\)"):
        MeanPredictiond(network=OwnMean(1))(data)
