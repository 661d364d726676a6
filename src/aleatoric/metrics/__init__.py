"""How well a set of sampled segmentations matches a set of raters. Pure functions under MONAI metric classes."""

from __future__ import annotations

from .cumulative import (
    EffectiveRank,
    EmpiricalWassersteinDistance,
    GeneralizedEnergyDistance,
    GeneralizedEnergyTerms,
    GiniIndex,
    HungarianMatchedIoU,
    SampleDiversity,
)
from .dice_scores import (
    ClassDice,
    DiceBetweenRaters,
    DiceQuantile,
    MatchedDice,
    MaxDice,
    MultiRaterDice,
    ShareBetterThanMean,
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
from .selective import AreaUnderRiskCoverage, SecondReadRisk
from .sizes import AreaCoverage, AreaCRPS, AreaStatistics, PresenceBrier, PresenceCalibration
from .suite import MultiRaterMetrics
from .summary import SampleSummary, summarize_samples

__all__ = [
    "MISSING",
    "AreaCRPS",
    "AreaCoverage",
    "AreaStatistics",
    "AreaUnderRiskCoverage",
    "BrierScore",
    "CalibrationError",
    "ClassDice",
    "CrossEntropyNCC",
    "DiceBetweenRaters",
    "DiceQuantile",
    "EffectiveRank",
    "EmpiricalWassersteinDistance",
    "GeneralizedEnergyDistance",
    "GeneralizedEnergyTerms",
    "GiniIndex",
    "HungarianMatchedIoU",
    "MarkMissingRatersd",
    "MatchedDice",
    "MaxDice",
    "MultiRaterDice",
    "MultiRaterMetricHandler",
    "MultiRaterMetrics",
    "PixelEntropy",
    "PresenceBrier",
    "PresenceCalibration",
    "QUBIQScore",
    "ReliabilityBins",
    "SampleDiversity",
    "SampleSummary",
    "SecondReadRisk",
    "ShareBetterThanMean",
    "VarianceNCC",
    "mark_missing",
    "summarize_samples",
]
