"""What only all cases together say: calibration over the data set, and the risk as doubtful cases go to a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..metrics import MultiRaterMetrics
from ..metrics.functional import (
    area_calibration_error,
    aurc,
    calibration_error,
    presence_bins_of_cases,
    presence_calibration_error,
    risk_coverage_curve,
    second_read_curve,
)
from ..statistics import bootstrap_cases, bootstrap_sums

__all__ = ["DataSetFigures", "data_set_figures", "risk_resamples"]

# The answer that a reader would be given, what would send the reader to a case, and how well another reader does.
_RISK, _DOUBT, _SECOND = "dice_mean_prediction", "diversity", "dice_between_raters"
_POINTS = 101  # of a curve, at most


class DataSetFigures(NamedTuple):
    """Figures that are no mean over cases."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    curves: dict[str, Any]  # of metrics.json


def data_set_figures(
    metrics: MultiRaterMetrics,
    class_names: Sequence[str],
    patients: Sequence[object],
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> DataSetFigures:
    """Calibration of pixels, areas and presence over the whole data set; area under the risk-coverage curve.

    Of pixels and of the presence each class has bins of its own; of pixels each also has an error of its own, whose
    mean over the classes is given, while the forecasts of the presence, one per case and class, are all in one diagram.

    The risk of a case is 1 - Dice of the mean prediction, its uncertainty the diversity of the samples, and the second
    reader's risk 1 - Dice between two raters (0 where there is one rater, who is the truth).

    Args:
        metrics: which scored the cases.
        class_names: of all classes, the background first.
        patients: (cases,) whose each is.
        resamples: of the bootstrap over patients; 0: no intervals. Curves' areas are drawn a tenth as often.
        level: of the intervals.
        seed: of the bootstrap.
    """
    cases = metrics.cases()
    found = DataSetFigures({}, {}, {})

    def add(name: str, table: Tensor, statistic: Any) -> None:
        """A calibration error of the sums of a table (cases, ...), whose row is 0 where a case says nothing."""

        def of(sums: np.ndarray) -> np.ndarray:
            return np.asarray(statistic(torch.from_numpy(sums)))

        sums = table.double().nan_to_num()
        found.metrics[name] = float(of(sums.sum(0, keepdim=True).numpy())[0])
        if resamples:
            known = (sums != 0).flatten(1).any(1).numpy()
            low, high = bootstrap_sums(sums.numpy(), patients, of, resamples, level, seed, distance=True, known=known)
            found.intervals[name] = (float(low), float(high))

    bins = metrics.reliability()
    if bins is not None:
        for name, reduction in (("ece_pooled", "expected"), ("ace_pooled", "average")):
            add(name, bins, lambda sums, how=reduction: calibration_error(sums, how))
        names = list(class_names)[1 : 1 + bins.shape[1]]
        pooled = bins.double().nan_to_num().sum(0)
        found.curves["reliability"] = {name: _diagram(one) for name, one in zip(names, pooled)}
    shown = presence_bins_of_cases(*metrics.presence())
    add("presence_ece", shown, presence_calibration_error)
    diagram = _diagram(shown.sum(0))
    found.curves["presence"] = {
        "forecasts": diagram["pixels"],
        "samples": diagram["probability"],
        "raters": diagram["frequency"],
    }
    levels, coverage = metrics.area_coverage()
    table = torch.stack([coverage.nan_to_num(), (~coverage.isnan()).to(coverage)], dim=1)
    add("area_calibration_error", table, lambda sums: area_calibration_error(sums[:, 0] / sums[:, 1], levels))
    found.curves["area_coverage"] = {"level": list(levels), "coverage": coverage.double().nanmean(0).numpy()}
    if _RISK in cases:
        _add_risk(found, cases, patients, risk_resamples(resamples), level, seed)
    return found


def risk_resamples(resamples: int) -> int:
    """How often patients are drawn for the area under a curve, which takes longer: a tenth, 100 at least; 0 of 0."""
    return max(resamples // 10, 100) if resamples else 0


def _add_risk(
    found: DataSetFigures,
    cases: Mapping[str, Tensor],
    patients: Sequence[object],
    resamples: int,
    level: float,
    seed: int,
) -> None:
    doubt, risk = cases[_DOUBT], 1 - cases[_RISK]
    second = (1 - cases[_SECOND]).nan_to_num(0.0)
    for name, excess in (("aurc", False), ("aurc_excess", True)):
        found.metrics[name] = float(aurc(doubt, risk, excess=excess))
        if resamples:

            def drawn(counts: np.ndarray, excess: bool = excess) -> np.ndarray:
                return np.asarray(aurc(doubt, risk, excess=excess, weights=torch.from_numpy(counts)))

            low, high = bootstrap_cases(drawn, patients, resamples, level, seed)
            found.intervals[name] = (float(low), float(high))
    for name, curve in (
        ("risk_coverage", risk_coverage_curve(doubt, risk, _POINTS)),
        ("second_read", second_read_curve(doubt, risk, second, _POINTS)),
    ):
        found.curves[name] = {part: values.numpy() for part, values in curve._asdict().items()}


def _diagram(bins: Tensor) -> dict[str, np.ndarray]:
    """Of (bins, 3) counts and sums: counts and means, NaN in a bin without."""
    count, probability, frequency = bins.double().unbind(-1)
    return {
        "pixels": count.numpy(),
        "probability": (probability / count).numpy(),
        "frequency": (frequency / count).numpy(),
    }
