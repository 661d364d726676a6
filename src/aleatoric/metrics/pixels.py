"""MONAI metrics over the figures of pixels. They accumulate numbers of each case, never its maps.

Called by hand or by a handler as ``metric(mean, labels)``, with the fields of
:class:`~aleatoric.metrics.summary.SampleSummary` that each class names, batched or as lists of cases::

    metric = CalibrationError()
    for batch in loader:
        summary = summarize_samples(draw(batch["image"]))
        metric(summary.mean, batch["label"], rater_valid=batch["rater_valid"])
    print(metric.aggregate())

A map of 255 throughout is a missing rater too (see :mod:`aleatoric.metrics.missing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import _calibration, _pixels
from .cumulative import _CaseMetric

__all__ = [
    "BrierScore",
    "CalibrationError",
    "CrossEntropyNCC",
    "PixelEntropy",
    "QUBIQScore",
    "ReliabilityBins",
    "VarianceNCC",
]


class ReliabilityBins(_CaseMetric):
    """Bins of the whole data set's reliability diagram, see :func:`~aleatoric.metrics.functional.reliability_bins`.

    ``metric(mean, labels)`` with the mean probabilities (B, K, *S).

    Args:
        num_bins: equally wide bins of [0, 1].
        num_classes: with the background; to be checked against the mean.
    """

    def __init__(self, num_bins: int = _calibration.RELIABILITY_BINS, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        if num_bins < 1:
            raise InputError(f"num_bins is {num_bins}; give a positive number of bins.")
        self.num_bins = num_bins

    def _figures(self, samples: Tensor, labels: Tensor, valid: Tensor | None, **_: Any) -> Tensor:
        return _calibration.reliability_bins(samples, labels, valid, self.num_bins, self.num_classes).flatten(1)

    def aggregate(self) -> Tensor:
        """(C, num_bins, 3): pixels, sum of predicted probability, sum of the raters' share, over all cases."""
        return self.per_case().sum(0).view(-1, self.num_bins, 3)

    def calibration_error(self, reduction: str = "expected") -> Tensor:
        """() of all pixels in one diagram per class, mean over the classes: ``ece_pooled``, or of the ``average`` ACE.

        See :func:`~aleatoric.metrics.functional.calibration_error`.
        """
        return _calibration.calibration_error(self.aggregate(), reduction)


class CalibrationError(_CaseMetric):
    """ECE or ACE of every case, see :func:`~aleatoric.metrics.functional.calibration_error`.

    ``metric(mean, labels)``, mean probabilities (B, K, *S). MONAI's ``CalibrationErrorMetric`` takes one rater's
    one-hot labels; this one the share of raters. The data set's own ECE is
    :meth:`ReliabilityBins.calibration_error`.

    Args:
        reduction: ``expected`` or ``average``.
        num_bins: equally wide bins of [0, 1].
        num_classes: with the background; to be checked against the mean.
    """

    def __init__(
        self,
        reduction: str = "expected",
        num_bins: int = _calibration.RELIABILITY_BINS,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(num_classes)
        _calibration.calibration_error(torch.ones(1, 1, 3), reduction)  # refuses an unknown one before the first case
        self.reduction = reduction
        self.num_bins = num_bins

    def _figures(self, samples: Tensor, labels: Tensor, valid: Tensor | None, **_: Any) -> Tensor:
        bins = _calibration.reliability_bins(samples, labels, valid, self.num_bins, self.num_classes)
        return _calibration.calibration_error(bins, self.reduction)


class BrierScore(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.brier_score`; ``metric(mean, labels)``, mean probabilities (B, K, *S).

    Args:
        num_classes: with the background; to be checked against the mean.
    """

    def _figures(self, samples: Tensor, labels: Tensor, valid: Tensor | None, **_: Any) -> Tensor:
        return _calibration.brier_score(samples, labels, valid, num_classes=self.num_classes)


class QUBIQScore(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.qubiq_score`; ``metric(mean, labels)``, mean probabilities (B, K, *S).

    Args:
        thresholds: increasing, from 0 on and below 1.
        num_classes: with the background; to be checked against the mean.
    """

    def __init__(
        self, thresholds: Sequence[float] = _calibration.QUBIQ_THRESHOLDS, num_classes: int | None = None
    ) -> None:
        super().__init__(num_classes)
        self.thresholds = tuple(thresholds)

    def _figures(self, samples: Tensor, labels: Tensor, valid: Tensor | None, **_: Any) -> Tensor:
        return _calibration.qubiq_score(samples, labels, valid, self.thresholds, num_classes=self.num_classes)


class VarianceNCC(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.variance_ncc`; ``metric(masks, labels)``, the samples' (B, N, *S).

    Args:
        num_classes: classes with the background, for class maps.
    """

    def _figures(self, samples: Tensor, labels: Tensor, valid: Tensor | None, **_: Any) -> Tensor:
        return _pixels.variance_ncc(samples, labels, valid, num_classes=self.num_classes)


class CrossEntropyNCC(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.cross_entropy_ncc`; ``metric(mean, labels, mean_log=mean_log)``."""

    def __init__(self) -> None:
        super().__init__()

    def _figures(
        self, samples: Tensor, labels: Tensor, valid: Tensor | None, mean_log: Tensor | None = None, **_: Any
    ) -> Tensor:
        if mean_log is None:
            raise InputError("found no mean_log; call it as metric(mean, labels, mean_log=summary.mean_log).")
        return _pixels.cross_entropy_ncc(samples, mean_log, labels, valid)


class PixelEntropy(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.pixel_entropy`; ``metric(mean)``, labels are not looked at."""

    _needs_labels = False

    def __init__(self) -> None:
        super().__init__()

    def _figures(self, samples: Tensor, labels: Tensor, valid: Tensor | None, **_: Any) -> Tensor:
        return _pixels.pixel_entropy(samples)
