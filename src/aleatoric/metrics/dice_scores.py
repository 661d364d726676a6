"""MONAI metrics of Dice between samples, raters and mean predictions, over :mod:`aleatoric.metrics.functional`."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import InputError
from . import functional
from .cumulative import _CaseMetric

__all__ = [
    "ClassDice",
    "DiceBetweenRaters",
    "DiceQuantile",
    "MatchedDice",
    "MaxDice",
    "MultiRaterDice",
    "ShareBetterThanMean",
]


class MatchedDice(_CaseMetric):
    """D_match, see :func:`~aleatoric.metrics.functional.dice_matched`.

    Args:
        num_classes: classes with the background, for class maps.
        surplus: ``replicate`` or ``ignore``.
    """

    def __init__(self, num_classes: int | None = None, surplus: str = "replicate") -> None:
        super().__init__(num_classes)
        self.surplus = surplus

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.dice_matched(samples, labels, valid, num_classes=self.num_classes, surplus=self.surplus)


class MaxDice(_CaseMetric):
    """D_max, mean over raters, see :func:`~aleatoric.metrics.functional.dice_max`.

    Args:
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.dice_max(samples, labels, valid, num_classes=self.num_classes)


class MultiRaterDice(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.dice`.

    Args:
        skip_empty: leave out raters whose mask is empty (DSC_nod); a case of empty masks only is left out.
        num_classes: classes with the background, for class maps.
    """

    def __init__(self, skip_empty: bool = False, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        self.skip_empty = skip_empty

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.dice(samples, labels, self.skip_empty, rater_valid=valid, num_classes=self.num_classes)


class DiceQuantile(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.dice_quantile`.

    Args:
        quantile: from 0, the worst sample, to 1, the best.
        num_classes: classes with the background, for class maps.
    """

    def __init__(self, quantile: float = 0.95, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        self.quantile = quantile

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.dice_quantile(samples, labels, self.quantile, rater_valid=valid, num_classes=self.num_classes)


class ShareBetterThanMean(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.share_better_than_mean`; ``metric(s, y, mean_prediction=masks)``.

    Args:
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor | None,
        mean_prediction: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        if mean_prediction is None:
            raise InputError("found no mean_prediction; call it as metric(samples, labels, mean_prediction=masks).")
        return functional.share_better_than_mean(
            samples, labels, mean_prediction, rater_valid=valid, num_classes=self.num_classes
        )


class DiceBetweenRaters(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.dice_between_raters`; called as ``metric(samples, labels)`` like all.

    Args:
        num_classes: classes with the background, for class maps.
    """

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        return functional.dice_between_raters(labels, valid, num_classes=self.num_classes)


class ClassDice(_CaseMetric):
    """See :func:`~aleatoric.metrics.functional.class_dice`; the buffer is (cases, K), means over samples and raters.

    Args:
        num_classes: K, with the background.
        both_empty: the score of a class that neither sample nor rater shows; NaN leaves such pairs out.
    """

    def __init__(self, num_classes: int, both_empty: float = 1.0) -> None:
        super().__init__(num_classes)
        self.classes = num_classes
        self.both_empty = both_empty

    def _figures(
        self, samples: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None, **_: Any
    ) -> torch.Tensor:
        scores = functional.class_dice(samples, labels, valid, num_classes=self.classes, both_empty=self.both_empty)
        return scores.flatten(1, 2).nanmean(1)

    def aggregate(self) -> torch.Tensor:
        """(K,) mean over the cases: classes 1 to K - 1, and the whole foreground last."""
        return self.per_case().nanmean(0)
