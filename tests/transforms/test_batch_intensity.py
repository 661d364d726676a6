"""Brightness and gamma of a batch."""

from __future__ import annotations

import pytest
import torch

from aleatoric.errors import InputError
from aleatoric.transforms import BatchRandIntensityd, batch_intensity


def test_against_the_formula_image_by_image():
    image = torch.rand(3, 2, 5, 4)
    brightness, gamma = torch.tensor([0.5, 1.0, 1.7]), torch.tensor([2.0, 0.5, 1.0])
    out = batch_intensity(image, brightness, gamma)
    for number in range(3):
        expected = (brightness[number] * image[number] ** gamma[number]).clamp(0, 1)
        torch.testing.assert_close(out[number], expected)
    ones = torch.ones(3)
    assert torch.equal(batch_intensity(image, ones, ones), image)


def test_factors_lie_in_their_ranges_and_prob_leaves_some_alone():
    image = torch.full((2000, 1, 1, 1), 0.5)
    transform = BatchRandIntensityd(prob=0.25, brightness=(0.8, 1.2), gamma=(0.5, 1.5)).set_random_state(0)
    brightness, gamma = transform.randomize(2000)
    changed = brightness != 1.0
    assert ((gamma != 1.0) == changed).all() and 0.2 < changed.mean() < 0.3
    assert 0.8 <= brightness.min() < 0.81 and 1.19 < brightness.max() <= 1.2
    assert 0.5 <= gamma.min() < 0.51 and 1.49 < gamma.max() <= 1.5
    label = torch.ones(2000, 1, 1, 1, dtype=torch.uint8)
    out = transform({"image": image, "label": label})
    assert 0.7 < (out["image"] == 0.5).float().mean() < 0.8 and out["label"] is label


def test_order_of_grey_values_stays_and_the_seed_decides():
    image = torch.linspace(0, 1, 64).view(1, 1, 8, 8).expand(4, 1, 8, 8)
    out = BatchRandIntensityd().set_random_state(5)({"image": image})["image"]
    assert (out.flatten(1).diff() >= 0).all() and out.min() >= 0 and out.max() <= 1
    again = BatchRandIntensityd().set_random_state(5)({"image": image})["image"]
    assert torch.equal(out, again)
    assert not torch.equal(out, BatchRandIntensityd().set_random_state(6)({"image": image})["image"])
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("ranges", [{"gamma": (0.0, 1.0)}, {"brightness": (1.2, 0.8)}])
def test_bad_ranges(ranges):
    with pytest.raises(InputError, match="0 < low <= high expected"):
        BatchRandIntensityd(**ranges)
