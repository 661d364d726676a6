"""How a nodule looks whose raters are known: bright where they agree, faint where they do not, blurred by a scanner.

No rater's outline may be an edge of the picture. The shape comes from the MEAN of the raters' signed distances, which
has no step at anyone's contour; it is bent by a smooth random displacement, and its edge is as soft as they disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from ..lidc.annotations import IMAGE_SIZE, Nodule, NoduleSlice, ScanRecord, nodule_slices, nodules
from .anatomy import Anatomy, Place, draw_segments, random_generator

__all__ = ["ScanPhantom"]

_ABSENT = -3.5  # pixels: the signed distance that a rater who drew nothing stands for
_MARGIN = 14  # pixels around the masks within which a nodule has an effect
_LOWEST, _HIGHEST = -1024, 3071


class _Look:
    """What does not change from slice to slice of a nodule."""

    def __init__(self, seed: int, scan: ScanRecord, nodule: Nodule) -> None:
        random = random_generator(seed, scan.scan_id, 20, nodule.number)
        rating = {
            name: np.mean([r[name] for r in nodule.ratings]) for name in ("texture", "calcification", "spiculation")
        }
        solidity = rating["texture"] + random.normal(0, 0.4)  # 1 ground glass .. 5 solid
        if solidity > 3.8:
            self.hu, self.core_hu = random.normal(-20, 70), None
        elif solidity > 2.4:
            self.hu, self.core_hu = random.uniform(-620, -380), random.normal(-60, 60)
        else:
            self.hu, self.core_hu = random.uniform(-720, -560), None
        if rating["calcification"] < 5 and random.random() < 0.6:
            self.core_hu = random.uniform(150, 500)
        self.softness = random.uniform(0.35, 0.8)  # pixels
        self.texture = random.uniform(0.04, 0.16)
        self.displacement = random.uniform(0.5, 1.3)  # pixels
        self.fields = ndimage.gaussian_filter(random.normal(size=(3, 128, 128)), (0, 5, 5)).astype(np.float32)
        self.fields /= self.fields.std((1, 2), keepdims=True)
        self.spikes = int(random.poisson(max(0.0, 2.5 * (rating["spiculation"] - 1)))) + int(random.random() < 0.4)
        self.vessels = random.random() < 0.45
        self.seed = (seed, scan.scan_id, 21, nodule.number)

    def attached(self, place: Place) -> np.ndarray:
        """Vessels that end in the nodule and spicules that leave it: (n, 7) segments."""
        random = random_generator(*self.seed)
        center = np.array([place.x, place.y, place.z])
        segments = []
        for number in range(self.spikes + 2 * self.vessels):
            heading = random.normal(size=3) * (1, 1, 0.35)
            heading /= np.linalg.norm(heading)
            is_spike = number < self.spikes
            length = place.radius + (random.uniform(2, 7) if is_spike else random.uniform(15, 35))
            radius = random.uniform(0.25, 0.5) if is_spike else random.uniform(0.5, 1.1)
            segments.append([*center, *(center + heading * length), radius])
        return np.array(segments, np.float32).reshape(-1, 7)


class ScanPhantom:
    """One scan of the database with its raters' contours over a simulated thorax.

    Args:
        scan: of the database.
        seed: another seed gives another thorax and other nodules around the same contours.
    """

    def __init__(self, scan: ScanRecord, seed: int = 0) -> None:
        self.scan = scan
        self.seed = seed
        self.slices: list[NoduleSlice] = []
        self._looks: list[_Look] = []
        self._places: list[Place] = []
        for nodule in nodules(scan):
            own = list(nodule_slices(scan, nodule))
            self.slices += own
            self._looks.append(_Look(seed, scan, nodule))
            self._places.append(self._place(own))
        self._index = {nodule.number: i for i, nodule in enumerate(nodules(scan))}
        random = random_generator(seed, scan.scan_id, 22)
        self.noise = random.uniform(14, 34)  # HU
        self.blur = random.uniform(0.5, 0.85)  # pixels, the scanner's point spread
        self.grain = random.uniform(0.75, 1.05)  # pixels, the noise's correlation

    @cached_property
    def anatomy(self) -> Anatomy:
        """The thorax."""
        z = self.scan.z_positions
        view = IMAGE_SIZE * self.scan.pixel_spacing
        return Anatomy(self.seed, self.scan.scan_id, view, (float(z[0]), float(z[-1])), self._places)

    def _millimetres(self, pixel: Any) -> Any:
        """Of pixel numbers, from the middle of the image."""
        return (pixel - (IMAGE_SIZE - 1) / 2) * self.scan.pixel_spacing

    def _place(self, own: Sequence[NoduleSlice]) -> Place:
        if not own:
            return Place(0.0, 0.0, float(self.scan.z_positions[0]), 1.0)
        area = max(s.masks.any(0).sum() for s in own) * self.scan.pixel_spacing**2
        row, column, z = (float(np.mean([getattr(s, name) for s in own])) for name in ("row", "column", "z"))
        return Place(self._millimetres(column), self._millimetres(row), z, float(np.sqrt(area / np.pi)))

    def render(
        self, z: float, top: int = 0, left: int = 0, height: int = IMAGE_SIZE, width: int = IMAGE_SIZE
    ) -> np.ndarray:
        """(height, width) int16 HU of a window of the slice at z."""
        y = self._millimetres(top + np.arange(height, dtype=np.float32))[:, None]
        x = self._millimetres(left + np.arange(width, dtype=np.float32))[None]
        hu, lung = self.anatomy.tissue(x, y, z)
        for patch in self.slices:
            if patch.z == z:
                self._add(hu, lung, patch, top, left, x, y)
        hu = ndimage.gaussian_filter(hu, self.blur)
        random = random_generator(self.seed, self.scan.scan_id, 23, round(z * 100), top, left)
        white = random.standard_normal((height, width), np.float32)
        noise = ndimage.gaussian_filter(white, self.grain) - 0.8 * ndimage.gaussian_filter(white, 2.5)
        hu += noise * (self.noise / noise.std())
        return np.clip(np.rint(hu), _LOWEST, _HIGHEST).astype(np.int16)

    def _add(
        self, hu: np.ndarray, lung: np.ndarray, patch: NoduleSlice, top: int, left: int, x: np.ndarray, y: np.ndarray
    ) -> None:
        """Lay one nodule into the window ``hu``, in place."""
        look, place = self._looks[self._index[patch.nodule]], self._places[self._index[patch.nodule]]
        spikes = draw_segments(look.attached(place), x, y, patch.z) * lung
        hu += spikes * 0.8 * (np.maximum(look.hu, -250.0) - hu)
        rows, columns = np.nonzero(patch.masks.any(0))
        size = patch.masks.shape[1]
        a, b = max(rows.min() - _MARGIN, 0), min(rows.max() + _MARGIN + 1, size)
        c, d = max(columns.min() - _MARGIN, 0), min(columns.max() + _MARGIN + 1, size)
        density, core = _density(patch.masks[:, a:b, c:d], look)
        # the part of the box that the window shows
        r0, c0 = patch.top + a - top, patch.left + c - left
        rs = slice(max(r0, 0), min(r0 + b - a, hu.shape[0]))
        cs = slice(max(c0, 0), min(c0 + d - c, hu.shape[1]))
        if rs.start >= rs.stop or cs.start >= cs.stop:
            return
        shown = (slice(rs.start - r0, rs.stop - r0), slice(cs.start - c0, cs.stop - c0))
        density, core = density[shown], core[shown]
        target = np.full_like(density, look.hu)
        if look.core_hu is not None:
            target += core * (look.core_hu - look.hu)
        window = hu[rs, cs]
        # a nodule adds attenuation: it never darkens the wall that it touches
        window += density * np.maximum(target - window, 0.0)


def _density(masks: np.ndarray, look: _Look) -> tuple[np.ndarray, np.ndarray]:
    """Raters' masks (R, h, w) -> how much nodule (h, w) and how much of that is core, both 0..1."""
    distance = np.stack([_signed_distance(mask) for mask in masks])  # (R, h, w)
    mean, spread = distance.mean(0), distance.std(0)
    height, width = mean.shape
    fields = look.fields[:, :height, :width]
    grid = np.indices((height, width), dtype=np.float32) + look.displacement * fields[:2]
    mean = ndimage.map_coordinates(mean, grid, order=1, mode="nearest")
    spread = ndimage.map_coordinates(spread, grid, order=1, mode="nearest")
    soft = look.softness + 0.4 * spread
    shape = 1 / (1 + np.exp(-np.clip(mean / soft, -30, 30)))
    agreed = masks.any((1, 2)).mean() ** 0.55  # a slice that few raters drew on shows little
    density = shape * agreed * np.clip(1 + look.texture * fields[2], 0.6, 1.3)
    core = 1 / (1 + np.exp(-np.clip((mean - 0.45 * max(float(mean.max()), 1.0)) / (0.8 + 0.3 * spread), -30, 30)))
    return np.clip(density, 0.0, 1.0).astype(np.float32), core.astype(np.float32)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """(h, w) pixels to the outline, positive inside; of an empty mask :data:`_ABSENT` throughout."""
    if not mask.any():
        return np.full(mask.shape, _ABSENT, np.float32)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(1 - mask)
    # far from everything a rater is no more certain: otherwise one small outline would outweigh the others
    return np.clip(np.where(mask > 0, inside - 0.5, 0.5 - outside), -12.0, 12.0).astype(np.float32)
