"""Where the samples disagree, against where the raters do; and all figures of pixels of one summary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from ._calibration import (
    QUBIQ_THRESHOLDS,
    RELIABILITY_BINS,
    bin_shares,
    calibration_error,
    check_probabilities,
    class_shares,
    read_labels,
    read_pixels,
    squared_error,
    threshold_dice,
)
from ._overlap import _num_foreground, class_maps, plain
from ._transport import optimal_mean_cost
from .summary import SampleSummary

__all__ = ["cross_entropy_ncc", "pixel_entropy", "pixel_figures", "pixel_figures_and_bins", "variance_ncc"]

# A map whose standard deviation is this small beside its largest value is constant but for rounding.
_CONSTANT = 1e-6


def pixel_figures(
    summary: SampleSummary,
    labels: Tensor,
    rater_valid: Tensor | None = None,
    *,
    num_classes: int | None = None,
) -> dict[str, Tensor]:
    """Every figure of probabilities, each (B,) float32, from what ``summarize_samples`` kept.

    Args:
        summary: of B images.
        labels: (B, R, *S) masks or class maps, those that the summary was made with.
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: with the background; to be checked against the summary, nothing else.

    Returns:
        ``ece``, ``ace``, ``brier``, ``qubiq_score``, ``variance_ncc``, ``cross_entropy_ncc`` and ``entropy``, as the
        functions here and in :mod:`aleatoric.metrics._calibration` give them with their defaults, and, of a summary
        that was made with labels, ``ewd_cross_entropy``, the empirical Wasserstein distance under the cross-entropy.
        NaN where a figure is undefined: all that need raters without a valid one, the two ncc where there is nothing to
        find.

    Raises:
        InputError: shapes that do not fit each other, values that are no classes.
    """
    return pixel_figures_and_bins(summary, labels, rater_valid, num_classes=num_classes)[0]


def pixel_figures_and_bins(
    summary: SampleSummary,
    labels: Tensor,
    rater_valid: Tensor | None = None,
    *,
    num_classes: int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """:func:`pixel_figures`, and the :func:`~aleatoric.metrics._calibration.reliability_bins` that they are made of."""
    pixels = read_pixels(summary.mean, labels, rater_valid, num_classes)
    predicted, shares, maps, valid, known = pixels
    masks = plain(summary.masks, "masks").flatten(2)
    sampled = class_shares(masks, predicted.shape[1], masks.shape[1])
    bins = bin_shares(predicted, shares, RELIABILITY_BINS) * known.view(-1, 1, 1, 1)
    figures = {
        "ece": calibration_error(bins),
        "ace": calibration_error(bins, "average"),
        "brier": squared_error(predicted, shares),
        "qubiq_score": threshold_dice(predicted, shares, QUBIQ_THRESHOLDS),
        "variance_ncc": _correlation(_variance(sampled), _variance(shares)),
        "cross_entropy_ncc": _entropy_correlation(summary.mean, summary.mean_log, maps, valid),
    }
    figures = {name: values.masked_fill(~known, math.nan) for name, values in figures.items()}
    figures["entropy"] = _entropy(plain(summary.mean, "mean"))
    if summary.cross_entropy is not None:
        figures["ewd_cross_entropy"] = optimal_mean_cost(summary.cross_entropy, valid)
    return figures, bins


def variance_ncc(
    samples: Tensor, labels: Tensor, rater_valid: Tensor | None = None, *, num_classes: int | None = None
) -> Tensor:
    """Normalised cross-correlation, over the pixels, of the samples' variance map and the raters' variance map.

    Of masks the variance of a pixel is q (1 - q), q the share of those that mark it; of class maps the sum of this over
    the foreground classes, whose map has one correlation, not one per class. The correlation asks whether the samples
    disagree where the raters do, not how much.

    A constant map has no correlation. Where the raters' is constant, most often because they agree in every pixel,
    there is nothing to find and the image is left out (NaN). Where only the samples' is, none of it was found: 0.

    Args:
        samples: (B, N, *S) masks or class maps.
        labels: (B, R, *S).
        rater_valid: (B, R) bool; None: all raters are there.
        num_classes: classes with the background, for class maps; None: as many as occur.

    Returns:
        (B,) float32 from -1 to 1; NaN where the raters' variance is constant or no rater valid.

    Raises:
        InputError: shapes that do not fit each other, or values that are no classes.

    Example:
        >>> samples = torch.tensor([[[[1, 1, 0, 0]], [[1, 0, 0, 0]]]])
        >>> variance_ncc(samples, samples.flip(1))
        tensor([1.])
    """
    samples = class_maps(samples, "samples")
    if samples.ndim < 3 or 0 in samples.shape[1:]:
        raise InputError(f"samples have shape {tuple(samples.shape)}; pass masks (B, N, *S), N at least 1.")
    labels, valid = read_labels(labels, rater_valid, samples)
    classes = _num_foreground([("samples", samples), ("labels", labels)], num_classes)
    number = valid.sum(1)
    sampled = class_shares(samples.to(torch.uint8).flatten(2), classes, samples.shape[1])
    drawn = class_shares(labels.to(torch.uint8).flatten(2), classes, number.clamp(min=1))
    return _correlation(_variance(sampled), _variance(drawn)).masked_fill(number == 0, math.nan)


def cross_entropy_ncc(mean: Tensor, mean_log: Tensor, labels: Tensor, rater_valid: Tensor | None = None) -> Tensor:
    r"""PHiSeg's :math:`S_{NCC}`: where the samples are unsure, against where they contradict a rater.

    Baumgartner et al. (2019), section 3; ``variance_ncc_dist`` of the published code. With the cross-entropy
    :math:`CE(a, s) = -\sum_c a_c \ln s_c` of a pixel, the map :math:`E_s\,CE(\bar s, s)` of the samples' mean
    :math:`\bar s` is correlated over the pixels with the map :math:`E_s\,CE(y, s)` of each rater y; the mean over the
    raters. The sum over c is over all classes, the background among them. Both expectations are linear in the
    logarithms, so that their mean over the samples is enough.

    Logarithms end at -100 here, at ln 1e-8 = -18.4 in the published code. There a constant map gives NaN, for the image
    and for the mean over the data set. Here a rater whose map is constant is left out; where the samples' own map is
    constant, and a rater's is not, the correlation is 0.

    Args:
        mean: (B, K, *S) mean over the samples of their probabilities; K = 1: of the foreground.
        mean_log: (B, C, *S) mean of their log-probabilities, C = max(K, 2), the background first.
        labels: (B, R, *S) masks or class maps.
        rater_valid: (B, R) bool; None: all raters are there.

    Returns:
        (B,) float32 from -1 to 1; NaN where no rater is valid or counts.

    Raises:
        InputError: shapes that do not fit each other, no probabilities or logarithms of such, values that are no
            classes.
    """
    mean, mean_log = plain(mean, "mean"), plain(mean_log, "mean_log")
    check_probabilities(mean)
    if mean_log.shape != (len(mean), max(mean.shape[1], 2), *mean.shape[2:]):
        raise InputError(
            f"mean has shape {tuple(mean.shape)} and mean_log {tuple(mean_log.shape)}; pass (B, K, *S) and "
            "(B, max(K, 2), *S) of one summary."
        )
    if not bool(((mean_log <= 0) & (mean_log > -math.inf)).all()):
        raise InputError("mean_log holds values above 0, infinity or NaN; pass mean logarithms of probabilities.")
    labels, valid = read_labels(labels, rater_valid, mean)
    _num_foreground([("labels", labels)], mean_log.shape[1])
    maps = labels.to(torch.uint8).flatten(2)
    return _entropy_correlation(mean, mean_log, maps, valid)


def pixel_entropy(mean: Tensor) -> Tensor:
    r"""Entropy :math:`-\sum_k p_k \ln p_k` of the mean probabilities in a pixel, averaged over the image.

    Args:
        mean: (B, K, *S) mean of the samples' probabilities; K = 1 is the foreground's, whose complement is the
            background's.

    Returns:
        (B,) nats, of all classes, the background among them: from 0 to ln 2 with K = 1, else to ln K.

    Raises:
        InputError: no probabilities.

    Example:
        >>> pixel_entropy(torch.full((1, 1, 2, 2), 0.5))
        tensor([0.6931])
    """
    mean = plain(mean, "mean")
    check_probabilities(mean)
    return _entropy(mean)


def _entropy(mean: Tensor) -> Tensor:
    """(B,) of probabilities (B, K, *S)."""
    entropy = torch.special.entr(mean).sum(1)
    if mean.shape[1] == 1:
        entropy = entropy + torch.special.entr(1.0 - mean[:, 0])
    return entropy.flatten(1).mean(1)


def _variance(shares: Tensor) -> Tensor:
    """(B, P) of shares (B, C, P)."""
    return (shares * (1 - shares)).sum(1)


def _entropy_correlation(mean: Tensor, mean_log: Tensor, maps: Tensor, valid: Tensor) -> Tensor:
    """(B,) :func:`cross_entropy_ncc` of class maps (B, R, P) uint8."""
    probability, logs = mean.flatten(2).float(), mean_log.flatten(2).float()
    if probability.shape[1] == 1:
        unsure = -(1 - probability[:, 0]) * logs[:, 0] - probability[:, 0] * logs[:, 1]
    else:
        unsure = -(probability * logs).sum(1)
    correlations = []
    for rater in range(maps.shape[1]):
        wrong = -logs[:, 0]
        for c in range(1, logs.shape[1]):
            wrong = torch.where(maps[:, rater] == c, -logs[:, c], wrong)
        correlations.append(_correlation(unsure, wrong))
    return torch.stack(correlations, dim=1).masked_fill(~valid, math.nan).nanmean(1)


def _correlation(found: Tensor, sought: Tensor) -> Tensor:
    """(B,) of maps (B, P): 0 where only ``found`` is constant, NaN where ``sought`` is."""
    first, first_norm, first_constant = _centred(found)
    second, second_norm, second_constant = _centred(sought)
    correlation = torch.linalg.vecdot(first, second) / (first_norm * second_norm)
    return correlation.masked_fill(first_constant, 0.0).masked_fill(second_constant, math.nan)


def _centred(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (B, P) without their mean, their norm (B,), and which of them are constant."""
    centred = maps - maps.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1)
    low, high = torch.aminmax(maps, dim=1)
    largest = torch.maximum(low.abs(), high.abs())
    return centred, norm, norm <= _CONSTANT * math.sqrt(maps.shape[1]) * largest
