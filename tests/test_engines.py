"""Batches on their way to network and loss."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

from aleatoric.engines import PrepareMultiRaterBatch
from models import probabilistic_unet


def batch(wrap=lambda value: value):
    return {
        "image": wrap(torch.rand(2, 1, 8, 8)),
        "label": wrap(torch.randint(0, 2, (2, 3, 8, 8), dtype=torch.uint8)),
        "rater_valid": torch.tensor([[True, False, True], [True, True, True]]),
        "case": ["a", "b"],
    }


def test_the_network_gets_image_label_and_who_was_there():
    data = batch()
    image, label, args, kwargs = PrepareMultiRaterBatch()(data, torch.device("cpu"), non_blocking=True)
    assert image is data["image"] and label is data["label"] and args == ()
    assert set(kwargs) == {"label", "rater_valid"} and kwargs["label"] is label
    output = probabilistic_unet(all_raters=True)(image, **kwargs)
    assert torch.equal(output.posterior_valid, data["rater_valid"])


def test_metatensors_end_here():
    """MONAI's own transforms hand them out; inside network and loss they only cost time."""
    image, label, _, kwargs = PrepareMultiRaterBatch()(batch(MetaTensor), torch.device("cpu"))
    assert all(type(value) is torch.Tensor for value in (image, label, *kwargs.values()))
    assert label.dtype == torch.uint8 and kwargs["rater_valid"].dtype == torch.bool
    output = probabilistic_unet()(image, **kwargs)
    assert type(output.logits) is torch.Tensor and type(output.posterior_draws) is torch.Tensor
