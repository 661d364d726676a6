"""Transforms in MONAI's style for batches on a device and for several raters or samples."""

from __future__ import annotations

from .axes import BatchRandFlipd, BatchRandRotate90d
from .inputs import CheckImaged, CropAroundPointd
from .intensity import BatchRandIntensityd, batch_intensity
from .post import LogitsToMasksd, MeanPredictiond, SummarizeSamplesd
from .spatial import AffineParameters, BatchAffined, BatchRandAffined, affine_matrices, batch_affine

__all__ = [
    "AffineParameters",
    "BatchAffined",
    "BatchRandAffined",
    "BatchRandFlipd",
    "BatchRandIntensityd",
    "BatchRandRotate90d",
    "CheckImaged",
    "CropAroundPointd",
    "LogitsToMasksd",
    "MeanPredictiond",
    "SummarizeSamplesd",
    "affine_matrices",
    "batch_affine",
    "batch_intensity",
]
