"""Figures that compare a set of sampled segmentations with a set of raters' segmentations. Pure functions.

Shapes: samples (B, N, *S) and labels (B, R, *S) are masks or integer class maps (bool, any integer type, or floats
that hold whole numbers), in 2D or 3D; ``rater_valid`` (B, R) is False where a rater is missing, which is not the same
as a rater who drew nothing: an empty mask is an answer and counts. Every function gives one number per image, (B,).

Conventions, the same everywhere:

- **Empty masks.** Two empty masks agree: distance 0, Dice 1. An empty and a non-empty one have nothing in common:
  distance 1, Dice 0.
- **Class maps.** The background (class 0) does not count. A distance between two maps is the mean of the distances of
  their foreground classes (SSN and PHiSeg evaluate BraTS so); a class that is absent in both adds 0. With
  ``num_classes`` (background included) the mean runs over all ``num_classes - 1`` of them; without it, over those
  that occur in any sample or valid rater of this image, so that no image depends on the batch it came in.
- **No valid rater.** A figure that needs raters is NaN for such an image, for the caller to leave out (``nanmean``).

All figures that rest on overlaps are arithmetic on one matrix of pairwise counts; :func:`multi_rater_figures` counts
once and gives them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import InputError
from ._dice import class_dice, dice, dice_figures, dice_quantile, share_better_than_mean
from ._overlap import Overlap, check_rater_valid, measure_overlap, plain
from ._spectrum import effective_rank, gini_index
from ._transport import cross_entropy_cost, hausdorff_cost, optimal_mean_cost

__all__ = [
    "GEDTerms",
    "KERNELS",
    "OVERLAP_KERNELS",
    "class_dice",
    "dice",
    "dice_quantile",
    "effective_rank",
    "empirical_wasserstein_distance",
    "generalized_energy_distance",
    "generalized_energy_terms",
    "gini_index",
    "iou_distance",
    "multi_rater_figures",
    "sample_diversity",
    "share_better_than_mean",
]

KERNELS = ("iou", "dice", "hausdorff", "cross_entropy")
OVERLAP_KERNELS = KERNELS[:2]  # arithmetic on the counted overlaps: every evaluation can afford them


class GEDTerms(NamedTuple):
    """The three expectations of the generalized energy distance, each (B,)."""

    cross: torch.Tensor  # E[d(s, y)], samples against raters
    samples: torch.Tensor  # E[d(s, s')], the sample diversity
    labels: torch.Tensor  # E[d(y, y')], the raters' disagreement

    def distance(self) -> torch.Tensor:
        """(B,) 2 E[d(s, y)] - E[d(s, s')] - E[d(y, y')]."""
        return 2 * self.cross - self.samples - self.labels


def iou_distance(
    a: torch.Tensor, b: torch.Tensor, *, spatial_dims: int | None = None, num_classes: int | None = None
) -> torch.Tensor:
    """1 - |a & b| / |a | b| between every mask of ``a`` and every mask of ``b``; 0 where both are empty.

    Class maps: see the module's conventions ("this image" is one entry of the leading axes).

    Args:
        a: (..., M, *S).
        b: (..., N, *S), the same leading axes.
        spatial_dims: the length of S. None: 3 for tensors of five axes (B, M, D, H, W), otherwise 2.
        num_classes: classes with the background, for class maps.

    Returns:
        (..., M, N) float32.

    Raises:
        InputError: shapes that do not fit each other, or values that are no classes.

    Example:
        >>> a = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]])
        >>> b = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]])
        >>> iou_distance(a, b)
        tensor([[0.5000, 0.5000, 1.0000],
                [1.0000, 1.0000, 0.0000]])
    """
    a, b = plain(a, "a"), plain(b, "b")
    dims = spatial_dims if spatial_dims is not None else (3 if a.ndim == 5 else 2)
    if min(a.ndim, b.ndim) <= dims or a.shape[a.ndim - dims :] != b.shape[b.ndim - dims :]:
        raise InputError(
            f"a {tuple(a.shape)} and b {tuple(b.shape)} are not sets of masks of one size with {dims} spatial axes; "
            "pass (..., M, *S) and (..., N, *S), and spatial_dims where S has another length."
        )
    leading = a.shape[: -dims - 1]
    if leading != b.shape[: -dims - 1]:
        raise InputError(
            f"a {tuple(a.shape)} and b {tuple(b.shape)} differ in their leading axes under {dims} spatial axes; "
            "pass (..., M, *S) and (..., N, *S), and spatial_dims where S has another length."
        )
    sets_a, sets_b = (x.reshape(-1, *x.shape[len(leading) :]) for x in (a, b))
    overlap = measure_overlap(sets_a, sets_b, num_classes=num_classes)
    cross = overlap.distance()[:, : overlap.num_samples, overlap.num_samples :]
    return cross.reshape(*leading, *cross.shape[1:]).float()


def generalized_energy_distance(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    unbiased: bool = False,
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Squared generalized energy distance, 2 E[d(s,y)] - E[d(s,s')] - E[d(y,y')] with d = 1 - IoU.

    Szekely and Rizzo, Energy statistics (2013); Kohl et al., A Probabilistic U-Net (2018); SSN eq. 8. The default is
    the V-statistic of the publications: the expectations run over all pairs, a mask with itself (distance 0) included.
    It is never negative and 0 for identical sets, but punishes few samples: E[d(s,s')] comes out too small by the
    factor (N-1)/N. With ``unbiased`` (the U-statistic) only distinct pairs count; its expectation is right for every N,
    and single values may be negative.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        unbiased: distinct pairs only. NaN for a single sample. The rater term of a single rater is 0 in both
            statistics: the only rater stands for the whole distribution of raters.
        num_classes: classes with the background, for class maps.

    Returns:
        (B,) float32; NaN without a valid rater.

    Raises:
        InputError: shapes that do not fit each other, or values that are no classes.

    Example:
        >>> masks = torch.tensor([[[[1, 1]], [[1, 0]]]])  # one image, two masks of 1 x 2 pixels
        >>> generalized_energy_distance(masks, masks)
        tensor([0.])
    """
    return generalized_energy_terms(samples, labels, rater_valid, unbiased, num_classes=num_classes).distance()


def generalized_energy_terms(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    unbiased: bool = False,
    *,
    num_classes: int | None = None,
) -> GEDTerms:
    """The three terms of :func:`generalized_energy_distance` apart (Generalized PU-Net, Fig. 3)."""
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    return _energy_terms(overlap.distance(), overlap, unbiased)


def empirical_wasserstein_distance(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    kernel: str = "iou",
    *,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Mean cost of the optimal assignment of samples to raters (Hungarian matching).

    SPU-Net section III-E; cSAE eq. 13, with its kernels eq. 14 to 19 as costs. The publications replicate the raters to
    the number of samples. That is biased where N is not a multiple of R, so here BOTH sets are replicated to the least
    common multiple of N and the image's number of valid raters: the same value where N is a multiple, and the exact
    1-Wasserstein distance of the two sets always.

    Args:
        samples: (B, N, *S); for ``cross_entropy`` probabilities, (B, N, *S) or (B, N, K, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        kernel: ``iou``: 1 - IoU; ``dice``: 1 - Dice; both 0 for two empty masks. ``hausdorff``: pixels; 0 where both
            are empty and the image's diagonal, sqrt(sum (S_i - 1)^2), where one is. ``cross_entropy``: nats, mean over
            the pixels, foreground and background terms, logarithms cut off at -100 as in ``torch.nn.BCELoss``
            (so a hard mask costs 100 times its share of wrong pixels, which is the scale of cSAE Table 1).
        num_classes: classes with the background, for class maps; ``cross_entropy`` takes it from the samples' shape.

    Returns:
        (B,) float32; NaN without a valid rater.

    Raises:
        InputError: an unknown kernel, shapes that do not fit each other, values that are no classes or probabilities.

    Example:
        >>> samples = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]]]])  # three samples, two raters
        >>> empirical_wasserstein_distance(samples, samples[:, :2])  # the empty sample is matched in vain
        tensor([0.3333])
    """
    _check_kernel(kernel, KERNELS)
    if kernel == "cross_entropy":
        labels = plain(labels, "labels")
        valid = check_rater_valid(rater_valid, labels)
        labels = labels.masked_fill(~valid.view(*valid.shape, *[1] * (labels.ndim - 2)), 0)
        return optimal_mean_cost(cross_entropy_cost(plain(samples, "samples"), labels), valid)
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    if kernel == "hausdorff":
        return _hausdorff_wasserstein(overlap, samples, labels)
    return _overlap_wasserstein(overlap, overlap.distance(kernel))


def sample_diversity(samples: torch.Tensor, unbiased: bool = False, *, num_classes: int | None = None) -> torch.Tensor:
    """E[d(s, s')] with d = 1 - IoU (SSN section 5.2); two empty masks have distance 0.

    Args:
        samples: (B, N, *S). Of the raters' masks it gives the raters' disagreement.
        unbiased: leave out the pairs of a sample with itself, which make the default (as published) too small by the
            factor (N-1)/N; NaN for a single sample.
        num_classes: classes with the background, for class maps.

    Returns:
        (B,) float32.
    """
    overlap = measure_overlap(samples, None, num_classes=num_classes)
    return _sample_term(overlap.distance(), overlap.num_samples, unbiased).float()


def multi_rater_figures(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    kernels: Sequence[str] = OVERLAP_KERNELS,
    mean_prediction: torch.Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, torch.Tensor]:
    """Every figure of masks from one count of the pairwise overlaps, each (B,) float32.

    Args:
        samples: (B, N, *S).
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps.
        kernels: of the empirical Wasserstein distance: ``iou``, ``dice``, ``hausdorff`` (slow: distance transforms).
        mean_prediction: (B, *S), the one answer that stands for the samples, see
            :class:`aleatoric.transforms.MeanPredictiond`.
        class_names: of all classes, the background first, for the names of the class figures; None: their numbers.

    Returns:
        ``ged`` and ``ged_unbiased``; its terms ``cross``, ``diversity`` and ``rater_diversity`` (V-statistics) and
        ``diversity_unbiased``, ``rater_diversity_unbiased``; ``dice``, ``dice_nonempty`` (raters' empty masks left out)
        and ``dice_quantile_95`` (over samples); with ``num_classes`` above 2 ``dice_class_<name>`` of every foreground
        class and ``dice_whole`` of all united, and both again as ``dice_shown_...`` without the pairs of masks that
        are both empty there; with a mean prediction its own ``dice_mean_prediction``,
        ``dice_nonempty_mean_prediction``, ``dice_class_<name>_mean_prediction``, ``dice_whole_mean_prediction`` and
        the samples' ``share_better_than_mean``; ``ewd`` for the kernel ``iou``, ``ewd_<kernel>`` for others.
    """
    for kernel in kernels:
        _check_kernel(kernel, KERNELS[:3])
    names = _foreground_names(num_classes, class_names)
    overlap = measure_overlap(
        samples, labels, rater_valid, num_classes, mean_prediction=mean_prediction, united=bool(names)
    )
    with_mean = None
    if mean_prediction is not None:
        with_mean, overlap = overlap, overlap.of_samples(1, overlap.num_samples)
    distance = overlap.distance()
    biased, unbiased = (_energy_terms(distance, overlap, option) for option in (False, True))
    figures = {
        "ged": biased.distance(),
        "ged_unbiased": unbiased.distance(),
        "cross": biased.cross,
        "diversity": biased.samples,
        "diversity_unbiased": unbiased.samples,
        "rater_diversity": biased.labels,
        "rater_diversity_unbiased": unbiased.labels,
        **dice_figures(overlap, with_mean, names),
    }
    for kernel in kernels:
        if kernel == "hausdorff":
            figures["ewd_hausdorff"] = _hausdorff_wasserstein(overlap, samples, labels)
        elif kernel == "dice":
            figures["ewd_dice"] = _overlap_wasserstein(overlap, overlap.distance("dice"))
        else:
            figures["ewd"] = _overlap_wasserstein(overlap, distance)
    return figures


def _foreground_names(num_classes: int | None, class_names: Sequence[str] | None) -> list[str]:
    """The foreground classes' parts of figures' names; none where a class is all of the foreground, or unknown."""
    if class_names is not None and len(set(class_names)) != num_classes:
        raise InputError(
            f"class_names are {list(class_names)} where num_classes is {num_classes}; give every class another name, "
            "the background first."
        )
    if num_classes is None or num_classes < 3:
        return []
    return ["_".join(name.split()) for name in class_names or map(str, range(num_classes))][1:]


def _check_kernel(kernel: str, known: Sequence[str]) -> None:
    if kernel not in known:
        raise InputError(f"kernel is {kernel!r}; choose one of {', '.join(known)}.")


def _sample_term(distance: torch.Tensor, number: int, unbiased: bool) -> torch.Tensor:
    """(B,) mean distance among the N samples; the diagonal is 0, so leaving it out is a matter of the divisor."""
    # 0 / 0 is NaN: a single sample says nothing about the spread of its distribution.
    return distance[:, :number, :number].sum((1, 2)) / (number * (number - 1) if unbiased else number**2)


def _energy_terms(distance: torch.Tensor, overlap: Overlap, unbiased: bool) -> GEDTerms:
    number, valid = overlap.num_samples, overlap.valid.to(distance.dtype)
    raters = valid.sum(1)
    cross = torch.einsum("bnr,br->b", distance[:, :number, number:], valid) / (number * raters)
    among = torch.einsum("bqr,bq,br->b", distance[:, number:, number:], valid, valid)
    # Of one rater both sums are 0; of none, 0 / 0 is the NaN that the caller is to see.
    pairs = torch.where(raters > 1, raters * (raters - 1), raters) if unbiased else raters**2
    return GEDTerms(cross.float(), _sample_term(distance, number, unbiased).float(), (among / pairs).float())


def _overlap_wasserstein(overlap: Overlap, distance: torch.Tensor) -> torch.Tensor:
    return optimal_mean_cost(distance[:, : overlap.num_samples, overlap.num_samples :], overlap.valid)


def _hausdorff_wasserstein(overlap: Overlap, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    cost = hausdorff_cost(plain(samples, "samples"), plain(labels, "labels"), overlap.counted)
    return optimal_mean_cost(cost, overlap.valid.cpu()).to(overlap.valid.device)
