"""MONAI metrics of the lesion's area or volume, and of whether it is there at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InputError
from . import functional
from ._presence import PRESENCE_BINS
from ._units import PixelSize
from .cumulative import _CaseMetric, _TwoStatistics

__all__ = ["AreaCRPS", "AreaCoverage", "AreaStatistics", "PresenceBrier", "PresenceCalibration"]

#: The areas' names in an evaluation, in the order of :class:`~aleatoric.metrics.functional.Areas`.
AREA_FIGURES = ("area_samples", "area_samples_low", "area_samples_high", "area_raters")


class AreaCRPS(_TwoStatistics):
    """See :func:`~aleatoric.metrics.functional.area_crps`.

    Args:
        unbiased: the fair score, over distinct samples.
        num_classes: classes with the background, for class maps.
        pixel_size: mm^2 of a pixel or mm^3 of a voxel. A batch's own may be given in the call,
            ``pixel_size=``, one number or (B,).
    """

    def __init__(self, unbiased: bool = False, num_classes: int | None = None, pixel_size: float = 1.0) -> None:
        super().__init__(unbiased, num_classes)
        self.pixel_size = pixel_size

    def _figures(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor | None,
        pixel_size: PixelSize | None = None,
        **_: Any,
    ) -> torch.Tensor:
        size = self.pixel_size if pixel_size is None else pixel_size
        return functional.area_crps(
            samples, labels, valid, self.unbiased, num_classes=self.num_classes, pixel_size=size
        )


class AreaStatistics(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.area_statistics`; the buffer is (cases, 4) in the order of its fields.

    Args:
        num_classes: classes with the background, for class maps.
        pixel_size: mm^2 of a pixel or mm^3 of a voxel. A batch's own may be given in the call,
            ``pixel_size=``, one number or (B,).
    """

    def __init__(self, num_classes: int | None = None, pixel_size: float = 1.0) -> None:
        super().__init__(num_classes)
        self.pixel_size = pixel_size

    def _figures(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor | None,
        pixel_size: PixelSize | None = None,
        **_: Any,
    ) -> torch.Tensor:
        size = self.pixel_size if pixel_size is None else pixel_size
        areas = functional.area_statistics(samples, labels, valid, num_classes=self.num_classes, pixel_size=size)
        return torch.stack(areas, dim=-1)

    def aggregate(self) -> dict[str, float]:
        """Mean over cases by the names of an evaluation, :data:`AREA_FIGURES`."""
        return dict(zip(AREA_FIGURES, self.per_case().nanmean(0).tolist(), strict=True))


class AreaCoverage(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.area_coverage`; ``aggregate()`` is the calibration curve, (L,).

    :meth:`calibration_error` is what an evaluation calls ``area_calibration_error``.

    Args:
        levels: of the central intervals, L numbers from 0 to 1.
        num_classes: classes with the background, for class maps.
    """

    def __init__(self, levels: Sequence[float] = functional.AREA_LEVELS, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        self.levels = tuple(levels)

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.area_coverage(samples, labels, valid, self.levels, num_classes=self.num_classes)

    def aggregate(self) -> torch.Tensor:
        """(L,) mean over the cases that show anything."""
        return self.per_case().nanmean(0)

    def calibration_error(self) -> torch.Tensor:
        """() :func:`~aleatoric.metrics.functional.area_calibration_error` of the curve."""
        return functional.area_calibration_error(self.aggregate(), self.levels)


class PresenceBrier(_TwoStatistics):
    """See :func:`~aleatoric.metrics.functional.presence_brier`.

    Args:
        unbiased: the fair score.
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.presence_brier(samples, labels, valid, self.unbiased, num_classes=self.num_classes)


class PresenceCalibration(_CaseMetric):
    """Reliability of "is there a lesion?" over a data set: every case, and every class of it, is one forecast.

    See :func:`~aleatoric.metrics.functional.presence_rates` and :func:`~aleatoric.metrics.functional.presence_bins`.
    The buffer is (cases, 2 C): the samples' rates of the C foreground classes, then the raters'.
    :meth:`calibration_error` is what an evaluation calls ``presence_ece``.

    Args:
        num_classes: classes with the background.
        num_bins: of the samples' rates.
    """

    def __init__(self, num_classes: int = 2, num_bins: int = PRESENCE_BINS) -> None:
        super().__init__(num_classes)
        if num_classes < 2:
            raise InputError(f"num_classes is {num_classes}; give the number with the background, at least 2.")
        self.num_bins = num_bins

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return torch.cat(functional.presence_rates(samples, labels, valid, num_classes=self.num_classes), dim=1)

    def aggregate(self) -> torch.Tensor:
        """(num_bins, 3): forecasts, sum of the samples' rates, sum of the raters' rates."""
        drawn, read = self.per_case().chunk(2, dim=1)
        return functional.presence_bins(drawn.flatten(), read.flatten(), self.num_bins)

    def calibration_error(self) -> torch.Tensor:
        """() :func:`~aleatoric.metrics.functional.presence_calibration_error` of all forecasts."""
        return functional.presence_calibration_error(self.aggregate())
