"""MONAI metrics over :mod:`aleatoric.metrics.functional`. They accumulate the figures of each case, never its masks.

Usage, with ``decollate`` on or off::

    SupervisedEvaluator(
        ...,
        postprocessing=Compose([MeanPredictiond(), LogitsToMasksd(), MarkMissingRatersd()]),
        key_val_metric={"val_ged": IgniteMetricHandler(
            GeneralizedEnergyDistance(), output_transform=from_engine(["pred", "label"]))},
        additional_metrics={"val": MultiRaterMetricHandler(
            MultiRaterMetrics(), output_transform=from_engine(["pred", "label", "pred_mean_mask"]))},
    )

``pred`` holds the samples' masks (B, N, *S), ``label`` the raters' (B, R, *S), in which a map of 255 throughout is a
missing rater (see :mod:`aleatoric.metrics.missing`), and ``pred_mean_mask``, which may be left out, the mean prediction
(B, *S). Called by hand, the metrics take ``rater_valid=`` too.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from monai.config import TensorOrList
from monai.metrics import CumulativeIterationMetric

from ..errors import InputError
from . import functional
from ._units import Spacing, own_options
from .missing import split_missing

__all__ = [
    "EffectiveRank",
    "EmpiricalWassersteinDistance",
    "GeneralizedEnergyDistance",
    "GeneralizedEnergyTerms",
    "GiniIndex",
    "HungarianMatchedIoU",
    "SampleDiversity",
]


def require_cases(metric: object, cases: TensorOrList) -> None:
    """Refuse a batch of no case, of which MONAI's buffers make a TypeError."""
    if len(cases) == 0:
        raise InputError(f"{type(metric).__name__} got a batch of no case; leave such a batch out.")


class _CaseMetric(CumulativeIterationMetric):
    """One number per case, kept as (cases, 1) because MONAI's reports expect a class axis."""

    _needs_labels = True

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes

    @abstractmethod
    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **options: Any
    ) -> torch.Tensor:
        """(B,) or (B, F); without need of labels, these are the samples again. ``options``: of the call."""

    def _compute_list(self, y_pred: TensorOrList, y: TensorOrList | None = None, **kwargs: Any) -> torch.Tensor:
        # MONAI would hand every case the keyword arguments of all.
        require_cases(self, y_pred)
        figures = []
        for number, samples in enumerate(y_pred):
            own = own_options(kwargs, number)
            figures.append(self._compute_tensor(samples[None], None if y is None else y[number][None], **own))
        return torch.cat(figures)

    def _compute_tensor(
        self,
        y_pred: torch.Tensor,
        y: torch.Tensor | None = None,
        rater_valid: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        require_cases(self, y_pred)
        labels, valid = y_pred, None
        if self._needs_labels:
            if y is None:
                raise InputError(f"{type(self).__name__} got no labels; call it as metric(samples, labels).")
            labels, valid = split_missing(y, rater_valid)
        figures = self._figures(y_pred, labels, valid, **options)
        return figures.unsqueeze(-1) if figures.ndim == 1 else figures

    def aggregate(self) -> Any:
        """Mean over the cases for which the figure is defined; NaN where it is defined for none."""
        return self.per_case()[:, 0].nanmean()

    def per_case(self) -> torch.Tensor:
        """(cases, 1), of all processes, in the order in which they were scored."""
        buffer = self.get_buffer()
        if buffer is None:
            raise InputError(f"{type(self).__name__} has seen no case; score a batch before asking for the figure.")
        return buffer


class _TwoStatistics(_CaseMetric):
    """Of a figure that has a V- and a U-statistic."""

    def __init__(self, unbiased: bool = False, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        self.unbiased = unbiased


class GeneralizedEnergyDistance(_TwoStatistics):
    """See :func:`~aleatoric.metrics.functional.generalized_energy_distance`.

    Args:
        unbiased: distinct pairs only (U-statistic) in place of the published V-statistic.
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.generalized_energy_distance(
            samples, labels, valid, self.unbiased, num_classes=self.num_classes
        )


class GeneralizedEnergyTerms(_TwoStatistics):
    """See :func:`~aleatoric.metrics.functional.generalized_energy_terms`; the buffer is (cases, 3), in their order.

    Args:
        unbiased: distinct pairs only.
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        terms = functional.generalized_energy_terms(samples, labels, valid, self.unbiased, num_classes=self.num_classes)
        return torch.stack(terms, dim=-1)

    def aggregate(self) -> dict[str, float]:
        """Name to mean over cases: ``cross``, ``diversity`` and ``rater_diversity``.

        The last of a case of one rater is 0, with ``unbiased`` too: the term of the distance.
        """
        return dict(zip(("cross", "diversity", "rater_diversity"), self.per_case().nanmean(0).tolist(), strict=True))


class EmpiricalWassersteinDistance(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.empirical_wasserstein_distance`.

    Args:
        kernel: ``iou``, ``dice``, ``hausdorff``, or ``cross_entropy``, for which ``y_pred`` holds probabilities.
        num_classes: classes with the background, for class maps.
        spacing: mm per pixel along each spatial axis, for ``hausdorff``. A batch's own may be given in the call,
            ``spacing=`` (B, axes), or (axes,) for all of them.
    """

    def __init__(self, kernel: str = "iou", num_classes: int | None = None, spacing: Spacing | None = None) -> None:
        super().__init__(num_classes)
        if kernel not in functional.KERNELS:
            raise InputError(f"kernel is {kernel!r}; choose one of {', '.join(functional.KERNELS)}.")
        self.kernel = kernel
        self.spacing = spacing

    def _figures(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor | None,
        spacing: Spacing | None = None,
        **_: Any,
    ) -> torch.Tensor:
        step = self.spacing if spacing is None else spacing
        return functional.empirical_wasserstein_distance(
            samples, labels, valid, self.kernel, num_classes=self.num_classes, spacing=step
        )


class HungarianMatchedIoU(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.hm_iou`.

    Args:
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.hm_iou(samples, labels, valid, num_classes=self.num_classes)


class SampleDiversity(_TwoStatistics):
    """See :func:`~aleatoric.metrics.functional.sample_diversity`; labels are not looked at and need not be given.

    Args:
        unbiased: distinct pairs only.
        num_classes: classes with the background, for class maps.
    """

    _needs_labels = False

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.sample_diversity(samples, self.unbiased, num_classes=self.num_classes)


class EffectiveRank(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.effective_rank`: called with the scales (B, d) of a latent density."""

    _needs_labels = False

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.effective_rank(samples)


class GiniIndex(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.gini_index`: called with the scales (B, d) of a latent density."""

    _needs_labels = False

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.gini_index(samples)
