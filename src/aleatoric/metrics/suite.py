"""All figures of an evaluation in one MONAI metric, from one pass over a batch's masks and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from monai.config import TensorOrList
from monai.metrics import CumulativeIterationMetric

from ..errors import InputError
from . import functional
from ._pixels import pixel_figures_and_bins
from ._sizes import AREA_LEVELS
from ._units import Spacing, own_options
from .cumulative import require_cases
from .missing import split_missing
from .summary import SampleSummary

__all__ = ["MultiRaterMetrics"]

_COVERAGE = "area_coverage_"


class MultiRaterMetrics(CumulativeIterationMetric):
    """All figures of :func:`~aleatoric.metrics.functional.multi_rater_figures` from one pass over the masks.

    Called as ``metric(samples, labels, mean_prediction=masks)``, masks (B, *S), it has the figures of the mean
    prediction too; as ``metric(summary.masks, labels, summary=summary)``, with a
    :class:`~aleatoric.metrics.SampleSummary`, those of the probabilities besides
    (:func:`~aleatoric.metrics.functional.pixel_figures`). From an engine: :class:`MultiRaterMetricHandler`. With it or
    without it, but the same for all batches until ``reset()``.

    Args:
        num_classes: classes with the background, for class maps. Above 2 each class has figures of its own.
        kernels: of the empirical Wasserstein distance.
        class_names: of all classes, the background first; ``num_classes`` is their number where it is not given.
        spacing: mm between neighbouring pixels along each spatial axis: areas are in mm^2 or mm^3 then, and Hausdorff
            distances in mm. None: both in pixels.
        shown: the figures that ``aggregate()`` gives, for logs; None: all.
        prefix: of their names there.

    ``aggregate()`` gives a dict of floats, which ignite spreads over ``engine.state.metrics``; the buffers are
    (cases, figures) in the order of ``names``, the points of the area's calibration curve, the presence by class, and,
    from summaries, the bins of the reliability diagram.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        kernels: Sequence[str] = functional.OVERLAP_KERNELS,
        class_names: Sequence[str] | None = None,
        spacing: Spacing | None = None,
        shown: Sequence[str] | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.num_classes = len(class_names) if num_classes is None and class_names is not None else num_classes
        self.kernels = (kernels,) if isinstance(kernels, str) else tuple(kernels)
        self.class_names = class_names
        self.spacing = None if spacing is None else tuple(torch.as_tensor(spacing).tolist())
        self.shown = shown
        self.prefix = prefix
        self._reset_names()

    def _reset_names(self) -> None:
        blank = torch.zeros(0, 1, *[1] * len(self.spacing or (1, 1)), dtype=torch.bool)
        self.names: tuple[str, ...] = _split(self._all_figures(blank, blank)[0])[0]

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
        summary: SampleSummary | None = None,
    ) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        """The figures, and what only all cases together have a figure of."""
        figures, rates = functional.figures_and_rates(
            samples,
            labels,
            valid,
            num_classes=self.num_classes,
            kernels=self.kernels,
            mean_prediction=mean_prediction if summary is None else summary.mean_mask,
            class_names=self.class_names,
            spacing=self.spacing,
            area_levels=AREA_LEVELS,
        )
        if summary is None:
            return figures, [rates]
        of_pixels, bins = pixel_figures_and_bins(summary, labels, valid, num_classes=self.num_classes)
        return figures | of_pixels, [rates, bins]

    def _compute_list(self, y_pred: TensorOrList, y: TensorOrList | None = None, **kwargs: Any) -> Any:
        if kwargs.get("summary") is not None:
            raise InputError("a summary is of a batch, and this is a list of cases; use an engine without decollate.")
        require_cases(self, y_pred)
        parts = [
            self._compute_tensor(samples[None], None if y is None else y[number][None], **own_options(kwargs, number))
            for number, samples in enumerate(y_pred)
        ]
        return [torch.cat(part) for part in zip(*parts)]

    def _compute_tensor(
        self,
        y_pred: torch.Tensor,
        y: torch.Tensor | None = None,
        rater_valid: torch.Tensor | None = None,
        **options: Any,
    ) -> Any:
        if y is None:
            raise InputError(f"{type(self).__name__} got no labels; call it as metric(samples, labels).")
        require_cases(self, y_pred)
        labels, valid = split_missing(y, rater_valid)
        figures, of_the_set = self._all_figures(y_pred, labels, valid, **options)
        names, levels = _split(figures)
        if self._buffers is None:
            self.names = names
        elif self.names != names:
            given = " and ".join(name for name in ("mean_prediction", "summary") if options.get(name) is not None)
            raise InputError(
                f"this batch came with {given or 'neither mean_prediction nor summary'}, unlike those before it; give "
                "all batches the same, and call reset() in between."
            )
        return [*(torch.stack([figures[name] for name in part], dim=-1) for part in (names, levels)), *of_the_set]

    def per_case(self) -> torch.Tensor:
        """(cases, figures), of all processes, in the order in which they were scored."""
        return self._parts()[0]

    def get_buffer(self) -> torch.Tensor | None:
        """As :meth:`per_case`, for MONAI's reports, which expect one table; None before the first batch."""
        buffer = super().get_buffer()
        return None if buffer is None else buffer[0]

    def _parts(self) -> Sequence[torch.Tensor]:
        buffer = super().get_buffer()
        if buffer is None:
            raise InputError(f"{type(self).__name__} has seen no case; score a batch before asking for the figure.")
        return buffer

    def aggregate(self) -> dict[str, float]:
        """Name to mean over the cases for which the figure is defined; NaN where it is defined for none."""
        cases = self.cases()
        wrong = [name for name in self.shown or () if name not in cases]
        if wrong:
            raise InputError(f"there is no figure {', '.join(wrong)}; choose some of {', '.join(cases)}.")
        return {f"{self.prefix}{name}": float(cases[name].nanmean()) for name in self.shown or cases}

    def cases(self) -> dict[str, torch.Tensor]:
        """Name to (cases,), for tables and tests over cases."""
        return dict(zip(self.names, self.per_case().cpu().unbind(-1), strict=True))

    def area_coverage(self) -> tuple[tuple[float, ...], torch.Tensor]:
        """L levels and, (cases, L), :func:`~aleatoric.metrics.functional.area_coverage` at them."""
        return AREA_LEVELS, self._parts()[1].cpu()

    def presence(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of samples and of raters, (cases, C) :func:`~aleatoric.metrics.functional.presence_rates` of each class.

        Without ``num_classes`` C is 1: how often any class is shown.
        """
        drawn, read = self._parts()[2].cpu().unbind(1)
        return drawn, read

    def reliability(self) -> torch.Tensor | None:
        """(cases, C, bins, 3) :func:`~aleatoric.metrics.functional.reliability_bins`; None without summaries."""
        buffer = self._parts()
        return buffer[3].cpu() if len(buffer) > 3 else None


def _split(figures: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of what stands in a table, and of the points of the area's calibration curve."""
    names = tuple(figures)
    return tuple(n for n in names if not n.startswith(_COVERAGE)), tuple(n for n in names if n.startswith(_COVERAGE))
