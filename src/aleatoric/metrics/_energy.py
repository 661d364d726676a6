"""The generalized energy distance and its terms: expectations of 1 - IoU over pairs of masks."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..errors import InputError
from ._overlap import Overlap, class_maps, measure_overlap

__all__ = [
    "GEDTerms",
    "energy_figures",
    "generalized_energy_distance",
    "generalized_energy_terms",
    "iou_distance",
    "sample_diversity",
]


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
    a, b = class_maps(a, "a"), class_maps(b, "b")
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
    """The three terms of :func:`generalized_energy_distance` apart (Generalized PU-Net, Fig. 3).

    Of a single rater the third is 0 in both statistics, see there: it is no estimate of the raters' disagreement, which
    one rater does not show. Of a single sample the second is NaN with ``unbiased``.
    """
    overlap = measure_overlap(samples, labels, rater_valid, num_classes)
    return _energy_terms(overlap.distance(), overlap, unbiased)


def sample_diversity(samples: torch.Tensor, unbiased: bool = False, *, num_classes: int | None = None) -> torch.Tensor:
    """E[d(s, s')] with d = 1 - IoU (SSN section 5.2); two empty masks have distance 0.

    Of class maps without ``num_classes`` it is not the ``diversity`` of ``multi_rater_figures``: the mean runs over the
    classes that samples show, there also over those that only raters show, in each of which the distance is 0.

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


def energy_figures(distance: torch.Tensor, overlap: Overlap) -> dict[str, torch.Tensor]:
    """The distance and its terms in both statistics, each (B,) float32, from the distances (B, T, T) of all pairs.

    The disagreement of distinct raters is NaN for a single one, whose term in ``ged_unbiased`` is 0.
    """
    biased, unbiased = (_energy_terms(distance, overlap, option) for option in (False, True))
    return {
        "ged": biased.distance(),
        "ged_unbiased": unbiased.distance(),
        "cross": biased.cross,
        "diversity": biased.samples,
        "diversity_unbiased": unbiased.samples,
        "rater_diversity": biased.labels,
        "rater_diversity_unbiased": unbiased.labels.masked_fill(overlap.valid.sum(1) == 1, torch.nan),
    }


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
