"""How the mean probability of the samples fits the share of raters: calibration, Brier score, the QUBIQ score.

Class maps: every figure is the mean over the foreground classes, of which the mean probability says how many there are;
each class is held against the share of raters who chose it. Empty masks are answers of frequency 0. Missing raters are
left out, and an image without a valid rater is NaN, or bins of zeros.

A mean over N samples of probabilities is often a whole number of Nths but for rounding, and then the order of the sum
would say on which side of a threshold or an edge it falls: what is within :data:`~aleatoric.precision.TIE` of one is on
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..precision import TIE
from ._overlap import _num_foreground, check_rater_valid, class_maps, plain

__all__ = [
    "QUBIQ_THRESHOLDS",
    "RELIABILITY_BINS",
    "brier_score",
    "calibration_error",
    "qubiq_score",
    "reliability_bins",
]

QUBIQ_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RELIABILITY_BINS = 15


def reliability_bins(
    mean: Tensor,
    labels: Tensor,
    rater_valid: Tensor | None = None,
    num_bins: int = RELIABILITY_BINS,
    num_classes: int | None = None,
) -> Tensor:
    """What a reliability diagram shows: the pixels of an image by their predicted probability, in bins of one width.

    A bin holds its lower edge and not its upper one; the last holds both, so that p = 1 is in it. What is 1e-6 below an
    edge is on it: means of samples are rounded.

    MONAI's ``calibration_binning`` is as fast, and the tests' reference. But it adds up in float32, one pixel after the
    other: of a BraTS volume (9 million voxels) an ECE of 2.3e-4 comes out as 2.5e-4, and no bin holds more than 2^24.
    It gives means for sums, and each edge to the lower bin.

    Args:
        mean: (B, K, *S) mean probability over the samples, of the foreground (K = 1) or of K classes.
        labels: (B, R, *S) masks or class maps.
        rater_valid: (B, R) bool; None: all raters are there.
        num_bins: equally wide bins of [0, 1].
        num_classes: with the background; to be checked against ``mean``, nothing else.

    Returns:
        (B, C, num_bins, 3) float64 of the C foreground classes: pixels in the bin, the sum of their predicted
        probabilities, and the sum of the shares of raters who marked them. Sums, so that a data set's bins are the sum
        over its cases. All 0 for an image without a valid rater.

    Raises:
        InputError: shapes that do not fit each other, no probabilities, no classes, ``num_bins`` below 1.

    Example:
        >>> bins = reliability_bins(torch.tensor([[[0.2, 0.8, 0.9]]]), torch.tensor([[[0, 1, 1]]]), num_bins=2)
        >>> bins.squeeze()
        tensor([[1.0000, 0.2000, 0.0000],
                [2.0000, 1.7000, 2.0000]], dtype=torch.float64)
    """
    if num_bins < 1:
        raise InputError(f"num_bins is {num_bins}; give a positive number of bins.")
    pixels = read_pixels(mean, labels, rater_valid, num_classes)
    return bin_shares(pixels.predicted, pixels.shares, num_bins) * pixels.known.view(-1, 1, 1, 1)


def calibration_error(bins: Tensor, reduction: str = "expected") -> Tensor:
    """Distance of a reliability diagram from its diagonal, mean over the classes.

    Args:
        bins: (..., C, num_bins, 3) of :func:`reliability_bins`, of images or, summed up, of a data set.
        reduction: ``expected``, ECE: mean of ``|predicted probability - share of raters|`` of the bins, weighted by
            their pixels (Naeini et al. 2015; Guo et al. 2017). Most pixels of a medical image are certain background,
            and so is most of the ECE. ``average``, ACE: the same mean over the bins that hold a pixel, unweighted, as
            in MONAI's ``CalibrationErrorMetric``. (In Nixon et al. 2019 ACE is another thing, the *adaptive*
            calibration error, whose bins hold equally many pixels.)

    Returns:
        (...) float32; NaN without a pixel. Each class has a diagram and an error of its own, whose mean this is.

    Raises:
        InputError: another reduction, or no bins.
    """
    if reduction not in ("expected", "average"):
        raise InputError(f"reduction is {reduction!r}; choose expected (ECE) or average (ACE).")
    bins = plain(bins, "bins")
    if bins.ndim < 3 or bins.shape[-1] != 3:
        raise InputError(f"bins have shape {tuple(bins.shape)}; pass what reliability_bins gives, (..., C, bins, 3).")
    pixels, predicted, marked = bins.unbind(-1)
    gap = (predicted - marked).abs()
    if reduction == "expected":
        error = gap.sum(-1) / pixels.sum(-1)
    else:
        error = (gap / pixels).nanmean(-1)  # 0 / 0 of an empty bin is the NaN that is left out
    return error.mean(-1).float()


def brier_score(
    mean: Tensor, labels: Tensor, rater_valid: Tensor | None = None, *, num_classes: int | None = None
) -> Tensor:
    """Mean over the pixels of (p - f)^2, the predicted probability p against the share f of raters who mark the pixel.

    Brier (1950), against frequencies. The mean over raters of their own Brier scores, mean_r (p - y_r)^2, is this plus
    f (1 - f), the raters' disagreement, which no prediction can lower.

    Args:
        mean, labels, rater_valid, num_classes: as in :func:`reliability_bins`.

    Returns:
        (B,) float32; NaN without a valid rater.

    Raises:
        InputError: shapes that do not fit each other, no probabilities, no classes.

    Example:
        >>> brier_score(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[1, 1], [0, 1]]]))
        tensor([0.])
    """
    pixels = read_pixels(mean, labels, rater_valid, num_classes)
    return squared_error(pixels.predicted, pixels.shares).masked_fill(~pixels.known, math.nan)


def qubiq_score(
    mean: Tensor,
    labels: Tensor,
    rater_valid: Tensor | None = None,
    thresholds: Sequence[float] = QUBIQ_THRESHOLDS,
    *,
    num_classes: int | None = None,
) -> Tensor:
    """Score of the QUBIQ challenge: Dice of thresholded prediction and raters' share, mean over the thresholds.

    Li et al., QUBIQ: Uncertainty quantification for biomedical image segmentation challenge (2024). A pixel is above a
    threshold where its probability, or its share of raters, is strictly greater, as in the published code of D-Persona
    (whose ``Dice_soft`` is this one with the thresholds .1, .3, .5, .7, .9, mean over cases); the challenge's pages
    leave open what becomes of equality. What is less than 1e-6 greater is equal: means of samples are rounded. Both
    empty at a threshold: 1. One empty: 0.

    Args:
        mean, labels, rater_valid, num_classes: as in :func:`reliability_bins`.
        thresholds: increasing, each from 0 on and below 1.

    Returns:
        (B,) float32; NaN without a valid rater.

    Raises:
        InputError: shapes that do not fit each other, no probabilities, no classes, other thresholds.

    Example:
        >>> qubiq_score(torch.tensor([[[0.6, 0.9]]]), torch.tensor([[[1, 1], [0, 1]]]), thresholds=[0.1, 0.55])
        tensor([0.8333])
    """
    edges = list(thresholds)
    if not edges or edges != sorted(set(edges)) or not (edges[0] >= 0 and edges[-1] < 1):
        raise InputError(f"thresholds are {edges}; give increasing numbers from 0 on and below 1.")
    pixels = read_pixels(mean, labels, rater_valid, num_classes)
    return threshold_dice(pixels.predicted, pixels.shares, edges).masked_fill(~pixels.known, math.nan)


class Pixels(NamedTuple):
    """What the figures of B images are made of: C foreground classes, R raters, P pixels."""

    predicted: Tensor  # (B, C, P) float32 probabilities
    shares: Tensor  # (B, C, P) float32 shares of the valid raters
    maps: Tensor  # (B, R, P) uint8 class maps, 0 where a rater is missing
    valid: Tensor  # (B, R) bool
    known: Tensor  # (B,) bool: the image has a valid rater


def read_pixels(mean: Tensor, labels: Tensor, rater_valid: Tensor | None, num_classes: int | None) -> Pixels:
    """Check and flatten mean probabilities (B, K, *S) and labels (B, R, *S)."""
    mean = plain(mean, "mean")
    predicted = _foreground(mean, num_classes)
    labels, valid = read_labels(labels, rater_valid, mean)
    _num_foreground([("labels", labels)], max(mean.shape[1], 2))
    maps, number = labels.to(torch.uint8).flatten(2), valid.sum(1)
    shares = class_shares(maps, predicted.shape[1], number.clamp(min=1))
    return Pixels(predicted.flatten(2).float().contiguous(), shares, maps, valid, number > 0)


def read_labels(labels: Tensor, rater_valid: Tensor | None, of: Tensor) -> tuple[Tensor, Tensor]:
    """(B, R, *S), 0 where a rater is missing, and (B, R) bool; labels of the same images and pixels as ``of``."""
    labels = class_maps(labels, "labels")
    if labels.ndim < 3 or 0 in labels.shape[1:] or (len(labels), *labels.shape[2:]) != (len(of), *of.shape[2:]):
        raise InputError(
            f"labels have shape {tuple(labels.shape)} where the predictions have {tuple(of.shape)}; pass (B, R, *S) of "
            "the same images."
        )
    if labels.device != of.device:
        raise InputError(f"predictions are on {of.device} and labels on {labels.device}; move them to one device.")
    valid = check_rater_valid(rater_valid, labels)
    if rater_valid is not None:
        labels = labels.masked_fill(~valid.view(*valid.shape, *[1] * (labels.ndim - 2)), 0)
    return labels, valid


def class_shares(maps: Tensor, num_foreground: int, number: Tensor | int) -> Tensor:
    """(B, C, P) float32: how many of the maps (B, M, P) uint8 hold the foreground class, divided by ``number`` (B,)."""
    shares = torch.zeros(maps.shape[0], num_foreground, maps.shape[2], device=maps.device)
    for c in range(num_foreground):
        for some in maps.split(255, dim=1):  # sums of bytes are a hundred times faster than any wider ones
            chosen = some if num_foreground == 1 else (some == c + 1).view(torch.uint8)
            shares[:, c] += chosen.sum(1, dtype=torch.uint8)
    # By division, not by a product with 1 / number: 3 of 5 are the same float as a prediction of 0.6.
    return shares.div_(number.view(-1, 1, 1) if isinstance(number, Tensor) else number)


def bin_shares(predicted: Tensor, shares: Tensor, num_bins: int) -> Tensor:
    """:func:`reliability_bins` of probabilities (B, C, P) and shares (B, C, P)."""
    edges = torch.arange(1, num_bins, device=predicted.device) / num_bins - TIE
    where = torch.bucketize(predicted, edges, right=True)
    sums = [_histogram(where, num_bins, weight) for weight in (None, predicted, shares)]
    return torch.stack(sums, dim=-1)


def squared_error(predicted: Tensor, shares: Tensor) -> Tensor:
    """(B,) :func:`brier_score` of probabilities (B, C, P) and shares (B, C, P)."""
    return (predicted - shares).square().flatten(1).mean(1)


def threshold_dice(predicted: Tensor, shares: Tensor, thresholds: Sequence[float]) -> Tensor:
    """(B,) :func:`qubiq_score` of probabilities (B, C, P) and shares (B, C, P).

    One joint histogram holds the counts of all thresholds: of pixels by how many of them p is above, and how many f.
    """
    # Nothing that is rounded is as small as 0: there the sum of zeros is exact.
    above_tie = [threshold + TIE if threshold > 0 else 0.0 for threshold in thresholds]
    edges = torch.tensor(above_tie, dtype=predicted.dtype, device=predicted.device)
    levels = len(edges) + 1
    above = torch.bucketize(predicted, edges).mul_(levels).add_(torch.bucketize(shares, edges))
    joint = _histogram(above, levels**2).unflatten(-1, (levels, levels))
    # (.., i, j): pixels whose p is above at least i thresholds, and f above at least j
    joint = joint.flip(-1, -2).cumsum(-1).cumsum(-2).flip(-1, -2)
    total = joint[..., 1:, 0] + joint[..., 0, 1:]
    both = joint.diagonal(dim1=-2, dim2=-1)[..., 1:]
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0).flatten(1).mean(1).float()


def check_probabilities(mean: Tensor) -> None:
    """Refuse what is no (B, K, *S) of probabilities."""
    if mean.ndim < 3 or mean.shape[1] == 0 or not mean.is_floating_point():
        raise InputError(f"mean is {mean.dtype} of shape {tuple(mean.shape)}; pass probabilities (B, K, *S).")
    # One answer from the device: NaN fails the comparison too.
    if not bool(((mean >= 0) & (mean <= 1)).all()):
        raise InputError("mean holds values outside [0, 1] or NaN; pass probabilities, not logits.")


def _foreground(mean: Tensor, num_classes: int | None) -> Tensor:
    """(B, C, *S) of the foreground classes."""
    check_probabilities(mean)
    if num_classes is not None and max(num_classes, 2) != max(mean.shape[1], 2):
        raise InputError(
            f"mean has {mean.shape[1]} channels where num_classes is {num_classes}; pass one channel for two classes, "
            "or one per class."
        )
    return mean if mean.shape[1] == 1 else mean[:, 1:]


def _histogram(where: Tensor, bins: int, weight: Tensor | None = None) -> Tensor:
    """(B, C, bins): pixels, or sum of their weights, of every bin; ``where`` is (B, C, P) int64."""
    # float64, in which a volume's sum does not stop growing
    kind = torch.float32 if where.device.type == "mps" else torch.float64
    sums = torch.zeros(*where.shape[:2], bins, dtype=kind, device=where.device)
    ones = torch.ones(1, 1, 1, dtype=kind, device=where.device).expand(where.shape)
    return sums.scatter_add_(2, where, ones if weight is None else weight.to(kind))
