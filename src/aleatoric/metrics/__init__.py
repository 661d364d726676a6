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
from .suite import MultiRaterMetrics

__all__ = [
    "MISSING",
    "EmpiricalWassersteinDistance",
    "GeneralizedEnergyDistance",
    "MarkMissingRatersd",
    "MultiRaterDice",
    "MultiRaterMetricHandler",
    "MultiRaterMetrics",
    "SampleDiversity",
    "mark_missing",
]
