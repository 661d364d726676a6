"""All figures of an evaluation in one MONAI metric, from one pass over a batch's masks and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InputError
from . import functional
from .cumulative import _CaseMetric

__all__ = ["MultiRaterMetrics"]


class MultiRaterMetrics(_CaseMetric):
    """All figures of :func:`~aleatoric.metrics.functional.multi_rater_figures` from one pass over the masks.

    Called as ``metric(samples, labels, mean_prediction=masks)``, masks (B, *S), it has the figures of the mean
    prediction too: from an engine through :class:`MultiRaterMetricHandler`. With it or without it, but the same for all
    batches until ``reset()``.

    Args:
        num_classes: classes with the background, for class maps. Above 2 each class has figures of its own.
        kernels: of the empirical Wasserstein distance.
        class_names: of all classes, the background first; ``num_classes`` is their number where it is not given.

    ``aggregate()`` gives a dict of floats, which ignite spreads over ``engine.state.metrics``; the buffer is
    (cases, figures) in the order of ``names``.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        kernels: Sequence[str] = functional.OVERLAP_KERNELS,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(len(class_names) if num_classes is None and class_names is not None else num_classes)
        self.kernels = tuple(kernels)
        self.class_names = class_names
        self._reset_names()

    def _reset_names(self) -> None:
        blank = torch.zeros(0, 1, 1, 1, dtype=torch.bool)
        self.names: tuple[str, ...] = tuple(self._all_figures(blank, blank))

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        if hasattr(self, "kernels"):  # MONAI's constructor resets before ours has run
            self._reset_names()

    def _all_figures(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor | None = None,
        mean_prediction: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        return functional.multi_rater_figures(
            samples,
            labels,
            valid,
            num_classes=self.num_classes,
            kernels=self.kernels,
            mean_prediction=mean_prediction,
            class_names=self.class_names,
        )

    def _figures(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor | None,
        mean_prediction: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        figures = self._all_figures(samples, labels, valid, mean_prediction)
        if self._buffers is None:
            self.names = tuple(figures)
        elif len(self.names) != len(figures):
            raise InputError(
                f"this batch came {'without' if mean_prediction is None else 'with'} a mean prediction, unlike those "
                "before it; give all batches one or none, and call reset() in between."
            )
        return torch.stack([figures[name] for name in self.names], dim=-1)

    def aggregate(self) -> dict[str, float]:
        """Name to mean over the cases for which the figure is defined; NaN where it is defined for none."""
        return dict(zip(self.names, self.per_case().nanmean(0).tolist(), strict=True))

    def cases(self) -> dict[str, torch.Tensor]:
        """Name to (cases,), for tables and tests over cases."""
        return dict(zip(self.names, self.per_case().unbind(-1), strict=True))
