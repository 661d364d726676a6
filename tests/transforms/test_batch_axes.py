"""Mirrors and quarter turns of batches: MONAI's, image by image, and nothing between voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Flip, Rotate90

from aleatoric.errors import InputError
from aleatoric.transforms import BatchRandFlipd, BatchRandRotate90d


def batch(size=(5, 5, 4), count=64):
    numbers = torch.arange(count * 2 * int(np.prod(size)))
    image = numbers.reshape(count, 2, *size)
    return {"image": image.float(), "label": (image[:, :1] % 251).to(torch.uint8), "rater_valid": torch.ones(count, 1)}


def candidates(image, kinds):
    return [torch.as_tensor(kind(image)) for kind in kinds]


@pytest.mark.parametrize(
    ("transform", "kinds"),
    [
        (BatchRandFlipd(spatial_axis=2), [lambda x: x, Flip(2)]),
        (BatchRandRotate90d(prob=0.75), [lambda x: x, *(Rotate90(k, (0, 1)) for k in (1, 2, 3))]),
        (BatchRandRotate90d(prob=0.5, max_k=1), [lambda x: x, Rotate90(1, (0, 1))]),
    ],
)
def test_each_image_is_one_of_monais_and_its_label_goes_along(transform, kinds):
    transform.set_random_state(seed=0)
    before = batch()
    after = transform(before)
    drawn = []
    for old, new, mask, drew in zip(before["image"], after["image"], before["label"], after["label"]):
        same = [torch.equal(new, made) for made in candidates(old, kinds)]
        assert sum(same) == 1
        drawn.append(same.index(True))
        assert torch.equal(drew, candidates(mask, kinds)[drawn[-1]])
    share = np.bincount(drawn, minlength=len(kinds)) / len(drawn)
    assert np.abs(share - 1 / len(kinds)).max() < 0.15
    assert after["label"].dtype == torch.uint8 and torch.equal(after["rater_valid"], before["rater_valid"])
    transform.set_random_state(seed=0)
    assert torch.equal(transform(before)["image"], after["image"])


def test_the_plane_and_its_direction():
    image = batch((3, 4, 4), 2)
    turned = BatchRandRotate90d(prob=1, max_k=1, spatial_axes=(2, 1))(image)["image"]
    assert torch.equal(turned[1], torch.as_tensor(Rotate90(1, (2, 1))(image["image"][1])))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BatchRandRotate90d(max_k=4), "max_k 4"),
        (lambda: BatchRandRotate90d(spatial_axes=(0, 2))(batch()), "a square in the plane of the axes"),
        (lambda: BatchRandFlipd(spatial_axis=3)(batch()), "spatial axis 3 found, 0 to 2"),
    ],
)
def test_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
