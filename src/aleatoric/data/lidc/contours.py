"""LIDC-IDRI's contours as pixels: the database's text to points, points to a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["contour_points", "fill_contours"]


def contour_points(coords: str) -> np.ndarray:
    """(points, 2) int: the contour's (row, column); the database keeps "x,y" lines."""
    xy = np.array(coords.replace("\n", ",").split(","), dtype=np.int64)
    return xy.reshape(-1, 2)[:, ::-1]


def fill_contours(contours: Sequence[tuple[bool, np.ndarray]], own: bool = False) -> tuple[int, int, np.ndarray]:
    """Fill one annotation's contours on one slice.

    What lies strictly inside an inclusion is nodule, what lies strictly inside an exclusion is not, and exclusions come
    last. A contour's own pixels are on the other side of it: not nodule, whichever kind it is (as
    ``pylidc.Annotation.boolean_mask`` has it, and LIDC's protocol, which draws the outline just outside the nodule).
    With ``own`` they are: those of an inclusion are added, those of an exclusion are left as they were. So the mask
    with ``own`` holds the one without.

    Args:
        contours: (is an inclusion, (points, 2) int rows and columns), in the database's order.
        own: a contour's own pixels belong to the mask.

    Returns:
        image row and column of mask[0, 0]; the mask, bool, as large as the box around all contours.
    """
    from matplotlib.path import Path

    everything = np.vstack([pixels for _, pixels in contours])
    low, high = everything.min(axis=0), everything.max(axis=0)
    mask = np.zeros(high - low + 1, dtype=bool)
    # inclusions first, in the database's order: a later contour's pixels are taken out of an earlier one's inside
    for inclusion, pixels in sorted(contours, key=lambda contour: not contour[0]):
        closed = pixels if (pixels[0] == pixels[-1]).all() else np.vstack([pixels, pixels[:1]])
        box_low, box_high = pixels.min(axis=0), pixels.max(axis=0)
        box = tuple(slice(a, b + 1) for a, b in zip(box_low - low, box_high - low))
        shape = box_high - box_low + 1
        grid = np.indices(shape).reshape(2, -1).T + box_low
        inside = Path(closed, closed=True).contains_points(grid).reshape(shape)
        if own:
            inside[tuple((pixels - box_low).T)] = inclusion
        if inclusion:
            mask[box] |= inside
        else:
            mask[box] &= ~inside
        if not own:
            mask[tuple((pixels - low).T)] = False
    return int(low[0]), int(low[1]), mask
