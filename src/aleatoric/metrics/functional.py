"""Figures that compare a set of sampled segmentations with a set of raters' segmentations. Pure functions.

Shapes: samples (B, N, *S) and labels (B, R, *S) are masks or integer class maps (bool, any integer type, or floats
that hold whole numbers), in 2D or 3D; ``rater_valid`` (B, R) is False where a rater is missing, which is not the same
as a rater who drew nothing: an empty mask is an answer and counts. A figure is one number per image, (B,), unless its
function says otherwise: pairs of masks, classes or bins of an image, or what only all cases together have.

Conventions, the same everywhere unless a function says otherwise:

- **Empty masks.** Two empty masks agree: distance 0, Dice 1. An empty and a non-empty one have nothing in common:
  distance 1, Dice 0.
- **Class maps.** The background (class 0) does not count, but for what is of pixels' probabilities of all classes: the
  entropy, and both figures of the cross-entropy. A distance between two maps is the mean of the distances of
  their foreground classes (SSN and PHiSeg evaluate BraTS so); a class that is absent in both adds 0. With
  ``num_classes`` (background included) the mean runs over all ``num_classes - 1`` of them; without it, over those
  that occur in any sample or valid rater of this image, so that no image depends on the batch it came in.
- **No valid rater.** A figure that needs raters is NaN for such an image, for the caller to leave out (``nanmean``).

All figures that rest on overlaps are arithmetic on one matrix of pairwise counts; :func:`multi_rater_figures` counts
once and gives them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from ._calibration import (
    QUBIQ_THRESHOLDS,
    RELIABILITY_BINS,
    brier_score,
    calibration_error,
    qubiq_score,
    reliability_bins,
)
from ._dice import class_dice, dice, dice_between_raters, dice_figures, dice_max, dice_quantile, share_better_than_mean
from ._energy import (
    GEDTerms,
    energy_figures,
    generalized_energy_distance,
    generalized_energy_terms,
    iou_distance,
    sample_diversity,
)
from ._overlap import measure_overlap
from ._pixels import cross_entropy_ncc, pixel_entropy, pixel_figures, variance_ncc
from ._presence import (
    presence_bins,
    presence_bins_of_cases,
    presence_brier,
    presence_calibration_error,
    presence_figures,
    presence_rates,
    rates_of_classes,
)
from ._selective import RiskCoverageCurve, SecondReadCurve, aurc, risk_coverage_curve, second_read_curve
from ._sizes import (
    AREA_LEVELS,
    Areas,
    area_calibration_error,
    area_coverage,
    area_crps,
    area_figures,
    area_statistics,
    mask_areas,
)
from ._spectrum import effective_rank, gini_index
from ._transport import (
    KERNELS,
    OVERLAP_KERNELS,
    check_kernel,
    dice_matched,
    empirical_wasserstein_distance,
    hm_iou,
    wasserstein_figures,
)
from ._units import Spacing, check_spacing

__all__ = [
    "AREA_LEVELS",
    "Areas",
    "GEDTerms",
    "KERNELS",
    "OVERLAP_KERNELS",
    "QUBIQ_THRESHOLDS",
    "RELIABILITY_BINS",
    "RiskCoverageCurve",
    "SecondReadCurve",
    "area_calibration_error",
    "area_coverage",
    "area_crps",
    "area_statistics",
    "aurc",
    "brier_score",
    "calibration_error",
    "class_dice",
    "cross_entropy_ncc",
    "dice",
    "dice_matched",
    "dice_between_raters",
    "dice_max",
    "dice_quantile",
    "effective_rank",
    "empirical_wasserstein_distance",
    "generalized_energy_distance",
    "generalized_energy_terms",
    "gini_index",
    "hm_iou",
    "iou_distance",
    "mask_areas",
    "multi_rater_figures",
    "pixel_entropy",
    "pixel_figures",
    "presence_bins",
    "presence_bins_of_cases",
    "presence_brier",
    "presence_calibration_error",
    "presence_rates",
    "qubiq_score",
    "reliability_bins",
    "risk_coverage_curve",
    "sample_diversity",
    "second_read_curve",
    "share_better_than_mean",
    "variance_ncc",
]


def multi_rater_figures(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    kernels: Sequence[str] = OVERLAP_KERNELS,
    mean_prediction: torch.Tensor | None = None,
    class_names: Sequence[str] | None = None,
    spacing: Spacing | None = None,
    area_levels: Sequence[float] = (),
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
        spacing: mm between neighbouring pixels along each spatial axis, (axes,) for all images or (B, axes): areas are
            in mm^2 or mm^3 then, and Hausdorff distances in mm. None: both in pixels.
        area_levels: of the area's calibration curve, numbers from 0 to 1, see :func:`area_coverage`.

    Returns:
        Energy: ``ged`` and ``ged_unbiased``; its terms ``cross``, ``diversity`` and ``rater_diversity`` (V-statistics)
        and ``diversity_unbiased``, ``rater_diversity_unbiased``, NaN for a single sample or a single rater; the term of
        a single rater in ``ged_unbiased`` is 0.

        Dice: ``dice``, ``dice_nonempty`` (raters' empty masks left out), ``dice_max`` (best sample of every rater) and
        ``dice_quantile_95`` (over samples), and ``dice_between_raters``; with ``num_classes`` above 2
        ``dice_class_<name>`` of every foreground class and ``dice_whole`` of all united, and both again as
        ``dice_shown_...`` without the pairs of masks that are both empty there; with a mean prediction its own
        ``dice_mean_prediction``, ``dice_nonempty_mean_prediction``, ``dice_class_<name>_mean_prediction``,
        ``dice_whole_mean_prediction`` and the samples' ``share_better_than_mean``.

        Transport: ``ewd`` for the kernel ``iou``, ``ewd_<kernel>`` for others; and of the same assignments the scores
        ``hm_iou`` = 1 - ``ewd`` and ``dice_matched`` = 1 - ``ewd_dice``.

        Areas: ``area_crps``; ``area_samples`` with the quantiles ``area_samples_low`` (5 %) and ``area_samples_high``
        (95 %); ``area_raters``; of every area level ``area_coverage_<percent>``. Presence: ``presence_samples``,
        ``presence_raters`` and ``presence_brier``.
    """
    return figures_and_rates(
        samples,
        labels,
        rater_valid,
        num_classes=num_classes,
        kernels=kernels,
        mean_prediction=mean_prediction,
        class_names=class_names,
        spacing=spacing,
        area_levels=area_levels,
    )[0]


def figures_and_rates(
    samples: torch.Tensor,
    labels: torch.Tensor,
    rater_valid: torch.Tensor | None = None,
    *,
    num_classes: int | None = None,
    kernels: Sequence[str] = OVERLAP_KERNELS,
    mean_prediction: torch.Tensor | None = None,
    class_names: Sequence[str] | None = None,
    spacing: Spacing | None = None,
    area_levels: Sequence[float] = (),
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """:func:`multi_rater_figures`, and of the same count the presence by class, which only all cases together bin.

    The second is (B, 2, C): how often samples, and raters, show each foreground class, see :func:`presence_rates`;
    without ``num_classes`` C is 1, any class.
    """
    for kernel in kernels:
        check_kernel(kernel, KERNELS[:3])
    names = _foreground_names(num_classes, class_names)
    overlap = measure_overlap(
        samples,
        labels,
        rater_valid,
        num_classes,
        mean_prediction=mean_prediction,
        united=bool(names) or num_classes is None,
    )
    with_mean = None
    if mean_prediction is not None:
        with_mean, overlap = overlap, overlap.of_samples(1, overlap.num_samples)
    distance = overlap.distance()
    step = None if spacing is None else check_spacing(spacing, samples.shape)
    pixel_size = None if step is None else step.prod(1).to(overlap.intersection)
    figures = {
        **energy_figures(distance, overlap),
        **dice_figures(overlap, with_mean, names),
        **wasserstein_figures(overlap, kernels, samples, labels, distance, step),
        **area_figures(overlap, pixel_size, area_levels),
        **presence_figures(overlap),
    }
    return figures, torch.stack(rates_of_classes(overlap), dim=1)


def _foreground_names(num_classes: int | None, class_names: Sequence[str] | None) -> list[str]:
    """The foreground classes' parts of figures' names; none where a class is all of the foreground, or unknown."""
    if class_names is not None and len(set(class_names)) != num_classes:
        raise InputError(
            f"class_names are {list(class_names)} where num_classes is {num_classes}; give every class another name, "
            "the background first."
        )
    if num_classes is None or num_classes < 3:
        return []
    names = ["_".join(name.split()) for name in class_names or map(str, range(num_classes))][1:]
    figures = [f"{name}{end}" for name in [*names, "whole"] for end in ("", "_mean_prediction")]
    if len(set(figures)) < len(figures):
        raise InputError(
            f"class_names are {list(class_names or ())}, which give two figures one name; spaces become underscores "
            "there, and 'whole' stands for all classes, so rename a class."
        )
    return names
