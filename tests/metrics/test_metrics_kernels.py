"""Distances between single masks against MONAI's, SciPy's and torch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from scipy.spatial.distance import directed_hausdorff

from aleatoric.errors import InputError
from aleatoric.metrics import functional as F


def masks(seed, *shape, share=0.2):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("size", [(12, 10), (6, 5, 7)])
def test_iou_and_dice_are_monais(size):
    a, b = masks(1, 5, 1, *size), masks(2, 5, 1, *size)
    iou = compute_iou(a.float(), b.float()).flatten()
    torch.testing.assert_close(F.iou_distance(a, b).flatten(), 1 - iou)
    torch.testing.assert_close(F.dice(a, b), compute_dice(a.float(), b.float()).flatten())


def hausdorff(a, b, spacing=None):
    """One sample and one rater: the only assignment there is, so the EWD is the distance itself."""
    return F.empirical_wasserstein_distance(a[:, None], b[:, None], kernel="hausdorff", spacing=spacing)


@pytest.mark.parametrize("size", [(12, 10), (6, 5, 7)])
@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("spacing", [None, (3.0, 0.7, 1.3)])
def test_hausdorff_is_scipys(size, share, spacing):
    spacing = spacing and spacing[: len(size)]
    a, b = masks(3, 6, *size, share=share), masks(4, 6, *size)
    a[:, 2, 3], b[:, 4, 1] = True, True
    step = np.array(spacing or [1.0] * len(size))
    points = [(np.argwhere(x.numpy()) * step, np.argwhere(y.numpy()) * step) for x, y in zip(a, b, strict=True)]
    expected = [max(directed_hausdorff(u, v)[0], directed_hausdorff(v, u)[0]) for u, v in points]
    torch.testing.assert_close(hausdorff(a, b, spacing), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("spacing", [None, (2.5, 0.4)])
def test_hausdorff_of_solid_shapes_is_monais(spacing):
    # MONAI measures between edges, which for solid shapes that do not nest is the same.
    a, b = torch.zeros(1, 20, 24), torch.zeros(1, 20, 24)
    a[:, 3:8, 4:9], b[:, 10:17, 12:20] = 1, 1
    expected = compute_hausdorff_distance(a[None], b[None], include_background=True, spacing=spacing)
    torch.testing.assert_close(hausdorff(a, b, spacing), expected.flatten().float())


def test_hausdorff_of_empty_masks():
    empty, drawn = torch.zeros(1, 4, 5, dtype=torch.bool), torch.ones(1, 4, 5, dtype=torch.bool)
    assert hausdorff(empty, empty).item() == 0
    assert hausdorff(empty, drawn).item() == hausdorff(drawn, empty).item() == 5.0  # sqrt(3^2 + 4^2)


def test_hausdorff_in_mm():
    a, b = masks(16, 3, 4, 6, 9, share=0.1), masks(17, 3, 2, 6, 9, share=0.1)
    a[1, 0], b[2, 1] = False, False
    steps = torch.tensor([[1.0, 1.0], [2.0, 0.5], [0.3, 3.0]])
    ours = F.empirical_wasserstein_distance(a, b, kernel="hausdorff", spacing=steps)
    for index in range(3):
        one = slice(index, index + 1)
        alone = F.empirical_wasserstein_distance(a[one], b[one], kernel="hausdorff", spacing=steps[index].tolist())
        torch.testing.assert_close(ours[one], alone)
    pixels = F.empirical_wasserstein_distance(a, b, kernel="hausdorff")
    torch.testing.assert_close(ours[0], pixels[0])
    tenth = F.empirical_wasserstein_distance(a, b, kernel="hausdorff", spacing=(0.1, 0.1))
    torch.testing.assert_close(tenth, pixels / 10)
    figures = F.multi_rater_figures(a, b, kernels=("hausdorff",), spacing=steps)
    torch.testing.assert_close(figures["ewd_hausdorff"], ours)
    empty, drawn = torch.zeros(1, 4, 5, dtype=torch.bool), torch.ones(1, 4, 5, dtype=torch.bool)
    assert hausdorff(empty, drawn, (2.0, 2.0)).item() == 10.0  # 2 sqrt(3^2 + 4^2)
    assert hausdorff(empty, drawn, (1.0, 0.0 + 1e-9)).item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("spacing", "kernel", "message"),
    [
        ((1.0, 1.0, 1.0), "hausdorff", r"spacing is \[1.0, 1.0, 1.0\] where masks have 2 spatial axes"),
        ((1.0, 0.0), "hausdorff", "one positive number of mm per axis"),
        ((1.0, math.nan), "hausdorff", "one positive number"),
        (torch.ones(3, 2), "hausdorff", r"\(2,\) for all images or \(1, 2\)"),
        ((1.0, 1.0), "iou", "kernel 'iou', which has no unit of length"),
    ],
)
def test_spacing_refuses(spacing, kernel, message):
    drawn = torch.ones(1, 2, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match=message) as error:
        F.empirical_wasserstein_distance(drawn, drawn, kernel=kernel, spacing=spacing)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_hausdorff_among_many_masks_is_that_of_the_pairs():
    # All masks of an image go through one distance transform: none may see another's foreground.
    a, b = masks(5, 1, 6, 9, 9, share=0.05), masks(6, 1, 1, 9, 9, share=0.05)
    a[0, 0] = False
    alone = torch.stack([hausdorff(a[:, n], b[:, 0]) for n in range(6)]).mean()
    torch.testing.assert_close(F.empirical_wasserstein_distance(a, b, kernel="hausdorff")[0], alone)


def test_hausdorff_of_class_maps_is_the_mean_over_the_classes():
    maps = torch.randint(0, 3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(7))
    other = torch.randint(0, 3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(8))
    single = [hausdorff(maps[:, 0] == c, other[:, 0] == c) for c in (1, 2)]
    ours = F.empirical_wasserstein_distance(maps, other, kernel="hausdorff")
    torch.testing.assert_close(ours, (single[0] + single[1]) / 2)


def test_cross_entropy_is_torchs():
    probability = torch.rand(3, 1, 6, 7, generator=torch.Generator().manual_seed(9))
    probability[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    label = masks(10, 3, 1, 6, 7)
    ours = F.empirical_wasserstein_distance(probability, label, kernel="cross_entropy")
    expected = torch.nn.functional.binary_cross_entropy(probability, label.float(), reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("size", [(6, 7), (3, 4, 5)])
def test_cross_entropy_of_classes_is_torchs(size):
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn(3, 1, 4, *size, generator=generator)
    label = torch.randint(0, 4, (3, 1, *size), generator=generator)
    ours = F.empirical_wasserstein_distance(logits.softmax(2), label, kernel="cross_entropy")
    expected = torch.nn.functional.cross_entropy(logits[:, 0], label[:, 0], reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(ours, expected)
    # One class channel is the binary case, and two classes are the binary case written out.
    foreground, mask = logits[:, :, :1].sigmoid(), (label == 1).long()
    binary = F.empirical_wasserstein_distance(foreground, mask, kernel="cross_entropy")
    two = F.empirical_wasserstein_distance(torch.cat([1 - foreground, foreground], 2), mask, kernel="cross_entropy")
    torch.testing.assert_close(binary, two)


def test_cross_entropy_of_hard_masks_is_a_hundred_times_the_share_of_wrong_pixels():
    a, b = masks(12, 2, 1, 10, 10), masks(13, 2, 1, 10, 10)
    ours = F.empirical_wasserstein_distance(a, b, kernel="cross_entropy")
    torch.testing.assert_close(ours, 100 * (a != b).float().mean((1, 2, 3)))


def test_cross_entropy_leaves_missing_raters_out():
    probability = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(14))
    labels = masks(15, 2, 3, 5, 5).to(torch.uint8)
    expected = F.empirical_wasserstein_distance(probability, labels[:, :2], kernel="cross_entropy")
    labels[:, 2] = 255
    valid = torch.tensor([[True, True, False]] * 2)
    ours = F.empirical_wasserstein_distance(probability, labels, valid, "cross_entropy")
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p * 3, y), "not logits"),
        (lambda p, y: (p * math.nan, y), "NaN"),
        (lambda p, y: (p, y * 2), "class 2 where samples give the probabilities of 2"),
        (lambda p, y: (p, y[..., :2]), "the cross_entropy kernel takes"),
        (lambda p, y: (p, y.long() - 2), "class -1"),
        (lambda p, y: (p, y * 0.5), "fractions"),
        (lambda p, y: (p, y * math.nan), "NaN"),
        (lambda p, y: (p, y * math.inf), "infinity"),
        (lambda p, y: (p[:, :0], y), "N and R at least 1"),
        (lambda p, y: (p, y[:, :0]), "N and R at least 1"),
        (lambda p, y: (p[..., :0], y[..., :0]), "the cross_entropy kernel takes"),
        (lambda p, y: (p[0, 0], y[0, 0]), "the cross_entropy kernel takes"),
    ],
)
def test_cross_entropy_refuses(change, message):
    samples, labels = change(torch.full((1, 2, 4, 4), 0.9), torch.ones(1, 2, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=message):
        F.empirical_wasserstein_distance(samples, labels, kernel="cross_entropy")


def test_cross_entropy_checks_the_number_of_classes():
    samples, labels = torch.full((1, 2, 4, 4), 0.9), torch.ones(1, 2, 4, 4, dtype=torch.uint8)
    expected = F.empirical_wasserstein_distance(samples, labels, kernel="cross_entropy")
    for right in (1, 2):
        found = F.empirical_wasserstein_distance(samples, labels, kernel="cross_entropy", num_classes=right)
        torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match="num_classes is 3 where samples give the probabilities of 2"):
        F.empirical_wasserstein_distance(samples, labels, kernel="cross_entropy", num_classes=3)
    missing = torch.cat([labels, torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)], 1)
    valid = torch.tensor([[True, True, False]])
    found = F.empirical_wasserstein_distance(samples, missing, valid, "cross_entropy")
    torch.testing.assert_close(found, expected)
