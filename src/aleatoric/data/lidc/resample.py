"""Nodule slices at another pixel size: the image interpolated linearly, masks from the nearest native pixel."""

from __future__ import annotations

import numpy as np

from ..readers.dicom import LOWEST_HU
from .annotations import IMAGE_SIZE, NoduleSlice

__all__ = ["resample_masks", "resample_patch"]

_LAST = IMAGE_SIZE - 1


def resample_patch(
    image: np.ndarray, patch: NoduleSlice, pixel_spacing: float, spacing: float, size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """A patch of ``spacing`` mm per pixel, its pixel (size // 2, size // 2) on the patch's centre.

    The image is interpolated linearly. The masks take the nearest native pixel: their area stays right on average,
    which a threshold on an interpolated mask would not give for the smallest nodules. Like the native window, this
    one is shifted back into the image; where it is wider than the image, air and empty masks fill the rest.

    Args:
        image: (512, 512) int16 HU.
        patch: masks of the whole image (``nodule_slices(..., size=512)``).
        pixel_spacing: mm per pixel of ``image``.

    Returns:
        (size, size) int16, (slots, size, size) uint8.
    """
    from scipy.ndimage import map_coordinates

    grid = np.stack(np.meshgrid(*_positions(patch, pixel_spacing, spacing, size), indexing="ij"))
    linear = map_coordinates(image.astype(np.float32), grid, order=1, mode="constant", cval=LOWEST_HU)
    return np.rint(linear).astype(np.int16), resample_masks(patch, pixel_spacing, spacing, size)


def resample_masks(patch: NoduleSlice, pixel_spacing: float, spacing: float, size: int = 128) -> np.ndarray:
    """(slots, size, size) uint8: the masks of :func:`resample_patch`, which need no image. Possibly all empty."""
    axes = _positions(patch, pixel_spacing, spacing, size)
    rows, columns = (np.floor(positions + 0.5).astype(int) for positions in axes)
    inside = ((rows >= 0) & (rows <= _LAST))[:, None] & ((columns >= 0) & (columns <= _LAST))
    return patch.masks[:, rows.clip(0, _LAST)[:, None], columns.clip(0, _LAST)] * inside.astype(np.uint8)


def _positions(patch: NoduleSlice, pixel_spacing: float, spacing: float, size: int) -> list[np.ndarray]:
    """Rows, then columns of the image (not whole) at which the new pixels lie."""
    step = spacing / pixel_spacing
    axes = []
    for centre in (patch.row, patch.column):
        positions = centre + (np.arange(size) - size // 2) * step
        if positions[-1] - positions[0] > _LAST:
            positions += _LAST / 2 - (positions[0] + positions[-1]) / 2
        else:
            positions += max(0.0, -positions[0]) - max(0.0, positions[-1] - _LAST)
        axes.append(positions)
    return axes
