"""How well a set of sampled segmentations matches a set of raters. Pure functions under MONAI metric classes."""

from __future__ import annotations

from .cumulative import (
    EmpiricalWassersteinDistance,
    GeneralizedEnergyDistance,
    MultiRaterDice,
    SampleDiversity,
)
from .handler import MultiRaterMetricHandler
from .missing import MISSING, MarkMissingRatersd, mark_missing
from .pixels import (
    BrierScore,
    CalibrationError,
    CrossEntropyNCC,
    PixelEntropy,
    QUBIQScore,
    ReliabilityBins,
    VarianceNCC,
)
from .suite import MultiRaterMetrics
from .summary import SampleSummary, summarize_samples

__all__ = [
    "MISSING",
    "BrierScore",
    "CalibrationError",
    "CrossEntropyNCC",
    "EmpiricalWassersteinDistance",
    "GeneralizedEnergyDistance",
    "MarkMissingRatersd",
    "MultiRaterDice",
    "MultiRaterMetricHandler",
    "MultiRaterMetrics",
    "PixelEntropy",
    "QUBIQScore",
    "ReliabilityBins",
    "SampleDiversity",
    "SampleSummary",
    "VarianceNCC",
    "mark_missing",
    "summarize_samples",
]
