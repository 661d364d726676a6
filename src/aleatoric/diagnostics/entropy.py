"""Doubt of the network beside disagreement of the raters (SPU-Net, Fig. 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import pearsonr
from torch import Tensor

from ..errors import InputError
from ..metrics.functional import pixel_entropy

__all__ = ["Correlation", "pearson", "pixel_entropy", "rater_entropy"]


def rater_entropy(labels: Tensor, rater_valid: Tensor | None = None, num_classes: int = 2) -> Tensor:
    """:func:`pixel_entropy` of the share of raters who gave a pixel each class; missing raters are left out.

    Args:
        labels: (B, R, *S) integer class maps.
        rater_valid: (B, R) bool, False where a rater is missing; default all present.
        num_classes: with the background.

    Returns:
        (B,) nats, at most the logarithm of the smaller of classes and raters; NaN without a valid rater.

    Raises:
        InputError: ``rater_valid`` does not name the labels' raters.
    """
    if rater_valid is None:
        rater_valid = torch.ones(labels.shape[:2], dtype=torch.bool, device=labels.device)
    if rater_valid.shape != labels.shape[:2]:
        raise InputError(
            f"rater_valid has shape {tuple(rater_valid.shape)} where labels have {tuple(labels.shape)}; "
            "pass (B, R) with (B, R, *S)."
        )
    weight = rater_valid.float() / rater_valid.sum(1, keepdim=True)  # 0 / 0 is the NaN that the caller is to see
    entropy = torch.zeros(len(labels), device=labels.device)
    for value in range(num_classes):  # one class at a time: a one-hot copy of all labels is large
        share = torch.einsum("br...,br->b...", (labels == value).float(), weight).clamp(max=1.0)
        entropy = entropy + torch.special.entr(share).flatten(1).mean(1)
    return entropy


class Correlation(NamedTuple):
    """Pearson's correlation of two series."""

    r: float  # NaN where a series is constant, or of fewer than two pairs
    p_value: float  # two-sided, of the hypothesis r = 0 for Normal series; NaN as r
    pairs: int  # that were finite


def pearson(x: Tensor | Sequence[float], y: Tensor | Sequence[float]) -> Correlation:
    """Pearson's r; pairs with a value that is not finite are left out.

    Args:
        x, y: (n,) each.

    Raises:
        InputError: not two series of one length.

    Example:
        >>> pearson([1.0, 2.0, 3.0, 5.0], [2.0, 4.0, 6.0, 10.0]).r
        1.0
        >>> pearson([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).r
        nan
    """
    first, second = _series(x), _series(y)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(f"found series of shapes {first.shape} and {second.shape}, expected two of one length (n,).")
    kept = np.isfinite(first) & np.isfinite(second)
    first, second = first[kept], second[kept]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Correlation(math.nan, math.nan, len(first))
    result = pearsonr(first, second)
    return Correlation(float(result.statistic), float(result.pvalue), len(first))


def _series(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
