"""How images become patches, where sources do it alike: the window around what the raters drew, and intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["PERCENTILES", "centred_window", "percentile_range", "to_unit", "window_start"]

PERCENTILES = (0.5, 99.5)  #: of an image's pixels: what becomes 0 and 1 where each image is normalised by itself


def centred_window(masks: np.ndarray, size: Sequence[int]) -> list[int]:
    """First pixel of the window along each axis: the mean of the masks' centroids lies on pixel (size // 2).

    The window is shifted back inside the image. Where the image is smaller than the window, it lies in its middle and
    the first pixel is negative.

    Args:
        masks: (R, *S); masks without a pixel do not count, without any the middle of the image is taken.
        size: of the window, one number per axis of S.
    """
    centroids = [np.argwhere(mask).mean(axis=0) for mask in masks if mask.any()]
    middle = np.mean(centroids, axis=0) if centroids else (np.array(masks.shape[1:]) - 1) / 2
    return [window_start(c, n, s) for c, n, s in zip(middle, masks.shape[1:], size)]


def window_start(centre: float, length: int, size: int) -> int:
    """First pixel of a window of ``size`` around ``centre``, inside an axis of ``length`` pixels where it fits."""
    if length < size:
        return -((size - length) // 2)
    return int(np.clip(np.floor(centre + 0.5) - size // 2, 0, length - size))


def percentile_range(pixels: np.ndarray) -> tuple[float, float]:
    """The :data:`PERCENTILES`; where they coincide (a bright spot on a constant ground) minimum and maximum."""
    low, high = (float(value) for value in np.percentile(pixels, PERCENTILES))
    return (low, high) if low < high else (float(pixels.min()), float(pixels.max()))


def to_unit(pixels: Any, low: float, high: float) -> np.ndarray:
    """``low`` to 0 and ``high`` to 1, clipped, float32; all 0 where the two are the same."""
    if not low < high:
        return np.zeros(np.shape(pixels), np.float32)
    return ((np.asarray(pixels, np.float64) - low) / (high - low)).clip(0.0, 1.0).astype(np.float32)
